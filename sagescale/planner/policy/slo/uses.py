"""How full instances of an aggregated pool are planned to be, found on pools of every use side by side."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sagescale.fleet import PoolSpec
    from sagescale.planner.policy.slo.misses import MissCurves

__all__ = ["FIRST", "PATIENCE_S", "Uses", "eased", "within"]

_USES = (0.25, 0.28, 0.31, 0.34, 0.37, 0.4, 0.43, 0.46, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.86, 0.92)

_HALF_LIFE_S = 21_600.0
"""The time after which what a use would have missed counts half."""

_JUMPS = ((1.25, 0.5), (1.5, 0.25), (2.0, 0.125))
"""Loads over the planned one, and how many of the first windows are taken to have had one."""

_KNOWN_WINDOWS = 10.0
"""What is taken for granted of jumps counts as so many windows seen."""

_SETTLES = 5
"""So many windows, and those that the first order takes, are not counted: lengths are those of a few requests
yet, and where traffic begins it grows as it never will again."""

FIRST = 0.4
"""Until then instances are no fuller: twice the load planned is still below what they get through."""

_USED = 0.9
"""The part of what may be missed that is aimed at."""

PATIENCE_S = 360.0
"""How long a size that scenarios no longer ask for is kept, at least."""

_PART = 3
"""Of what there is no more than this part is given up at once, one at least: one minute of silence, or one
wrong figure, leaves most of a pool."""

# fmt: off
_SIZES = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 17, 20, 24, 28, 34, 40, 48, 56, 67, 80, 95, 113, 134, 160, 190,
          226, 269, 320)
# fmt: on
"""Sizes whose misses are tried: at the same use, the next smaller one misses no less than those between."""


def eased(wanted: int, current: int) -> int:
    """The size to order where so many are wanted: a part of the present ones is given up at once, not all."""
    return max(wanted, current - max(1, current // _PART))


def within(limits: PoolSpec, instances: float) -> int:
    """As many instances as are needed, rounded up and kept within the limits."""
    return limits.within(math.ceil(instances))


class _Pool:
    """A pool that follows the load at one use, or does as the scenarios say: ``use`` is 0 then."""

    def __init__(self, use: float = 0.0) -> None:
        self.use = use
        self.asked = 0
        self.ready = 0
        self._ordered: deque[tuple[float, int]] = deque()  # when they serve, how many
        self.missed = 0.0
        self.worst = 0.0
        self.held = 0.0
        self._missed_now = 0.0

    @property
    def ordered(self) -> int:
        """How many do not serve yet."""
        return sum(count for _, count in self._ordered)

    def start(self, instances: int) -> None:
        """Begin with so many, all of them READY: what there was before was somebody else's choice."""
        self.asked = self.ready = instances

    def look(self, tokens: float, missed: float) -> None:
        """Take in what came and the share of it that missed."""
        self._missed_now += tokens * missed

    def close(self, fade: float, counts: bool) -> None:
        """End a window that counts or does not."""
        if counts:
            self.missed = self.missed * fade + self._missed_now
            self.worst = max(self.worst * fade, self._missed_now)
            self.held = self.held * fade + self.asked
        self._missed_now = 0.0

    def serve(self, now_s: float) -> None:
        """Let serve what was ordered in time for it."""
        while self._ordered and self._ordered[0][0] <= now_s:
            self.ready += self._ordered.popleft()[1]

    def resize(self, instances: int, serves_s: float) -> None:
        """Order what is missing, or give up what is too much: what does not serve yet, the newest, first."""
        if instances > self.asked:
            self._ordered.append((serves_s, instances - self.asked))
        surplus = self.asked - instances
        while surplus > 0 and self._ordered:
            at_s, ordered = self._ordered.pop()
            if ordered > surplus:
                self._ordered.append((at_s, ordered - surplus))
            surplus -= min(ordered, surplus)
        self.ready -= max(surplus, 0)
        self.asked = instances


class Uses:
    """Chooses the share of what instances get through at most that the expected load may take.

    Where misses grow slowly with load, as they do where steps of long prompts delay everybody's tokens, they
    add up to the fewest where every window is as full as any other: then an instance moved from one to
    another saves nothing. So the pool follows the load at one use, and which one is found by trying them
    all on what comes: as load does not depend on the pool, what each would have missed is known (full
    information, as in Cesa-Bianchi & Lugosi 2006, chapter 2). The fullest is taken whose bound on what it
    misses is within the allowance, as conformal risk control does (Angelopoulos et al. 2024): the share
    missed so far, and its worst window once more in n + 1. Before much was seen a bad window is one in which
    the load jumps by a quarter, a half, or to twice what was planned. Where load comes and goes within
    minutes no use is enough: who follows it is late. Between the fullest and the next fuller one the risk is
    taken to rise evenly.

    Attributes:
        chosen: the use to plan for; None where none keeps what is asked, where none is known to, or where
            sizes for scenarios do with fewer.
        settled: whether enough has been seen to choose.

    Args:
        interval_s: between ticks.
        allowed: the share of the requests that may be missed.
    """

    def __init__(self, interval_s: float, allowed: float) -> None:
        self._interval_s = interval_s
        self._fade = 0.5 ** (interval_s / _HALF_LIFE_S)
        self._allowed = allowed
        self._pools = [_Pool(use) for use in _USES]
        self._careful = _Pool()
        self._wanted: deque[int] = deque(maxlen=max(2, round(PATIENCE_S / interval_s)))
        self._arrived = self._arrived_now = self._windows = self._alone = 0.0
        self._started = 0
        self.settled = False
        self.chosen: float | None = None

    @property
    def tried(self) -> tuple[_Pool, ...]:
        """The pools of every use, and that of scenarios."""
        return *self._pools, self._careful

    def look(self, lasts_s: float, load: float, in_service: float, curves: MissCurves) -> None:
        """Take in the load, tokens/s, of the last seconds, and what is in service after them."""
        if not self._started:
            return
        self._arrived_now += load * lasts_s
        for pool in self.tried:
            pool.look(load * lasts_s, _missed(curves, pool.ready, in_service))

    def surge(
        self, now_s: float, load: float, careful: int, ahead: int, limits: PoolSpec, curves: MissCurves
    ) -> None:
        """Let every pool order at once what a load above the plan asks for."""
        if not self._started:
            return
        self._wanted[-1] = max(self._wanted[-1], careful)
        for pool in self.tried:
            size = careful if pool is self._careful else _size(load, pool.use, limits, curves)
            if size > pool.asked:
                pool.resize(size, now_s + (ahead - 1) * self._interval_s)

    def ticked(
        self, now_s: float, load: float, careful: int, ahead: int, limits: PoolSpec, curves: MissCurves
    ) -> None:
        """End a window, let every pool order for the load planned next, and choose.

        Args:
            now_s: the tick.
            load: planned, in tokens/s.
            careful: the size that scenarios of that load ask for.
            ahead: the window, counted from 1 for the next, that capacity ordered now serves for most of.
            limits: the fewest and most instances.
            curves: what sizes miss.
        """
        self.settled = self._started >= _SETTLES + ahead
        if self.settled:
            self._arrived = self._arrived * self._fade + self._arrived_now
            self._windows = self._windows * self._fade + 1.0
            self._alone = self._alone * self._fade + self._arrived_now * curves.alone
        self._arrived_now = 0.0
        self._wanted.append(careful)
        for pool in self.tried:
            size = max(self._wanted) if pool is self._careful else _size(load, pool.use, limits, curves)
            pool.close(self._fade, self.settled)
            pool.serve(now_s)
            if self._started:
                pool.resize(eased(size, pool.asked), now_s + (ahead - 1) * self._interval_s)
            else:
                pool.start(size)
        self._started += 1
        if self.settled:
            self.chosen = self._fullest(load, curves, ahead)

    def _fullest(self, load: float, curves: MissCurves, ahead: int) -> float | None:
        """The fullest use that keeps what is asked; None where none does, or scenarios do with fewer."""
        alone = self._alone / self._arrived if self._arrived > 0.0 else curves.alone
        allowed = _USED * max(self._allowed - alone, self._allowed / 2.0)
        risks = [self._risk(pool, pool.use, curves, ahead) for pool in self._pools]
        fullest = max((at for at, risk in enumerate(risks) if risk <= allowed), default=None)
        if fullest is None:
            return None
        pool, careful = self._pools[fullest], self._careful
        if careful.held <= pool.held:
            # A jump does to them what it does to any pool that is as full as they have come to be.
            use = load / (max(careful.asked, 1) * curves.limit)
            if self._risk(careful, use, curves, ahead) <= allowed:
                return None
        if fullest + 1 == len(risks):
            return pool.use
        part = (allowed - risks[fullest]) / (risks[fullest + 1] - risks[fullest])
        return pool.use + part * (self._pools[fullest + 1].use - pool.use)

    def _risk(self, pool: _Pool, use: float, curves: MissCurves, ahead: int) -> float:
        """The share that a pool may be expected to miss for want of instances, now that it is so full."""
        # Windows that one order has to do with are one.
        windows = (self._windows + _KNOWN_WINDOWS) / math.sqrt(ahead)
        size = max(pool.asked, 1)
        bad = max(
            often / (windows + often) * _missed(curves, size, use * jump * size * curves.limit)
            for jump, often in _JUMPS
        )
        if self._arrived <= 0.0:
            return bad
        worst = pool.worst / (self._arrived / self._windows)
        return pool.missed / self._arrived + max(bad, worst / (windows + 1.0))


def _missed(curves: MissCurves, instances: int, load: float) -> float:
    """The share that so many miss of a load for want of more, by what the next smaller size tried does."""
    if instances <= 0:
        return 1.0 if load > 0.0 else 0.0
    tried = _SIZES[bisect_right(_SIZES, instances) - 1]
    return max(0.0, curves.share(tried, load * tried / instances) - curves.alone)


def _size(load: float, use: float, limits: PoolSpec, curves: MissCurves) -> int:
    return within(limits, load / (use * curves.limit))
