"""The GPU budget: what fits, what misses least where not all does, and what is left of the promise then."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sagescale.planner.policy.slo.day import HALF_LIFE_S

if TYPE_CHECKING:
    from sagescale.planner.observation import Observation
    from sagescale.planner.policy.slo.demand import Scenarios
    from sagescale.planner.policy.slo.pool import Pool

__all__ = ["Budget"]

_DAY = 0.1
"""What a pair would have missed of the last day counts for so much beside what it misses of the load to come:
the load to come is what it is for, and the day says what else may come."""

_TIES = 1e-3
"""So does the use of the fuller pool."""

_FULLEST = 100.0


class Budget:
    """The GPUs that both pools share.

    While more is wanted than they allow, what is missed is spent of what may be missed in a day: other hours
    have to keep more, up to all. Otherwise hours in which GPUs are left would miss what may be missed on top.

    Args:
        gpus: the budget.
        target_attainment: the share of all requests to keep.
        prefill: one of the pools.
        decode: the other.
    """

    def __init__(self, gpus: int, target_attainment: float, prefill: Pool, decode: Pool) -> None:
        self.gpus = gpus
        self._target = target_attainment
        self._prefill, self._decode = prefill, decode
        self._wanted_more = 0
        self._spent = self._arrived = 0.0

    @property
    def allowed(self) -> float:
        """The share of the requests to come that may be missed."""
        allowed = 1.0 - self._target
        return max(0.0, allowed - self._spent / self._arrived) if self._spent else allowed

    def fits(self, prefill: int, decode: int) -> bool:
        """Whether the budget allows both."""
        return prefill * self._prefill.limits.gpus + decode * self._decode.limits.gpus <= self.gpus

    def learn(self, seen: Observation) -> None:
        """Take in what was missed in a window."""
        met = [
            share
            for share in (seen.ttft_attainment, seen.itl_attained(self._target))
            if share is not None and 0.0 <= share <= 1.0
        ]
        fade = 0.5 ** (seen.window_s / HALF_LIFE_S)
        self._spent *= fade
        self._arrived *= fade
        if seen.requests and met:
            self._arrived += seen.requests
            if self._wanted_more > 0:
                self._spent += seen.requests * min(1.0, len(met) - sum(met))
        self._wanted_more -= 1

    def share(
        self, wanted: tuple[int, int], current: tuple[int, ...], scenarios: tuple[Scenarios, Scenarios]
    ) -> tuple[int, int]:
        """Where both do not fit, the pair that misses least.

        Of the load to come, that is: whoever chases what waits starves the other pool, then chases that.
        What it would have missed of the last day counts a little, and which pool is the fullest decides ties.
        The present pair stays if it is one of those and misses hardly more than the best.
        """
        if self.fits(*wanted):
            return wanted
        mine, other = self._prefill.limits, self._decode.limits
        # What is missed comes when the request ends: while ordered capacity starts, and a window after.
        self._wanted_more = 1 + max(self._prefill.startup.ahead, self._decode.startup.ahead)
        best, present = (math.inf, mine.least, other.least), math.inf
        for size in range(mine.least, wanted[0] + 1):
            rest = min(wanted[1], (self.gpus - size * mine.gpus) // other.gpus)
            if rest < other.least:
                break
            cost = _cost(self._prefill, size, scenarios[0]) + _cost(self._decode, rest, scenarios[1])
            full = max(_use(self._prefill, size, scenarios[0]), _use(self._decode, rest, scenarios[1]))
            cost += _TIES * min(full, _FULLEST)
            best = min(best, (cost, size, rest))
            if (size, rest) == current:
                present = cost
        stays = present <= best[0] + (1.0 - self._target) / 10.0
        return (current[0], current[1]) if stays else best[1:]


def _cost(pool: Pool, size: int, scenarios: Scenarios) -> float:
    return pool.missed(size, scenarios) + _DAY * pool.day_missed(size)


def _use(pool: Pool, size: int, scenarios: Scenarios) -> float:
    """The expected load over what a size gets through."""
    assert pool.curves is not None
    return scenarios.mean / (max(size, 1) * pool.curves.limit)
