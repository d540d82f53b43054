"""What a tick sees: the pools as they are, and a window of metrics with what cannot be known taken out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from sagescale.errors import SagescaleError
from sagescale.fleet import PoolCounts, Pools, Sizes
from sagescale.live.actuators.protocol import PoolStates
from sagescale.live.metrics.observe import Metrics
from sagescale.live.metrics.reporters import Reporters
from sagescale.live.metrics.window import Problem
from sagescale.live.records import Note
from sagescale.planner import Observation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sagescale.fleet import Fleet
    from sagescale.live.guard import Guard
    from sagescale.live.journal import Journal
    from sagescale.live.metrics.evenness import InstanceLoad
    from sagescale.live.mover import Mover
    from sagescale.live.records import TickRecord
    from sagescale.live.rhythm import Rhythm

    Collect = Callable[[float, float], tuple[Metrics, float]]

_REPORTERS = "reporters"


@dataclass(frozen=True, slots=True)
class Reading:
    """A window and the pools at its end, with what was wrong with them and what a reader should know.

    Attributes:
        known: Whether the pools are as somebody says, or as may be gone by.
        usable: Whether the load is known.
    """

    observation: Observation
    states: PoolStates
    known: bool
    usable: bool
    problems: list[Note]
    notes: list[Note]
    decode_loads: tuple[InstanceLoad, ...] | None = None

    @property
    def current(self) -> Sizes:
        """The sizes found."""
        return self.states.asked


class Sensor:
    """Reads pools and metrics; remembers who should report in them.

    Args:
        mover: Asks the actuator, and keeps account of what was ordered where nobody counts.
        journal: Keeps who should report, over a restart.
        acts: Whether anybody changes the pools; a dry run takes those that report for all there are.
    """

    def __init__(
        self, fleet: Fleet, mover: Mover, journal: Journal, rhythm: Rhythm, guard: Guard, *, acts: bool
    ) -> None:
        self._fleet = fleet
        self._names = tuple(pool.name for pool in fleet.pools)
        self._mover = mover
        self._journal = journal
        self._rhythm = rhythm
        self._guard = guard
        self._acts = acts
        self._last_states: PoolStates | None = None
        self._last_goal: Sizes | None = None  # of the run before, if its last decision was acted on
        # An instance ready for two whole intervals has been read, however rarely it is.
        self._reporters = Reporters(grace_s=2 * rhythm.interval_s)
        self._reporters_kept: dict[str, list[str]] = {}

    @property
    def last_states(self) -> PoolStates:
        """The pools as last found, the least there may be of them before."""
        return self._last_states or least_pools(self._fleet)

    def read(self, collect: Collect, time_s: float, window_s: float, late_s: float) -> Reading:
        """Find out about the pools and a window; unknown is what cannot be found out."""
        notes: list[Note] = []
        problems: list[Note] = []
        states, known = self._states(self._rhythm.now_s(), problems)
        metrics, seen_s = self._guard.run(
            "reading the metrics",
            partial(self.metrics, collect, window_s, states if known else None, late_s),
            lambda text: (Metrics({}, (Problem("source_failed", text),), {}), window_s),
        )
        problems.extend(Note(item.code, item.text) for item in metrics.problems)
        if states is None:
            states, known = self._assume(metrics, notes)
        self._last_states = states
        observation = Observation(
            time_s,
            seen_s if seen_s > 0 else window_s,
            states.pools,
            lengths=metrics.lengths,
            **metrics.values,
        )
        return Reading(observation, states, known, metrics.usable, problems, notes, metrics.decode_loads)

    def metrics(
        self, collect: Collect, window_s: float, states: PoolStates | None, late_s: float
    ) -> tuple[Metrics, float]:
        """Read a window, and take out what is not known because somebody who should report does not."""
        ready: dict[str, int | None] = dict.fromkeys(self._names)
        if states is not None and states.counted:
            ready = {name: pool.ready for name, pool in states.pools.items()}
        metrics, seen_s = collect(window_s, late_s)
        metrics = self._reporters.judge(metrics, ready, self._rhythm.now_s())
        if (names := self._reporters.names) != self._reporters_kept:
            self._reporters_kept = names
            self._journal.remember(_REPORTERS, names)
        return metrics, seen_s

    def decided(self, goal: Sizes) -> None:
        """Take note of sizes that are acted on: fewer instances may report from then on."""
        self._reporters.decided(goal.as_dict(), self._rhythm.now_s())

    def recall(self, past: Sequence[TickRecord], lookback_s: float) -> None:
        """Expect those to report who were expected before; an outage does not end by a restart."""
        self._last_goal = past[-1].goal if past and past[-1].acted else None
        now_s, epoch_s = self._rhythm.now_s(), self._rhythm.epoch_now_s()
        for record in past:
            if record.acted:
                self._reporters.decided(record.goal.as_dict(), now_s - max(0.0, epoch_s - record.time_s))
        names = self._journal.recall(_REPORTERS)
        if not past or past[-1].time_s < epoch_s - lookback_s:
            return  # so long ago that anything may have been changed on purpose
        if isinstance(names, dict) and all(_is_texts(group) for group in names.values()):
            self._reporters.recall(names)
            self._reporters_kept = self._reporters.names

    def _states(self, now_s: float, problems: list[Note]) -> tuple[PoolStates | None, bool]:
        """Return the pools and whether that is current; ``None`` where nobody can say yet."""

        def ask() -> tuple[PoolStates | None, bool]:
            try:
                return self._mover.states(now_s), True
            except SagescaleError as error:
                return unknown(str(error))

        def unknown(text: str) -> tuple[PoolStates | None, bool]:
            problems.append(Note("pools_unknown", text))
            return self.last_states, False

        return self._guard.run("reading the pools", ask, unknown)

    def _assume(self, metrics: Metrics, notes: list[Note]) -> tuple[PoolStates, bool]:
        """Take the instances that report, or should, for the pools where nobody else knows.

        Returns:
            The pools, and whether that is something to go by.
        """
        sizes = Sizes(*map(self._reporters.expected, self._names), names=self._names)
        if not self._acts and any(sizes):
            return _pools_of(sizes), True  # a dry run changes nothing: what there is reports
        if not all(sizes):
            if self._acts and self._last_goal is not None:
                sizes = self._last_goal
            elif metrics.usable:
                # Sizes are absolute: where the load is known, nothing needs to be known of the pools to set
                # them. Where it is not, holding at a guess could shrink them, so nothing is done.
                sizes = least_pools(self._fleet).asked
                text = f"how many instances there are is not known: {sizes} are assumed"
                notes.append(Note("pools_assumed", text))
            else:
                return self.last_states, False
        if self._acts:
            self._mover.assume(sizes)
        return _pools_of(sizes), True


def least_pools(fleet: Fleet) -> PoolStates:
    """Return the least there may be of every pool."""
    sizes = Sizes(*(pool.least for pool in fleet.pools), names=(pool.name for pool in fleet.pools))
    return _pools_of(sizes, counted=True)


def _pools_of(sizes: Sizes, *, counted: bool = False) -> PoolStates:
    return PoolStates(Pools(*map(PoolCounts, sizes), names=sizes.names), counted=counted)


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
