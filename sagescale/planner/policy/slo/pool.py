"""One pool as the slo policy sees it: load to come, how long starts take, engines tried, past sizes."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from sagescale.planner.policy.slo.caution import Caution
from sagescale.planner.policy.slo.demand import Demand
from sagescale.planner.policy.slo.price import Savings
from sagescale.planner.policy.slo.recording import Follow, Recording

if TYPE_CHECKING:
    from sagescale.fleet import PoolCounts, PoolSpec
    from sagescale.planner.policy.slo.demand import Scenarios
    from sagescale.planner.policy.slo.misses import MissCurves

__all__ = ["Pool", "StartupTime"]

_LAUNCHES = 20
"""Launches that the mean startup is taken of."""

_PATIENCE_S, _STARTS = 360.0, 2
"""What is not wanted is kept no longer, or as long as so many orders take one after the other."""

_SHORT = 0.85
"""What a pool that much smaller misses says how dear it is to have given up too much."""

_REPLAYED_S = 2700.0
"""A size is given up only for one that would have kept what came in so long."""

_NOTHING, _FINE = 0.02, 40
"""Sizes that miss this part of what may be missed are enough; larger ones are looked at this finely."""

_AT_ONCE = 2.0
"""No size is chosen that misses more than so many times what may be missed, little as that may save."""

_WAVERS, _DEVIATION = 0.01, 1.2533
"""What a look counts for in how far looks are off, and a normal deviation over the mean absolute one."""

_NO_TIME_S = 0.5
"""What is left of a window after the last look is none."""

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
        target_itl_ms: within which tokens have to come.
        share: the part of what may be missed that a smaller size may miss of what came; the rest is the other
            pool's.
    """

    def __init__(
        self,
        limits: PoolSpec,
        interval_s: float,
        startup_s: float,
        allowed: float = 0.01,
        in_time_s: float | None = None,
        target_itl_ms: float = 0.0,
        share: float = 0.5,
    ) -> None:
        self.name = limits.name
        self.limits = limits
        self._interval_s = interval_s
        self.demand = Demand(interval_s)
        self.startup = StartupTime(startup_s / interval_s)
        self.caution = Caution(interval_s, allowed)
        self.recording = Recording(_REPLAYED_S, in_time_s)
        self._allowed = allowed
        self._replayed_allowed = allowed * share
        self._shares_s = target_itl_ms / 1000.0 if in_time_s is None else 0.0
        self.curves: MissCurves | None = None
        self.variation = 1.0
        self.load: float | None = None
        self._patience = max(2, round(_PATIENCE_S / interval_s))
        self._wanted: deque[int] = deque()
        self.wavers = 0.0  # the deviation, in logarithms, of loads between looks from what was planned
        self._burst = 0
        self._ready = 0
        self._looked_s = self._looked = 0.0

    def missed(self, instances: int, scenarios: Scenarios) -> float:
        """Share of the requests to expect that misses for want of instances."""
        assert self.curves is not None
        return self.curves.expected(instances, scenarios)

    def savings(self, scenarios: Scenarios) -> Savings:
        """What more instances save, from the fewest that get through what is expected."""
        assert self.curves is not None
        size = self.fewest(scenarios)
        most = max(size, min(self.limits.most, math.ceil(scenarios.highest / self.curves.idle)))
        sizes, missed = [size], [self.missed(size, scenarios)]
        while size < most and missed[-1] > _NOTHING * self._allowed:
            size = min(most, size + max(1, size // _FINE))
            sizes.append(size)
            missed.append(self.missed(size, scenarios))
        return Savings.of(sizes, missed, self.limits.gpus)

    def worth(self, savings: Savings, per_gpu: float) -> int:
        """The largest size whose last GPU saves so much, or the fewest that do not miss far too much."""
        at_once = int(np.count_nonzero(savings.missed > _AT_ONCE * self._allowed))
        least = int(savings.sizes[min(at_once, len(savings.sizes) - 1)])
        return max(least, savings.size(per_gpu))

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

    def looked(self, now_s: float, lasts_s: float, load: float) -> None:
        """Take in the load since the last look or tick."""
        assert self.curves is not None
        believed = load * max(1.0, self.caution.factor)
        self.recording.add(now_s, lasts_s, believed, self.curves.tokens * self._shares_s)
        self._looked_s += lasts_s
        self._looked += load * lasts_s

    def ticked(self, now_s: float, lasts_s: float, load: float | None) -> None:
        """Take in the load of the window that ends now, as far as it was not looked at; None is unknown."""
        rest_s = lasts_s - self._looked_s
        if load is not None and rest_s > _NO_TIME_S:
            self.looked(now_s, rest_s, max(0.0, load * lasts_s - self._looked) / rest_s)
        self._looked_s = self._looked = 0.0
        if load is not None:
            self.recording.order(now_s, load * max(1.0, self.caution.factor))

    def wavered(self, load: float) -> None:
        """Take in a load between two looks, beside the one planned."""
        planned = self.demand.expected[0]
        off = abs(math.log(load / planned)) if min(load, planned) > 0.0 else 1.0
        self.wavers += _WAVERS * (_DEVIATION * min(off, 1.0) - self.wavers)

    def holds(self, counts: PoolCounts) -> bool:
        """Whether what is ready would have kept what came lately."""
        assert self.curves is not None
        return self.recording.missed(counts.ready, self.curves) <= self._allowed / 2.0

    def kept(self, wanted: int, current: int, expected: float) -> int:
        """The fewest instances from what is wanted up to the present ones that would have kept what came.

        Args:
            wanted: for the load expected.
            current: the present ones.
            expected: that load: as much more or fewer are ordered for others.
        """
        assert self.curves is not None
        if wanted >= current:
            return wanted
        each = min(self.curves.holds(current, self._replayed_allowed), expected / max(wanted, 1))
        follow = Follow(
            start_s=(self.startup.ahead - 1) * self._interval_s,
            seen_s=self._interval_s,
            kept_s=self._longest * self._interval_s,
            each=each,
            most=self.limits.most,
        )
        return self.recording.fewest(wanted, current, self.curves, self._replayed_allowed, follow)

    @property
    def _longest(self) -> int:
        """Ticks that anything not wanted is kept at most."""
        return max(self._patience, _STARTS * self.startup.ahead)

    def patience(self, size: int, scenarios: Scenarios, per_gpu: float) -> int:
        """Ticks for which instances are kept that are not wanted.

        Ski rental (Karlin et al. 1988): as long as it would cost to have given them up too early. That is a
        start, in which an instance is paid for and does not serve, and what is missed meanwhile: as much
        again where each instance missing is worth no more than a GPU has to save, more where a smaller
        pool misses much.

        Args:
            size: what is wanted.
            scenarios: the load it is for.
            per_gpu: the share of requests that a GPU has to save.
        """
        start = max(1, self.startup.ahead - 1)
        fewer = min(size - 1, round(_SHORT * size))
        if fewer < 1 or not 0.0 < per_gpu < math.inf:
            return self._longest
        lost = (self.missed(fewer, scenarios) - self.missed(size, scenarios)) / (size - fewer)
        worth = lost / self.limits.gpus / per_gpu
        return min(self._longest, max(2 * start, math.ceil(start * (1.0 + worth))))

    def after_idling(self, wanted: int, current: int, patience: int | None = None) -> int:
        """Give up what was not wanted for so many ticks, or for the most there may be where that is None.

        The size found at the first decision counts as wanted then, as in an HPA's window, for the most there
        may be: what came before is not known.
        """
        burst, self._burst = self._burst, 0
        self._wanted.append(max(wanted, burst) if self._wanted else max(wanted, current))
        known = len(self._wanted) > self._longest  # the size found at the first decision is gone
        while len(self._wanted) > self._longest:
            self._wanted.popleft()
        lately = list(self._wanted)[-patience:] if patience and known else self._wanted
        return wanted if wanted >= current else min(max(lately), current)
