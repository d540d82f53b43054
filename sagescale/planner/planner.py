"""The cycle: collect, update predictors, correct, forecast, size, constrain; the caller applies."""

from __future__ import annotations

import dataclasses
import logging
import math
from functools import lru_cache, partial
from typing import TYPE_CHECKING, TypedDict

from sagescale.fleet import Role, Sizes, fit, grow, within_limits
from sagescale.planner.config import pool_keys
from sagescale.planner.decision import (
    Adjustment,
    Constraint,
    Decision,
    Estimate,
    Reason,
    ReasonCode,
    at_limit,
)
from sagescale.planner.estimates import Estimates
from sagescale.planner.learning import CorrectionTracker, make_learner
from sagescale.planner.load import make_load_predictors
from sagescale.planner.observation import read_window
from sagescale.planner.policy import PoolSize, QuickPolicy, Situation, make_policy
from sagescale.planner.stabilisation import PoolStabiliser, within_tolerance

if TYPE_CHECKING:
    from sagescale.fleet import ByPool, Fleet
    from sagescale.perf import PerfModel
    from sagescale.perf.learn import LearnedModel
    from sagescale.planner.config import AutoscalerConfig
    from sagescale.planner.decision import Corrections, Findings
    from sagescale.planner.load import LoadPredictors
    from sagescale.planner.observation import Observation, Window
    from sagescale.planner.policy import Policy
    from sagescale.planner.policy.twin import EngineTwin

logger = logging.getLogger(__name__)


class Planner:
    """Turns observations, in time order, into decisions.

    A deterministic function of its own state: it has no clock, does no I/O but logging (in the
    guide's formats) and never acts. Equal planners fed equal observations decide equally.

    Args:
        config: What is owed and what may be spent.
        perf_model: How fast instances are. It is sized with ``*_gpus_per_instance`` of the
            configuration, which the caller has made agree with the model.
        predictors: Used in place of those the configuration names, e.g. to feed the true load.
        policy: Used in place of the one the configuration names.
        twin: Simulated engines, for a policy that tries sizes on them.
        fleet: The pools to plan for, where they are not those of the configuration's flat keys; the policy
            has to be one that sizes them.

    Raises:
        InputError: the configuration names a predictor or policy there is none of.
    """

    def __init__(
        self,
        config: AutoscalerConfig,
        perf_model: PerfModel,
        *,
        predictors: LoadPredictors | None = None,
        policy: Policy | None = None,
        twin: EngineTwin | None = None,
        fleet: Fleet | None = None,
    ) -> None:
        self.config = config
        self._fleet = config.fleet if fleet is None else fleet
        self._learner = make_learner(config, perf_model)
        if self._learner is not None:
            perf_model = self._learner.model
        self._estimates = Estimates(
            make_load_predictors(config) if predictors is None else predictors,
            self._learner,
            CorrectionTracker(perf_model, config.correction_bounds) if config.enable_correction else None,
        )
        self._policy = make_policy(config, perf_model, twin=twin) if policy is None else policy
        self._uses_model = bool(getattr(self._policy, "uses_model", True))
        learns = self._learner is not None and self._uses_model
        self.uses_lengths = learns or bool(getattr(self._policy, "uses_lengths", True))
        self._check = self._policy.check if isinstance(self._policy, QuickPolicy) else None
        up_s, down_s = config.scale_up_stabilization_window_sec, config.scale_down_stabilization_window_sec
        self._dry_run = (_DRY_RUN,) if config.no_operation else ()
        self._stabilisers = [PoolStabiliser(up_s, down_s) for _ in self._fleet.pools if max(up_s, down_s) > 0]
        self._prefill_pools, self._decode_pools = (
            [at for at, pool in enumerate(self._fleet.pools) if role in pool.role]
            for role in (Role.PREFILL, Role.DECODE)
        )
        # Most ticks ask for sizes that were asked for before.
        self._limited = lru_cache(partial(within_limits, fleet=self._fleet))
        self._fitted = lru_cache(partial(fit, fleet=self._fleet))
        self._last: Decision | None = None
        self._meant: tuple[Sizes, ...] = ()  # what the pools were last set to; nothing: nobody set them
        if logger.isEnabledFor(logging.INFO):
            logger.info(
                "Autoscaler initialized: TTFT target=%.1fms, ITL target=%.1fms",
                config.target_ttft_ms,
                config.target_itl_ms,
            )
            if config.enable_online_learning and self._learner is None:
                logger.info("enable_online_learning has no effect: the performance model is no profile")

    def step(self, observation: Observation) -> Decision:
        """Decide on the window just ended."""
        informing = logger.isEnabledFor(logging.INFO)
        if informing:
            logger.info("Starting autoscaling adjustment cycle")
        inputs: list[Reason] = []
        window = read_window(observation, self.config.adjustment_interval_sec, inputs)
        if informing:
            _log_observed(window)
        current = observation.pools.asked
        if self.changed_by_others(current):
            inputs.append(
                Reason(
                    ReasonCode.REPLICAS_CHANGED,
                    f"last set were {self._meant[0]}, found are {current}: taken as they are",
                )
            )
        decode_ready = sum(observation.pools[at].ready for at in self._decode_pools)
        estimate = self._estimates.add(observation, window, decode_ready)
        if self._uses_model:
            self._estimates.update()
        if informing:
            _log_forecast(estimate.findings)

        sizing = self._policy.size(Situation(observation, window, current, self._estimates))
        reasons = list(sizing.reasons)
        raw = current.map(lambda now, size: now if size is None else size.instances, sizing.pools)
        targets, adjustments = self._constrain(observation, current, raw, sizing.pools, reasons)
        if informing:
            logger.info("Scaling decision: %s", ", ".join(f"{pool}={size}" for pool, size in targets.items()))
            _log_decision(current, targets, no_operation=self.config.no_operation)
        self._last = Decision(
            time_s=observation.time_s,
            targets=targets,
            current=current,
            raw=raw,
            adjustments=adjustments,
            no_operation=self.config.no_operation,
            estimate=estimate,
            reasons_before=(*_moves(current, targets), *inputs),
            reasons_after=(*reasons, *self._dry_run),
        )
        self._meant = () if self.config.no_operation else (targets,)
        return self._last

    def applied(self, sizes: Sizes | None) -> None:
        """Be told what the pools were really set to, where that is not what was decided; None is nothing.

        Only whoever acts knows: what it may not do, could not do or gave up is nobody else's doing.
        """
        self._meant = () if sizes is None else (sizes,)

    def changed_by_others(self, current: Sizes) -> bool:
        """Say whether the pools are meant to be something else than they were last set to."""
        return bool(self._meant) and current not in self._meant

    @property
    def fast_interval_s(self) -> float | None:
        """How often to call :meth:`check` between ticks; None is never."""
        fast_s = float(self.config.fast_interval_sec)
        return (
            fast_s if self._check is not None and 0.0 < fast_s < self.config.adjustment_interval_sec else None
        )

    @property
    def burst_checks_s(self) -> tuple[float, ...]:
        """When burst checks are due, in seconds after a tick; the last is right before the next tick.

        Live and simulated alike; each window begins where the last one ended. Empty where the policy has
        no burst check.
        """
        fast_s, interval_s = self.fast_interval_s, float(self.config.adjustment_interval_sec)
        if fast_s is None:
            return ()
        return (*(number * fast_s for number in range(1, math.ceil(interval_s / fast_s))), interval_s)

    def check(self, observation: Observation) -> Decision | None:
        """Check the short window just ended, between ticks or right before one; only ever asks for more.

        Returns:
            A decision where a pool is to grow, within limits and budget; else None. Right before a tick,
            that tick decides: the answer is to be left alone.
        """
        if self._check is None or self._last is None:
            return None
        window = read_window(observation, observation.window_s, [])
        if self._learner is not None:
            self._learner.look(observation)
        if window.requests is None or window.requests < 1.0:
            return None  # less than a request, as rates times windows may come out, is no load to go by
        asked = self._check(dataclasses.replace(observation, requests=window.requests, isl_mean=window.isl))
        current = observation.pools.asked
        if asked is None or any(size is None for size in asked.pools):
            return None
        raw = current.map(lambda now, size: max(now, size.instances), asked.pools)
        targets = grow(raw, current, self._fleet)
        if targets == current or any(to < at for to, at in zip(targets, current, strict=True)):
            return None
        adjustments = () if targets == raw else (Adjustment(Constraint.GPU_BUDGET, raw, targets),)
        decision = dataclasses.replace(
            self._last,
            time_s=observation.time_s,
            targets=targets,
            current=current,
            raw=raw,
            adjustments=adjustments,
            estimate=Estimate(findings=self._last.estimate.findings._replace(reasons=())),
            reasons_before=_moves(current, targets),
            reasons_after=(*asked.reasons, *self._dry_run),
        )
        # Not every burst check is acted on: the one right before a tick is not.
        self._meant = (*self._meant, targets) if self._meant else ()
        return decision

    @property
    def learned(self) -> LearnedModel | None:
        """The performance model as learned so far; None where nothing is learned."""
        self._estimates.update()
        return None if self._learner is None else self._learner.model

    def get_status(self, *, running: bool = True) -> AutoscalerStatus:
        """Return the guide's status; whether anything steps the planner is for its caller to say."""
        return autoscaler_status(
            self.config,
            self._estimates.latest.corrections,
            None if self._last is None else self._last.time_s,
            enabled=True,
            running=running,
        )

    def _constrain(
        self,
        observation: Observation,
        current: Sizes,
        raw: Sizes,
        asked: ByPool[PoolSize | None],
        causes: list[Reason],
    ) -> tuple[Sizes, tuple[Adjustment, ...]]:
        """Apply each constraint to what the one before it left; a held pool is only limited."""
        config = self.config
        adjustments: list[Adjustment] = []

        def changed(constraint: Constraint, before: Sizes, after: Sizes) -> bool:
            if before == after:
                return False
            adjustments.append(Adjustment(constraint, before, after))
            return True

        tolerated = raw
        if config.tolerance and raw != current:
            tolerated = raw.map(
                lambda size, wanted, now: (
                    now
                    if wanted is not None and within_tolerance(wanted.demand, now, config.tolerance)
                    else size
                ),
                asked,
                current,
            )
        if changed(Constraint.TOLERANCE, raw, tolerated):
            causes.append(
                Reason(
                    ReasonCode.WITHIN_TOLERANCE,
                    f"demand is within tolerance {config.tolerance:g} of the size",
                )
            )

        stable = tolerated
        if self._stabilisers:
            stable = tolerated.map(
                lambda size, wanted, now, stabiliser: (
                    size if wanted is None else stabiliser.stabilise(observation.time_s, now, size)
                ),
                asked,
                current,
                self._stabilisers,
            )
        if changed(Constraint.STABILISATION, tolerated, stable):
            causes.append(
                Reason(
                    ReasonCode.STABILISED,
                    f"asked for {tolerated}; the stabilisation windows allow {stable}",
                )
            )

        # A request passes through every role: while there is one, none can be, or stay, empty.
        awake = self._awake(stable) if min(stable) < 1 and observation.work_waits else stable
        if changed(Constraint.WAITING_WORK, stable, awake):
            causes.append(
                Reason(
                    ReasonCode.WORK_WAITING, "requests are waiting or running: an instance of each role stays"
                )
            )

        limited = self._limited(awake)
        if changed(Constraint.INSTANCE_LIMITS, awake, limited):
            causes.extend(_limit_reasons(awake, limited, self._fleet))

        fitted = self._fitted(limited)
        if changed(Constraint.GPU_BUDGET, limited, fitted):
            causes.append(
                Reason(
                    ReasonCode.GPU_BUDGET,
                    f"{limited} do not fit max_gpu_budget {config.max_gpu_budget}: {fitted}",
                )
            )
        return fitted, tuple(adjustments)

    def _awake(self, sizes: Sizes) -> Sizes:
        """Raise sizes so that no role is without an instance: the first pool of one that is gets it."""
        raised = list(sizes)
        for pools in (self._prefill_pools, self._decode_pools):
            if pools and not any(raised[at] > 0 for at in pools):
                raised[pools[0]] = 1
        return Sizes(*raised, names=sizes.names)


def _limit_reasons(before: Sizes, after: Sizes, fleet: Fleet) -> list[Reason]:
    reasons = []
    for pool, asked, got in zip(fleet.pools, before, after, strict=True):
        if asked != got:
            end, key = ("max", pool_keys(pool).most) if got < asked else ("min", pool_keys(pool).least)
            reasons.append(Reason(at_limit(end, pool.name), f"{pool.name} asked for {asked}, {key} is {got}"))
    return reasons


def _moves(current: Sizes, targets: Sizes) -> tuple[Reason, ...]:
    if current == targets:
        return (_STEADY,)
    moves = []
    for code, sign in ((ReasonCode.SCALE_UP, 1), (ReasonCode.SCALE_DOWN, -1)):
        parts = [
            f"{pool} {old} -> {new}"
            for (pool, old), new in zip(current.items(), targets, strict=True)
            if sign * (new - old) > 0
        ]
        if parts:
            moves.append(Reason(code, ", ".join(parts)))
    return tuple(moves)


_STEADY = Reason(ReasonCode.STEADY, "the pools stay as they are")
_DRY_RUN = Reason(ReasonCode.DRY_RUN, "no_operation: decided, not acted on")


def _number(value: float | None, unit: str = "") -> str:
    return "unknown" if value is None else f"{value:.1f}{unit}"


def _log_observed(window: Window) -> None:
    logger.info(
        "Observed metrics: requests=%s, isl=%s, osl=%s, ttft=%s, itl=%s",
        _number(window.requests),
        _number(window.isl),
        _number(window.osl),
        _number(window.ttft_ms, "ms"),
        _number(window.itl_ms, "ms"),
    )


def _log_forecast(found: Findings) -> None:
    load = found.forecast
    logger.info(
        "Predicted load: requests=%s, isl=%s, osl=%s",
        _number(load.requests),
        _number(load.isl),
        _number(load.osl),
    )
    logger.debug("Correction factors: prefill=%.3f, decode=%.3f", *found.corrections)


def _log_decision(current: Sizes, targets: Sizes, *, no_operation: bool) -> None:
    moves = ", ".join(
        f"{pool} {now} -> {then} (delta={then - now})"
        for (pool, now), then in zip(current.items(), targets, strict=True)
    )
    logger.info("Autoscaling decision: %s%s", moves, " [no_operation]" if no_operation else "")


class TargetStatus(TypedDict):
    """The three configuration values that the status repeats."""

    target_ttft_ms: float
    target_itl_ms: float
    adjustment_interval_sec: int


class CorrectionStatus(TypedDict):
    """Factors in use."""

    prefill: float
    decode: float


class AutoscalerStatus(TypedDict):
    """``last_adjustment_time`` is the end of the last window decided on, ``None`` before the first."""

    enabled: bool
    running: bool
    config: TargetStatus
    correction_factors: CorrectionStatus
    last_adjustment_time: float | None


def autoscaler_status(
    config: AutoscalerConfig,
    corrections: Corrections,
    last_adjustment_time: float | None,
    *,
    enabled: bool,
    running: bool,
) -> AutoscalerStatus:
    """Put the status together."""
    return {
        "enabled": enabled,
        "running": running,
        "config": {
            "target_ttft_ms": config.target_ttft_ms,
            "target_itl_ms": config.target_itl_ms,
            "adjustment_interval_sec": config.adjustment_interval_sec,
        },
        "correction_factors": {"prefill": corrections.prefill, "decode": corrections.decode},
        "last_adjustment_time": last_adjustment_time,
    }
