"""What a Kubernetes HorizontalPodAutoscaler (autoscaling/v2) would do on queue length and utilisation."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from sagescale.fleet import ByPool
from sagescale.planner.decision import Reason, ReasonCode
from sagescale.planner.policy.classic import whole_instances
from sagescale.planner.policy.protocol import PoolSize, Sizing
from sagescale.planner.stabilisation import PoolStabiliser

if TYPE_CHECKING:
    from sagescale.fleet import PoolCounts
    from sagescale.perf import PerfModel
    from sagescale.planner.config import AutoscalerConfig
    from sagescale.planner.policy.protocol import Situation

# The HPA's own defaults.
_TOLERANCE = 0.1
_UP_WINDOW_S = 0.0
_DOWN_WINDOW_S = 300.0
_UP_FACTOR = 2  # at most 100 % more
_UP_PODS = 4  # or four more, whichever is more,
_UP_PERIOD_S = 15.0  # in so many seconds; down goes 100 % in as many, which is no limit at all


class ReactivePolicy:
    """Scales each pool to keep its present use a fixed share of what it holds; looks at no forecast.

    * Prefill: requests queued and in service, ``reactive_prefill_requests`` an instance.
    * Decode: the higher of slot use (running and queued requests over the slots of the ready instances) and
      KV use, ``reactive_decode_usage`` of full.
    * Aggregated: as decode; a request that waits for its prompt is queued.

    ``desired = ceil(ready * use / target)``, not touched while ``use / target`` is within 0.1 of 1. Scaling
    up, instances not ready yet count as idle ones, and may cancel the need; scaling down they do not count at
    all. Up goes at most the larger of 100 % and 4 instances in 15 s, down to the highest size desired in the
    last
    300 s. A pool whose metrics are unknown holds. (Kubernetes ``replica_calculator.go`` and
    ``horizontal.go``; the HPA looks every 15 s, this at every tick.) ``load_headroom`` multiplies the use.
    """

    name = "reactive"
    keys = ("reactive_prefill_requests", "reactive_decode_usage")
    uses_forecast = False
    uses_model = False
    uses_lengths = False

    def __init__(self, config: AutoscalerConfig, perf_model: PerfModel) -> None:
        self._config = config
        self._slots = perf_model.max_num_seqs
        self._pools = tuple(HpaPool(pool.name) for pool in config.pools)

    def size(self, situation: Situation) -> Sizing:
        """Ask for what the present use needs; a pool whose use is unknown holds."""
        seen, config = situation.observation, self._config
        reasons: list[Reason] = []
        headroom = config.load_headroom
        prefill = _sum(seen.queued_prefill, seen.running_prefill)
        decode = _sum(seen.queued_decode, seen.running_decode)
        if len(self._pools) == 1:
            decode = _sum(prefill, decode)
        if prefill is not None:
            prefill *= headroom / config.reactive_prefill_requests
        if decode is not None:
            decode *= headroom / (self._slots * config.reactive_decode_usage)
        if seen.kv_usage is not None:
            pool = seen.pools.decode
            full = seen.kv_usage * (pool.ready + pool.draining) * headroom / config.reactive_decode_usage
            decode = full if decode is None else max(decode, full)
        demands = (decode,) if len(self._pools) == 1 else (prefill, decode)
        sizes = (
            pool.size(seen.time_s, counts, demand, reasons)
            for pool, counts, demand in zip(self._pools, seen.pools, demands, strict=True)
        )
        return Sizing(ByPool[PoolSize | None](*sizes, names=seen.pools.names), tuple(reasons))


class HpaPool:
    """The HPA of one pool: its recommendations and launches of the past."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._stabiliser = PoolStabiliser(_UP_WINDOW_S, _DOWN_WINDOW_S)
        self._added: deque[tuple[float, int]] = deque()  # when, how many

    def size(
        self, time_s: float, counts: PoolCounts, demand: float | None, reasons: list[Reason]
    ) -> PoolSize | None:
        """Size for a demand in instances: the use in the pool over the use meant for one instance."""
        current = counts.asked
        if demand is None:
            reasons.append(
                Reason(ReasonCode.HOLD_UNKNOWN_METRICS, f"{self._name}: its use is unknown: the pool holds")
            )
            return None
        desired = self._desired(counts, demand)
        stable = self._stabiliser.stabilise(time_s, current, desired)
        if stable != desired:
            reasons.append(
                Reason(
                    ReasonCode.STABILISED,
                    f"{self._name}: use asks for {desired}, the HPA's window of {_DOWN_WINDOW_S:g} s allows "
                    f"{stable}",
                )
            )
        limited = self._rate_limited(time_s, current, stable)
        if limited != stable:
            reasons.append(
                Reason(
                    ReasonCode.RATE_LIMITED,
                    f"{self._name}: use asks for {stable}, the HPA adds at most {limited - current} at once",
                )
            )
        if limited > current:
            self._added.append((time_s, limited - current))
        return PoolSize(limited, float(limited))

    def _desired(self, counts: PoolCounts, demand: float) -> int:
        current = counts.asked
        if counts.ready == 0:
            # The HPA has no pod to ask; a pool at zero still has to start when there is work.
            return max(current, whole_instances(demand))
        ratio = demand / counts.ready
        unready = current - counts.ready
        if unready > 0 and ratio > 1.0:
            # Not ready is idle: if that turns the decision round, there is none.
            ratio = demand / current
            if ratio <= 1.0 + _TOLERANCE:
                return current
            return max(current, whole_instances(demand))
        if abs(ratio - 1.0) <= _TOLERANCE:
            return current
        return whole_instances(demand)

    def _rate_limited(self, time_s: float, current: int, desired: int) -> int:
        while self._added and self._added[0][0] <= time_s - _UP_PERIOD_S:
            self._added.popleft()
        before = current - sum(added for _, added in self._added)
        return min(desired, max(current, before * _UP_FACTOR, before + _UP_PODS))


def _sum(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first + second
