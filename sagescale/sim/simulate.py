"""A trace through the pools under the planner: the loop that joins the two.

The kernel runs from tick to tick; at a tick the planner sees the window just ended and its decision is
applied, last in that instant (DESIGN 5.7, 5.9).
"""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sagescale.errors import InputError
from sagescale.perf import ProfileModel
from sagescale.planner import (
    LoadPredictors,
    Observation,
    Planner,
    PoolCounts,
    initial_targets,
    make_load_predictors,
)
from sagescale.sim.engine import Cluster
from sagescale.sim.run import Run, Tick, Timing
from sagescale.sim.world import build_world, computed_tokens

if TYPE_CHECKING:
    from collections.abc import Callable

    from sagescale.perf import Profile
    from sagescale.planner import AutoscalerConfig, LoadForecast, Sizes
    from sagescale.planner.policy import Policy
    from sagescale.planner.window import Window
    from sagescale.sim.config import SimulatorConfig
    from sagescale.sim.engine import Counters, PoolView, World
    from sagescale.trace import Trace

__all__ = ["simulate"]

_STALLED_TICKS = 60
"""After this many ticks at which nothing can happen and nothing is launched, work can never proceed."""

_MOST_INSTANCES, _MOST_SLOTS = 1 << 20, 1 << 27
"""Of a pool, and of all decode instances together: some gigabytes."""


def simulate(
    trace: Trace,
    profile: Profile,
    config: AutoscalerConfig,
    simulator: SimulatorConfig,
    *,
    progress: Callable[[float], None] | None = None,
    predictors: LoadPredictors | None = None,
    policy: Policy | None = None,
) -> Run:
    """Replay a trace through modelled pools under the planner.

    Args:
        trace: the requests.
        profile: the engines, limits and hand-off costs already overridden (``world.with_overrides``).
        config: the autoscaler's configuration; GPUs an instance agree with the profile.
        simulator: the modelled world's configuration.
        progress: called now and then with the simulated time reached, in seconds.
        predictors: used in place of those the configuration names, e.g. to feed the true load.
        policy: used in place of the one the configuration names.

    Returns:
        The run; ``timing`` covers this whole call.

    Raises:
        InputError: the initial pools contradict the limits or the budget.
    """
    began = time.perf_counter()
    model = ProfileModel(profile)
    world = build_world(model, simulator, config.max_gpu_budget)
    initial = _initial(trace, model, world, config, simulator)
    rng = np.random.default_rng(simulator.simulation_seed)
    cluster = Cluster(
        world,
        trace.arrival_s,
        trace.isl,
        computed_tokens(trace, simulator),
        trace.osl,
        prefill=initial[0],
        decode=initial[1],
        startup_s=lambda count: simulator.startup_delay_s.draw(rng, count),
    )
    timed = _TimedPredictors.around(make_load_predictors(config) if predictors is None else predictors)
    planner = Planner(config, model, predictors=timed, policy=policy)
    loop = _Loop(cluster, planner, simulator, model.max_kv_tokens, float(config.adjustment_interval_sec))
    loop.run(trace.duration_s, progress)
    horizon_s = loop.horizon_s(trace.duration_s)
    counters = cluster.counters()
    return Run(
        trace=trace,
        config=config,
        simulator=simulator,
        model=model,
        world=world,
        prompt=cluster.state.prompt,
        requests=cluster.state.requests,
        completed=cluster.state.completed[: counters.completed],
        lifetimes=cluster.lifetimes(horizon_s),
        initial=initial,
        ticks=tuple(loop.ticks),
        horizon_s=horizon_s,
        max_gpus_used=cluster.max_gpus_used,
        rejected=counters.rejected,
        timed_out=counters.timed_out,
        timing=Timing(time.perf_counter() - began, loop.planner_s, timed.seconds),
    )


def _initial(
    trace: Trace, model: ProfileModel, world: World, config: AutoscalerConfig, simulator: SimulatorConfig
) -> tuple[int, int]:
    """DESIGN 5.8: as given, else sized for the first window's true load."""
    first = trace.arrival_s <= config.adjustment_interval_sec
    sized = initial_targets(
        config, model, float(first.sum()), float(trace.isl[first].mean()), float(trace.osl[first].mean())
    )
    sizes = []
    for pool, given, computed in (
        ("prefill", simulator.initial_prefill, sized.prefill),
        ("decode", simulator.initial_decode, sized.decode),
    ):
        low, high = (getattr(config, f"{end}_{pool}_instances") for end in ("min", "max"))
        if given is not None and not low <= given <= high:
            raise InputError(
                f"initial_{pool} is {given}; expected min_{pool}_instances {low} to "
                f"max_{pool}_instances {high}"
            )
        sizes.append(computed if given is None else given)
    _check_size(world, *sizes)
    gpus = sizes[0] * model.prefill_gpus + sizes[1] * model.decode_gpus
    if gpus > config.max_gpu_budget:
        raise InputError(
            f"initial_prefill {sizes[0]} and initial_decode {sizes[1]} need {gpus} GPUs; expected at most "
            f"max_gpu_budget {config.max_gpu_budget}"
        )
    return sizes[0], sizes[1]


def _check_size(world: World, prefill: int, decode: int) -> None:
    """Refuse pools that would not fit this machine's memory, rather than run into it."""
    for pool, instances, most in (
        ("prefill", prefill, _MOST_INSTANCES),
        ("decode", decode, min(_MOST_INSTANCES, _MOST_SLOTS // world.max_num_seqs)),
    ):
        if instances > most:
            raise InputError(
                f"max_{pool}_instances and max_gpu_budget allow the {instances} {pool} instances now asked "
                f"for; the simulator holds at most {most}: lower one of them"
            )


@dataclass(slots=True)
class _TimedPredictors(LoadPredictors):
    """Load predictors that add up the wall time they take."""

    seconds: float = 0.0

    @classmethod
    def around(cls, plain: LoadPredictors) -> _TimedPredictors:
        return cls(plain.requests, plain.isl, plain.osl)

    def observe(self, window: Window) -> None:
        began = time.perf_counter()
        LoadPredictors.observe(self, window)
        self.seconds += time.perf_counter() - began

    def forecast(self, horizon: int = 1) -> LoadForecast:
        began = time.perf_counter()
        load = LoadPredictors.forecast(self, horizon)
        self.seconds += time.perf_counter() - began
        return load


class _Loop:
    """Ticks until the trace is over and served."""

    def __init__(
        self,
        cluster: Cluster,
        planner: Planner,
        simulator: SimulatorConfig,
        max_kv_tokens: int | None,
        interval_s: float,
    ) -> None:
        self.cluster = cluster
        self.planner = planner
        self.simulator = simulator
        self.max_kv_tokens = max_kv_tokens
        self.interval_s = interval_s
        self.ticks: list[Tick] = []
        self.planner_s = 0.0
        # What the ticks to come will see. Before 0 there was nothing to scrape.
        self._scrapes: deque[_Scrape] = deque()
        self._first_seeing = max(1, math.ceil(simulator.scrape_delay_s / interval_s))
        self._before = cluster.counters()

    def horizon_s(self, trace_end_s: float) -> float:
        """DESIGN 5.10: the last completion, the end of the trace or ``until_s``, whichever is latest."""
        return max(self.cluster.last_completion_s, trace_end_s, self.simulator.until_s)

    def run(self, trace_end_s: float, progress: Callable[[float], None] | None) -> None:
        cluster = self.cluster
        stalled = 0
        number = 0
        while True:
            number += 1
            tick_s = number * self.interval_s
            self._scrape_until(tick_s, number)
            cluster.advance(tick_s)
            seen = self._scrapes.popleft() if number >= self._first_seeing else None
            if tick_s > self.horizon_s(trace_end_s):
                if cluster.settled or stalled >= _STALLED_TICKS:
                    return
                stalled = stalled + 1 if cluster.next_event_s == np.inf else 0
            self._tick(tick_s, seen)
            if progress is not None:
                progress(tick_s)

    def _scrape_until(self, tick_s: float, number: int) -> None:
        """Advance to each scrape at or before this tick: ``scrape_delay_s`` before the tick that sees it."""
        while True:
            seeing = max(self._first_seeing, number) + len(self._scrapes)
            scrape_s = seeing * self.interval_s - self.simulator.scrape_delay_s
            if scrape_s > tick_s:
                return
            self.cluster.advance(scrape_s)
            self._scrapes.append(_Scrape.of(self.cluster, self.max_kv_tokens))

    def _tick(self, tick_s: float, seen: _Scrape | None) -> None:
        prefill, decode = self.cluster.pools()
        observation = self._observe(tick_s, seen, (_counts(prefill), _counts(decode)))
        began = time.perf_counter()
        decision = self.planner.step(observation)
        self.planner_s += time.perf_counter() - began
        self.ticks.append(Tick(observation, decision, prefill, decode))
        if not decision.no_operation:
            self._apply(decision.targets)

    def _apply(self, targets: Sizes) -> None:
        _check_size(self.cluster.world, *targets)
        self.cluster.scale(targets.prefill, targets.decode)

    def _observe(
        self, tick_s: float, seen: _Scrape | None, counts: tuple[PoolCounts, PoolCounts]
    ) -> Observation:
        """The window up to the scrape; the instance counts are the actuator's and current.

        A ratio over nothing is unknown, not zero.
        """
        if seen is None:
            return Observation(tick_s, self.interval_s, *counts)
        before, now = self._before, seen.counters
        self._before = now
        if tick_s in self.simulator.metric_outage_s:
            return Observation(tick_s, self.interval_s, *counts)
        requests = now.arrived - before.arrived
        completed = now.completed - before.completed
        isl_sum = now.isl_sum - before.isl_sum
        return Observation(
            tick_s,
            self.interval_s,
            *counts,
            requests=float(requests),
            completed=float(completed),
            isl_mean=_ratio(isl_sum, requests),
            osl_mean=_ratio(now.osl_sum - before.osl_sum, completed),
            ttft_ms_mean=_ratio(
                (now.ttft_sum_s - before.ttft_sum_s) * 1000.0, now.first_tokens - before.first_tokens
            ),
            itl_ms_mean=_ratio((now.itl_sum_s - before.itl_sum_s) * 1000.0, now.itl_count - before.itl_count),
            duration_s_mean=_ratio(now.duration_sum_s - before.duration_sum_s, completed),
            queued_prefill=float(seen.queued[0]),
            queued_decode=float(seen.queued[1]),
            running_prefill=float(seen.running[0]),
            running_decode=float(seen.running[1]),
            kv_usage=seen.kv_usage,
            prefix_hit_rate=_ratio(now.cached_sum - before.cached_sum, isl_sum),
        )


@dataclass(frozen=True, slots=True)
class _Scrape:
    """The metrics at one instant: counters since 0, and gauges, prefill before decode."""

    counters: Counters
    queued: tuple[int, int]
    running: tuple[int, int]
    kv_usage: float | None

    @classmethod
    def of(cls, cluster: Cluster, max_kv_tokens: int | None) -> _Scrape:
        decode = cluster.pools()[1]
        memory = 0 if max_kv_tokens is None else max_kv_tokens * (decode.ready + decode.draining)
        return cls(
            cluster.counters(),
            cluster.queued(),
            cluster.running(),
            cluster.kv_tokens() / memory if memory else None,
        )


def _counts(pool: PoolView) -> PoolCounts:
    return PoolCounts(ready=pool.ready, starting=pool.starting, draining=pool.draining, waiting=pool.waiting)


def _ratio(total: float, count: float) -> float | None:
    return total / count if count > 0 else None
