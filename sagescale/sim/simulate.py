"""A trace through the pools under the planner: the loop that joins the two.

The kernel runs from tick to tick; at a tick the planner sees the window just ended and its decision is
applied, last in that instant (DESIGN 5.7, 5.9).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sagescale.errors import InputError
from sagescale.perf import ProfileModel
from sagescale.planner import (
    LoadPredictors,
    Planner,
    initial_targets,
    make_load_predictors,
)
from sagescale.sim.engine import Cluster
from sagescale.sim.faults import Faults
from sagescale.sim.injector import Injector
from sagescale.sim.run import Run, Tick, Timing
from sagescale.sim.scrapes import Scrapes
from sagescale.sim.twin import twin_for
from sagescale.sim.world import build_world, computed_tokens

if TYPE_CHECKING:
    from collections.abc import Callable

    from sagescale.perf import PerfModel, Profile
    from sagescale.planner import AutoscalerConfig, Decision, LoadForecast
    from sagescale.planner.policy import Policy
    from sagescale.planner.window import Window
    from sagescale.sim.config import SimulatorConfig
    from sagescale.sim.engine import World
    from sagescale.sim.injector import FaultLog
    from sagescale.trace import Trace

__all__ = ["simulate"]

_STALLED_TICKS = 60
"""After this many ticks at which nothing can happen and nothing is launched, work can never proceed."""

_MOST_INSTANCES, _MOST_SLOTS = 1 << 20, 1 << 27
"""Of a pool, and of all decode instances together: some gigabytes."""

_HOPELESS_S = 86400.0
"""With faults: after this long without a completion, none is to be expected."""

_NO_FAULTS = Faults()


def simulate(
    trace: Trace,
    profile: Profile,
    config: AutoscalerConfig,
    simulator: SimulatorConfig,
    *,
    world: Profile | None = None,
    faults: Faults | None = None,
    progress: Callable[[float], None] | None = None,
    predictors: LoadPredictors | None = None,
    policy: Policy | None = None,
) -> Run:
    """Replay a trace through modelled pools under the planner.

    Args:
        trace: the requests.
        profile: the engines as the planner is told, limits and hand-off costs already overridden
            (``world.with_overrides``).
        config: the autoscaler's configuration; GPUs an instance agree with the profile.
        simulator: the modelled world's configuration.
        world: the engines as they really are, overridden alike; None is as the planner is told.
        faults: what goes wrong; None is nothing.
        progress: called now and then with the simulated time reached, in seconds.
        predictors: used in place of those the configuration names, e.g. to feed the true load.
        policy: used in place of the one the configuration names.

    Returns:
        The run; ``timing`` covers this whole call.

    Raises:
        InputError: the initial pools contradict the limits or the budget, or the configuration, the engines
            told of and the real ones differ in GPUs an instance.
    """
    began = time.perf_counter()
    model = ProfileModel(profile)
    truth = model if world is None else ProfileModel(world)
    _check_same_gpus(model, truth)
    _check_gpus(config, model)
    engines = build_world(truth, simulator, config)
    timed = _TimedPredictors.around(make_load_predictors(config) if predictors is None else predictors)
    planner = Planner(
        config,
        model,
        predictors=timed,
        policy=policy,
        twin=twin_for(config, model, simulator) if policy is None else None,
    )
    initial = _initial(trace, planner.learned or model, engines, config, simulator)
    rng = np.random.default_rng(simulator.simulation_seed)
    cluster = Cluster(
        engines,
        trace.arrival_s,
        trace.isl,
        computed_tokens(trace, simulator),
        trace.osl,
        prefill=initial[0],
        decode=initial[1],
        startup_s=lambda count: simulator.startup_delay_s.draw(rng, count),
        priority=trace.priority,
        watch_launches=faults is not None,
    )
    interval_s = float(config.adjustment_interval_sec)
    loop = _Loop(
        cluster,
        planner,
        Scrapes(cluster, interval_s, truth.max_kv_tokens, simulator, faults or _NO_FAULTS),
        None if faults is None else Injector(faults, cluster, simulator.simulation_seed),
        interval_s,
        max(trace.duration_s, simulator.until_s),
    )
    loop.run(progress)
    horizon_s = loop.horizon_s
    counters = cluster.counters()
    return Run(
        trace=trace,
        config=config,
        simulator=simulator,
        model=model,
        learned=planner.learned or model,
        truth=truth,
        world=engines,
        prompt=cluster.state.prompt,
        produced=cluster.state.produced,
        requests=cluster.state.requests,
        completed=cluster.state.completed[: counters.completed],
        lifetimes=cluster.lifetimes(horizon_s),
        initial=initial,
        ticks=tuple(loop.ticks),
        surges=tuple(loop.surges),
        horizon_s=horizon_s,
        max_gpus_used=cluster.max_gpus_used,
        rejected=counters.rejected,
        timed_out=counters.timed_out,
        faults=loop.fault_log(),
        timing=Timing(time.perf_counter() - began, loop.planner_s, timed.seconds),
    )


def _initial(
    trace: Trace, model: PerfModel, world: World, config: AutoscalerConfig, simulator: SimulatorConfig
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


def _check_same_gpus(told: ProfileModel, truth: ProfileModel) -> None:
    asked, real = ((one.prefill_gpus, one.decode_gpus) for one in (told, truth))
    if asked != real:
        raise InputError(
            f"world {truth.profile.name}: {real[0]} GPUs a prefill and {real[1]} a decode instance; expected "
            f"{asked[0]} and {asked[1]}, as profile {told.profile.name} says"
        )


def _check_gpus(config: AutoscalerConfig, model: ProfileModel) -> None:
    """An instance is one engine of the profile here: other GPUs an instance would be sized for, not run."""
    for pool, gpus in (("prefill", model.prefill_gpus), ("decode", model.decode_gpus)):
        key, profile = f"{pool}_gpus_per_instance", model.profile.name
        if (given := getattr(config, key)) != gpus:
            raise InputError(
                f"{key} is {given} but the instances of profile {profile} have {gpus} GPUs; expected {gpus}: "
                "a simulated instance is one engine of the profile"
            )


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
        scrapes: Scrapes,
        injector: Injector | None,
        interval_s: float,
        end_s: float,
    ) -> None:
        self.cluster = cluster
        self.planner = planner
        self.scrapes = scrapes
        self.injector = injector
        self.interval_s = interval_s
        self.end_s = end_s
        self.ticks: list[Tick] = []
        self.surges: list[Decision] = []
        self.planner_s = 0.0

    @property
    def horizon_s(self) -> float:
        """DESIGN 5.10: the last completion, the end of the trace or ``until_s``, whichever is latest."""
        return max(self.cluster.last_completion_s, self.end_s)

    def run(self, progress: Callable[[float], None] | None) -> None:
        cluster = self.cluster
        stalled = 0
        number = 0
        while True:
            number += 1
            tick_s = number * self.interval_s
            self._until(number)
            if tick_s > self.horizon_s:
                if cluster.settled or stalled >= _STALLED_TICKS or self._hopeless(tick_s):
                    return
                stalled = stalled + 1 if self._nothing_due() else 0
            self._tick(number)
            if progress is not None:
                progress(tick_s)

    def _until(self, number: int) -> None:
        """Go on to a tick, scraping and looking between ticks where that is due."""
        start_s, tick_s = (number - 1) * self.interval_s, number * self.interval_s
        scraped = set(self.scrapes.due(number))
        # Before the first tick nothing can be decided: one look right before it, where the next begins.
        looks = {start_s + look_s for look_s in self.planner.looks_s[-1 if number == 1 else 0 :]}
        for time_s in sorted(scraped | looks):
            self._advance(time_s)
            if time_s in scraped:
                self.scrapes.take()
            if time_s in looks:
                self._look(tick_s)
        self._advance(tick_s)

    def _look(self, tick_s: float) -> None:
        prefill, decode = self.cluster.pools()
        seen = self.scrapes.look(prefill, decode)
        if seen is None or seen.time_s > self.end_s:
            return
        began = time.perf_counter()
        decision = self.planner.check(seen)
        self.planner_s += time.perf_counter() - began
        if decision is not None and seen.time_s < tick_s:
            self.surges.append(decision)
            self._act(decision)

    def _act(self, decision: Decision) -> None:
        if not decision.no_operation:
            _check_size(self.cluster.world, *decision.targets)
            target = self.cluster if self.injector is None else self.injector
            target.scale(decision.targets.prefill, decision.targets.decode)

    def fault_log(self) -> FaultLog | None:
        """What went wrong by the horizon; None where nothing was to."""
        if self.injector is None:
            return None
        return self.injector.log(self.horizon_s, self.scrapes.events(self.horizon_s))

    def _advance(self, until_s: float) -> None:
        if self.injector is None:
            self.cluster.advance(until_s)
        else:
            self.injector.advance(until_s)

    def _nothing_due(self) -> bool:
        relief_s = np.inf if self.injector is None else self.injector.next_relief_s
        return min(self.cluster.next_event_s, relief_s) == np.inf

    def _hopeless(self, tick_s: float) -> bool:
        """Starts that fail for ever, or crashes that come before anything is done, must come to an end."""
        return self.injector is not None and tick_s > self.horizon_s + _HOPELESS_S

    def _tick(self, number: int) -> None:
        prefill, decode = self.cluster.pools()
        observation = self.scrapes.observation(number, prefill, decode)
        began = time.perf_counter()
        decision = self.planner.step(observation)
        self.planner_s += time.perf_counter() - began
        self.ticks.append(Tick(observation, decision, prefill, decode))
        self._act(decision)
