"""The guide's policy: demand over capacity, each pool by itself; and by it the size to begin with."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

from sagescale.fleet import ByPool, Sizes, fit, within_limits
from sagescale.planner.decision import Corrections, Reason, ReasonCode
from sagescale.planner.policy.protocol import PoolSize, Sizing

if TYPE_CHECKING:
    from sagescale.perf import PerfModel
    from sagescale.planner.config import AutoscalerConfig
    from sagescale.planner.policy.protocol import Situation

logger = logging.getLogger(__name__)

_UNCORRECTED = Corrections()


def whole_instances(demand: float) -> int:
    """Round demand up to instances; float noise (3.0000000001) buys none, and absurd demand is finite."""
    return math.ceil(min(demand, 1e12) - 1e-9)


class ClassicPolicy:
    """The formulas of the user's guide, "Replica calculation".

    An aggregated pool gets both fractions before rounding, added: an instance that spends a share of its time
    on prompts has the rest of it for answers.
    """

    name = "classic"
    uses_lengths = False

    def __init__(self, config: AutoscalerConfig, perf_model: PerfModel) -> None:
        self._config = config
        self._perf = perf_model
        pools = config.pools
        self._pools = tuple(pool.name for pool in pools)
        self._prefill_gpus, self._decode_gpus = pools[0].gpus, pools[-1].gpus
        self._aggregated = config.serving == "aggregated"

    def size(self, situation: Situation) -> Sizing:
        """Size for the load forecast; hold both pools where this window's traffic is unknown."""
        if situation.window.requests is None or situation.load.requests is None:
            return Sizing.hold(situation.observation.pools, _UNKNOWN_TRAFFIC)
        load = situation.load
        return self.size_for(load.requests, load.isl, load.osl, situation.corrections)

    def size_for(
        self,
        requests: float | None,
        isl: float | None,
        osl: float | None,
        corrections: Corrections = _UNCORRECTED,
    ) -> Sizing:
        """Size for a load: requests an interval and their mean lengths in tokens.

        No requests ask for no instances, whatever the lengths; a pool whose lengths are unknown holds.
        """
        if requests is None:
            return Sizing(self._asked(*(None for _ in self._pools)), (_UNKNOWN_TRAFFIC,))
        if requests <= 0:
            return Sizing.exactly(Sizes(*(0 for _ in self._pools), names=self._pools), (_NO_TRAFFIC,))
        reasons: list[Reason] = []
        rate = requests * self._config.load_headroom / self._config.adjustment_interval_sec
        prefill = None if isl is None else self._prefill(rate, isl, corrections.prefill, reasons)
        decode = (
            None if isl is None or osl is None else self._decode(rate, isl, osl, corrections.decode, reasons)
        )
        if isl is None or osl is None:
            held = "decode holds" if isl is not None else "both pools hold"
            if self._aggregated:
                held = "the pool holds"
            missing = "isl" if isl is None else "osl"
            reasons.append(
                Reason(ReasonCode.HOLD_UNKNOWN_LENGTHS, f"no {missing} has been observed yet: {held}")
            )
        if self._aggregated:
            return Sizing(self._asked(_together(prefill, decode)), tuple(reasons))
        return Sizing(self._asked(prefill, decode), tuple(reasons))

    def _asked(self, *sizes: PoolSize | None) -> ByPool[PoolSize | None]:
        return ByPool[PoolSize | None](*sizes, names=self._pools)

    def _prefill(self, rate: float, isl: float, correction: float, reasons: list[Reason]) -> PoolSize | None:
        config = self._config
        alone_ms = self._perf.ttft_ms(isl)
        if alone_ms > config.target_ttft_ms:
            reasons.append(
                Reason(
                    ReasonCode.TARGET_TTFT_UNREACHABLE,
                    f"prefill of {isl:.0f} tokens takes {alone_ms:.1f} ms with nothing else to do, over "
                    f"target_ttft_ms {config.target_ttft_ms:g}: no number of instances meets it",
                )
            )
        throughput = rate * isl * min(1.0, correction)
        capacity = self._perf.prefill_throughput_per_gpu(isl) * self._prefill_gpus
        return _pool_size("Prefill", throughput, capacity, reasons)

    def _decode(
        self, rate: float, isl: float, osl: float, correction: float, reasons: list[Reason]
    ) -> PoolSize | None:
        config = self._config
        target_ms = config.target_itl_ms / correction
        point = self._perf.decode_throughput_per_gpu(target_ms, isl + osl / 2)
        if not point.feasible:
            reasons.append(
                Reason(
                    ReasonCode.SLA_INFEASIBLE,
                    f"no decode point meets an ITL of {target_ms:.2f} ms (target_itl_ms "
                    f"{config.target_itl_ms:g} / correction {correction:.3f}) at context {isl + osl / 2:.0f} "
                    f"tokens: sized for the fastest, {point.itl_ms:.2f} ms",
                )
            )
        throughput = rate * osl
        capacity = point.tokens_per_s_per_gpu * self._decode_gpus
        return _pool_size("Decode", throughput, capacity, reasons)


def initial_targets(
    config: AutoscalerConfig,
    perf_model: PerfModel,
    requests: float | None,
    isl: float | None,
    osl: float | None,
) -> Sizes:
    """Size for a known load by the classic formulas with corrections 1, whatever the policy.

    Args:
        config: Its limits, budget and ``load_headroom`` apply.
        perf_model: The profile sized with.
        requests: Requests in one adjustment interval.
        isl: Their mean prompt tokens.
        osl: Their mean output tokens.

    Returns:
        Sizes within every constraint; a pool about whose load nothing is known starts at its minimum.
    """
    sizing = ClassicPolicy(config, perf_model).size_for(requests, isl, osl)
    asked = Sizes(*(0 if size is None else size.instances for size in sizing.pools), names=sizing.pools.names)
    return fit(within_limits(asked, config.fleet), config.fleet)


def _together(prefill: PoolSize | None, decode: PoolSize | None) -> PoolSize | None:
    """Return the size of a pool that does both, held where one share is unknown."""
    if prefill is None or decode is None:
        return None
    demand = prefill.demand + decode.demand
    return PoolSize(whole_instances(demand), demand)


def _pool_size(pool: str, throughput: float, capacity: float, reasons: list[Reason]) -> PoolSize | None:
    if not 0 < capacity < math.inf:
        reasons.append(
            Reason(
                ReasonCode.HOLD_NO_CAPACITY,
                f"{pool.lower()} capacity is {capacity} tokens/s in the performance model: the pool holds",
            )
        )
        return None
    demand = throughput / capacity
    instances = whole_instances(demand)
    if logger.isEnabledFor(logging.DEBUG):
        logger.debug(
            "%s calculation: throughput=%.1f / capacity=%.1f = %d", pool, throughput, capacity, instances
        )
    return PoolSize(instances, demand)


_UNKNOWN_TRAFFIC = Reason(ReasonCode.HOLD_UNKNOWN_TRAFFIC, "requests are unknown: both pools hold")
_NO_TRAFFIC = Reason(ReasonCode.NO_TRAFFIC, "no requests are expected: down to the minimum")
