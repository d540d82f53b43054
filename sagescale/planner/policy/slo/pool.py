"""One pool as the slo policy sees it: load to come, how long starts take, engines tried, past sizes."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

from sagescale.planner.policy.slo.demand import Demand

if TYPE_CHECKING:
    from sagescale.fleet import PoolCounts, PoolSpec
    from sagescale.planner.policy.slo.demand import Scenarios
    from sagescale.planner.policy.slo.misses import MissCurves

__all__ = ["Pool", "StartupTime"]

_LAUNCHES = 20
"""Launches that the mean startup is taken of."""

_STEADY, _SAMPLED = 1.0, 0.02
"""A smaller pool has to hold at a load that is higher by so many deviations of chance, and by what a sample
of lengths leaves open."""

_FULL = 0.95
"""The share of what instances get through at most that the expected load may take."""


class StartupTime:
    """Counts ticks from a launch to READY; first in, first out.

    Args:
        ticks: what is assumed until a launch has been seen through, in intervals.
    """

    def __init__(self, ticks: float) -> None:
        self._assumed = ticks
        self._seen: deque[int] = deque(maxlen=_LAUNCHES)
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


class Pool:
    """Chooses sizes of one pool and remembers what it needs for that.

    Args:
        limits: the pool, with what the configuration allows.
        interval_s: between ticks.
        startup_s: from launch to READY, as far as it is said.
    """

    def __init__(self, limits: PoolSpec, interval_s: float, startup_s: float) -> None:
        self.name = limits.name
        self.limits = limits
        self.demand = Demand(interval_s)
        self.startup = StartupTime(startup_s / interval_s)
        self.curves: MissCurves | None = None
        self.variation = 1.0
        self._wanted: deque[int] = deque()
        self._burst = 0

    def missed(self, instances: int, scenarios: Scenarios) -> float:
        """Misses to expect, in shares of the requests of a window of usual load."""
        assert self.curves is not None
        return self.curves.expected(instances, scenarios, max(self.demand.usual, 1e-9))

    def best(self, scenarios: Scenarios, price: float) -> int:
        """The size at which instances times their price and misses together are least.

        From the fewest that leave less than the price of an instance to avoid, downwards, as long as what is
        missed alone costs less than the best.
        """
        assert self.curves is not None
        least, most = self.fewest(scenarios), self.limits.most
        low = least - 1
        high = max(least, min(most, math.ceil(scenarios.highest / self.curves.idle)))
        floor = self.missed(high, scenarios)
        while high - low > 1:
            middle = (low + high) // 2
            if self.missed(middle, scenarios) - floor < price:
                high = middle
            else:
                low = middle
        best, cost = high, high * price + self.missed(high, scenarios)
        for fewer in range(high - 1, least - 1, -1):
            missed = self.missed(fewer, scenarios)
            if missed >= cost:
                break
            if missed + fewer * price < cost:
                best, cost = fewer, missed + fewer * price
        return best

    def enough(self, wanted: int, current: int, scenarios: Scenarios, allowed: float) -> int:
        """The smallest size from what is wanted up to the present one that would itself hold.

        At the expected load, and a little more: otherwise a size would be left that chance soon asks for
        again. What the load may be beyond that is in the price.
        """
        assert self.curves is not None
        more = scenarios.scaled(1.0 + math.hypot(_STEADY * self.demand.chance, _SAMPLED))
        wanted = max(wanted, min(current, self.fewest(more)))
        while wanted < current and self.curves.share(wanted, more.mean) - self.curves.alone > allowed:
            wanted += 1
        return wanted

    def fewest(self, scenarios: Scenarios) -> int:
        """The fewest that get through what is expected: overload may go well for a minute, not for longer."""
        assert self.curves is not None
        least, most = self.limits.least, self.limits.most
        return max(least, min(most, math.ceil(scenarios.mean / (_FULL * self.curves.limit))))

    def remember(self, wanted: int) -> None:
        """Take in a size wanted between ticks: the next tick does not undo it."""
        self._burst = max(self._burst, wanted)

    def after_idling(self, wanted: int, current: int) -> int:
        """Give up what was not wanted in the time a launch takes to serve, two ticks at least.

        Capacity given up returns no sooner, so an instance has to have been idle as long (ski rental).
        Of several idle ones a part goes before: after a share x of that time, the share
        ``(exp(x) - 1) / (e - 1)``, with which the best randomised strategy would have let go of each (Karlin
        et al. 1994; Lu, Chen & Andrew 2013 for servers). The size found at the first decision counts as
        wanted then: what came before is not known, however short the window.
        """
        patience = max(2, self.startup.ahead)
        # As the HPA's window does: what is found at the first decision counts as recommended at that moment.
        self._wanted.append(wanted if self._wanted else max(wanted, current))
        while len(self._wanted) > patience:
            self._wanted.popleft()
        burst, self._burst = self._burst, 0
        if wanted >= current:
            return wanted
        most, released = wanted, 0.0
        for age, size in enumerate(reversed(self._wanted)):
            if size > most:
                released += (size - most) * math.expm1(age / patience) / (math.e - 1.0)
                most = size
        return min(max(most - math.floor(released), burst), current)
