"""The load that came lately, look by look, and what another size of the pool would have missed of it."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from sagescale.planner.policy.slo.misses import MissCurves

__all__ = ["Recording"]


class _Piece(NamedTuple):
    """Load between two looks.

    Attributes:
        end_s: the later look's time.
        lasts_s: seconds between both.
        load: tokens/s in the mean.
        in_service: what is in service then, tokens/s.
    """

    end_s: float
    lasts_s: float
    load: float
    in_service: float


class Recording:
    """Keeps the last ``lasts_s`` seconds of load and replays them on pools of other sizes.

    Between looks (every ``fast_interval_sec``) the load is even. A size is replayed twice, and what misses
    more counts: as a fluid, where everything that arrives at a queue longer than ``in_time_s`` is late (none
    where that is None), and with what was tried of steady traffic at the load in service. Clumps shorter than
    a look are in neither.

    Args:
        lasts_s: how long is remembered.
        in_time_s: how long a queue may be, where requests wait for one another; None where they share.
    """

    def __init__(self, lasts_s: float, in_time_s: float | None) -> None:
        self._lasts_s = lasts_s
        self._in_time_s = in_time_s
        self._pieces: deque[_Piece] = deque()

    def add(self, now_s: float, lasts_s: float, load: float, in_service: float) -> None:
        """Take in the load of the last ``lasts_s`` seconds, and what is in service after them, tokens/s."""
        self._pieces.append(_Piece(now_s, lasts_s, load, in_service))
        while self._pieces[0].end_s <= now_s - self._lasts_s:
            self._pieces.popleft()

    @property
    def highest(self) -> float:
        """The highest load between two looks."""
        return max((piece.load for piece in self._pieces), default=0.0)

    def missed(self, instances: int, curves: MissCurves) -> float:
        """The share of what was recorded that so many instances would have missed for want of more."""
        arrived = missed = waiting = 0.0
        limit = instances * curves.limit
        waits = self._in_time_s is not None
        allowed = (self._in_time_s or 0.0) * limit
        known, alone = curves.known(instances), curves.alone
        for _, lasts_s, load, in_service in self._pieces:  # hundreds, at every look
            share = known[in_service] if in_service in known else curves.share(instances, in_service)
            share -= alone
            if waits:
                after = waiting + (load - limit) * lasts_s
                shortest, longest = (waiting, after) if after > waiting else (after, waiting)
                if longest > allowed:  # the part of the piece in which the queue is too long
                    over = (longest - max(allowed, shortest)) / max(longest - shortest, 1e-9)
                    share = max(share, over if longest > shortest else 1.0)
                waiting = max(after, 0.0)
            came = load * lasts_s
            arrived += came
            if share > 0.0:
                missed += came * share
        return missed / arrived if arrived > 0.0 else 0.0

    def fewest(self, wanted: int, current: int, curves: MissCurves, allowed: float) -> int:
        """The fewest instances from what is wanted up to the present ones that would have kept it all."""
        sizes = range(wanted, max(wanted, current))
        return wanted + bisect_left(sizes, x=True, key=lambda size: self.missed(size, curves) <= allowed)
