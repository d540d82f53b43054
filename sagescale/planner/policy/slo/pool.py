"""One pool as the slo policy sees it: load to come, how long starts take, engines tried, past sizes."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from typing import TYPE_CHECKING

from sagescale.planner.policy.slo.caution import Caution
from sagescale.planner.policy.slo.day import Day
from sagescale.planner.policy.slo.demand import Demand
from sagescale.planner.policy.slo.given_up import GivenUp
from sagescale.planner.policy.slo.in_service import InService
from sagescale.planner.policy.slo.recording import Recording
from sagescale.planner.policy.slo.uses import FIRST, PATIENCE_S, Uses, eased, within

if TYPE_CHECKING:
    from sagescale.fleet import PoolCounts, PoolSpec
    from sagescale.planner.policy.slo.demand import Scenarios
    from sagescale.planner.policy.slo.misses import MissCurves

__all__ = ["Pool", "StartupTime"]

_LAUNCHES = 20
"""Launches that the mean startup is taken of."""

_STARTS = 2
"""A size is kept until it was not wanted for ``PATIENCE_S``, or for as long as so many orders take one after
the other if that is longer: what was given up too early is missed for as long as a start takes."""

_REPLAYED_S = 2700.0
"""A size is given up only for one that would have kept what came in so long."""

_WAITS_S = 600.0
"""Nobody waits for longer: what is too much for hours is not there hours later."""

_NO_TIME_S = 0.5
"""What is left of a window after the last look is none."""

_HOPELESS = 5.0
"""Sizes that miss so many times what may be missed more are not looked at."""

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
        in_time_s: how long a queue may be where requests wait for one another; None where they share.
        uses: where sizes follow the load at one use; None where misses have a knee.

    Attributes:
        part: of what may be missed, what this pool may.
        in_service: by looks, for replays: requests stay for as long as full instances take.
        counted: what requests counted in service last make, tokens/s; None is unknown.
    """

    def __init__(
        self,
        limits: PoolSpec,
        interval_s: float,
        startup_s: float,
        allowed: float = 0.01,
        in_time_s: float | None = None,
        uses: Uses | None = None,
    ) -> None:
        self.name = limits.name
        self.limits = limits
        self.demand = Demand(interval_s)
        self.startup = StartupTime(startup_s / interval_s)
        self.caution = Caution(interval_s, allowed)
        self.recording = Recording(_REPLAYED_S, in_time_s)
        self._allowed = allowed
        self.uses = uses
        self._day = Day(limits.most, in_time_s or 0.0) if uses is None else None
        self.part = 1.0
        self._may_miss = allowed
        self.in_service = InService()
        self.counted: float | None = None
        self._interval_s = interval_s
        # Aggregated instances serve longer steps to all: what is too much does not wait.
        self._longest_s = (in_time_s or 0.0) if uses is None else None
        self._waiting = 0.0
        self.curves: MissCurves | None = None
        self.variation = 1.0
        self.load: float | None = None
        self._patience = max(2, round(PATIENCE_S / interval_s))
        self._wanted: deque[int] = deque()
        self._given_up = GivenUp(interval_s, _REPLAYED_S, self._kept_lately)
        self._burst = 0
        self._ready = 0
        self._looked_s = self._looked = 0.0

    @property
    def followed(self) -> float | None:
        """The use at which the size follows the load; None where it does not."""
        return None if self.uses is None else self.uses.chosen

    @property
    def start_s(self) -> float:
        """How long capacity ordered now takes to serve, in whole windows."""
        return (self.startup.ahead - 1) * self._interval_s

    def missed(self, instances: int, scenarios: Scenarios) -> float:
        """Share of the requests to expect that misses for want of instances."""
        assert self.curves is not None
        return self.curves.expected(instances, scenarios)

    def smallest(self, scenarios: Scenarios, allowed: float) -> int:
        """The fewest instances that miss no more than is allowed, and get through what is expected."""
        assert self.curves is not None
        if self.followed is not None:
            return within(self.limits, scenarios.mean / (self.followed * self.curves.limit))
        return self._smallest(scenarios, allowed)

    def careful(self, scenarios: Scenarios, allowed: float) -> int:
        """The size that scenarios ask for, whatever use is followed."""
        return self._worth_it(self._smallest(scenarios, allowed), scenarios, allowed)

    def _smallest(self, scenarios: Scenarios, allowed: float) -> int:
        assert self.curves is not None
        low, high = self.fewest(scenarios), self.limits.most
        high = max(low, min(high, math.ceil(scenarios.highest / self.curves.idle)))
        sizes = range(low, high)
        return low + bisect_left(sizes, x=True, key=lambda size: self.missed(size, scenarios) <= allowed)

    def worth_it(self, size: int, scenarios: Scenarios, allowed: float) -> int:
        """The fewest instances beyond which more save too little: a tenth more a tenth of what may be missed.

        Otherwise a load that hardly ever comes would be sized for wherever the allowance happens to end.
        """
        return size if self.followed is not None else self._worth_it(size, scenarios, allowed)

    def _worth_it(self, size: int, scenarios: Scenarios, allowed: float) -> int:
        missed = self.missed(size, scenarios)
        best = size
        for fewer in range(size - 1, self.fewest(scenarios) - 1, -1):
            saved = self.missed(fewer, scenarios) - missed
            if saved > _HOPELESS * allowed:
                break
            if saved <= allowed * (size - fewer) / max(fewer, 1):
                best = fewer
        return best

    def fewest(self, scenarios: Scenarios) -> int:
        """The fewest that get through what is expected: overload may go well for a minute, not for longer."""
        assert self.curves is not None
        full = _FULL if self.uses is None or self.uses.settled else FIRST
        return within(self.limits, scenarios.mean / (full * self.curves.limit))

    def remember(self, wanted: int) -> None:
        """Take in a size wanted between ticks: the next tick does not undo it."""
        self._burst = max(self._burst, wanted)

    def explained(self, ready: int, load: float) -> float:
        """The share that the simulation says a window's load misses, by what was there at both its ends.

        What came before and was too much for it waits: whoever comes before that is done is late as well.
        """
        assert self.curves is not None
        least, self._ready = min(ready, self._ready), ready
        share = self.curves.share(least, load)
        if self._longest_s is None:
            return share
        capacity = least * self.curves.limit
        waited = max(0.0, self._waiting - self._longest_s * capacity)
        done = (capacity - load) * self._interval_s
        self._waiting = min(max(0.0, self._waiting - done), _WAITS_S * capacity)
        late = waited / done if done > waited else float(waited > 0.0)
        return max(late, share)

    def looked(self, now_s: float, lasts_s: float, load: float) -> None:
        """Take in the load since the last look or tick."""
        assert self.curves is not None
        factor = max(1.0, self.caution.factor)
        believed, counted = load * factor, None if self.counted is None else self.counted * factor
        in_service = self.in_service.observe(lasts_s, believed, counted)
        self.recording.add(now_s, lasts_s, believed, in_service)
        if self._day is not None:
            self._day.look(lasts_s, believed, in_service, self.curves, self._allowed * self.part)
        if self.uses is not None:
            self.uses.look(lasts_s, believed, in_service, self.curves)
        self._looked_s += lasts_s
        self._looked += load * lasts_s

    def ticked(self, now_s: float, lasts_s: float, load: float | None) -> None:
        """Take in the load of the window that ends now, as far as it was not looked at; None is unknown."""
        rest_s = lasts_s - self._looked_s
        if load is None:
            self.in_service.pass_unseen(max(rest_s, 0.0))
        elif rest_s > _NO_TIME_S:
            self.looked(now_s, rest_s, max(0.0, load * lasts_s - self._looked) / rest_s)
        self._looked_s = self._looked = 0.0

    def holds(self, counts: PoolCounts) -> bool:
        """Whether what is ready would have kept what came lately."""
        assert self.curves is not None
        return self.recording.missed(counts.ready, self.curves) <= self._allowed / 2.0

    @property
    def enough(self) -> int | None:
        """No load like those of the last day asks for more; None where it may be another."""
        expected = max(self.demand.expected[: self.startup.ahead], default=0.0)
        expected *= max(1.0, self.caution.factor)
        most = None if self._day is None else self._day.enough(expected)
        return None if most is None else self.limits.within(most)

    def kept(self, wanted: int, current: int, allowed: float) -> int:
        """The fewest instances from what is wanted up to the present ones that would have kept what came."""
        assert self.curves is not None
        self._may_miss = allowed * self.part
        if wanted >= current or self.followed is not None:
            return wanted
        return self.recording.fewest(wanted, current, self.curves, self._may_miss)

    def _kept_lately(self, most: int) -> int:
        """The fewest instances, up to so many, that would have kept what came lately."""
        if self.curves is None:  # nobody has come yet
            return most
        return self.recording.fewest(self.limits.least, most, self.curves, self._may_miss)

    def after_idling(self, wanted: int, current: int, *, try_again: bool = False) -> int:
        """Give up what was not wanted for as long as two orders take to serve, six minutes at least.

        Capacity given up returns no sooner, so an instance has to have been idle as long (ski rental). The
        size found at the first decision counts as wanted then, as in an HPA's window: what came before is not
        known, however short the window. What was given up wrongly is kept (:class:`GivenUp`), up to what
        would have kept the last day, unless it may be tried again at a load that has been there before.
        """
        burst, self._burst = self._burst, 0
        if self.followed is not None:
            self._wanted.clear()
            return eased(wanted, current)
        self._wanted.append(max(wanted, burst) if self._wanted else max(wanted, current))
        while len(self._wanted) > max(self._patience, _STARTS * self.startup.ahead):
            self._wanted.popleft()
        size = wanted if wanted >= current else min(max(self._wanted), current)
        load = self.demand.expected[0] if self.demand.expected else 0.0
        most = self.enough
        kept = self._given_up.kept(size, current, load, try_again=try_again and most is not None)
        return kept if most is None else min(kept, max(size, most))
