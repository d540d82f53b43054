"""Candidates, tried on a part of a trace: many at once, each only once, the hopeless ones not for long."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from sagescale.experiment.execute import Failure, add_forecasts, run_tasks
from sagescale.experiment.searches import StaticSizes
from sagescale.experiment.tasks import (
    PartOutcome,
    PartTask,
    RunTask,
    StaticSearchTask,
    fixed_sizes,
)
from sagescale.planner import Sizes, pool_keys
from sagescale.planner.policy import uses_forecast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sagescale.experiment.execute import Backend
    from sagescale.experiment.forecasts import ForecastMemo, ForecastTask
    from sagescale.experiment.workload import Workload
    from sagescale.planner import AutoscalerConfig
    from sagescale.sim.config import SimulatorConfig
    from sagescale.sim.part import Part, PartResult

HEADROOMS = tuple(round(1.05**step, 4) for step in range(-14, 58))
"""What the configured ``load_headroom`` is multiplied by: 0.5 to 16, 5 % apart."""

NEUTRAL = HEADROOMS.index(1.0)


def tuned_keys(config: AutoscalerConfig) -> tuple[str, ...]:
    """Return the keys that are tuned, in the order in which files are written with them."""
    pools = [pool_keys(pool) for pool in config.pools]
    return (
        "policy",
        "target_attainment",
        "load_predictor_type",
        "adjustment_interval_sec",
        "load_headroom",
        *(keys.least for keys in pools),
        "scale_down_stabilization_window_sec",
        *(keys.static for keys in pools),
    )


@dataclass(frozen=True, slots=True)
class Candidate:
    """The keys that are tuned; the other keys stay as they are configured.

    Attributes:
        headroom: position in ``HEADROOMS``.
        floors: the least instances of each pool.
        static: the sizes of the static policy, None for every other.
    """

    policy: str
    predictor: str
    interval_s: int
    headroom: int
    floors: tuple[int, ...]
    down_window_s: int
    static: tuple[int, ...] | None = None

    @property
    def name(self) -> str:
        """Policy and predictor, as comparisons write them."""
        if self.static is not None:
            return f"static {'+'.join(map(str, self.static))}"
        return f"{self.policy}/{self.predictor}" if uses_forecast(self.policy) else self.policy


@dataclass(frozen=True, slots=True)
class Space:
    """Which values may be chosen, in the order in which they are tried.

    Attributes:
        intervals_s, down_windows_s: the configured value is the first of each.
        most_floor: the highest minimum of each pool.
    """

    policies: Sequence[str]
    predictors: Sequence[str]
    intervals_s: Sequence[int]
    down_windows_s: Sequence[int]
    most_floor: tuple[int, ...]


def candidate_of(config: AutoscalerConfig, policy: str, predictor: str) -> Candidate:
    """Take a configuration's own values but for policy and predictor."""
    return Candidate(
        policy,
        predictor,
        config.adjustment_interval_sec,
        NEUTRAL,
        tuple(pool.least for pool in config.pools),
        config.scale_down_stabilization_window_sec,
    )


def least_headroom(config: AutoscalerConfig, policy: str) -> int:
    """The lowest position in ``HEADROOMS`` that is tried for a policy.

    Policy slo sizes for the attainment itself: a ``load_headroom`` below 1 has it plan for less load than it
    expects, which only looks cheaper where the trace is calm.
    """
    if policy != "slo":
        return 0
    enough = (place for place, ratio in enumerate(HEADROOMS) if config.load_headroom * ratio >= _WHOLE)
    return next(enough, len(HEADROOMS) - 1)


_WHOLE = 1.0 - 1e-9


def with_candidate(config: AutoscalerConfig, candidate: Candidate) -> AutoscalerConfig:
    """Return the configuration with the tuned keys set."""
    floors = config.by_key("least", candidate.floors)
    static = config.by_key("static", candidate.static or (None,) * len(config.pools))
    return dataclasses.replace(
        config,
        policy=candidate.policy,
        load_predictor_type=candidate.predictor,
        adjustment_interval_sec=candidate.interval_s,
        load_headroom=round(config.load_headroom * HEADROOMS[candidate.headroom], 4),
        scale_down_stabilization_window_sec=candidate.down_window_s,
        **floors,  # type: ignore[arg-type]  # keys of sizes alone
        **static,  # type: ignore[arg-type]
    )


T = TypeVar("T", PartTask, StaticSearchTask)


class Interrupted(Exception):  # noqa: N818  # not an error: the user has seen enough
    """The user interrupted; what has been tried is known."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A candidate's mean attainment and GPU-hours over the replicates it was tried on.

    ``sizes`` are the fewest and the most instances of each pool, on the first of them.
    """

    candidate: Candidate
    attainment: float
    gpu_hours: float
    worst_attainment: float
    replicates: int
    sizes: tuple[tuple[int, int], ...] = ()


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

        self._do(list(places), done)
        # Candidates may differ in keys that their policy does not read: equal tasks are run once. Results
        # stand in the order asked for, not in that in which they were done.
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
            known[0].sizes,
        )

    def tried(self, replicates: Sequence[int]) -> list[Trial]:
        """All that were tried on all of these replicates, in the order they were."""
        candidates = dict.fromkeys(candidate for candidate, _ in self._results)
        found = (self.trial(candidate, replicates) for candidate in candidates)
        return [trial for trial in found if trial is not None]

    def cheapest_static(self, attainment: float, base: Candidate) -> Candidate | None:
        """The cheapest fixed sizes that reach an attainment on the first replicate.

        Raises:
            Interrupted: the user did.
        """
        found: list[StaticSizes] = []

        def done(task: StaticSearchTask, answer: object) -> None:
            del task
            if isinstance(answer, StaticSizes):
                found.append(answer)
            elif isinstance(answer, Failure):
                self.failures.append(f"static: {answer.error}")
            self._count()

        self._do([StaticSearchTask(self.config, self.simulator, attainment, self.part)], done)
        if not found or found[0].sizes is None:
            return None
        return dataclasses.replace(base, policy="static", static=tuple(found[0].sizes))

    def _task(self, candidate: Candidate, replicate: int) -> PartTask:
        config, simulator = with_candidate(self.config, candidate), self.simulator
        if candidate.static is not None:
            sizes = Sizes(*candidate.static, names=config.pool_names)
            config, simulator = fixed_sizes(config, simulator, sizes)
        simulator = dataclasses.replace(simulator, simulation_seed=simulator.simulation_seed + replicate)
        return PartTask(RunTask(config, simulator, replicate), self.part)

    def _do(self, tasks: Sequence[T], done: Callable[[T, object], None]) -> None:
        if tasks and not (
            add_forecasts(self.backend, self.workload, tasks, self._memos)
            and run_tasks(self.backend, self.workload, tasks, self._memos, done)
        ):
            raise Interrupted

    def _count(self) -> None:
        self.simulated += 1
        if self.progress is not None:
            self.progress(self.simulated)
