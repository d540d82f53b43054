"""A small made-up world for planner tests: a performance model with round numbers, and observations."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from sagescale.perf.model import DecodeCapacity
from sagescale.planner import AutoscalerConfig, Observation, Planner, PoolCounts, Pools


@dataclass
class RoundNumbers:
    """Prefill 10 000 tokens/s a GPU; a decode step takes 10 ms + 0.5 ms a request, whatever the context."""

    prefill_gpus: int = 1
    decode_gpus: int = 1
    max_num_seqs: int = 100
    max_kv_tokens: int | None = None
    step_floor_ms: float = 10.0
    step_ms_per_request: float = 0.5
    prefill_tokens_per_s: float = 10_000.0

    def ttft_ms(self, isl: float) -> float:
        return isl / self.prefill_tokens_per_s / self.prefill_gpus * 1e3

    def itl_ms(self, concurrency: float, context_tokens: float) -> float:
        return self.step_floor_ms + self.step_ms_per_request * min(max(concurrency, 1.0), self.max_num_seqs)

    def prefill_throughput_per_gpu(self, isl: float) -> float:
        return self.prefill_tokens_per_s

    def decode_throughput_per_gpu(self, itl_ms: float, context_tokens: float) -> DecodeCapacity:
        fits = int((itl_ms - self.step_floor_ms) / self.step_ms_per_request)
        n = min(max(fits, 1), self.max_num_seqs)
        step = self.itl_ms(n, context_tokens)
        return DecodeCapacity(n / step * 1e3 / self.decode_gpus, n, step, feasible=fits >= 1)


ONE_GPU = {"prefill_gpus_per_instance": 1, "decode_gpus_per_instance": 1}


def make_planner(perf: RoundNumbers | None = None, **keys: object) -> Planner:
    config = AutoscalerConfig(**(ONE_GPU | keys))
    return Planner(config, perf or RoundNumbers())


# 600 requests of 1000 + 200 tokens a minute: 10 000 prompt tokens/s, 2000 output tokens/s. With the
# ITL target of 50 ms an instance of RoundNumbers gives 80 / 0.05 s = 1600 tokens/s.
BUSY = Observation(
    time_s=60.0,
    window_s=60.0,
    pools=Pools(PoolCounts(ready=1), PoolCounts(ready=2)),
    requests=600.0,
    completed=600.0,
    isl_mean=1000.0,
    osl_mean=200.0,
    ttft_ms_mean=100.0,
    itl_ms_mean=60.0,
    duration_s_mean=20.0,
)

NOTHING_KNOWN = Observation(time_s=60.0, window_s=60.0, pools=Pools(PoolCounts(ready=3), PoolCounts(ready=4)))


def seen(base: Observation = BUSY, **changes: object) -> Observation:
    """The observation, with some fields changed; ``prefill`` and ``decode`` are the instances of a pool."""
    pools = Pools.of({name: changes.pop(name, counts) for name, counts in base.pools.items()})
    return dataclasses.replace(base, pools=pools, **changes)
