"""KEDA's Prometheus scaler with the autoscaling/v2 HPA it makes, on queues and on latencies.

Queue: ``vllm:num_requests_waiting``, five an instance, as the vLLM production stack's KEDA page has it.
Latency: the larger of latency over target, held to 2, as llm-d's page on SLO-aware autoscaling has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sagescale.declare import check, setting
from sagescale.fleet import ByPool
from sagescale.planner.policy import PoolSize, Sizing
from sagescale.planner.policy.reactive import HpaPool

from field_policies import check_pools

if TYPE_CHECKING:
    from sagescale.fleet import PoolCounts
    from sagescale.perf import PerfModel
    from sagescale.planner import AutoscalerConfig
    from sagescale.planner.decision import Reason
    from sagescale.planner.policy import Situation

_MOST = 2.0
"""More than twice the target counts as twice."""


@dataclass(frozen=True)
class KedaKeys:
    """The KEDA policies' keys."""

    keda_queue_threshold: float = setting(
        5.0, doc="Requests waiting that the keda_queue policy means an instance to have.", above=0
    )

    def __post_init__(self) -> None:
        check(self)


class _Hpa:
    """An HPA a pool; whoever inherits says what a pool needs, in instances, not rounded."""

    uses_forecast = False
    uses_model = False
    uses_lengths = False

    def __init__(self, config: AutoscalerConfig, perf_model: PerfModel) -> None:
        check_pools(config)
        del perf_model
        self._config = config
        self._keys = config.plugins.of(KedaKeys)
        self._prefill = HpaPool("prefill")
        self._decode = HpaPool("decode")

    def size(self, situation: Situation) -> Sizing:
        """Ask for what the HPA would."""
        seen = situation.observation
        reasons: list[Reason] = []
        prefill, decode = self._demands(situation)
        sizes = ByPool[PoolSize | None](
            self._prefill.size(seen.time_s, seen.pools.prefill, prefill, reasons),
            self._decode.size(seen.time_s, seen.pools.decode, decode, reasons),
        )
        return Sizing(sizes, tuple(reasons))

    def _demands(self, situation: Situation) -> tuple[float | None, float | None]:
        raise NotImplementedError


class KedaQueuePolicy(_Hpa):
    """``ceil(waiting / threshold)`` a pool: type AverageValue. ``load_headroom`` multiplies what waits."""

    name = "keda_queue"

    def _demands(self, situation: Situation) -> tuple[float | None, float | None]:
        seen = situation.observation
        each = self._keys.keda_queue_threshold / self._config.load_headroom
        prefill, decode = seen.queued_prefill, seen.queued_decode
        return None if prefill is None else prefill / each, None if decode is None else decode / each


class KedaLatencyPolicy(_Hpa):
    """``ceil(ready * latency / target)`` a pool: TTFT for prefill, ITL for decode; metric type Value.

    Latency is the window's 99th percentile (the page's is the 90th: the promise here is of 99 %). A window
    without traffic reads 0, one with unknown latencies holds. ``load_headroom`` multiplies the latency.
    """

    name = "keda_latency"

    def _demands(self, situation: Situation) -> tuple[float | None, float | None]:
        seen, config = situation.observation, self._config
        return (
            self._ratio(seen.pools.prefill, seen.requests, seen.ttft_ms_p99, config.target_ttft_ms),
            self._ratio(seen.pools.decode, seen.requests, seen.itl_ms_p99, config.target_itl_ms),
        )

    def _ratio(
        self, pool: PoolCounts, requests: float | None, latency_ms: float | None, target_ms: float
    ) -> float | None:
        if latency_ms is None:
            return 0.0 if requests == 0 else None
        return max(pool.ready, 1) * min(latency_ms * self._config.load_headroom / target_ms, _MOST)
