"""AIBrix's Advanced Pod Autoscaler, APA (``podautoscaler/algorithm/apa.go``), a pool at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sagescale.declare import check, setting
from sagescale.fleet import Sizes
from sagescale.planner.decision import Reason, ReasonCode
from sagescale.planner.policy import Sizing
from sagescale.planner.policy.classic import whole_instances
from sagescale.planner.stabilisation import PoolStabiliser

from field_policies import check_pools

if TYPE_CHECKING:
    from sagescale.fleet import PoolCounts
    from sagescale.perf import PerfModel
    from sagescale.planner import AutoscalerConfig
    from sagescale.planner.policy import Situation

_TOLERANCE = 0.1
_MOST_UP = _MOST_DOWN = 2.0
_DOWN_COOLDOWN_S = 300.0


@dataclass(frozen=True)
class AibrixKeys:
    """What the APA keeps its pools at."""

    aibrix_kv_usage: float = setting(
        0.5, doc="Share of its KV memory that the aibrix_apa policy means decode to use.", above=0, at_most=1
    )
    aibrix_prefill_requests: float = setting(
        2.0,
        doc="Requests queued or in service that the aibrix_apa policy means a prefill instance to have.",
        above=0,
    )

    def __post_init__(self) -> None:
        check(self)


class AibrixApaPolicy:
    """``ceil(current * use / target)`` once the use is 10 % off, at most twice and at least half the size.

    Decode by KV use (by slots where memory is unlimited), prefill by requests an instance; down to the
    highest of the last 300 s (its cooldown). ``load_headroom`` multiplies the use.
    """

    name = "aibrix_apa"
    uses_forecast = False
    uses_model = False
    uses_lengths = False

    def __init__(self, config: AutoscalerConfig, perf_model: PerfModel) -> None:
        check_pools(config)
        self._headroom = config.load_headroom
        self._keys = config.plugins.of(AibrixKeys)
        self._slots = perf_model.max_num_seqs
        self._cooldown = PoolStabiliser(0.0, _DOWN_COOLDOWN_S), PoolStabiliser(0.0, _DOWN_COOLDOWN_S)

    def size(self, situation: Situation) -> Sizing:
        """Ask for what keeps the use at its target."""
        seen = situation.observation
        counts = (seen.queued_prefill, seen.running_prefill, seen.queued_decode, seen.running_decode)
        if any(count is None for count in counts):
            reason = Reason(ReasonCode.HOLD_UNKNOWN_METRICS, "queues are unknown: both pools hold")
            return Sizing.hold(seen.pools, reason)
        waiting, prefilling, handed_over, decoding = (count or 0.0 for count in counts)
        prefill, decode = seen.pools.prefill, seen.pools.decode
        requests = (waiting + prefilling) / max(prefill.ready, 1) / self._keys.aibrix_prefill_requests
        use = seen.kv_usage
        if use is None:
            use = (handed_over + decoding) / max(decode.ready, 1) / self._slots
        wanted = self._wanted(prefill, requests), self._wanted(decode, use / self._keys.aibrix_kv_usage)
        pools = zip(self._cooldown, seen.pools, wanted, strict=True)
        return Sizing.exactly(
            Sizes(*(cool.stabilise(seen.time_s, pool.asked, size) for cool, pool, size in pools))
        )

    def _wanted(self, pool: PoolCounts, ratio: float) -> int:
        current, ratio = pool.asked, ratio * self._headroom
        if current == 0:
            return 1 if ratio > 0 else 0
        if ratio > 1.0 + _TOLERANCE:
            return min(whole_instances(current * ratio), math.ceil(current * _MOST_UP))
        if ratio < 1.0 - _TOLERANCE:
            return max(whole_instances(current * ratio), math.floor(current / _MOST_DOWN))
        return current
