"""How many ticks a launch takes until it is ready: what is said of it, then what is seen."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sagescale.fleet import PoolCounts

__all__ = ["StartupTime"]

_REMEMBERED = 20


class StartupTime:
    """Counts ticks from a launch to READY; first in, first out.

    Args:
        ticks: what is assumed until a launch has been seen through, in intervals.
    """

    def __init__(self, ticks: float) -> None:
        self._assumed = ticks
        self._seen: deque[int] = deque(maxlen=_REMEMBERED)
        self._ages: deque[int] = deque()
        self._ready: int | None = None

    @property
    def ahead(self) -> int:
        """The window, counted from 1 for the next, that capacity ordered now serves for most of."""
        if self._seen:
            # Seen at ticks, a launch that takes x intervals is READY at the next whole number.
            ticks = sum(self._seen) / len(self._seen) - 0.5
        else:
            ticks = max(self._assumed, max(self._ages, default=0.0))
        return int(ticks + 0.5) + 1

    def observe(self, counts: PoolCounts) -> None:
        """Take in the pool as it is at the next tick, before anything is decided."""
        self._ages = deque(age + 1 for age in self._ages)
        for _ in range(0 if self._ready is None else max(0, counts.ready - self._ready)):
            self._seen.append(self._ages.popleft() if self._ages else 1)
        starting = counts.starting + counts.waiting
        # Some were cancelled: the newest are, first. Some are new: this is their first tick.
        while len(self._ages) > starting:
            self._ages.pop()
        while len(self._ages) < starting:
            self._ages.append(1)
        self._ready = counts.ready
