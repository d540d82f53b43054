"""The units of work of a comparison: plain data, equal tasks are one, and any process can do them."""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from sagescale.experiment.clairvoyant import Schedule, find_schedule, schedule_sizes
from sagescale.experiment.load import arrivals_seen, true_load, true_predictors
from sagescale.experiment.memo import ForecastMemo, MemoPredictor, PredictorSpec, memo_predictors
from sagescale.experiment.policies import OneMorePolicy, SchedulePolicy
from sagescale.experiment.static_search import StaticPair, cheapest_pair
from sagescale.fleet import Sizes, fit, within_limits
from sagescale.perf import ProfileModel
from sagescale.planner import make_policy
from sagescale.sim.config import SimulatorConfig
from sagescale.sim.faults import Faults
from sagescale.sim.measures import Served, gpu_hours
from sagescale.sim.result import run_document
from sagescale.sim.simulate import simulate
from sagescale.sim.twin import twin_for
from sagescale.sim.visibility import Visibility
from sagescale.sim.world import with_overrides

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sagescale.document import RunDocument
    from sagescale.experiment.workload import Workload
    from sagescale.planner import AutoscalerConfig, LoadPredictors
    from sagescale.planner.policy import Policy
    from sagescale.sim.run import Run
    from sagescale.sim.spans import TimeSpans
    from sagescale.trace import Trace

__all__ = [
    "ClairvoyantTask",
    "ForecastResult",
    "ForecastTask",
    "Outcome",
    "Result",
    "RunTask",
    "Score",
    "StaticSearchTask",
    "Task",
    "perform",
    "simulate_task",
]


@dataclass(frozen=True, slots=True)
class Score:
    """What a run is ranked by: requests, those that were not good, and GPU-hours; and what they met."""

    arrived: int
    misses: int
    gpu_hours: float
    completed: int
    ttft_met: int
    itl_met: int

    @property
    def attainment(self) -> float:
        """Share of the arrived requests that were good."""
        return (self.arrived - self.misses) / self.arrived


@dataclass(frozen=True, slots=True)
class Outcome:
    """A run's score, and its document where one was asked for."""

    score: Score
    document: RunDocument | None


@dataclass(frozen=True, slots=True)
class ForecastTask:
    """Forecast one series of arrivals at every tick of a replicate, for all runs that will ask.

    ``faults`` are those of the metrics alone, and only where there are any does ``simulation_seed`` matter.
    """

    spec: PredictorSpec
    series: Literal["requests", "isl"]
    scrape_delay_s: float
    metric_outage_s: TimeSpans
    replicate: int = 0
    faults: Faults | None = None
    simulation_seed: int = 0

    @classmethod
    def of(cls, run: RunTask, series: Literal["requests", "isl"]) -> ForecastTask:
        """What a run with named predictors will ask; runs that see the same arrivals ask the same."""
        simulator = run.simulator
        faults = None if run.faults is None else run.faults.metrics_only()
        return cls(
            run.spec,
            series,
            simulator.scrape_delay_s,
            simulator.metric_outage_s,
            run.replicate,
            faults,
            0 if faults is None else simulator.simulation_seed,
        )


@dataclass(frozen=True, slots=True)
class ForecastResult:
    """The forecasts made, how often the predictor was fitted for them, and the wall time that took."""

    memo: ForecastMemo
    cadence: str
    refits: int
    windows: int
    seconds: float


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
class StaticSearchTask:
    """Find the cheapest fixed pair that reaches an attainment."""

    config: AutoscalerConfig
    simulator: SimulatorConfig
    attainment: float
    faults: Faults | None = None


@dataclass(frozen=True, slots=True)
class ClairvoyantTask:
    """Find a cheap schedule that reaches an attainment, the future known."""

    config: AutoscalerConfig
    simulator: SimulatorConfig
    attainment: float
    faults: Faults | None = None


Task = ForecastTask | RunTask | StaticSearchTask | ClairvoyantTask
Result = ForecastResult | Outcome | StaticPair | Schedule | None


def perform(workload: Workload, task: Task, memos: Iterable[ForecastMemo] = ()) -> Result:
    """Do one task; the answer depends on the arguments alone (forecasts given only save time)."""
    if isinstance(task, ForecastTask):
        return _forecast(workload.trace(task.replicate), task)
    if isinstance(task, RunTask):
        return _run(workload, task, memos)
    trace = workload.trace()
    profile = with_overrides(workload.profile, task.simulator)
    if isinstance(task, StaticSearchTask):

        def attainment_of(pair: Sizes) -> float:
            config, simulator = _fixed(task.config, task.simulator, pair)
            return _score(simulate(trace, profile, config, simulator, faults=task.faults)).attainment

        return cheapest_pair(task.config, attainment_of, task.attainment)

    model = ProfileModel(profile)
    known: dict[tuple[Sizes, ...], bool] = {}

    def reaches(schedule: Schedule) -> bool:
        # Sizes are whole: many headrooms make the same schedule.
        sizes = tuple(schedule_sizes(trace, model, task.config, task.simulator, schedule))
        if sizes not in known:
            run = RunTask(task.config, task.simulator, schedule=schedule, load="true", faults=task.faults)
            known[sizes] = _run(workload, run, ()).score.attainment >= task.attainment
        return known[sizes]

    return find_schedule(reaches)


def _fixed(
    config: AutoscalerConfig, simulator: SimulatorConfig, pair: Sizes
) -> tuple[AutoscalerConfig, SimulatorConfig]:
    """A fixed pair in a world without a budget: the search itself stops at the budget."""
    gpus = pair.prefill * config.prefill_gpus_per_instance + pair.decode * config.decode_gpus_per_instance
    fixed = dataclasses.replace(
        config,
        policy="static",
        static_prefill=pair.prefill,
        static_decode=pair.decode,
        max_gpu_budget=max(gpus, config.max_gpu_budget),
    )
    return fixed, dataclasses.replace(simulator, initial_prefill=pair.prefill, initial_decode=pair.decode)


def _forecast(trace: Trace, task: ForecastTask) -> ForecastResult:
    """Show the predictor what the simulator's planner will see of the arrivals; DESIGN 5.7."""
    began = time.perf_counter()
    interval_s = float(task.spec.interval_s)
    simulator = SimulatorConfig(
        scrape_delay_s=task.scrape_delay_s,
        metric_outage_s=task.metric_outage_s,
        simulation_seed=task.simulation_seed,
    )
    visibility = Visibility(interval_s, simulator, _drawn_for(task) or Faults())
    memo = ForecastMemo()
    predictor = MemoPredictor(task.spec, memo)
    windows = 0
    last: float | None = None
    for requests, isl in arrivals_seen(trace, interval_s, visibility):
        last = last if isl is None else isl
        predictor.observe(last if task.series == "isl" else requests)
        predictor.forecast(1)
        windows += 1
    predictor.snapshot()
    return ForecastResult(memo, predictor.cadence, predictor.refits, windows, time.perf_counter() - began)


def _drawn_for(task: ForecastTask | RunTask) -> Faults | None:
    """The faults of a task's replicate: each has luck of its own, or intervals would tell of one luck."""
    if task.faults is None or task.replicate == 0:
        return task.faults
    return dataclasses.replace(task.faults, seed=task.faults.seed + task.replicate)


_own = ForecastMemo()
"""Forecasts made in this process: runs that follow one another share them."""


def _run(workload: Workload, task: RunTask, memos: Iterable[ForecastMemo]) -> Outcome:
    run = simulate_task(workload, task, memos)
    document = None
    if task.document:
        document = run_document(run, "")
    return Outcome(_score(run), document)


def simulate_task(workload: Workload, task: RunTask, memos: Iterable[ForecastMemo] = ()) -> Run:
    """Do the simulation of a task, for whoever measures it in another way."""
    trace = workload.trace(task.replicate)
    profile = with_overrides(workload.profile, task.simulator)
    config, simulator = task.config, task.simulator
    interval_s = float(config.adjustment_interval_sec)
    policy: Policy | None = None
    if task.schedule is not None:
        sizes = schedule_sizes(trace, ProfileModel(profile), config, simulator, task.schedule)
        policy = SchedulePolicy(sizes, interval_s)
        simulator = dataclasses.replace(simulator, initial_prefill=sizes[0][0], initial_decode=sizes[0][1])
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
        faults=_drawn_for(task),
        predictors=_predictors(trace, task, memos),
        policy=policy,
    )


def _one_more_at_start(config: AutoscalerConfig, simulator: SimulatorConfig) -> SimulatorConfig:
    """Where the initial size is given, one more of each pool, within limits and budget."""
    if simulator.initial_prefill is None or simulator.initial_decode is None:
        return simulator
    more = Sizes(simulator.initial_prefill + 1, simulator.initial_decode + 1)
    more = fit(within_limits(more, config.fleet), config.fleet)
    return dataclasses.replace(simulator, initial_prefill=more.prefill, initial_decode=more.decode)


def _predictors(trace: Trace, task: RunTask, memos: Iterable[ForecastMemo]) -> LoadPredictors:
    if task.load == "true":
        return true_predictors(true_load(trace, float(task.config.adjustment_interval_sec)))
    return memo_predictors(task.spec, memos, _own)


def _score(run: Run) -> Score:
    ttft, itl = Served(run).good
    arrived, good = len(run.requests), int((ttft & itl).sum())
    return Score(
        arrived,
        arrived - good,
        gpu_hours(run)["total"],
        len(run.completed),
        int(ttft.sum()),
        int(itl.sum()),
    )
