"""What sizes of a pool would miss, tried where it has not been."""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from sagescale.planner.policy.slo.demand import Scenarios

__all__ = ["MissCurves"]

_STEP = 0.04
_IDLE, _LIGHTEST, _HOPELESS = 0.25, 0.05, 1.6
"""Shares of what instances get through at most: below the first hardly anything is late, unless a few
requests at a time already are (then trying ends at the second), and above the last everything is."""

_IDLE_STEP, _LIGHTEST_STEP = (math.ceil(math.log(use) / _STEP) for use in (_IDLE, _LIGHTEST))

_ALL = 0.98


class MissCurves:
    """Shares of requests that miss, by instances and load, for one sample of lengths.

    More load an instance never helps, and at the same load an instance more of them never hurt: what that
    says without trying is not tried.

    Args:
        tried: the share that misses with so many instances at so many requests/s.
        limit_rps: requests/s that one instance gets through at most.
        tokens: tokens of a request in the mean, in the unit of the loads.
        alone: the share that misses whatever the size.
    """

    def __init__(
        self, tried: Callable[[int, float], float], limit_rps: float, tokens: float, alone: float = 0.0
    ) -> None:
        self.limit = limit_rps * tokens
        self.alone = alone
        self._tried = tried
        self.tokens = tokens
        self._limit_rps = limit_rps
        self._known: dict[tuple[int, int], float] = {}
        # Looks replay the same loads again and again; lengths are drawn anew, and this with them, after ten
        # windows.
        self._shares: dict[int, dict[float, float]] = {}
        self._none: dict[int, int] = {}  # instances -> highest step known to miss no more than alone
        self._all: dict[int, int] = {}  # instances -> lowest step known to miss everything

    @property
    def idle(self) -> float:
        """Tokens/s up to which an instance is as good as idle, unless few requests at a time already miss."""
        return _IDLE * self.limit

    def share(self, instances: int, load: float) -> float:
        """Share of the requests that miss at a load in tokens/s; linear between loads tried, and below."""
        known = self.known(instances)
        share = known.get(load)
        if share is None:
            share = known[load] = self._share(instances, load)
        return share

    def known(self, instances: int) -> dict[float, float]:
        """What ``share`` has answered so far for so many instances, by load."""
        return self._shares.setdefault(instances, {})

    def _share(self, instances: int, load: float) -> float:
        if load <= 0.0:
            return 0.0
        if instances <= 0:
            return 1.0
        use = load / (self.limit * instances)
        if use >= _HOPELESS:
            return 1.0
        if use < _IDLE and self._at(instances, _IDLE_STEP) <= self.alone:
            return self.alone
        at = math.log(max(use, _LIGHTEST)) / _STEP
        low = math.floor(at)
        part = at - low
        above = self._at(instances, low + 1)
        if above == self.alone:
            return above
        share = above + (1.0 - part) * (self._at(instances, low) - above)
        return self.alone + min(1.0, use / _LIGHTEST) * (share - self.alone)

    def keeps_up(self, instances: int, allowed: float) -> float:
        """The highest share of what instances get through at most that misses no more than is allowed."""
        steps = range(_LIGHTEST_STEP, 1)
        late = bisect_left(steps, x=True, key=lambda step: self._at(instances, step) > self.alone + allowed)
        return math.exp(steps[max(late - 1, 0)] * _STEP)

    def expected(self, instances: int, scenarios: Scenarios) -> float:
        """Share of the expected requests that is expected to miss for want of instances."""
        total = 0.0
        for load, weight in zip(
            scenarios.loads[::-1].tolist(), scenarios.weights[::-1].tolist(), strict=True
        ):
            missed = self.share(instances, load) - self.alone
            if missed <= 0.0:
                break
            total += weight * load * missed
        return total / scenarios.mean if total else 0.0

    def _at(self, instances: int, step: int) -> float:
        key = instances, step
        known = self._known.get(key)
        if known is not None:
            return known
        if any(fewer <= instances and step <= to for fewer, to in self._none.items()):
            self._known[key] = self.alone
            return self.alone
        if any(more >= instances and step >= to for more, to in self._all.items()):
            return 1.0
        known = self._known[key] = self._tried(
            instances, math.exp(step * _STEP) * self._limit_rps * instances
        )
        if known <= self.alone:
            self._none[instances] = max(step, self._none.get(instances, step))
        elif known >= _ALL:
            self._all[instances] = min(step, self._all.get(instances, step))
        return known
