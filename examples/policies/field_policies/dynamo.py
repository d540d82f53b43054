"""NVIDIA Dynamo's planner, target "sla": a throughput loop that sets a floor, a load loop above it.

After the planner's guide and design pages and ``planner/core/{throughput,load}_scaling.py`` (1.2 to 1.6).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sagescale.declare import check, setting
from sagescale.fleet import Sizes
from sagescale.planner.decision import Reason, ReasonCode
from sagescale.planner.policy import ClassicPolicy, Sizing

from field_policies import check_pools

if TYPE_CHECKING:
    from sagescale.fleet import PoolCounts
    from sagescale.perf import PerfModel
    from sagescale.planner import AutoscalerConfig, Observation
    from sagescale.planner.policy import Situation


@dataclass(frozen=True)
class DynamoKeys:
    """The Dynamo planner's keys, at its defaults."""

    dynamo_throughput_interval_s: float = setting(
        180.0, doc="How often the dynamo policy's throughput loop sets its floor.", unit="s", above=0
    )
    dynamo_down_sensitivity: float = setting(
        0.8,
        doc="Share of a target that the dynamo policy lets an instance reach after one is taken away.",
        at_least=0,
        at_most=1,
    )

    def __post_init__(self) -> None:
        check(self)


class DynamoPolicy:
    """A floor from the forecast; above it one instance more or fewer at a time, from what instances hold.

    * Throughput loop, every 180 s: ``ceil(forecast rate / rate of an instance)`` a pool, where an instance
      prefills one prompt after the other and decodes the largest batch within the ITL target. Where a prompt
      alone takes longer than the TTFT target, at least their quotient.
    * Load loop: the TTFT of the next request behind what is queued, and the ITL of what is decoding and
      queued, an instance. Above the target: one more. Taking one away is tried on the others,
      with ``N / (N - 1)`` of what they hold: ITL has to stay under ``sensitivity`` of its target and KV
      within memory; of TTFT the part that waits, under ``sensitivity`` of what the prompt's own time leaves.
      While instances start the load loop only looks.

    What differs here: the load loop looks at burst checks (up) and ticks (up and down), not every 5 s; times
    come from the profile that the planner has learned on rather than from a regression on single iterations
    (closer to the truth than that); all instances of a pool hold the same, for only sums are observed.
    ``load_headroom`` multiplies the forecast and what instances hold.
    """

    name = "dynamo"
    uses_lengths = False

    def __init__(self, config: AutoscalerConfig, perf_model: PerfModel) -> None:
        check_pools(config)
        self._config = config
        self._keys = config.plugins.of(DynamoKeys)
        self._perf = perf_model
        self._classic = ClassicPolicy(config, perf_model)
        self._floor = Sizes(0, 0)
        self._set_at_s = -math.inf
        self._isl: float | None = None
        self._osl: float | None = None

    def size(self, situation: Situation) -> Sizing:
        """Ask for what the load loop wants, never less than the throughput loop's floor."""
        seen, window, load = situation.observation, situation.window, situation.load
        self._isl, self._osl = window.isl or self._isl, window.osl or self._osl
        due = seen.time_s - self._set_at_s >= self._keys.dynamo_throughput_interval_s - 1e-6
        if due and load.requests is not None and load.isl is not None and load.osl is not None:
            self._floor = self._throughput_floor(load.requests, load.isl, load.osl)
            self._set_at_s = seen.time_s
        wanted = self._load_loop(seen)
        if wanted is None and self._set_at_s == -math.inf:
            unknown = "neither a forecast nor queues are known yet: both pools hold"
            return Sizing.hold(seen.pools, Reason(ReasonCode.HOLD_UNKNOWN_METRICS, unknown))
        return Sizing.exactly(self._at_least_the_floor(wanted or situation.current))

    def check(self, seen: Observation) -> Sizing | None:
        """Between ticks the load loop may ask for more."""
        wanted = self._load_loop(seen)
        return None if wanted is None else Sizing.exactly(self._at_least_the_floor(wanted))

    def _at_least_the_floor(self, wanted: Sizes) -> Sizes:
        return Sizes(*(max(size, least) for size, least in zip(wanted, self._floor, strict=True)))

    def _throughput_floor(self, requests: float, isl: float, osl: float) -> Sizes:
        asked = self._classic.size_for(requests, isl, osl).pools
        prefill, decode = (0 if size is None else size.instances for size in asked)
        alone = math.ceil(self._perf.ttft_ms(isl) / self._config.target_ttft_ms) if requests > 0 else 0
        return Sizes(max(prefill, alone) if alone > 1 else prefill, decode)

    def _load_loop(self, seen: Observation) -> Sizes | None:
        """Sizes one apart from the present ones at most; None where nothing is known to go by."""
        if self._isl is None or self._osl is None:
            return None
        prefill = self._prefill(seen.pools.prefill, seen.queued_prefill, self._isl)
        held = None
        if seen.queued_decode is not None and seen.running_decode is not None:
            held = seen.queued_decode + seen.running_decode
        decode = self._decode(seen.pools.decode, held, self._isl + self._osl / 2)
        return Sizes(prefill, decode)

    def _prefill(self, pool: PoolCounts, queued: float | None, isl: float) -> int:
        if queued is None or pool.ready == 0 or pool.ready < pool.asked:
            return pool.asked
        alone_ms, target_ms = self._perf.ttft_ms(isl), self._config.target_ttft_ms
        waits_ms = alone_ms * queued * self._config.load_headroom / pool.ready
        if alone_ms + waits_ms > target_ms:
            return pool.asked + 1
        left_ms = (target_ms - alone_ms) * self._keys.dynamo_down_sensitivity
        return pool.asked - 1 if _shared_out(waits_ms, pool.ready) < left_ms else pool.asked

    def _decode(self, pool: PoolCounts, held: float | None, context_tokens: float) -> int:
        if held is None or pool.ready == 0 or pool.ready < pool.asked:
            return pool.asked
        target_ms = self._config.target_itl_ms
        each = held * self._config.load_headroom / pool.ready
        if self._perf.itl_ms(each, context_tokens) > target_ms:
            return pool.asked + 1
        after = _shared_out(each, pool.ready)
        limit = self._perf.max_kv_tokens
        fits = after * context_tokens < (math.inf if limit is None else limit)
        if (
            not fits
            or after >= self._perf.max_num_seqs
            or self._perf.itl_ms(after, context_tokens) >= target_ms * self._keys.dynamo_down_sensitivity
        ):
            return pool.asked
        return pool.asked - 1


def _shared_out(each: float, instances: int) -> float:
    """What each of the others holds once one of so many is gone; infinite where there is no other."""
    return each * instances / (instances - 1) if instances > 1 else math.inf
