"""What one simulated run leaves behind, before anything is computed from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, overload

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from sagescale.fleet import Sizes
    from sagescale.perf import PerfModel, ProfileModel
    from sagescale.perf.learn import LearnedModel
    from sagescale.planner import AutoscalerConfig, Decision, Observation, Planner
    from sagescale.sim.config import SimulatorConfig
    from sagescale.sim.engine import World
    from sagescale.sim.injector import FaultLog
    from sagescale.trace import Trace

__all__ = ["Run", "Tick", "Ticks", "Timing"]


@dataclass(frozen=True, slots=True)
class Tick:
    """One planner tick: what it saw, the pools just before it acted included, and what it decided."""

    observation: Observation
    decision: Decision


class Ticks(Sequence[Tick]):
    """The ticks of a run, by time.

    A planner whose policy goes by neither a forecast nor a model of the engines decides without them. What
    explains its decisions (forecasts, corrections, what was learned) is worked out when somebody looks: the
    whole planner is shown what that one saw, and decides the same.

    Args:
        seen: what the planner saw, by time.
        decided: the sizes that were acted on.
        planner: the whole planner, which has seen nothing yet where ``decisions`` are missing.
        decisions: the decisions as they were made; None where they were made without what explains them.
    """

    def __init__(
        self,
        seen: Sequence[Observation],
        decided: Sequence[Sizes],
        planner: Planner,
        decisions: Sequence[Decision] | None,
    ) -> None:
        self._seen = seen
        self._decided = decided
        self._planner = planner
        self._decisions = decisions

    def __len__(self) -> int:
        return len(self._seen)

    @overload
    def __getitem__(self, index: int) -> Tick: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Tick]: ...
    def __getitem__(self, index: int | slice) -> Tick | Sequence[Tick]:
        return self._ticks[index]

    def __iter__(self) -> Iterator[Tick]:
        return iter(self._ticks)

    @property
    def learned(self) -> LearnedModel | None:
        """What the planner had made of its profile by the end; None where it learns nothing."""
        _ = self._ticks
        return self._planner.learned

    @cached_property
    def _ticks(self) -> tuple[Tick, ...]:
        decisions = self._decisions
        if decisions is None:
            decisions = [self._planner.step(observation) for observation in self._seen]
            if [decision.targets for decision in decisions] != list(self._decided):
                raise AssertionError(
                    "a planner decided otherwise with its models than without: its policy uses them"
                )
        return tuple(map(Tick, self._seen, decisions))


@dataclass(frozen=True, slots=True)
class Timing:
    """Wall time in seconds: the whole call, the planner's part, and the forecasts' part of that."""

    simulate_s: float
    planner_s: float
    forecast_s: float


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """A finished run.

    Attributes:
        given: the profile the planner was given.
        actual: the engines as they are.
        prompt: computed prompt tokens (ISL less the cached ones) by arrival, int32[n].
        produced: tokens each request had when a crash last threw it back, int32[n].
        requests: REQUEST records by arrival (``state.REQUEST``): first token, completion, state.
        completed: indices of the completed requests in order of completion, int32.
        lifetimes: LIFE records by launch, cut off at the horizon.
        initial: instances of each pool at time 0.
        ticks: by time.
        surges: decisions between ticks, by time; each asks for more than was there.
        horizon_s: where GPU-hours end.
        max_gpus_used: the most GPUs in use at any instant.
        faults: what went wrong; None where nothing was to.
    """

    trace: Trace
    config: AutoscalerConfig
    simulator: SimulatorConfig
    given: ProfileModel
    actual: ProfileModel
    world: World
    prompt: NDArray[np.int32]
    produced: NDArray[np.int32]
    requests: NDArray[np.void]
    completed: NDArray[np.int32]
    lifetimes: NDArray[np.void]
    initial: tuple[int, int]
    ticks: Ticks
    surges: tuple[Decision, ...]
    horizon_s: float
    max_gpus_used: int
    rejected: int
    timed_out: int
    timing: Timing
    faults: FaultLog | None = None

    @property
    def learned(self) -> PerfModel:
        """What the planner made of ``given`` by the end; just that where it learns nothing."""
        return self.ticks.learned or self.given
