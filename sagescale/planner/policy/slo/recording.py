"""The load that came lately, look by look, and what another size of the pool would have missed of it."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from sagescale.planner.policy.slo.misses import MissCurves

__all__ = ["Follow", "Recording"]


class _Piece(NamedTuple):
    """Load between two looks.

    Attributes:
        end_s: the later look's time.
        lasts_s: seconds between both.
        load: tokens/s in the mean.
        smooth: the same averaged over the time in which the pool settles, the latest counting most.
    """

    end_s: float
    lasts_s: float
    load: float
    smooth: float


class _Order(NamedTuple):
    """A load that was sized for: when, and tokens/s."""

    at_s: float
    load: float


class Follow(NamedTuple):
    """How a pool that was made smaller would have grown when it saw load.

    Attributes:
        start_s: from an order until it serves.
        seen_s: from a load until it is ordered for.
        kept_s: how long what was ordered is kept.
        each: tokens/s that an instance is ordered for; 0 is where nothing is ordered.
        most: instances at most.
    """

    start_s: float
    seen_s: float
    kept_s: float
    each: float
    most: int


_ALONE = Follow(0.0, 0.0, 0.0, 0.0, 0)

_RETURNS = 0.2
"""How likely it is that what a pool was made smaller after comes back at once while it is remembered."""


class Recording:
    """Keeps the last ``lasts_s`` seconds of load and replays them on pools of other sizes.

    Where starts are quick a pool can follow most of what comes: only what comes sooner than a start has to be
    kept for.

    Between looks (every ``fast_interval_sec``) the load is even. A size is replayed twice, and what misses
    more counts: as a fluid, where everything that arrives at a queue longer than ``in_time_s`` is late (none
    where that is None), and with what was tried of steady traffic at the load averaged over the time in which
    the pool settles. Clumps shorter than a look are in neither.

    Args:
        lasts_s: how long is remembered.
        in_time_s: how long a queue may be, where requests wait for one another; None where they share.
    """

    def __init__(self, lasts_s: float, in_time_s: float | None) -> None:
        self._lasts_s = lasts_s
        self._in_time_s = in_time_s
        self._pieces: deque[_Piece] = deque()
        self._orders: deque[_Order] = deque()

    def add(self, now_s: float, lasts_s: float, load: float, settles_s: float) -> None:
        """Take in the load, tokens/s, of the last ``lasts_s`` seconds; a pool settles in ``settles_s``."""
        before = self._pieces[-1].smooth if self._pieces else load
        kept = math.exp(-lasts_s / settles_s) if settles_s > 0.0 else 0.0
        self._pieces.append(_Piece(now_s, lasts_s, load, load + kept * (before - load)))
        while self._pieces[0].end_s <= now_s - self._lasts_s:
            self._pieces.popleft()

    def order(self, now_s: float, load: float) -> None:
        """Take in that the load of the window that ends now was sized for."""
        self._orders.append(_Order(now_s, load))
        while self._orders[0].at_s <= now_s - 2.0 * self._lasts_s:
            self._orders.popleft()

    @property
    def highest(self) -> float:
        """The highest load between two looks."""
        return max((piece.load for piece in self._pieces), default=0.0)

    def missed(self, instances: int, curves: MissCurves, follow: Follow = _ALONE) -> float:
        """The share of what was recorded that a pool made so small would have missed for want of more.

        That is with what it would have ordered meanwhile. Or, if that is more, what it would miss should the
        worst of it come back at once, until what is ordered then serves, times how likely that is.
        """
        arrived = missed = waiting = waiting_alone = lately = worst = 0.0
        sudden: deque[tuple[float, float]] = deque()  # of late: until when, and how many
        for piece, there in zip(self._pieces, self._followed(instances, follow), strict=True):
            requests = piece.load * piece.lasts_s
            arrived += requests
            share, waiting = self._share(piece, there, waiting, curves)
            missed += requests * share
            if there == instances:
                waiting_alone = waiting
            else:
                share, waiting_alone = self._share(piece, instances, waiting_alone, curves)
            sudden.append((piece.end_s, requests * share))
            lately += requests * share
            while sudden and sudden[0][0] <= piece.end_s - follow.start_s - follow.seen_s:
                lately -= sudden.popleft()[1]
            worst = max(worst, lately)
        return max(missed, _RETURNS * worst) / arrived if arrived > 0.0 else 0.0

    def _followed(self, instances: int, follow: Follow) -> list[int]:
        """Instances in each piece: so many, or what was ordered for a load before and serves."""
        if follow.each <= 0.0:
            return [instances] * len(self._pieces)
        there = []
        orders = deque(self._orders)
        highest: deque[_Order] = deque()  # of those that serve, those that no later one exceeds
        for piece in self._pieces:
            until_s = piece.end_s - piece.lasts_s - follow.start_s
            while orders and orders[0].at_s <= until_s:
                while highest and highest[-1].load <= orders[0].load:
                    highest.pop()
                highest.append(orders.popleft())
            while highest and highest[0].at_s < until_s - follow.kept_s:
                highest.popleft()
            ordered = math.floor(highest[0].load / follow.each) if highest else 0
            there.append(max(instances, min(follow.most, ordered)))
        return there

    def _share(
        self, piece: _Piece, instances: int, waiting: float, curves: MissCurves
    ) -> tuple[float, float]:
        """What so many miss of a piece where so much waits before, and what waits after it, tokens."""
        lasts_s, load, limit = piece.lasts_s, piece.load, instances * curves.limit
        share = curves.share(instances, piece.smooth) - curves.alone
        if self._in_time_s is not None:
            after = waiting + (load - limit) * lasts_s
            longest, shortest = max(waiting, after), min(waiting, after)
            allowed = self._in_time_s * limit
            if longest > allowed:  # the part of the piece in which the queue is too long
                over = (longest - max(allowed, shortest)) / max(longest - shortest, 1e-9)
                share = max(share, over if longest > shortest else 1.0)
            waiting = max(0.0, after)
        return max(share, 0.0), waiting

    def fewest(
        self, wanted: int, current: int, curves: MissCurves, allowed: float, follow: Follow = _ALONE
    ) -> int:
        """The fewest instances from what is wanted up to the present ones that would have kept it all."""
        sizes = range(wanted, max(wanted, current))

        def keeps(size: int) -> bool:
            return self.missed(size, curves, follow) <= allowed

        return wanted + bisect_left(sizes, x=True, key=keeps)
