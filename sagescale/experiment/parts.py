"""Units of work that judge a part of a run, such as all after the first day."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sagescale.experiment.clairvoyant import Schedule, find_schedule, schedule_sizes
from sagescale.experiment.static_search import StaticPair, cheapest_pair
from sagescale.experiment.tasks import RunTask, simulate_task
from sagescale.perf import ProfileModel
from sagescale.sim.part import Part, PartResult, lower_bound_of_part, measure_part
from sagescale.sim.world import with_overrides

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sagescale.experiment.memo import ForecastMemo
    from sagescale.experiment.workload import Workload
    from sagescale.planner import AutoscalerConfig, Sizes
    from sagescale.sim.config import SimulatorConfig

__all__ = [
    "PartBoundTask",
    "PartClairvoyantTask",
    "PartOutcome",
    "PartStaticTask",
    "PartTask",
    "fixed_pair",
    "perform_part",
]


@dataclass(frozen=True, slots=True)
class PartTask:
    """One simulation, judged on a part of it."""

    run: RunTask
    part: Part


@dataclass(frozen=True, slots=True)
class PartOutcome:
    """What the part is worth, the most GPUs of the whole run at any instant, and wall time by the run.

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
class PartStaticTask:
    """Find the cheapest fixed pair that reaches an attainment on a part."""

    config: AutoscalerConfig
    simulator: SimulatorConfig
    attainment: float
    part: Part
    replicate: int = 0


@dataclass(frozen=True, slots=True)
class PartClairvoyantTask:
    """Find a cheap schedule that reaches an attainment on a part, the future known."""

    config: AutoscalerConfig
    simulator: SimulatorConfig
    attainment: float
    part: Part
    replicate: int = 0


def perform_part(
    workload: Workload,
    task: PartTask | PartBoundTask | PartStaticTask | PartClairvoyantTask,
    memos: Iterable[ForecastMemo] = (),
) -> PartOutcome | float | StaticPair | Schedule | None:
    """Do one task; the answer, timings aside, depends on the arguments alone."""
    if isinstance(task, PartTask):
        return _judged(workload, task, memos)
    if isinstance(task, PartBoundTask):
        return lower_bound_of_part(simulate_task(workload, task.run, memos), task.part)

    def attainment_of(run: RunTask) -> float:
        return _judged(workload, PartTask(run, task.part)).result.attainment

    if isinstance(task, PartStaticTask):

        def of_pair(pair: Sizes) -> float:
            config, simulator = fixed_pair(task.config, task.simulator, pair)
            # In a world without a budget: the search itself stops at the budget.
            gpus = (
                pair.prefill * config.prefill_gpus_per_instance
                + pair.decode * config.decode_gpus_per_instance
            )
            config = dataclasses.replace(config, max_gpu_budget=max(gpus, config.max_gpu_budget))
            return attainment_of(RunTask(config, simulator, task.replicate))

        return cheapest_pair(task.config, of_pair, task.attainment)

    trace = workload.trace(task.replicate)
    model = ProfileModel(with_overrides(workload.profile, task.simulator))
    known: dict[tuple[Sizes, ...], bool] = {}

    def reaches(schedule: Schedule) -> bool:
        # Sizes are whole: many headrooms make the same schedule.
        sizes = tuple(schedule_sizes(trace, model, task.config, task.simulator, schedule))
        if sizes not in known:
            run = RunTask(task.config, task.simulator, task.replicate, load="true", schedule=schedule)
            known[sizes] = attainment_of(run) >= task.attainment
        return known[sizes]

    return find_schedule(reaches)


def fixed_pair(
    config: AutoscalerConfig, simulator: SimulatorConfig, pair: Sizes
) -> tuple[AutoscalerConfig, SimulatorConfig]:
    """Both configurations for a fixed pair that is there from the start."""
    fixed = dataclasses.replace(
        config, policy="static", static_prefill=pair.prefill, static_decode=pair.decode
    )
    return fixed, dataclasses.replace(simulator, initial_prefill=pair.prefill, initial_decode=pair.decode)


def _judged(workload: Workload, task: PartTask, memos: Iterable[ForecastMemo] = ()) -> PartOutcome:
    run = simulate_task(workload, task.run, memos)
    return PartOutcome(
        measure_part(run, task.part), run.max_gpus_used, run.timing.simulate_s, run.timing.planner_s
    )
