"""Made-up engines to try sizes on, whose misses are a formula, and planners with policy slo on them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from planner_world import BUSY, ONE_GPU, RoundNumbers, seen
from sagescale.planner import AutoscalerConfig, Observation, Planner, PoolCounts

if TYPE_CHECKING:
    from sagescale.planner.policy.twin import Lengths

LIMITS = {"max_prefill_instances": 60, "max_decode_instances": 60, "max_gpu_budget": 200}


@dataclass
class RoundTwin:
    """Nothing misses below a use that rises with the pool; from there misses rise in a line to all."""

    perf: RoundNumbers = field(default_factory=RoundNumbers)
    startup_s: float = 60.0
    decode_tokens_per_s: float = 2_000.0

    def prefill_misses(self, instances: int, requests_per_s: float, lengths: Lengths) -> float:
        return share_missed(instances, requests_per_s / self.prefill_limit_rps(lengths))

    def decode_misses(self, instances: int, requests_per_s: float, lengths: Lengths) -> float:
        return share_missed(instances, requests_per_s / self.decode_limit_rps(lengths))

    def prefill_misses_alone(self, lengths: Lengths) -> float:
        return 0.0

    decode_misses_alone = prefill_misses_alone

    def prefill_limit_rps(self, lengths: Lengths) -> float:
        return self.perf.prefill_tokens_per_s / float(lengths.computed.mean())

    def decode_limit_rps(self, lengths: Lengths) -> float:
        return self.decode_tokens_per_s / float(lengths.osl.mean())


def share_missed(instances: int, erlangs: float) -> float:
    """Misses of a pool that is offered so much work, in what one instance gets through."""
    bearable = 0.9 - 0.5 / instances**0.5
    return min(1.0, max(0.0, (erlangs / instances - bearable) / 0.5))


def slo_planner(twin: RoundTwin | None = None, perf: RoundNumbers | None = None, **keys: object) -> Planner:
    twin = twin or RoundTwin()
    config = AutoscalerConfig(**(ONE_GPU | LIMITS | {"policy": "slo"} | keys))
    return Planner(config, perf or twin.perf, twin=twin)


def minute(number: int, requests: float | None, prefill: int, decode: int, **changes: object) -> Observation:
    """A window of requests of 1000 + 200 tokens, met by pools all of whose instances are ready."""
    ready = {"prefill": PoolCounts(ready=prefill), "decode": PoolCounts(ready=decode)}
    return seen(BUSY, time_s=60.0 * number, requests=requests, completed=requests, **(ready | changes))


def run(planner: Planner, loads: list[float | None], first: int = 1, start: tuple[int, int] = (1, 1)):
    """The targets of each tick, where what is asked for is there by the next."""
    targets = [start]
    for number, requests in enumerate(loads, first):
        targets.append(tuple(planner.step(minute(number, requests, *targets[-1])).targets))
    return targets[1:]


def poisson(mean: float, windows: int, seed: int = 0) -> list[float | None]:
    """Requests of windows of a flat load."""
    return np.random.default_rng(seed).poisson(mean, windows).astype(float).tolist()
