"""The units of work of an experiment: plain data, equal tasks are one, and any process can do them."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from sagescale.experiment.forecasts import (
    ForecastMemo,
    ForecastResult,
    ForecastTask,
    PredictorSpec,
    make_forecasts,
    memo_predictors,
)
from sagescale.experiment.searches import (
    HOLDS_S,
    Answer,
    Schedule,
    StaticSizes,
    cheapest_schedule,
    cheapest_sizes,
    peak_sizes,
    schedule_sizes,
)
from sagescale.experiment.workload import true_load, true_predictors
from sagescale.fleet import Sizes, fit, within_limits
from sagescale.perf import ProfileModel
from sagescale.planner import make_policy
from sagescale.planner.policy import PoolSize, QuickPolicy, Sizing
from sagescale.sim.initial import given_sizes, starting_with
from sagescale.sim.measures import Score, score
from sagescale.sim.part import Part, PartResult, lower_bound_of_part, measure_part
from sagescale.sim.result import run_document
from sagescale.sim.simulate import simulate
from sagescale.sim.startup import StartupDelay
from sagescale.sim.turns import as_recorded
from sagescale.sim.twin import twin_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from sagescale.document import RunDocument
    from sagescale.experiment.workload import Workload
    from sagescale.planner import AutoscalerConfig, LoadPredictors, Observation
    from sagescale.planner.policy import Policy, Situation
    from sagescale.sim.config import SimulatorConfig
    from sagescale.sim.faults import Faults
    from sagescale.sim.run import Run
    from sagescale.trace import Trace


@dataclass(frozen=True, slots=True)
class RunTask:
    """One simulation.

    Attributes:
        load: what the planner's predictors are: those the configuration names, or the true load.
        one_more: one instance more in each pool than the policy asks for.
        schedule: the policy is this schedule, made with the future known.
        document: measure everything, not only the score.
        faults: what goes wrong; a replicate draws its own of what is drawn.
    """

    config: AutoscalerConfig
    simulator: SimulatorConfig
    replicate: int = 0
    load: Literal["named", "true"] = "named"
    one_more: bool = False
    schedule: Schedule | None = None
    document: bool = False
    faults: Faults | None = None

    @property
    def spec(self) -> PredictorSpec:
        """The predictors the configuration names.

        Forecasts are remembered as far ahead as a policy may look: until capacity asked for now is ready
        and has served an interval.
        """
        ready_s = self.simulator.startup_delay_s.parameters[-1]
        return PredictorSpec.of(self.config, 1 + math.ceil(ready_s / self.config.adjustment_interval_sec))


@dataclass(frozen=True, slots=True)
class Outcome:
    """A run's score, and its document where one was asked for."""

    score: Score
    document: RunDocument | None


@dataclass(frozen=True, slots=True)
class PartTask:
    """One simulation, judged on a part of it."""

    run: RunTask
    part: Part


@dataclass(frozen=True, slots=True)
class PartOutcome:
    """The measures of the part, the most GPUs of the whole run at any instant, and wall time by the run.

    ``simulate_s`` and ``planner_s`` are as in ``sim.run.Timing``; equal tasks differ in nothing else.
    """

    result: PartResult
    max_gpus: int
    simulate_s: float = dataclasses.field(compare=False)
    planner_s: float = dataclasses.field(compare=False)


@dataclass(frozen=True, slots=True)
class PartBoundTask:
    """The GPU-hours that the requests of a part need at least, those that the run completes."""

    run: RunTask
    part: Part


@dataclass(frozen=True, slots=True)
class SearchTask:
    """Find what reaches an attainment at the least cost, on a part of the run or, if None, on all of it."""

    config: AutoscalerConfig
    simulator: SimulatorConfig
    attainment: float
    part: Part | None = None
    replicate: int = 0
    faults: Faults | None = None


class StaticSearchTask(SearchTask):
    """Find the cheapest fixed pair."""

    __slots__ = ()


class ClairvoyantTask(SearchTask):
    """Find a cheap schedule, the future known."""

    __slots__ = ()


Task = ForecastTask | RunTask | PartTask | PartBoundTask | StaticSearchTask | ClairvoyantTask
Result = ForecastResult | Outcome | PartOutcome | float | StaticSizes | Schedule | None


def perform(workload: Workload, task: Task, memos: Iterable[ForecastMemo] = ()) -> Result:
    """Do one task; the answer, timings aside, depends on the arguments alone.

    Forecasts given only save time.
    """
    if isinstance(task, ForecastTask):
        return make_forecasts(workload, task)
    if isinstance(task, SearchTask):
        return _search(workload, task)
    if isinstance(task, RunTask):
        run = simulate_task(workload, task, memos)
        document = run_document(run, "") if task.document else None
        return Outcome(score(run), document)
    run = simulate_task(workload, task.run, memos)
    if isinstance(task, PartBoundTask):
        return lower_bound_of_part(run, task.part)
    return PartOutcome(
        measure_part(run, task.part), run.max_gpus_used, run.timing.simulate_s, run.timing.planner_s
    )


def memos_for(task: Task, memos: Mapping[ForecastTask, ForecastMemo]) -> list[ForecastMemo]:
    """Forecasts that a run by its own predictor can look up; nothing else needs any."""
    run = task.run if isinstance(task, PartTask) else task
    if not isinstance(run, RunTask) or run.load != "named":
        return []
    spec = run.spec
    return [memo for known, memo in memos.items() if known.spec == spec and known.replicate == run.replicate]


def _search(workload: Workload, task: SearchTask) -> StaticSizes | Schedule | None:
    if isinstance(task, StaticSearchTask):
        return _cheapest_sizes(workload, task)
    return _cheapest_schedule(workload, task)


def _answer(workload: Workload, task: SearchTask, run: RunTask) -> Answer:
    """Simulate what a search tries, on its replicate and under its faults; judged on its part."""
    made = simulate_task(workload, dataclasses.replace(run, replicate=task.replicate, faults=task.faults))
    found = score(made) if task.part is None else measure_part(made, task.part)
    return Answer(found.attainment, found.gpu_hours)


def _cheapest_sizes(workload: Workload, task: SearchTask) -> StaticSizes:
    def of_sizes(sizes: Sizes) -> float:
        config, simulator = fixed_sizes(task.config, task.simulator, sizes)
        # Simulated without a budget: the search itself stops at the budget.
        config = dataclasses.replace(config, max_gpu_budget=max(config.gpus_of(sizes), config.max_gpu_budget))
        return _answer(workload, task, RunTask(config, simulator)).attainment

    return cheapest_sizes(task.config, of_sizes, task.attainment)


def _cheapest_schedule(workload: Workload, task: SearchTask) -> Schedule | None:
    """Search schedules; where following demand at once is not the cheapest way, held and fixed ones, too.

    That is where instances have something to lose (prefix caches), and where what comes depends on how the
    last was served (turns that wait).
    """
    trace = foreseen(workload, task.config, task.simulator, task.replicate)
    model = ProfileModel(workload.modelled(task.config, task.simulator))
    known: dict[tuple[Sizes, ...], Answer] = {}

    def answer(schedule: Schedule) -> Answer:
        # Sizes are whole: many headrooms make the same schedule.
        sizes = tuple(schedule_sizes(trace, model, task.config, task.simulator, schedule))
        if sizes not in known:
            run = RunTask(task.config, task.simulator, load="true", schedule=schedule)
            known[sizes] = _answer(workload, task, run)
        return known[sizes]

    caches = task.simulator.prefix_cache and trace.prefixes is not None
    waiting = workload.trace(task.replicate).turns is not None and not task.simulator.open_loop
    pools = len(task.config.pools)
    if not (caches or waiting):
        return cheapest_schedule(answer, pools, task.attainment)
    fixed = _cheapest_sizes(workload, task).sizes
    return cheapest_schedule(answer, pools, task.attainment, holds_s=HOLDS_S, fixed=fixed)


def fixed_sizes(
    config: AutoscalerConfig, simulator: SimulatorConfig, sizes: Sizes
) -> tuple[AutoscalerConfig, SimulatorConfig]:
    """Both configurations for fixed sizes that are there from the start."""
    keys = config.by_key("static", sizes)
    fixed = dataclasses.replace(config, policy="static", **keys)  # type: ignore[arg-type]  # keys of sizes alone
    return fixed, starting_with(config, simulator, sizes)


_own = ForecastMemo()
"""Forecasts made in this process: runs that follow one another share them."""


def simulate_task(workload: Workload, task: RunTask, memos: Iterable[ForecastMemo] = ()) -> Run:
    """Do the simulation of a task, for whoever measures it in another way."""
    trace = workload.trace(task.replicate)
    profile = workload.modelled(task.config, task.simulator)
    config, simulator = task.config, task.simulator
    policy: Policy | None = None
    if task.schedule is not None:
        future = foreseen(workload, config, simulator, task.replicate)
        sizes = schedule_sizes(future, ProfileModel(profile), config, simulator, task.schedule)
        policy = SchedulePolicy(sizes, float(config.adjustment_interval_sec))
        simulator = starting_with(config, simulator, sizes[0])
    elif task.one_more:
        model = ProfileModel(profile)
        policy = make_policy(config, model, twin=twin_for(config, model, simulator))
    if task.one_more and policy is not None:
        policy = OneMorePolicy(policy)
        simulator = _one_more_at_start(config, simulator)
    return simulate(
        trace,
        profile,
        config,
        simulator,
        faults=None if task.faults is None else task.faults.of_replicate(task.replicate),
        predictors=_predictors(workload, task, memos),
        policy=policy,
    )


def _one_more_at_start(config: AutoscalerConfig, simulator: SimulatorConfig) -> SimulatorConfig:
    """Where the initial size is given, one more of each pool, within limits and budget."""
    found = given_sizes(config, simulator)
    if found is None:
        return simulator
    more = fit(within_limits(found.map(lambda size: size + 1), config.fleet), config.fleet)
    return starting_with(config, simulator, more)


_AMPLE = 2
"""Times what the peak of the trace's own arrivals needs: requests wait for next to nothing."""

_FORESEEN: dict[tuple[object, ...], Trace] = {}
_MOST_FORESEEN = 4


def foreseen(
    workload: Workload, config: AutoscalerConfig, simulator: SimulatorConfig, replicate: int = 0
) -> Trace:
    """Return the arrivals that those know who know the future.

    Those of the trace, where they do not depend on the system. Where turns wait for answers, those of a run
    with ample capacity: fixed pools of twice what the peak of the trace's own arrivals needs, without budget
    or timeouts. The last few are kept.
    """
    trace = workload.trace(replicate)
    if trace.turns is None or simulator.open_loop:
        return trace
    profile = workload.modelled(config, simulator)
    config = dataclasses.replace(config, load_headroom=1.0)
    load = true_load(as_recorded(trace, simulator.concurrent_sessions), float(config.adjustment_interval_sec))
    peak = peak_sizes(load, config, ProfileModel(profile))
    least = Sizes.of({pool.name: max(1, pool.least) for pool in config.pools})
    ample = peak.map(lambda size, floor: max(floor, _AMPLE * size), least)
    fixed, simulator = _without_limits(config, simulator, ample)
    # Of a static policy's configuration nothing else matters.
    targets = (config.target_ttft_ms, config.target_itl_ms)
    engines = workload.engines(config).name
    key = (workload.key, trace.transforms, engines, config.serving, tuple(ample), targets, simulator)
    if key not in _FORESEEN:
        while len(_FORESEEN) >= _MOST_FORESEEN:
            del _FORESEEN[next(iter(_FORESEEN))]
        _FORESEEN[key] = simulate(trace, profile, fixed, simulator).trace
    return _FORESEEN[key]


def _without_limits(
    config: AutoscalerConfig, simulator: SimulatorConfig, sizes: Sizes
) -> tuple[AutoscalerConfig, SimulatorConfig]:
    """Both configurations for fixed sizes, whatever limits and budget say; nobody gives up or starts."""
    keys = config.by_key("most", map(max, sizes, (pool.most for pool in config.pools)))
    gpus = max(config.gpus_of(sizes), config.max_gpu_budget)
    wide = dataclasses.replace(config, max_gpu_budget=gpus, **keys)  # type: ignore[arg-type]  # keys of sizes alone
    simulator = dataclasses.replace(
        simulator, request_timeout_s=None, startup_delay_s=StartupDelay("constant", (0.0,))
    )
    return fixed_sizes(wide, simulator, sizes)


def _predictors(workload: Workload, task: RunTask, memos: Iterable[ForecastMemo]) -> LoadPredictors:
    if task.load == "true":
        trace = foreseen(workload, task.config, task.simulator, task.replicate)
        return true_predictors(true_load(trace, float(task.config.adjustment_interval_sec)))
    return memo_predictors(task.spec, memos, _own)


class OneMorePolicy:
    """Another policy, and one instance more in each pool than it asks for while it asks for any."""

    name = "one_more"

    def __init__(self, inner: Policy) -> None:
        self._inner = inner

    @property
    def check(self) -> Callable[[Observation], Sizing | None] | None:
        """The other policy's burst check, if it has one: what is added then is counted already."""
        return self._inner.check if isinstance(self._inner, QuickPolicy) else None

    def size(self, situation: Situation) -> Sizing:
        """Ask for one more; a pool whose size is not to change keeps the one it has."""
        pools, reasons = self._inner.size(situation)
        return Sizing(pools.map(_one_more), reasons)


def _one_more(size: PoolSize | None) -> PoolSize | None:
    if size is None or size.instances == 0:
        return size
    return PoolSize(size.instances + 1, size.demand + 1.0)


class SchedulePolicy:
    """Sizes laid down in advance for every tick; the last ones stay after the end.

    Args:
        sizes: entry k is asked for at time ``k * interval_s``; entry 0 is the initial size.
        interval_s: time between ticks.
    """

    name = "schedule"

    def __init__(self, sizes: Sequence[Sizes], interval_s: float) -> None:
        self._sizes = sizes
        self._interval_s = interval_s

    def size(self, situation: Situation) -> Sizing:
        """Ask for this tick's entry."""
        tick = round(situation.observation.time_s / self._interval_s)
        return Sizing.exactly(self._sizes[min(tick, len(self._sizes) - 1)])
