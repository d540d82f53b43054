"""When ticks fall: on the machine's clocks, and in the pools' own time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sagescale.live.clock import Clock
    from sagescale.live.journal import Journal

SAME_S = 1e-6
"""Moments nearer than this are one."""

_CLOCK_STEP_S = 2.0


class Rhythm:
    """Ticks on whole multiples of the interval on the clock at the start, kept by the monotonic clock.

    They do not drift, and a step of the wall clock moves none. The pools' own time is the clock's, or runs
    ``time_scale`` times as fast.

    Args:
        clock: The machine's, or a test's.
        journal: Remembers when time began that does not run as the clock's.
        interval_s: From tick to tick, in the pools' own time.
        time_scale: How much faster that runs.
    """

    def __init__(self, clock: Clock, journal: Journal, interval_s: float, time_scale: float) -> None:
        self.interval_s = interval_s
        self.wall_interval_s = interval_s / time_scale
        self.time_scale = time_scale
        self.anchor_s = 0.0
        """Tick 0, monotonic."""
        self.epoch_s = 0.0
        """Tick 0, in the pools' own time."""
        self.clock = clock
        self._journal = journal
        self._wall_offset_s = 0.0

    def begin(self) -> float:
        """Make tick 0 the last whole multiple of the interval; return the pools' own time now."""
        now_s, wall_s = self.clock.monotonic_s(), self.clock.wall_s()
        phase_s = wall_s % self.wall_interval_s
        self.anchor_s = now_s - phase_s
        self.epoch_s = self._own_time_s(wall_s - phase_s)
        self._wall_offset_s = wall_s - now_s
        return self.epoch_s + phase_s * self.time_scale

    def begin_now(self) -> None:
        """Make this moment tick 0."""
        self.anchor_s = self.clock.monotonic_s()
        self.epoch_s = self._own_time_s(self.clock.wall_s())

    def due_s(self, number: int) -> float:
        """Return when a tick is due, monotonic."""
        return self.anchor_s + number * self.wall_interval_s

    def late_s(self, number: int) -> float:
        """Return by how much a tick that begins now is late."""
        return max(0.0, self.clock.monotonic_s() - self.anchor_s - number * self.wall_interval_s)

    def following(self, number: int) -> int:
        """Return the first tick after one whose time has not passed."""
        late_s = self.clock.monotonic_s() - self.anchor_s
        return max(number + 1, math.ceil(late_s / self.wall_interval_s - 1e-9))

    def time_s(self, number: int) -> float:
        """Return the pools' own time of a tick: the clock's at real speed."""
        return self.epoch_s + number * self.interval_s

    def now_s(self) -> float:
        """Return the pools' own time by the monotonic clock: it never jumps, and begins anywhere."""
        return self.clock.monotonic_s() * self.time_scale

    def epoch_now_s(self) -> float:
        """Return the pools' own time since 1970, as records carry it."""
        return self.epoch_s + (self.clock.monotonic_s() - self.anchor_s) * self.time_scale

    def clock_step_s(self) -> float | None:
        """Return by how much somebody has set the wall clock since this was last asked, if anybody has."""
        offset_s = self.clock.wall_s() - self.clock.monotonic_s()
        step_s = offset_s - self._wall_offset_s
        if abs(step_s) <= _CLOCK_STEP_S:
            return None
        self._wall_offset_s = offset_s
        return step_s

    def _own_time_s(self, wall_s: float) -> float:
        """The pools' own time at a time of the clock: the same after a restart, whatever the scale."""
        if self.time_scale == 1.0:
            return wall_s
        began_s = self._journal.recall("began_s")
        if not isinstance(began_s, float):
            began_s = wall_s
            self._journal.remember("began_s", began_s)
        return began_s + (wall_s - began_s) * self.time_scale
