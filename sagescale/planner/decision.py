"""What the planner answers: targets for the pools, and everything that explains them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from sagescale.fleet import Sizes


class Corrections(NamedTuple):
    """Measured over expected latency, a factor for each pool; 1 is "as the profile says"."""

    prefill: float = 1.0
    decode: float = 1.0


class ReasonCode(StrEnum):
    """Why a decision is what it is; stable names for machines to match on."""

    SCALE_UP = "scale_up"
    SCALE_DOWN = "scale_down"
    STEADY = "steady"
    NO_TRAFFIC = "no_traffic"
    WORK_WAITING = "work_waiting"
    HOLD_UNKNOWN_TRAFFIC = "hold_unknown_traffic"
    HOLD_UNKNOWN_LENGTHS = "hold_unknown_lengths"
    HOLD_NO_CAPACITY = "hold_no_capacity"
    HOLD_UNKNOWN_METRICS = "hold_unknown_metrics"
    INVALID_METRIC = "invalid_metric"
    REPLICAS_CHANGED = "replicas_changed"
    NO_DECODE_READY = "no_decode_ready"
    CORRECTION_BOUNDED = "correction_bounded"
    LEARNED_TIMES = "learned_times"
    TARGET_TTFT_UNREACHABLE = "target_ttft_unreachable"
    SLA_INFEASIBLE = "sla_infeasible"
    FORECAST_NOTE = "forecast_note"
    FORECAST_CHOICE = "forecast_choice"
    WITHIN_TOLERANCE = "within_tolerance"
    STABILISED = "stabilised"
    RATE_LIMITED = "rate_limited"
    SIZED_FOR_MISSES = "sized_for_misses"
    SURGE = "surge"
    AT_MIN_PREFILL = "at_min_prefill"
    AT_MAX_PREFILL = "at_max_prefill"
    AT_MIN_DECODE = "at_min_decode"
    AT_MAX_DECODE = "at_max_decode"
    AT_MIN_AGGREGATED = "at_min_aggregated"
    AT_MAX_AGGREGATED = "at_max_aggregated"
    AT_MIN_POOL = "at_min_pool"
    AT_MAX_POOL = "at_max_pool"
    GPU_BUDGET = "gpu_budget"
    DRY_RUN = "dry_run"


def at_limit(end: str, pool: str) -> ReasonCode:
    """Return the reason of a pool at its limit, ``min`` or ``max``."""
    own = f"AT_{end}_{pool}".upper()
    return ReasonCode[own if own in ReasonCode.__members__ else f"AT_{end}_POOL".upper()]


class Reason(NamedTuple):
    """One reason, for machines and for people."""

    code: ReasonCode
    text: str


class Constraint(StrEnum):
    """A rule that may change what a policy asked for, in the order in which the rules apply."""

    TOLERANCE = "tolerance"
    STABILISATION = "stabilisation"
    WAITING_WORK = "waiting_work"
    INSTANCE_LIMITS = "instance_limits"
    GPU_BUDGET = "gpu_budget"


class Adjustment(NamedTuple):
    """What one constraint made of what it was given; absent where it changed nothing."""

    constraint: Constraint
    before: Sizes
    after: Sizes


@dataclass(frozen=True, slots=True)
class LoadForecast:
    """The load expected over the next interval; ``None`` where nothing is known to forecast from.

    ``notes`` are what the predictors say about it, e.g. that a simpler method was used, and why; ``chosen``
    is who answered, where that was left to ``auto``.
    """

    requests: float | None
    isl: float | None
    osl: float | None
    notes: tuple[str, ...] = ()
    requests_p90: float | None = None
    isl_p90: float | None = None
    osl_p90: float | None = None
    chosen: tuple[str, ...] = ()


class Findings(NamedTuple):
    """What the windows so far say: the load to expect, the correction factors, and what to remark on them."""

    forecast: LoadForecast = LoadForecast(None, None, None)
    corrections: Corrections = Corrections()
    reasons: tuple[Reason, ...] = ()


class Estimate:
    """Findings worked out when somebody asks for them: most policies, and most ticks, need none.

    Args:
        update: Works them out and sets ``findings``; not needed where they are known.
        findings: They, if they are known.
    """

    __slots__ = ("_findings", "_update")

    def __init__(self, update: Callable[[], None] | None = None, findings: Findings | None = None) -> None:
        self._update = update
        self._findings = Findings() if update is None and findings is None else findings

    @property
    def findings(self) -> Findings:
        """What was found; worked out at the first call."""
        if self._findings is None and self._update is not None:
            self._update()
        assert self._findings is not None
        return self._findings

    @findings.setter
    def findings(self, found: Findings) -> None:
        self._findings, self._update = found, None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Estimate) and self.findings == other.findings

    def __hash__(self) -> int:
        return hash(self.findings)

    def __repr__(self) -> str:
        return f"Estimate(findings={self.findings!r})"


@dataclass(frozen=True, slots=True)
class Decision:
    """The sizes the pools are to have, counted as ready, starting and waiting to start.

    Attributes:
        time_s: The end of the window it was decided on.
        targets: The sizes decided.
        current: The sizes found.
        raw: The sizes the policy asked for; a pool it held is asked to stay as it is.
        adjustments: What each constraint changed, in order.
        no_operation: Decided in a dry run: nothing may act on it.
        estimate: Of the load and of how fast engines are, as it was then.
        reasons_before, reasons_after: Those that come before and after the estimate's.
    """

    time_s: float
    targets: Sizes
    current: Sizes
    raw: Sizes
    adjustments: tuple[Adjustment, ...] = ()
    no_operation: bool = False
    estimate: Estimate = dataclasses.field(default_factory=Estimate)
    reasons_before: tuple[Reason, ...] = ()
    reasons_after: tuple[Reason, ...] = ()

    @property
    def forecast(self) -> LoadForecast:
        """The load sized for, before ``load_headroom``."""
        return self.estimate.findings.forecast

    @property
    def corrections(self) -> Corrections:
        """The factors used."""
        return self.estimate.findings.corrections

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """Why; never empty."""
        return (*self.reasons_before, *self.estimate.findings.reasons, *self.reasons_after)

    def has(self, code: ReasonCode) -> bool:
        """Say whether the decision was made for this reason (among others)."""
        return any(reason.code is code for reason in self.reasons)

    def to_dict(self) -> dict[str, object]:
        """Return the decision in plain JSON types, for journals, webhooks and result documents."""
        return {
            "time_s": self.time_s,
            "targets": self.targets.as_dict(),
            "current": self.current.as_dict(),
            "forecast": {
                name: list(value) if isinstance(value, tuple) else value
                for name, value in dataclasses.asdict(self.forecast).items()
                if name != "chosen"  # a reason says it
            },
            "corrections": self.corrections._asdict(),
            "raw": self.raw.as_dict(),
            "adjustments": [
                {
                    "constraint": str(change.constraint),
                    "before": change.before.as_dict(),
                    "after": change.after.as_dict(),
                }
                for change in self.adjustments
            ],
            "reasons": [{"code": str(reason.code), "text": reason.text} for reason in self.reasons],
            "no_operation": self.no_operation,
        }
