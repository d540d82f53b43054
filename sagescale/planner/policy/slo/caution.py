"""How much more a pool needs than the simulation says, learned from what is missed."""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple

__all__ = ["Caution", "Missed"]

_RISES_PER_MIN, _FALLS_PER_MIN, _BELOW_ONE = 2.0, 1.0, 0.25
"""What a minute of usual load adds to the logarithm where it misses everything beyond what may be missed, and
what it takes off for each share that it misses less: too little breaks the promise, too much costs. The last
is the part of that speed at which it falls further when it is below 1: nothing asked for that."""

_LEAST, _MOST = 0.85, 4.0
"""Of the factor; the least where a start takes ``_SHORT_S``."""

_SHORT_S = 60.0
"""Where starts take longer, a size that is too small is so for longer: there is less to try below 1."""

_LARGEST = 0.1
"""A window says no more than that so much was missed beyond what may be, or less than that: one event is not
how traffic is, and what the simulation says of an overload it is not sure of."""

_MOST_AT_ONCE = 0.4
"""The logarithm rises by no more until what was ordered for it serves and those it serves are reported. What
is missed says nothing of the order before: answers that take minutes are late for minutes more."""

_USED = 0.5
"""The part of what may be missed that is aimed at: single bad minutes, which count in part only, and what
forecasts miss are missed too."""

_RECENT = 0.02
"""Share of a window in what was missed of late."""

_LONGEST = 12
"""Windows that requests served now may go back to, and that an order's effect is waited for, at most."""


class Missed(NamedTuple):
    """What a window says of a pool.

    Attributes:
        share: of the requests served in it that missed.
        late: requests that wait and can no longer be served in time, over those that arrived: missed, but not
            yet served.
        explained: share that the simulation says is missed by what was there at the load that came.
        windows: how far back requests served now began.
        weight: the load over the usual one.
        other: the share that the other pool has missed of late.
        ahead: the window, counted from 1 for the next, that an order serves for most of.
        start_s: how long that is from the order.
        starting: ordered capacity is not there yet.
        full: the pool may not grow.
        part: of what may be missed that is this pool's.
        left: of what was promised, the part that may still be missed: so far it may go below 1.
    """

    share: float
    late: float = 0.0
    explained: float = 0.0
    windows: int = 2
    weight: float = 1.0
    other: float = 0.0
    ahead: int = 2
    start_s: float = 60.0
    starting: bool = False
    full: bool = False
    part: float = 1.0
    left: float = 1.0


class Caution:
    """A factor on a pool's load that what is missed raises, and time without misses lowers.

        log factor <- clip(log factor + gain * requests / usual * (missed - may be missed))

    This is online risk control (Gibbs & Candès 2021; Angelopoulos, Candès & Tibshirani 2023): while nothing
    is clipped or left out, the shares missed beyond what may be add up to no more than the logarithm of the
    factor over the gain, whatever traffic does. It rises faster than it falls, so that what is missed in
    the long run is less than what may be.

    Left out is what the simulation itself says that the instances there would miss of the load that came:
    that is the forecast's doing, or the start's, and it is in the scenarios already.

    Args:
        interval_s: between ticks.
        allowed: the share of all requests that may be missed, by both pools together.
    """

    def __init__(self, interval_s: float, allowed: float) -> None:
        self._minutes = interval_s / 60.0
        self._allowed = allowed
        self._log = 0.0
        self._late = 0.0
        self._explained: deque[float] = deque(maxlen=_LONGEST)
        self._rises: deque[float] = deque(maxlen=_LONGEST)
        self.recent = 0.0

    @property
    def factor(self) -> float:
        """Times the load."""
        return math.exp(self._log)

    def skip(self) -> None:
        """Take in a window of which it is not known what was missed."""
        self._late = 0.0
        self._rises.append(0.0)

    def learn(self, window: Missed) -> None:
        """Take in a window."""
        missed = window.share + window.late - self._late
        self._late = window.late
        self._explained.append(window.explained)
        self.recent += _RECENT * (missed - self.recent)
        explained = max(list(self._explained)[-window.windows :])
        mine = self._allowed * window.part
        # Or what the other pool leaves of the promise, half of what is this one's at least.
        allowed = _USED * max(min(mine, self._allowed - window.other), mine / 2.0)
        beyond = min(max(missed - max(allowed, explained), -_LARGEST), _LARGEST)
        step = self._minutes * window.weight * beyond
        rise = 0.0
        if step < 0.0:
            step *= _FALLS_PER_MIN * (1.0 if self._log > 0.0 else _BELOW_ONE)
        else:
            if not (window.full or (window.starting and explained > self._allowed)):
                left = _MOST_AT_ONCE - sum(list(self._rises)[-(window.ahead + window.windows) :])
                rise = max(0.0, min(_RISES_PER_MIN * step, left))
            step = rise
        self._rises.append(rise)
        least = math.log(_LEAST) * min(1.0, _SHORT_S / max(window.start_s, 1.0)) * window.left
        self._log = min(max(self._log + step, least), math.log(_MOST))
