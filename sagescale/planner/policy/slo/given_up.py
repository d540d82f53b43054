"""Sizes that were too small although the load was the same."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["GivenUp"]

_SOON_S = 3 * 3600.0
"""A size taken back within that was given up wrongly, if the load is the same."""

_LONG_S = 3600.0
"""A size that served for so long and is too small at the load of that time was so at that load."""

_LASTS_S = 24 * 3600.0
"""How long that is remembered: the next day is another one."""

_SAME = 0.07
"""Loads no further apart are the same: less than a tenth, by which engines tried twice differ too."""


class _Size(NamedTuple):
    """A size that was given up, and the load and the tick at which it was.

    Attributes:
        left: whether the load has been lower since: at an unchanged load the answer is known.
        before: the fewest that would have kept what came until it was found to be needed.
    """

    instances: int
    load: float
    tick: int
    left: bool = False
    before: int = 0


class GivenUp:
    """Keeps a pool from trying again, at the same load, a size that was too small lately.

    Where n instances are more than is needed and n - 1 miss a little too much, what is learned from misses
    would change the pool for ever. A size is kept while the load is no less than it was when giving that size
    up had to be taken back, or when fewer had served for an hour and were too few; load that rose meanwhile
    says nothing. What was wanted need not have been needed: once what came afterwards can be replayed, no
    more is kept than would have kept that and what had come before.

    Args:
        interval_s: between ticks.
        replayed_s: how much of what came last can be replayed.
        fewest: the fewest instances, up to so many, that would have kept that.
    """

    def __init__(self, interval_s: float, replayed_s: float, fewest: Callable[[int], int]) -> None:
        self._soon, self._long, self._lasts = (each / interval_s for each in (_SOON_S, _LONG_S, _LASTS_S))
        self._replayed = max(1, round(replayed_s / interval_s))
        self._fewest = fewest
        self._tick = 0
        self._current = self._ordered = 0
        self._given: _Size | None = None
        self._needed: deque[_Size] = deque()
        self._served, self._usual = 0, 0.0

    def kept(self, size: int, current: int, load: float, *, try_again: bool = False) -> int:
        """Return the size to have instead; called at each tick.

        Args:
            size: to be ordered.
            current: instances there are, with what was asked for since the last tick.
            load: expected, tokens/s.
            try_again: whether what was too small may be tried all the same, where the load was lower since.
        """
        self._tick += 1
        self._learn(max(size, current), current, load)
        while self._needed and self._tick - self._needed[0].tick > self._lasts:
            self._needed.popleft()
        self._prove()
        needed = 0
        for at, each in enumerate(self._needed):
            if load < each.load * (1.0 - _SAME):
                self._needed[at] = each._replace(left=True)
            elif not (try_again and each.left):
                needed = max(needed, each.instances)
        if size < current:
            size = min(max(size, needed), current)
            if size < current and load > 0.0:
                self._given = _Size(current, load, self._tick)
        self._current, self._ordered = current, size
        return size

    def _prove(self) -> None:
        for at, each in enumerate(self._needed):
            if self._tick - each.tick == self._replayed:
                proven = max(each.before, self._fewest(each.instances))
                self._needed[at] = each._replace(instances=proven)

    def _learn(self, wanted: int, current: int, load: float) -> None:
        needed = None
        if wanted > max(self._current, self._ordered) and self._served >= self._long:
            needed = _Size(wanted, self._usual, self._tick)
        given = self._given
        # Given up is what was: not all that is planned is done.
        if given is not None and min(self._current, current) < min(given.instances, wanted):
            if self._tick - given.tick <= self._soon:
                needed = given._replace(tick=self._tick)
            self._given = None
        if needed is not None and load <= needed.load * (1.0 + _SAME):
            self._needed.append(needed._replace(before=self._fewest(needed.instances)))
        self._served = self._served + 1 if current == self._current else 1
        self._usual += (load - self._usual) / self._served
