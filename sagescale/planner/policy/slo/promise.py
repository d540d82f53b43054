"""What may still be missed: the promise, less what was missed lately."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sagescale.planner.policy.slo.day import HALF_LIFE_S, NEW_HOURS

if TYPE_CHECKING:
    from sagescale.planner.observation import Observation

__all__ = ["Promise"]

_AT_LEAST_S = 4 * 3600.0
"""What was missed counts as a share of what comes in so long, at least: a bad minute of the first is not a
sixtieth of the day."""

_COLD_S, _STARTS = 600.0, 3.0
"""What is missed before so long, or before so many starts could follow one another, was nobody's choice."""

_KNOWN_S = NEW_HOURS * 3600.0
"""Before so long it is not known how much is missed, as it is not what a level of the load asks for."""

_HARDLY = 0.2
"""Less than this part of what may be missed is hardly anything."""

_MISTAKE = 0.25
"""A size that turns out too small may miss everything until a start is over: once days have been seen, no
more than this part of what may be missed. What counts half after twelve hours adds up to that over ln 2, so
with 99 % a start may take 156 s. After five hours it is nearly all of what may be missed."""


class Promise:
    """The share of requests that may be missed from now on, for sizes to be chosen by.

        allowed = max(0, 1 - target - missed lately / arrived lately)

    Sizes are for scenarios that miss no more than is allowed, but those know only errors that were made, one
    window at a time. What they leave out (how long an overload lasts, the queue it leaves, an error not made
    yet) is missed on top. This is adaptive conformal inference (Gibbs & Candès 2021), which moves the level
    asked for by how often it was broken, in the proportional form of conformal PID control (Angelopoulos et
    al. 2023): what is planned to be missed and what was missed come to no more than was promised. What was
    missed counts half after twelve hours.

    Args:
        target_attainment: the share of all requests to keep.
    """

    def __init__(self, target_attainment: float) -> None:
        self._target = target_attainment
        self._promised = 1.0 - target_attainment
        self._short_s = _MISTAKE * self._promised * HALF_LIFE_S / math.log(2.0)
        self._age_s = self._seen_s = 0.0
        self._arrived = self._arrived_known = self._missed = self._missed_short = 0.0
        self._short = 0

    @property
    def allowed(self) -> float:
        """The share of the requests to come that may be missed."""
        return self._left(self._missed)

    @property
    def worth(self) -> float:
        """The share that an instance more is measured against.

        All that was promised: what was missed does not make an instance worth more. Unless it was for want of
        a larger budget: then GPUs within it are not what is to be saved.
        """
        return self._left(self._missed_short)

    def hardly_used(self, start_s: float) -> bool:
        """Whether next to nothing of what may be missed was, so that a size may turn out too small.

        Not where a start takes so long (``start_s``, whole windows) that one mistake takes more of it than
        ``_MISTAKE``, nor where either target's share is unknown of most requests, nor before five hours.
        """
        if start_s > self._short_s or self._age_s < _KNOWN_S:
            return False
        if 2.0 * self._arrived_known <= self._arrived:
            return False
        return self._lately(self._missed) < _HARDLY * self._promised

    def fell_short(self, windows: int) -> None:
        """Take in that the budget allows less than is wanted: it is why the next windows miss."""
        self._short = windows

    def learn(self, seen: Observation, start_s: float) -> None:
        """Take in what was missed in a window; a start takes so long."""
        fade = 0.5 ** (seen.window_s / HALF_LIFE_S)
        self._seen_s *= fade
        self._arrived *= fade
        self._arrived_known *= fade
        self._missed *= fade
        self._missed_short *= fade
        self._age_s += seen.window_s
        self._short -= 1
        met = [
            share
            for share in (seen.ttft_attainment, seen.itl_attained(self._target))
            if share is not None and 0.0 <= share <= 1.0
        ]
        if not seen.requests or not met:
            return
        self._seen_s += seen.window_s
        self._arrived += seen.requests
        if len(met) == 2:  # both targets'
            self._arrived_known += seen.requests
        if self._age_s < max(_COLD_S, _STARTS * start_s):
            return
        missed = seen.requests * min(1.0, len(met) - sum(met))
        self._missed += missed
        if self._short >= 0:
            self._missed_short += missed

    def _left(self, missed: float) -> float:
        return max(0.0, self._promised - self._lately(missed))

    def _lately(self, missed: float) -> float:
        """The share of what arrived that was missed."""
        if not missed:
            return 0.0
        return missed / (self._arrived * max(1.0, _AT_LEAST_S / self._seen_s))
