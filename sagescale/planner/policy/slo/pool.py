"""One pool as the slo policy sees it: load to come, how long starts take, engines tried, past sizes."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

from sagescale.planner.policy.slo.caution import Caution
from sagescale.planner.policy.slo.demand import Demand

if TYPE_CHECKING:
    from sagescale.fleet import PoolCounts, PoolSpec
    from sagescale.planner.policy.slo.demand import Scenarios
    from sagescale.planner.policy.slo.misses import MissCurves

__all__ = ["Pool", "StartupTime"]

_LAUNCHES = 20
"""Launches that the mean startup is taken of."""

_PATIENCE_S = 300.0
"""A size is kept until it was not wanted for so long, or for as long as an order takes if that is longer."""

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
        allowed: the share of all requests that may be missed.
    """

    def __init__(self, limits: PoolSpec, interval_s: float, startup_s: float, allowed: float = 0.01) -> None:
        self.name = limits.name
        self.limits = limits
        self.demand = Demand(interval_s)
        self.startup = StartupTime(startup_s / interval_s)
        self.caution = Caution(interval_s, allowed)
        self.curves: MissCurves | None = None
        self.variation = 1.0
        self.load: float | None = None
        self._patience = max(2, round(_PATIENCE_S / interval_s))
        self._wanted: deque[int] = deque()
        self._burst = 0
        self._ready = 0

    def missed(self, instances: int, scenarios: Scenarios) -> float:
        """Share of the requests to expect that misses for want of instances."""
        assert self.curves is not None
        return self.curves.expected(instances, scenarios)

    def smallest(self, scenarios: Scenarios, allowed: float) -> int:
        """The fewest instances that miss no more than is allowed, and get through what is expected."""
        assert self.curves is not None
        low, high = self.fewest(scenarios), self.limits.most
        high = max(low, min(high, math.ceil(scenarios.highest / self.curves.idle)))
        while low < high:
            middle = (low + high) // 2
            if self.missed(middle, scenarios) <= allowed:
                high = middle
            else:
                low = middle + 1
        return low

    def fewest(self, scenarios: Scenarios) -> int:
        """The fewest that get through what is expected: overload may go well for a minute, not for longer."""
        assert self.curves is not None
        least, most = self.limits.least, self.limits.most
        return max(least, min(most, math.ceil(scenarios.mean / (_FULL * self.curves.limit))))

    def remember(self, wanted: int) -> None:
        """Take in a size wanted between ticks: the next tick does not undo it."""
        self._burst = max(self._burst, wanted)

    def explained(self, ready: int, load: float) -> float:
        """The share that the simulation says a window's load misses, by what was there at both its ends."""
        assert self.curves is not None
        least, self._ready = min(ready, self._ready), ready
        return self.curves.share(least, load)

    def after_idling(self, wanted: int, current: int) -> int:
        """Give up what was not wanted for as long as an order takes to serve, five minutes at least.

        Capacity given up returns no sooner, so an instance has to have been idle as long (ski rental). The
        size found at the first decision counts as wanted then, as in an HPA's window: what came before is not
        known, however short the window.
        """
        self._wanted.append(wanted if self._wanted else max(wanted, current))
        while len(self._wanted) > max(self._patience, self.startup.ahead):
            self._wanted.popleft()
        burst, self._burst = self._burst, 0
        return wanted if wanted >= current else min(max(*self._wanted, burst), current)
