"""The GPU budget: what fits, and what misses least where not all does."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

from sagescale.fleet import Sizes, gpus_of, next_launches

if TYPE_CHECKING:
    from sagescale.fleet import Fleet
    from sagescale.planner.policy.slo.demand import Scenarios
    from sagescale.planner.policy.slo.pool import Pool

__all__ = ["Budget"]

_TIES = 1e-3
"""The fuller pool's use counts for so much beside the share missed."""

_FULLEST = 100.0

_SHORT_S = 600.0
"""A budget that was too small for so long, in all,"""

_LASTS_S = 24 * 3600.0
"""within so long may be so again: the next day is another one."""


class Budget:
    """The GPUs that both pools share.

    While it was too small within the last day nothing that there is room for is given up: what is missed then
    cannot be made up for by more later, and a load that rises again finds what there is at once, not a start
    later. Whoever sets a budget allows as much to be spent.

    Args:
        fleet: both pools, and the budget as its stock.
        interval_s: between ticks.
        allowed: the share of all requests that may be missed.
        prefill: one of the pools.
        decode: the other.
    """

    def __init__(self, fleet: Fleet, interval_s: float, allowed: float, prefill: Pool, decode: Pool) -> None:
        self.gpus = fleet.stock["gpu"]
        self._fleet = fleet
        self._often = max(1.0, _SHORT_S / interval_s)
        self._lasts = max(1, round(_LASTS_S / interval_s))
        self._tick = 0
        self._short: deque[int] = deque()  # ticks at which it was too small
        self._allowed = allowed
        self._prefill, self._decode = prefill, decode

    def fits(self, prefill: int, decode: int) -> bool:
        """Whether the budget allows both."""
        return prefill * self._prefill.limits.gpus + decode * self._decode.limits.gpus <= self.gpus

    def share(
        self, wanted: tuple[int, int], current: tuple[int, ...], scenarios: tuple[Scenarios, Scenarios]
    ) -> tuple[int, int]:
        """Where both do not fit, the pair that misses least; called at each tick.

        Of the load to come, that is: whoever chases what waits starves the other pool, then chases that.
        The fullest pool decides ties. The present pair stays if it is one of those and misses no more
        than may be missed beyond the best: what is moved serves nobody for as long as a start takes.
        """
        self._tick += 1
        while self._short and self._tick - self._short[0] >= self._lasts:
            self._short.popleft()
        if self.fits(*wanted):
            return wanted
        self._short.append(self._tick)
        mine, other = self._prefill.limits, self._decode.limits
        best, present = (math.inf, mine.least, other.least), math.inf
        for size in range(mine.least, wanted[0] + 1):
            rest = min(wanted[1], (self.gpus - size * mine.gpus) // other.gpus)
            if rest < other.least:
                break
            cost = self._prefill.missed(size, scenarios[0]) + self._decode.missed(rest, scenarios[1])
            full = max(_use(self._prefill, size, scenarios[0]), _use(self._decode, rest, scenarios[1]))
            cost += _TIES * min(full, _FULLEST)
            best = min(best, (cost, size, rest))
            if (size, rest) == current:
                present = cost
        return (current[0], current[1]) if present <= best[0] + self._allowed else best[1:]

    def kept(
        self, wanted: tuple[int, int], stay: tuple[int, int], current: tuple[int, ...]
    ) -> tuple[int, int]:
        """What stays beside what is wanted, which fits: what idles in one pool makes room for the other.

        Args:
            wanted: the fewest instances of both pools.
            stay: as many as are not given up yet.
            current: instances there are.
        """
        base, goal = Sizes(*wanted), Sizes(*stay)
        if len(self._short) >= self._often:
            base = goal if self.fits(*goal) else base
            goal = goal.map(max, current)
        if not self.fits(*goal):
            free = {"gpu": self.gpus - gpus_of(base, self._fleet)["gpu"]}
            more = next_launches(goal.map(int.__sub__, base), goal, self._fleet, free)
            goal = base.map(int.__add__, more)
        return goal.prefill, goal.decode


def _use(pool: Pool, size: int, scenarios: Scenarios) -> float:
    """The expected load over what a size gets through."""
    assert pool.curves is not None
    return scenarios.mean / (max(size, 1) * pool.curves.limit)
