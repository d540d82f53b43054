"""The kernel as a planner's twin of the engines: what a pool of some size would miss, found by running it.

One pool at a time is simulated, the other never in the way, on a Poisson stream of sampled requests. The
draws are the same for every size and rate (common random numbers), so that answers differ by what is asked
and not by luck, and equal questions have equal answers.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from sagescale.planner.policy import needs_twin
from sagescale.sim.engine import Cluster
from sagescale.sim.world import build_world

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sagescale.perf import ProfileModel
    from sagescale.planner import AutoscalerConfig
    from sagescale.planner.policy.slo import Lengths
    from sagescale.sim.config import SimulatorConfig
    from sagescale.sim.engine import World

__all__ = ["KernelTwin", "twin_for"]

_MOST_PREFILL, _MOST_DECODE = 16, 8
"""Pooling more instances than this changes little: larger pools are tried at this size, at the same rate an
instance."""

_FEWEST, _MOST = 1500, 6000
"""Requests measured."""

_LASTS_S = 60.0
_SETTLED = 2.5
"""Decode is measured after so many mean residence times."""


def twin_for(config: AutoscalerConfig, perf: ProfileModel, simulator: SimulatorConfig) -> KernelTwin | None:
    """Return a twin where the configured policy tries sizes on one, else None."""
    return KernelTwin(perf, simulator, config) if needs_twin(config.policy) else None


class KernelTwin:
    """Tries pool sizes in the simulator's own kernel; implements ``EngineTwin``.

    Args:
        perf: the engines.
        simulator: what else is said of the cluster: batches, hand-offs, startup time.
        config: the targets.
    """

    def __init__(self, perf: ProfileModel, simulator: SimulatorConfig, config: AutoscalerConfig) -> None:
        self.perf = perf
        self.startup_s = simulator.startup_delay_s.typical_s
        world = build_world(perf, simulator, config)
        world = dataclasses.replace(world, max_gpus=1 << 40, request_timeout_s=None, scheduling_policy="fifo")
        # What fits no decode instance is missed there; prefill is tried with what reaches it.
        self._world = dataclasses.replace(world, max_kv_tokens=None)
        nothing = np.zeros(2)
        self._decode_world = dataclasses.replace(
            world,
            prefill_s=nothing,
            prefill_slope_s=0.0,
            quadratic_s=0.0,
            prefill_floor_s=0.0,
            kv_blocks_prefill=False,
        )
        self._unit_gaps = np.random.default_rng(0).exponential(1.0, 1 << 16)

    def prefill_misses(self, instances: int, requests_per_s: float, lengths: Lengths) -> float:
        """See :class:`~sagescale.planner.policy.slo.EngineTwin`."""
        pool = min(instances, _MOST_PREFILL)
        rate = requests_per_s * pool / instances
        count = int(min(max(rate * _LASTS_S, _FEWEST), _MOST))
        late_s = self._run_prefill(pool, self._arrivals(count, rate), lengths)
        return float((late_s[count // 10 :] > 0.0).mean())

    def decode_misses(self, instances: int, requests_per_s: float, lengths: Lengths) -> float:
        """See :class:`~sagescale.planner.policy.slo.EngineTwin`."""
        world = self._decode_world
        pool = min(instances, _MOST_DECODE)
        rate = requests_per_s * pool / instances
        running, residence_s = self._settled(rate / pool, lengths)
        warm_up = int(_SETTLED * residence_s * rate)
        count = warm_up + int(min(max(rate * _LASTS_S, _FEWEST), max(_FEWEST, pool * running)))
        count = min(count, len(self._unit_gaps))
        arrival_s = self._arrivals(count, rate)
        cluster = self._run(world, arrival_s, lengths, None, 1, pool)
        measured = slice(min(warm_up, count // 2), None)
        requests = cluster.state.requests[measured]
        steps = cluster.state.osl[measured] - 1
        with np.errstate(invalid="ignore", divide="ignore"):
            itl_s = (requests["done_s"] - requests["first_token_s"]) / steps
        missed = (steps > 0) & ~(itl_s <= world.target_itl_s)
        if world.first_token == "decode":
            missed |= requests["first_token_s"] - arrival_s[measured] > world.target_ttft_s
        return float(missed.mean())

    def prefill_limit_rps(self, lengths: Lengths) -> float:
        """See :class:`~sagescale.planner.policy.slo.EngineTwin`."""
        count = len(lengths.isl)
        late_s = self._run_prefill(1, np.zeros(count), lengths)
        return count / float(late_s.max() + self._world.target_ttft_s)

    def decode_limit_rps(self, lengths: Lengths) -> float:
        """See :class:`~sagescale.planner.policy.slo.EngineTwin`."""
        n, step_s = self._steps(lengths)
        return float((n / step_s).max() / lengths.osl.mean())

    def _arrivals(self, count: int, rate: float) -> NDArray[np.float64]:
        arrival_s = np.cumsum(self._unit_gaps[:count])
        arrival_s -= arrival_s[0]
        arrival_s /= rate
        return arrival_s

    def _run_prefill(
        self, pool: int, arrival_s: NDArray[np.float64], lengths: Lengths
    ) -> NDArray[np.float64]:
        """First tokens after their target, s, where requests end with them."""
        world = self._world
        osl = 2 if world.kv_blocks_prefill else 1
        cluster = self._run(world, arrival_s, lengths, osl, pool, 4 * pool)
        late_s: NDArray[np.float64] = (
            cluster.state.requests["first_token_s"] - arrival_s - world.target_ttft_s
        )
        return late_s

    def _run(
        self,
        world: World,
        arrival_s: NDArray[np.float64],
        lengths: Lengths,
        osl: int | None,
        prefill: int,
        decode: int,
    ) -> Cluster:
        count = len(arrival_s)
        cluster = Cluster(
            world,
            arrival_s,
            np.resize(lengths.isl, count),
            np.resize(lengths.computed, count),
            np.resize(lengths.osl, count) if osl is None else np.full(count, osl, np.int32),
            prefill=prefill,
            decode=decode,
            startup_s=np.zeros,
        )
        cluster.advance(np.inf)
        return cluster

    def _settled(self, rate_each: float, lengths: Lengths) -> tuple[float, float]:
        """Requests running on an instance and their mean residence in s, in the steady state of the means."""
        steps = float(np.maximum(lengths.osl - 1, 1).mean())
        n, step_s = self._steps(lengths)
        enough = n / step_s >= rate_each * steps
        at = int(enough.argmax()) if enough.any() else len(n) - 1
        return float(n[at]), steps * float(step_s[at])

    def _steps(self, lengths: Lengths) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Mean step times in s of 1, 2, ... running requests, as many as slots and KV memory hold.

        A step meets requests as often as they have tokens to make: means are weighted with OSL.
        """
        world = self._decode_world
        share = lengths.osl / lengths.osl.sum()
        n = np.arange(1, world.max_num_seqs + 1)
        if world.max_kv_tokens is not None:
            reserved = float(share @ (lengths.isl + lengths.osl))
            n = n[: max(1, int(world.max_kv_tokens / reserved))]
        held = n * float(share @ (lengths.isl + lengths.osl / 2.0))
        piece = (world.breaks[1 : len(n) + 1, 1:-1] <= held[:, None]).sum(axis=1)
        joins_s = world.join_s_per_token * float(lengths.isl.mean() / lengths.osl.mean())
        step_s: NDArray[np.float64] = world.base_s[n, piece] + world.slope_s[n, piece] * held + n * joins_s
        return n, step_s
