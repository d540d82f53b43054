"""Sizes that were given up and had to be taken back although the load was the same."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

__all__ = ["GivenUp"]

_SOON_S = 3 * 3600.0
"""A size taken back within that was given up wrongly, if the load is the same."""

_LASTS_S = 12 * 3600.0
"""How long that is remembered: the time of day makes other traffic."""

_SAME = 0.07
"""Loads no further apart are the same: less than a tenth, by which engines tried twice differ too."""


class _Size(NamedTuple):
    """A size that was given up, and the load and the tick at which it was."""

    instances: int
    load: float
    tick: int


class GivenUp:
    """Keeps a pool from trying again, at the same load, a size that was too small lately.

    Where n instances are more than is needed and n - 1 miss a little too much, what is learned from misses
    would change the pool for ever. A size is kept while the load is no less than it was when giving that size
    up had to be taken back; load that rose meanwhile says nothing.

    Args:
        interval_s: between ticks.
    """

    def __init__(self, interval_s: float) -> None:
        self._soon, self._lasts = _SOON_S / interval_s, _LASTS_S / interval_s
        self._tick = 0
        self._current = 0
        self._given: _Size | None = None
        self._needed: deque[_Size] = deque()

    def kept(self, size: int, current: int, load: float) -> int:
        """Return the size to have instead; called at each tick.

        Args:
            size: to be ordered.
            current: instances there are, with what was asked for since the last tick.
            load: expected, tokens/s.
        """
        self._tick += 1
        given = self._given
        # Given up is what was: not all that is planned is done.
        if given is not None and min(self._current, current) < min(given.instances, max(size, current)):
            if self._tick - given.tick <= self._soon and load <= given.load * (1.0 + _SAME):
                self._needed.append(given._replace(tick=self._tick))
            self._given = None
        while self._needed and self._tick - self._needed[0].tick > self._lasts:
            self._needed.popleft()
        if size < current:
            needed = (each.instances for each in self._needed if load >= each.load * (1.0 - _SAME))
            size = min(max(size, *needed, 0), current)
            if size < current and load > 0.0:
                self._given = _Size(current, load, self._tick)
        self._current = current
        return size
