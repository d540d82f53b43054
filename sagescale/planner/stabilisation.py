"""Stabilisation as the Kubernetes HPA does it: tolerance, and windows in which the safest size wins."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple


class _Recommendation(NamedTuple):
    time_s: float
    instances: int


def within_tolerance(demand: float, current: int, tolerance: float) -> bool:
    """Say whether demand, in instances, is too near to the current size to bother."""
    return current > 0 and abs(demand / current - 1.0) <= tolerance


class PoolStabiliser:
    """Remembers one pool's recommendations for as long as a window looks back.

    Up goes no further than the lowest recommendation of the last ``up_s`` seconds, down no further
    than the highest of the last ``down_s``. The recommendation just made always counts, the size found
    at the first decision counts as one, and a window without metrics makes none. (autoscaling/v2,
    ``stabilizeRecommendationWithBehaviors``.)
    """

    def __init__(self, up_s: float, down_s: float) -> None:
        self._up_s = up_s
        self._down_s = down_s
        self._keep_s = max(up_s, down_s)
        self._history: deque[_Recommendation] = deque()
        self._seeded = False

    def stabilise(self, time_s: float, current: int, recommended: int) -> int:
        """Record a recommendation and return the size that the windows allow."""
        if self._keep_s <= 0:
            return recommended
        history = self._history
        if not self._seeded:
            self._seeded = True
            history.append(_Recommendation(time_s, current))
        history.append(_Recommendation(time_s, recommended))
        while history[0].time_s <= time_s - self._keep_s:
            history.popleft()
        floor = ceiling = recommended
        for past in history:
            if past.time_s > time_s - self._up_s:
                floor = min(floor, past.instances)
            if past.time_s > time_s - self._down_s:
                ceiling = max(ceiling, past.instances)
        return min(max(current, floor), ceiling)
