"""The last day as it came: the fewest instances, always there, that would have kept it."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from sagescale.planner.policy.slo.misses import MissCurves

__all__ = ["HALF_LIFE_S", "NEW_HOURS", "Day"]

HALF_LIFE_S = 43_200.0
"""What came and what was missed count half after so long."""

_HOURS = 25
"""Hours whose highest level is remembered, the present one among them."""

NEW_HOURS = 5
"""The present hour, and four before it, say little of the hours to come: they may be all that there was, or
how a higher level begins."""

_LEVEL_S = 600.0
"""The level of the load is its average over so long: a minute does not make a new one."""

_SAME = 1.05
"""A level no further above those there were is one of them."""

_MORE = 1.25
"""Where the level is as high as it has been, so many times what would have kept the day is enough."""

_LARGEST = 512
"""Larger sizes are not replayed."""

_PARTS, _SMALL = 8, 16
"""Up to so many instances, eighths of one are replayed too: what is needed grows before it is rounded up."""


class Day:
    """Replays the load on pools of every size that never change.

    A fluid: what is beyond the load that a size keeps up with waits, and whoever comes to a queue longer than
    ``in_time_s`` is late. Load does not depend on the pool, so what each size would have missed is known.

    Args:
        most: the largest size.
        in_time_s: how long a queue may be.
    """

    def __init__(self, most: int, in_time_s: float) -> None:
        whole = np.arange(1.0, min(most, _LARGEST) + 1.0)
        parts = np.arange(1.0, _PARTS * min(most, _SMALL)) / _PARTS
        self._sizes = np.union1d(whole, parts)
        self._in_time_s = in_time_s
        self._allowed = 0.0
        self._waiting = np.zeros(len(self._sizes))
        self._missed = np.zeros(len(self._sizes))
        self._arrived = self._seen_s = 0.0
        self._level: float | None = None
        self._highest: deque[float] = deque(maxlen=_HOURS)
        self._curves: MissCurves | None = None
        self._each = 0.0

    def enough(self, expected: float) -> int | None:
        """As many as the load can ask for, if what was and is expected has been before; None where not known.

        Args:
            expected: the load to come, tokens/s.
        """
        size = self._fewest()
        before = max(list(self._highest)[:-NEW_HOURS], default=0.0)
        if size is None or self._level is None:
            return None
        level = max(self._level, expected / self._each)
        if before <= 0.0 or level > _SAME * before:
            return None
        return math.ceil(size * max(1.0, _MORE * min(level / before, 1.0)))

    def look(
        self, lasts_s: float, load: float, in_service: float, curves: MissCurves, allowed: float
    ) -> None:
        """Take in the load, tokens/s, of the last seconds, and what is in service after them.

        From here on a size keeps the day if it misses no more than is ``allowed``.
        """
        self._allowed = allowed
        if curves is not self._curves:
            self._curves = curves
            self._each = curves.limit * curves.keeps_up(math.ceil(self._fewest() or 1), self._allowed)
        kept = math.exp(-lasts_s / _LEVEL_S)
        instances = load / self._each
        self._level = instances if self._level is None else instances + kept * (self._level - instances)
        if not self._highest or self._seen_s // 3600.0 != (self._seen_s + lasts_s) // 3600.0:
            self._highest.append(0.0)
        self._highest[-1] = max(self._highest[-1], self._level)
        self._seen_s += lasts_s
        capacity = self._each * self._sizes
        self._waiting = np.maximum(0.0, self._waiting + (in_service - capacity) * lasts_s)
        late = self._waiting > self._in_time_s * capacity
        fade = 0.5 ** (lasts_s / HALF_LIFE_S)
        self._arrived = self._arrived * fade + load * lasts_s
        self._missed = self._missed * fade + late * (load * lasts_s)

    def _fewest(self) -> float | None:
        """The fewest instances that would have kept what came; None where none would."""
        kept = self._missed <= self._allowed * self._arrived
        return float(self._sizes[kept.argmax()]) if kept[-1] else None
