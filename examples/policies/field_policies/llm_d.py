"""llm-d's saturation analyzer (Workload Variant Autoscaler, percentage-based), a pool at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sagescale.declare import check, setting
from sagescale.fleet import Sizes
from sagescale.planner.decision import Reason, ReasonCode
from sagescale.planner.policy import Sizing

from field_policies import check_pools

if TYPE_CHECKING:
    from sagescale.fleet import PoolCounts
    from sagescale.perf import PerfModel
    from sagescale.planner import AutoscalerConfig
    from sagescale.planner.policy import Situation


@dataclass(frozen=True)
class LlmdKeys:
    """The saturation analyzer's keys, at its defaults."""

    llm_d_kv_threshold: float = setting(
        0.8,
        doc="Share of KV memory at which the llm_d policy calls an instance saturated.",
        above=0,
        at_most=1,
    )
    llm_d_queue_threshold: float = setting(
        5.0, doc="Requests waiting at which the llm_d policy calls an instance saturated.", above=0
    )
    llm_d_kv_spare_trigger: float = setting(
        0.1, doc="With less spare KV memory than this the llm_d policy adds an instance.", at_least=0
    )
    llm_d_queue_spare_trigger: float = setting(
        3.0, doc="With less spare queue than this the llm_d policy adds an instance.", at_least=0
    )

    def __post_init__(self) -> None:
        check(self)


class LlmdSaturationPolicy:
    """One more where too little is spare, one fewer where enough would be spare without it.

    Spare are ``threshold - use`` of KV memory and of the queue, on average over instances. More while none is
    starting; fewer where all that is held, on one instance fewer, leaves both above their triggers.

    What differs here: use is the pool's mean now, not each instance's highest of the last minute; a prefill
    pool has a queue only. ``load_headroom`` multiplies the use.
    """

    name = "llm_d"
    uses_forecast = False
    uses_model = False
    uses_lengths = False

    def __init__(self, config: AutoscalerConfig, perf_model: PerfModel) -> None:
        check_pools(config)
        del perf_model
        self._headroom = config.load_headroom
        self._keys = config.plugins.of(LlmdKeys)

    def size(self, situation: Situation) -> Sizing:
        """Ask for one more, one fewer or the same."""
        seen = situation.observation
        if seen.queued_prefill is None or seen.queued_decode is None:
            reason = Reason(ReasonCode.HOLD_UNKNOWN_METRICS, "queues are unknown: both pools hold")
            return Sizing.hold(seen.pools, reason)
        pools = seen.pools
        return Sizing.exactly(
            Sizes(
                self._wanted(pools.prefill, seen.queued_prefill, 0.0),
                self._wanted(pools.decode, seen.queued_decode, seen.kv_usage or 0.0),
            )
        )

    def _wanted(self, pool: PoolCounts, queued: float, kv_usage: float) -> int:
        if pool.ready == 0:
            return max(pool.asked, 1 if queued else 0)
        queue, kv = queued * self._headroom / pool.ready, kv_usage * self._headroom
        if not self._enough_spare(queue, kv):
            return pool.asked if pool.asked > pool.ready else pool.asked + 1
        if pool.ready >= 2:
            more = pool.ready / (pool.ready - 1)
            if self._enough_spare(queue * more, kv * more):
                return pool.asked - 1
        return pool.asked

    def _enough_spare(self, queue: float, kv: float) -> bool:
        keys = self._keys
        return (
            keys.llm_d_kv_threshold - kv >= keys.llm_d_kv_spare_trigger
            and keys.llm_d_queue_threshold - queue >= keys.llm_d_queue_spare_trigger
        )
