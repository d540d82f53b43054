"""How much more a pool needs than the simulation says, learned from what is missed."""

from __future__ import annotations

import math
from collections import deque

__all__ = ["Caution"]

_GAIN_PER_MIN = 1.0
"""What a minute of usual load that misses everything adds to the logarithm."""

_MOST = 4.0
"""Of the factor."""

_LARGEST = 0.1
"""A window says no more than that so much was missed: one event is not how traffic is."""

_USED = 0.7
"""The part of what may be missed that is aimed at: the time the factor takes to rise is missed too."""

_RECENT = 0.02
"""Share of a window in what was missed of late."""

_LONGEST = 12
"""Windows that requests served now may go back to, at most."""


class Caution:
    """A factor on a pool's load that what is missed raises, and time without misses lowers, down to 1.

        log factor <- clip(log factor + gain * requests / usual * (missed - may be missed))

    This is online risk control (Gibbs & Candès 2021; Angelopoulos, Candès & Tibshirani 2023): while nothing
    is clipped or left out, the shares missed beyond what may be add up to no more than the logarithm of the
    factor over the gain, whatever traffic does.

    Left out is what the simulation itself says that the instances there would miss of the load that came:
    that is the forecast's doing, or the start's, and it is in the scenarios already.

    Args:
        interval_s: between ticks.
        allowed: the share of all requests that may be missed, by both pools together.
    """

    def __init__(self, interval_s: float, allowed: float) -> None:
        self._gain = _GAIN_PER_MIN * interval_s / 60.0
        self._allowed = allowed
        self._log = 0.0
        self._late = 0.0
        self._explained: deque[float] = deque(maxlen=_LONGEST)
        self.recent = 0.0

    @property
    def factor(self) -> float:
        """Times the load."""
        return math.exp(self._log)

    def skip(self) -> None:
        """Take in a window of which it is not known what was missed."""
        self._late = 0.0

    def learn(
        self,
        missed: float,
        late: float,
        explained: float,
        *,
        windows: int,
        weight: float,
        other: float,
        starting: bool,
        full: bool,
    ) -> None:
        """Take in a window.

        Args:
            missed: share of the requests served in it that missed.
            late: requests that wait and can no longer be served in time, over those that arrived: missed, but
                not yet served.
            explained: share that the simulation says is missed by what was there at the load that came.
            windows: how far back requests served now began.
            weight: the load over the usual one.
            other: the share that the other pool has missed of late.
            starting: ordered capacity is not there yet.
            full: the pool may not grow.
        """
        missed += late - self._late
        self._late = late
        self._explained.append(explained)
        self.recent += _RECENT * (missed - self.recent)
        explained = max(list(self._explained)[-windows:])
        # What the other pool leaves of the promise, half of it at least.
        allowed = _USED * max(self._allowed - other, self._allowed / 2.0)
        step = self._gain * weight * min(missed - max(allowed, explained), _LARGEST)
        if step > 0.0 and (full or (starting and explained > self._allowed)):
            return
        self._log = min(max(self._log + step, 0.0), math.log(_MOST))
