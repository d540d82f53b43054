"""What one simulated run leaves behind, before anything is computed from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sagescale.perf import PerfModel, ProfileModel
    from sagescale.planner import AutoscalerConfig, Decision, Observation, Planner
    from sagescale.sim.config import ItlStatistic, SimulatorConfig
    from sagescale.sim.engine import World
    from sagescale.sim.injector import FaultLog
    from sagescale.sim.turns import ClosedLoop
    from sagescale.trace import Trace


@dataclass(frozen=True, slots=True)
class Tick:
    """One planner tick: what it saw, the pools just before it acted included, and what it decided."""

    observation: Observation
    decision: Decision


@dataclass(frozen=True, slots=True)
class Timing:
    """Wall time in seconds: the whole call, the planner's part, and the forecasts' part of that."""

    simulate_s: float
    planner_s: float
    forecast_s: float


@dataclass(frozen=True, slots=True, eq=False)
class SteppedRun:
    """What engines did that take one step after the other.

    Attributes:
        requests: STEPPED_REQUEST records by arrival.
        preemptions: of all pools.
        short_s: time of steps for which blocks were short, of all instances.
        hits_by_age: HITS records by how long instances had been READY (``state.AGES_UNTIL_S``).
        drained_tokens: tokens cached on instances that were drained, at their end.
        asked_again_tokens: tokens found nowhere that only a drained instance had had.
    """

    requests: NDArray[np.void]
    preemptions: int
    short_s: float
    hits_by_age: NDArray[np.void]
    drained_tokens: int
    asked_again_tokens: int


@dataclass(frozen=True, slots=True, eq=False)
class MeasuredGaps:
    """The time between the tokens of a service's requests.

    Attributes:
        requests: GAPS_OF_REQUEST records by arrival.
        histogram: how many gaps there were by bin (``state.GAP_BINS``), int64.
        largest_s: of all.
    """

    requests: NDArray[np.void]
    histogram: NDArray[np.int64]
    largest_s: float

    def itl_misses(
        self, statistic: ItlStatistic, osl: NDArray[np.int32], which: NDArray[np.intp] | slice = slice(None)
    ) -> NDArray[np.bool_]:
        """Of which requests that are done the p99 or the largest gap is longer than the target, bool[n].

        By nearest rank the 99th percentile of g gaps is the longest but g // 100. ``osl`` is of those at
        ``which`` places.
        """
        spared = (osl - 1) // 100 if statistic == "p99" else 0
        missed: NDArray[np.bool_] = self.requests["late"][which] > spared
        return missed


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """A finished run.

    Attributes:
        trace: the requests that came, when they came: where turns waited for answers not those of the trace
            given, which ``closed_loop`` has.
        given: the profile the planner was given.
        planner: as the run left it.
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
        least_s: no run of these requests ends before, whatever the system does.
        max_gpus_used: the most GPUs in use at any instant.
        faults: what went wrong; None where nothing was to.
        stepped: what engines that step did; None without any.
        gaps: between tokens; None where nobody asked for them.
        full_memory_s: ``stepped.short_s`` as of each tick.
        closed_loop: which requests came and which never did, where turns waited for answers; else None.
    """

    trace: Trace
    config: AutoscalerConfig
    simulator: SimulatorConfig
    given: ProfileModel
    planner: Planner
    actual: ProfileModel
    world: World
    prompt: NDArray[np.int32]
    produced: NDArray[np.int32]
    requests: NDArray[np.void]
    completed: NDArray[np.int32]
    lifetimes: NDArray[np.void]
    initial: tuple[int, ...]
    ticks: tuple[Tick, ...]
    surges: tuple[Decision, ...]
    horizon_s: float
    least_s: float
    max_gpus_used: int
    rejected: int
    timed_out: int
    timing: Timing
    faults: FaultLog | None = None
    stepped: SteppedRun | None = None
    gaps: MeasuredGaps | None = None
    full_memory_s: tuple[float, ...] = ()
    closed_loop: ClosedLoop | None = None

    @property
    def never_arrived(self) -> int:
        """Turns that never came since their session had ended before: all of them misses."""
        return 0 if self.closed_loop is None else self.closed_loop.never_arrived

    @property
    def asked(self) -> int:
        """All requests of the trace that was given: arrived and never arrived."""
        return len(self.trace) + self.never_arrived

    @property
    def learned(self) -> PerfModel:
        """What the planner made of ``given`` by the end; that itself where it learns nothing."""
        return self.planner.learned or self.given
