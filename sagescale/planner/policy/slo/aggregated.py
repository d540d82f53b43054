"""The slo policy on one pool of aggregated instances."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

from sagescale.fleet import ByPool, Pools
from sagescale.planner.decision import Reason, ReasonCode, at_limit
from sagescale.planner.load import LoadPredictors
from sagescale.planner.policy.protocol import PoolSize, Situation, Sizing
from sagescale.planner.policy.slo.cold import ColdCaches
from sagescale.planner.policy.slo.policy import SloPolicy
from sagescale.planner.policy.slo.uses import Uses

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from sagescale.perf import PerfModel
    from sagescale.planner.config import AutoscalerConfig
    from sagescale.planner.estimates import Estimates
    from sagescale.planner.forecast import Forecast, Predictor
    from sagescale.planner.observation import Observation
    from sagescale.planner.policy.twin import AggregatedEngineTwin, Lengths

__all__ = ["AggregatedSloPolicy"]

_QUANTILES, _MIXING = 64, 7


class AggregatedSloPolicy:
    """Sizes an aggregated pool as :class:`SloPolicy` sizes decode, tried on engines that do both.

    Load is counted in tokens produced, prompt tokens that are computed as a fixed part of one each, and a
    request is missed if either target is. What waits for its prompt waits for the pool. The prefill pool
    beside it is a fiction of one GPU that is never in the way.

    Args:
        config: targets, limits and headroom.
        perf_model: the engines as they are believed to be.
        twin: simulated aggregated engines, which say of prefill that it misses nothing.
    """

    name = "slo"
    keys = SloPolicy.keys
    needs_twin = True

    def __init__(self, config: AutoscalerConfig, perf_model: PerfModel, twin: AggregatedEngineTwin) -> None:
        (pool,) = config.pools
        self._pool = pool.name
        self._budget = config.max_gpu_budget
        apart = dataclasses.replace(
            config,
            serving="disaggregated",
            min_prefill_instances=1,
            max_prefill_instances=1,
            prefill_gpus_per_instance=1,
            min_decode_instances=pool.least,
            max_decode_instances=pool.most,
            decode_gpus_per_instance=pool.gpus,
            max_gpu_budget=config.max_gpu_budget + 1,
        )
        self._prompt_token = twin.prompt_token_work
        uses = Uses(float(config.adjustment_interval_sec), 1.0 - config.target_attainment)
        self._inner = SloPolicy(apart, perf_model, twin, uses=uses, work=self._works)
        self._twin = twin
        self._weighed: Lengths | None = None
        self._computed = 1.0  # share of prompt tokens
        self._cold = ColdCaches()
        self._isl: float | None = None
        self._osl: float | None = None

    def size(self, situation: Situation) -> Sizing:
        """Ask for a size; hold where this window's traffic, or any request's length, is unknown."""
        window = situation.window
        self._isl = self._isl if window.isl is None else window.isl
        self._osl = self._osl if window.osl is None else window.osl
        if window.isl and window.computed_isl is not None:
            self._computed = window.computed_isl / window.isl
        self._weigh()
        (pool,) = situation.observation.pools
        self._cold.observe(pool.ready, window.prefix_hit_rate)
        if window.prefix_hit_rate:
            self._inner.follow_no_more()
        seen = self._apart(situation.observation)
        work = None if self._isl is None or self._osl is None else self._work(self._isl, self._osl)
        worked = _Worked(situation.estimates, self._work_to_come)
        asked = self._inner.size(
            Situation(seen, window._replace(osl=work), seen.pools.asked, worked)  # type: ignore[arg-type]  # what of estimates is asked
        )
        return self._together(asked, pool.ready)

    def check(self, seen: Observation) -> Sizing | None:
        """Look at a short window between ticks; ask for more where load is plainly above the plan."""
        asked = self._inner.check(self._apart(seen))
        return None if asked is None else self._together(asked, seen.pools[0].ready)

    def _weigh(self) -> None:
        """Count prompt tokens as they are at the lengths of late."""
        sample = self._inner.sample
        if sample is None or sample is self._weighed:
            return
        self._weighed = sample
        if self._twin.weigh(sample):
            self._prompt_token = self._twin.prompt_token_work
            self._inner.forget_tried()

    def _works(self, sample: Lengths) -> NDArray[np.float64]:
        """Tokens produced that each request of a sample counts as; where no cache hits, its answer."""
        hits = (sample.computed < sample.isl).any()
        return sample.osl + (self._prompt_token if hits else 0.0) * sample.computed

    def _work(self, isl: float, osl: float) -> float:
        """Tokens produced that a request's tokens count as."""
        return osl + self._prompt_token * self._computed * isl

    def _work_to_come(self, isl: float, osl: float) -> float:
        """The same of requests to come: as much of a prompt is computed as was lately, not just now."""
        sample = self._inner.sample
        if sample is None:
            return self._work(isl, osl)
        return osl + self._prompt_token * isl * sample.computed_share

    def _apart(self, seen: Observation) -> Observation:
        """The same with prefill done by an instance that has nothing to do; both targets are decode's."""
        (pool,) = seen.pools
        nothing = dataclasses.replace(pool, ready=1, starting=0, draining=0, waiting=0)
        met = [share for share in (seen.ttft_attainment, seen.itl_attainment) if share is not None]
        waiting, lengths = seen.queued_prefill, seen.lengths
        if self._isl is not None and self._osl:
            if waiting is not None:  # in requests whose work is all answer
                waiting *= self._work(self._isl, self._osl) / self._osl
            lengths = lengths or _exponential(self._isl, self._osl)
        return dataclasses.replace(
            seen,
            pools=Pools(nothing, pool),
            queued_prefill=0.0,
            queued_decode=waiting,
            ttft_attainment=None,
            itl_attainment=max(0.0, sum(met) - len(met) + 1.0) if met else None,
            lengths=lengths,
        )

    def _together(self, asked: Sizing, ready: int) -> Sizing:
        """The pool's size and why, with what new instances need more while their caches are cold."""
        size = asked.pools.decode
        reasons = [self._renamed(why) for why in asked.reasons if not why.text.startswith("prefill: ")]
        if size is not None and self._isl is not None and self._osl is not None:
            enough = self._cold.enough(size.instances, ready, self._osl, self._prompt_token * self._isl)
            if enough > size.instances:
                why = (
                    f"{self._pool}: {enough - size.instances} more, as caches of new ones are cold "
                    f"({self._cold.hit_rate:.0%} of prompt tokens are found in those that are there)"
                )
                reasons.append(Reason(ReasonCode.SIZED_FOR_MISSES, why))
                size = PoolSize(enough, float(enough))
        return Sizing(ByPool[PoolSize | None](size, names=(self._pool,)), tuple(reasons))

    def _renamed(self, reason: Reason) -> Reason:
        text = reason.text.replace("decode: ", f"{self._pool}: ", 1)
        if reason.code is ReasonCode.GPU_BUDGET:
            text = f"more instances of {self._pool} would be wanted than fit max_gpu_budget {self._budget}"
        code = at_limit("max", self._pool) if reason.code is ReasonCode.AT_MAX_DECODE else reason.code
        return Reason(code, text.replace("both pools hold", "the pool holds"))


class _Worked:
    """Estimates with the load of answers forecast as work."""

    def __init__(self, estimates: Estimates, work: Callable[[float, float], float]) -> None:
        of = estimates.predictors
        osl = _WorkPredictor(of.isl, of.osl, work)
        self.predictors = LoadPredictors(of.requests, of.isl, osl, of.last_isl, of.last_osl)


class _WorkPredictor:
    """Forecasts work from what is forecast of prompts and answers."""

    def __init__(self, isl: Predictor, osl: Predictor, work: Callable[[float, float], float]) -> None:
        self._isl, self._osl, self._work = isl, osl, work

    name = "work"
    refits = 0
    cadence = "that of its parts"

    def observe(self, value: float | None) -> None:
        """Leave it to both."""

    def forecast(self, horizon: int) -> Forecast | None:
        """Combine the means; the deviation is that of answers."""
        isl, osl = self._isl.forecast(horizon), self._osl.forecast(horizon)
        if isl is None or osl is None:
            return None
        mean = tuple(self._work(prompt, answer) for prompt, answer in zip(isl.mean, osl.mean, strict=True))
        return dataclasses.replace(osl, mean=mean)


def _exponential(isl: float, osl: float) -> tuple[tuple[int, int], ...]:
    """Lengths where only means are known: exponential, prompts and answers in different orders."""
    quantiles = [-math.log(1.0 - (at + 0.5) / _QUANTILES) for at in range(_QUANTILES)]
    mean = sum(quantiles) / _QUANTILES
    return tuple(
        (
            max(1, round(isl * quantile / mean)),
            max(1, round(osl * quantiles[_MIXING * at % _QUANTILES] / mean)),
        )
        for at, quantile in enumerate(quantiles)
    )
