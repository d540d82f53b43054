"""The kernel as a planner's twin of the engines: what a pool of some size would miss, found by running it.

One pool at a time is simulated, the other never in the way, on a Poisson stream of sampled requests. The
draws are the same for every size and rate (common random numbers), and a stream is stretched until its
tokens a second are what was asked for (a control variate): answers differ by what is asked and not by chance,
and equal questions have equal answers.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sagescale.planner.policy import needs_twin
from sagescale.sim.engine import Cluster, ServiceLoad, disaggregated
from sagescale.sim.world import build_world

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from sagescale.perf import ProfileModel
    from sagescale.planner import AutoscalerConfig
    from sagescale.planner.policy.twin import Lengths
    from sagescale.sim.config import SimulatorConfig
    from sagescale.sim.engine import World
    from sagescale.sim.state import T

_MOST_PREFILL, _MOST_DECODE = 16, 8
"""Pooling more instances than this changes little: larger pools are tried at this size, at the same rate an
instance."""

_FEWEST, _MOST = 1500, 6000
"""Requests measured."""

_LASTS_S = 60.0
"""How long the load lasts, as far as so many requests go; where a start takes longer, as long as that: no
order changes anything before."""

_COPING = 0.9
"""Before it, decode has the same load, or this share of what it gets through at most, if that is less: a pool
that is overloaded has been so for as long as the load lasts, not for ever."""

_SETTLED = 0.95
"""So much of the steady state is there when the load begins."""

_APART_S = 3600.0
"""Requests so far apart never share a batch or a step."""

_GOLDEN, _DRAWS = 0.5 * (5.0**0.5 - 1.0), 32
"""Multiples of the one lie evenly between 0 and 1; so many draws make a mean."""


def twin_for(config: AutoscalerConfig, perf: ProfileModel, simulator: SimulatorConfig) -> KernelTwin | None:
    """Return a twin where the configured policy tries sizes on one, else None."""
    if not needs_twin(config.policy):
        return None
    return engine_twin(config, perf, simulator)


def engine_twin(config: AutoscalerConfig, perf: ProfileModel, simulator: SimulatorConfig) -> KernelTwin:
    """Return engines to try sizes on, of the way of serving that is configured."""
    if config.serving == "aggregated":
        from sagescale.sim.twin_aggregated import AggregatedTwin

        return AggregatedTwin(perf, simulator, config)
    return KernelTwin(perf, simulator, config)


class Sample(NamedTuple):
    """A sample of lengths and what is known of it.

    Attributes:
        late_alone, slow_alone: bool[n]; the requests that no pool serves in time, prefill and decode.
        steps: as by ``_steps``.
        settling_steps: after so many, as many requests run as nearly always will.
        tried: shares missed, by what was tried, at which size, and at how many requests/s.
    """

    lengths: Lengths
    late_alone: NDArray[np.bool_]
    slow_alone: NDArray[np.bool_]
    steps: tuple[NDArray[np.int64], NDArray[np.float64]]
    settling_steps: int
    tried: dict[tuple[str, int, float], float]


class KernelTwin:
    """Tries pool sizes in the simulator's own kernel; implements ``EngineTwin``.

    Engines of either kind: those that step compute prompts in chunks and may pre-empt. The prefix cache is in
    the lengths: what is computed of a prompt.

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
        unlimited = None
        if world.stepping is not None:
            stepping = dataclasses.replace(world.stepping, prefix_cache=False)
            world = dataclasses.replace(world, stepping=stepping)
            unlimited = dataclasses.replace(stepping, blocks=None)
        # What fits no decode instance is missed there; prefill is tried with what reaches it.
        self._world = dataclasses.replace(world, max_kv_tokens=None, stepping=unlimited)
        nothing = np.zeros(2)
        self._decode_world = dataclasses.replace(
            world,
            prefill_s=nothing,
            prefill_slope_s=0.0,
            quadratic_s=0.0,
            prefill_floor_s=0.0,
            kv_blocks_prefill=False,
        )
        # Prefill in front of decode that is tried: without steps it takes no time.
        self._instant_world = dataclasses.replace(self._decode_world, stepping=None)
        self._lasts_s = max(_LASTS_S, self.startup_s)
        self._last: Sample | None = None
        self._unit_gaps = np.random.default_rng(0).exponential(1.0, 1 << 16)

    @property
    def balances_load(self) -> bool:
        """Whether requests are sent where there is least to do, and not in turns."""
        return self._world.routing_strategy != "round_robin"

    def prefill_misses(self, instances: int, requests_per_s: float, lengths: Lengths) -> float:
        """See :class:`~sagescale.planner.policy.twin.EngineTwin`."""
        return self._tried(self._try_prefill, instances, _MOST_PREFILL, requests_per_s, lengths)

    def _try_prefill(self, pool: int, rate: float, sample: Sample) -> float:
        count = self._count(rate)
        arrival_s = self._arrivals(count, rate, sample.lengths.computed)
        late = self._run_prefill(pool, arrival_s, sample.lengths) > 0.0
        return _share(sample.late_alone, late, count // 10)

    def _count(self, rate: float) -> int:
        """How many requests are tried."""
        return int(min(max(rate * self._lasts_s, _FEWEST), _MOST))

    def decode_misses(self, instances: int, requests_per_s: float, lengths: Lengths) -> float:
        """See :class:`~sagescale.planner.policy.twin.EngineTwin`."""
        return self._tried(self._try_decode, instances, _MOST_DECODE, requests_per_s, lengths)

    def _try_decode(self, pool: int, rate: float, sample: Sample) -> float:
        before, warm_up = self._before(pool, rate, sample)
        count = warm_up + self._count(rate)
        count = min(count, len(self._unit_gaps))
        warm_up = min(warm_up, count // 2)
        arrival_s = self._arrivals(count, rate, sample.lengths.osl)
        arrival_s -= arrival_s[warm_up]
        arrival_s[:warm_up] *= rate / before
        arrival_s -= arrival_s[0]
        missed = self._run_decode(pool, arrival_s, sample.lengths)
        return _share(sample.slow_alone, missed, warm_up)

    def _before(self, pool: int, rate: float, sample: Sample) -> tuple[float, int]:
        """Requests/s before the load begins, and how many of them until as many run as nearly always will."""
        before = min(rate, _COPING * pool * _limit_rps(sample))
        return before, int(_settling_s(before / pool, sample) * before)

    def prefill_misses_alone(self, lengths: Lengths) -> float:
        """See :class:`~sagescale.planner.policy.twin.EngineTwin`."""
        return float(self._about(lengths).late_alone.mean())

    def decode_misses_alone(self, lengths: Lengths) -> float:
        """See :class:`~sagescale.planner.policy.twin.EngineTwin`."""
        return float(self._about(lengths).slow_alone.mean())

    def prefill_limit_rps(self, lengths: Lengths) -> float:
        """See :class:`~sagescale.planner.policy.twin.EngineTwin`."""
        count = len(lengths.isl)
        late_s = self._run_prefill(1, np.zeros(count), lengths)
        return count / float(late_s.max() + self._world.target_ttft_s)

    def decode_limit_rps(self, lengths: Lengths) -> float:
        """See :class:`~sagescale.planner.policy.twin.EngineTwin`."""
        return _limit_rps(self._about(lengths))

    def _about(self, lengths: Lengths) -> Sample:
        """What is known of a sample of lengths; only of the last one asked about."""
        if self._last is None or self._last.lengths is not lengths:
            arrival_s = np.arange(len(lengths.isl), dtype=np.float64) * _APART_S
            self._last = Sample(
                lengths,
                self._run_prefill(1, arrival_s, lengths) > 0.0,
                self._run_decode(1, arrival_s, lengths),
                self._steps(lengths),
                _settling_steps(lengths),
                {},
            )
        return self._last

    def _tried(
        self,
        attempt: Callable[[int, float, Sample], float],
        instances: int,
        most: int,
        requests_per_s: float,
        lengths: Lengths,
    ) -> float:
        """Answer from what was tried with the same lengths, or try it."""
        sample = self._about(lengths)
        pool = min(instances, most)
        # Rounded, so that pools tried at the same size and rate an instance ask the same.
        rate = float(np.float32(requests_per_s / instances)) * pool
        key = attempt.__name__, pool, rate
        if key not in sample.tried:
            sample.tried[key] = attempt(pool, rate, sample)
        return sample.tried[key]

    def _arrivals(self, count: int, rate: float, tokens: NDArray[np.int32]) -> NDArray[np.float64]:
        """Return times in s of Poisson arrivals whose tokens a second are, over all of them, the rate's."""
        arrival_s = np.cumsum(self._unit_gaps[:count])
        arrival_s -= arrival_s[0]
        lasts_s = float(repeated(tokens, count).sum()) / (rate * float(tokens.mean()))
        arrival_s *= lasts_s / float(arrival_s[-1])
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

    def _run_decode(self, pool: int, arrival_s: NDArray[np.float64], lengths: Lengths) -> NDArray[np.bool_]:
        """Which requests miss a target where prefill takes no time."""
        world = self._decode_world
        cluster = self._run(world, arrival_s, lengths, None, 1, pool)
        missed = cluster.itl_misses()
        if world.first_token == "decode":
            missed |= cluster.requests["first_token_s"] - arrival_s > world.target_ttft_s
        return missed

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
        before, after = disaggregated(world)
        if osl is None:  # decode is tried
            before = dataclasses.replace(before, engine=self._instant_world)
        load = ServiceLoad(
            "service",
            (before, after),
            (prefill, decode),
            arrival_s,
            repeated(lengths.isl, count),
            repeated(lengths.computed, count),
            repeated(lengths.osl, count) if osl is None else np.full(count, osl, np.int32),
        )
        cluster = Cluster.alone(load)
        cluster.advance(np.inf)
        return cluster

    def _steps(self, lengths: Lengths) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Mean step times in s of 1, 2, ... running requests, as many as slots and KV memory hold.

        A step meets requests as often as they have tokens to make: means are weighted with OSL. Where engines
        step, what unequal contexts take is in it.
        """
        world = self._decode_world
        n = np.arange(1, world.max_num_seqs + 1)
        if world.max_kv_tokens is not None:
            share = lengths.osl / lengths.osl.sum()
            reserved = float(share @ (lengths.isl + lengths.osl))
            n = n[: max(1, int(world.max_kv_tokens / reserved))]
        held = n * lengths.context_tokens
        piece = (world.breaks[1 : len(n) + 1, 1:-1] <= held[:, None]).sum(axis=1)
        joins_s = world.join_s_per_token * float(lengths.isl.mean() / lengths.osl.mean())
        step_s: NDArray[np.float64] = world.base_s[n, piece] + world.slope_s[n, piece] * held + n * joins_s
        if world.stepping is not None and world.spread_s is not None:
            step_s += world.spread_s[n] * (_longest(lengths, n) - held / n)
        return n, step_s


def repeated(column: NDArray[T], count: int) -> NDArray[T]:
    """The column again and again, so many entries: ``np.resize``, which copies where a part is enough."""
    return column[:count] if count <= len(column) else np.resize(column, count)


def _limit_rps(sample: Sample) -> float:
    """Requests a second that a decode instance gets through when its slots are always full."""
    n, step_s = sample.steps
    return float((n / step_s).max() / sample.lengths.osl.mean())


def _longest(lengths: Lengths, n: NDArray[np.int64]) -> NDArray[np.float64]:
    """Tokens of the longest context of n running requests in the mean, float64[n].

    A request is met as often as it has tokens to make, anywhere in its answer. The largest of n draws is the
    quantile of one at a uniform draw's nth root.
    """
    anywhere = np.arange(len(lengths.osl)) * _GOLDEN % 1.0
    context = lengths.isl + anywhere * lengths.osl
    order = np.argsort(context)
    share = np.cumsum(lengths.osl[order], dtype=np.float64)
    drawn = ((np.arange(_DRAWS) + 0.5) / _DRAWS) ** (1.0 / n[:, None])
    at = np.minimum(np.searchsorted(share, drawn * share[-1]), len(order) - 1)
    longest: NDArray[np.float64] = context[order][at].mean(axis=1)
    return longest


def _settling_steps(lengths: Lengths) -> int:
    """After how many steps an empty instance has ``_SETTLED`` of the requests that run in the steady state.

    Those running at a time t after the first are, of all that will, as many as have no more than t to go
    in the steady state: the distribution of lengths in equilibrium. Where lengths vary much, that is
    many times a mean residence.
    """
    steps = np.sort(np.maximum(lengths.osl - 1, 0))
    done = np.cumsum(steps) + steps * np.arange(len(steps) - 1, -1, -1)
    return int(steps[np.searchsorted(done, _SETTLED * steps.sum())])


def _settling_s(rate_each: float, sample: Sample) -> float:
    """How long that takes, in the step time of the steady state of the means."""
    n, step_s = sample.steps
    enough = n / step_s >= rate_each * np.maximum(sample.lengths.osl - 1, 0).mean()
    at = int(enough.argmax()) if enough.any() else len(n) - 1
    return sample.settling_steps * float(step_s[at])


def _share(alone: NDArray[np.bool_], missed: NDArray[np.bool_], warm_up: int) -> float:
    """Share that misses: what does so alone, of the sample, and what does so in company, of those tried."""
    in_company = missed & ~repeated(alone, len(missed))
    return float(alone.mean() + in_company[warm_up:].mean())
