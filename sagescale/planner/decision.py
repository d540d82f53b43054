"""What the planner answers: targets for the pools, and everything that explains them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from sagescale.fleet import Sizes

__all__ = [
    "Adjustment",
    "Constraint",
    "Corrections",
    "Decision",
    "LoadForecast",
    "Reason",
    "ReasonCode",
]


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
    WITHIN_TOLERANCE = "within_tolerance"
    STABILISED = "stabilised"
    RATE_LIMITED = "rate_limited"
    SIZED_FOR_MISSES = "sized_for_misses"
    SURGE = "surge"
    AT_MIN_PREFILL = "at_min_prefill"
    AT_MAX_PREFILL = "at_max_prefill"
    AT_MIN_DECODE = "at_min_decode"
    AT_MAX_DECODE = "at_max_decode"
    AT_MIN_POOL = "at_min_pool"
    AT_MAX_POOL = "at_max_pool"
    GPU_BUDGET = "gpu_budget"
    DRY_RUN = "dry_run"


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

    ``notes`` are what the predictors say about it, e.g. that a simpler method was used, and why.
    """

    requests: float | None
    isl: float | None
    osl: float | None
    notes: tuple[str, ...] = ()
    requests_p90: float | None = None
    isl_p90: float | None = None
    osl_p90: float | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """The sizes the pools are to have, counted as ready, starting and waiting to start.

    Attributes:
        time_s: The end of the window it was decided on.
        targets: The sizes decided.
        current: The sizes found.
        forecast: The load sized for, before ``load_headroom``.
        corrections: The factors used.
        raw: The sizes the policy asked for; a pool it held is asked to stay as it is.
        adjustments: What each constraint changed, in order.
        reasons: Why; never empty.
        no_operation: Decided in a dry run: nothing may act on it.
    """

    time_s: float
    targets: Sizes
    current: Sizes
    forecast: LoadForecast
    corrections: Corrections
    raw: Sizes
    adjustments: tuple[Adjustment, ...]
    reasons: tuple[Reason, ...]
    no_operation: bool

    @property
    def delta(self) -> Sizes:
        """The change in instances the decision asks for."""
        return self.targets.map(int.__sub__, self.current)

    def has(self, code: ReasonCode) -> bool:
        """Say whether the decision was made for this reason (among others)."""
        return any(reason.code is code for reason in self.reasons)

    def to_dict(self) -> dict[str, object]:
        """Return the decision in plain JSON types, for journals, webhooks and result documents."""
        return {
            "time_s": self.time_s,
            "targets": self.targets.as_dict(),
            "current": self.current.as_dict(),
            "forecast": {**dataclasses.asdict(self.forecast), "notes": list(self.forecast.notes)},
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
