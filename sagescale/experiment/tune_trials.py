"""Trying candidates on a part of a trace, many at once, each only once, the hopeless ones not for long."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from sagescale.experiment.execute import Failure, memos_for, run_tasks
from sagescale.experiment.forecasts import add_forecasts
from sagescale.experiment.parts import PartOutcome, PartStaticTask, PartTask, fixed_pair, perform_part
from sagescale.experiment.static_search import StaticPair
from sagescale.experiment.tasks import RunTask
from sagescale.experiment.tune_space import Candidate, with_candidate
from sagescale.planner import Sizes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sagescale.experiment.execute import Backend
    from sagescale.experiment.memo import ForecastMemo
    from sagescale.experiment.tasks import ForecastTask
    from sagescale.experiment.workload import Workload
    from sagescale.planner import AutoscalerConfig
    from sagescale.sim.config import SimulatorConfig
    from sagescale.sim.part import Part, PartResult

__all__ = ["Interrupted", "Trial", "Trials"]

T = TypeVar("T", PartTask, PartStaticTask)


class Interrupted(Exception):  # noqa: N818  # not an error: the user has seen enough
    """The user interrupted; what has been tried is known."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A candidate's mean attainment and GPU-hours over the replicates it was tried on."""

    candidate: Candidate
    attainment: float
    gpu_hours: float
    worst_attainment: float
    replicates: int


@dataclass(slots=True)
class Trials:
    """Candidates tried on a part of a workload.

    Attributes:
        part: what is measured.
        simulated: runs done.
        failures: what could not be done, one line each.
        progress: called with runs done.
    """

    workload: Workload
    part: Part
    config: AutoscalerConfig
    simulator: SimulatorConfig
    backend: Backend
    progress: Callable[[int], None] | None = None
    simulated: int = 0
    failures: list[str] = field(default_factory=list)
    _results: dict[tuple[Candidate, int], PartResult | None] = field(default_factory=dict)
    _memos: dict[ForecastTask, ForecastMemo] = field(default_factory=dict)

    def try_all(self, candidates: Iterable[Candidate], replicates: Sequence[int]) -> dict[Candidate, Trial]:
        """Try candidates on some replicates; those that failed are missing.

        Raises:
            Interrupted: the user did.
        """
        wanted = list(dict.fromkeys(candidates))
        tasks = {
            (candidate, replicate): self._task(candidate, replicate)
            for replicate in replicates
            for candidate in wanted
            if (candidate, replicate) not in self._results
        }
        places = {task: place for place, task in tasks.items()}

        def done(task: PartTask, answer: object) -> None:
            self._results[places[task]] = answer.result if isinstance(answer, PartOutcome) else None
            if isinstance(answer, Failure):
                self.failures.append(f"{places[task][0].name}: {answer.error}")
            self._count()

        self._do(list(places), [task.run for task in places], done)
        # Candidates may differ in keys that their policy does not look at: equal tasks are run once. Results
        # stand in the order asked for, not in that in which they came.
        answers = {place: self._results[places[task]] for place, task in tasks.items()}
        for place in answers:
            self._results.pop(place, None)
        self._results |= answers
        tried = (self.trial(candidate, replicates) for candidate in wanted)
        return {trial.candidate: trial for trial in tried if trial is not None}

    def trial(self, candidate: Candidate, replicates: Sequence[int]) -> Trial | None:
        """What is known of a candidate, None unless it was tried on all of these replicates."""
        parts = [self._results.get((candidate, replicate)) for replicate in replicates]
        known = [part for part in parts if part is not None]
        if not known or len(known) < len(parts):
            return None
        return Trial(
            candidate,
            math.fsum(part.attainment for part in known) / len(known),
            math.fsum(part.gpu_hours for part in known) / len(known),
            min(part.worst_attainment for part in known),
            len(known),
        )

    def tried(self, replicates: Sequence[int]) -> list[Trial]:
        """All that were tried on all of these replicates, in the order they were."""
        candidates = dict.fromkeys(candidate for candidate, _ in self._results)
        found = (self.trial(candidate, replicates) for candidate in candidates)
        return [trial for trial in found if trial is not None]

    def cheapest_static(self, attainment: float, base: Candidate) -> Candidate | None:
        """The cheapest fixed pair that reaches an attainment on the first replicate.

        Raises:
            Interrupted: the user did.
        """
        found: list[StaticPair] = []

        def done(task: PartStaticTask, answer: object) -> None:
            del task
            if isinstance(answer, StaticPair):
                found.append(answer)
            elif isinstance(answer, Failure):
                self.failures.append(f"static: {answer.error}")
            self._count()

        self._do([PartStaticTask(self.config, self.simulator, attainment, self.part)], [], done)
        if not found or found[0].sizes is None:
            return None
        return dataclasses.replace(
            base, policy="static", static=(found[0].sizes.prefill, found[0].sizes.decode)
        )

    def _task(self, candidate: Candidate, replicate: int) -> PartTask:
        config, simulator = with_candidate(self.config, candidate), self.simulator
        if candidate.static is not None:
            config, simulator = fixed_pair(config, simulator, Sizes(*candidate.static))
        simulator = dataclasses.replace(simulator, simulation_seed=simulator.simulation_seed + replicate)
        return PartTask(RunTask(config, simulator, replicate), self.part)

    def _do(self, tasks: Sequence[T], runs: Sequence[RunTask], done: Callable[[T, object], None]) -> None:
        """Do tasks; ``runs`` are those among them that forecast."""
        if not tasks:
            return
        whole = dataclasses.replace(self.workload, until_s=math.inf)
        if not add_forecasts(self.backend, whole, runs, self._memos):
            raise Interrupted
        if not run_tasks(self.backend, self.workload, tasks, perform_part, self._memos_of, done):
            raise Interrupted

    def _memos_of(self, task: object) -> Sequence[ForecastMemo]:
        return memos_for(task.run, self._memos) if isinstance(task, PartTask) else ()

    def _count(self) -> None:
        self.simulated += 1
        if self.progress is not None:
            self.progress(self.simulated)
