"""One pool as the slo policy sees it: its load to come, its engines tried, and what it was asked to be."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

from sagescale.planner.policy.slo.demand import Demand
from sagescale.planner.policy.slo.startup import StartupTime

if TYPE_CHECKING:
    from sagescale.fleet import PoolSpec
    from sagescale.planner.policy.slo.demand import Scenarios
    from sagescale.planner.policy.slo.misses import MissCurves

__all__ = ["Pool"]

_STEADY, _SAMPLED = 1.0, 0.02
"""A smaller pool has to hold at a load that is higher by so many deviations of chance, and by what a sample
of lengths leaves open."""

_FULL = 0.95
"""The share of what instances get through at most that the expected load may take."""


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
        self._surge = 0

    def missed(self, instances: int, scenarios: Scenarios) -> float:
        """Misses to expect, in shares of the requests of a window of usual load."""
        assert self.curves is not None
        return self.curves.expected(instances, scenarios, max(self.demand.usual, 1e-9))

    def best(self, scenarios: Scenarios, worth: float) -> int:
        """The size at which instances times their worth and misses together are least.

        From the fewest that leave less than an instance is worth to avoid, downwards, as long as what is
        missed alone costs less than the best.
        """
        assert self.curves is not None
        least, most = self.fewest(scenarios), self.limits.most
        low = least - 1
        high = max(least, min(most, math.ceil(scenarios.highest / self.curves.idle)))
        floor = self.missed(high, scenarios)
        while high - low > 1:
            middle = (low + high) // 2
            if self.missed(middle, scenarios) - floor < worth:
                high = middle
            else:
                low = middle
        best, cost = high, high * worth + self.missed(high, scenarios)
        for fewer in range(high - 1, least - 1, -1):
            missed = self.missed(fewer, scenarios)
            if missed >= cost:
                break
            if missed + fewer * worth < cost:
                best, cost = fewer, missed + fewer * worth
        return best

    def holding(self, wanted: int, current: int, scenarios: Scenarios, allowed: float) -> int:
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
        self._surge = max(self._surge, wanted)

    def held(self, wanted: int, current: int) -> int:
        """Give up what was not wanted in the time a launch takes to serve, two ticks at least.

        Capacity given up comes back no sooner, so an instance has to have been idle as long (ski rental).
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
        surge, self._surge = self._surge, 0
        if wanted >= current:
            return wanted
        most, released = wanted, 0.0
        for age, size in enumerate(reversed(self._wanted)):
            if size > most:
                released += (size - most) * math.expm1(age / patience) / (math.e - 1.0)
                most = size
        return min(max(most - math.floor(released), surge), current)
