"""What sizes of a pool would miss, tried where it has not been, and the price of an instance in misses."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from sagescale.planner.policy.slo.demand import Scenarios

__all__ = ["ErrorBudget", "MissCurves"]

_STEP = 0.04
_IDLE, _HOPELESS = 0.25, 1.6
"""Shares of what instances get through at most: below nothing changes any more, above everything is late."""

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
        self._none: dict[int, int] = {}  # instances -> highest step known to miss no more than alone
        self._all: dict[int, int] = {}  # instances -> lowest step known to miss everything

    @property
    def idle(self) -> float:
        """Tokens/s up to which an instance is as good as idle."""
        return _IDLE * self.limit

    def share(self, instances: int, load: float) -> float:
        """Share of the requests that miss at a load in tokens/s; linear between loads tried."""
        if load <= 0.0:
            return 0.0
        if instances <= 0:
            return 1.0
        use = load / (self.limit * instances)
        if use >= _HOPELESS:
            return 1.0
        at = math.log(max(use, _IDLE)) / _STEP
        low = math.floor(at)
        part = at - low
        above = self._at(instances, low + 1)
        if above == self.alone:
            return above
        return above + (1.0 - part) * (self._at(instances, low) - above)

    def expected(self, instances: int, scenarios: Scenarios, usual: float) -> float:
        """Misses to expect, in shares of the requests of a window of usual load."""
        total = self.alone * scenarios.mean
        for load, weight in zip(
            scenarios.loads[::-1].tolist(), scenarios.weights[::-1].tolist(), strict=True
        ):
            missed = self.share(instances, load) - self.alone
            if missed <= 0.0:
                break
            total += weight * load * missed
        return total / usual

    def _at(self, instances: int, step: int) -> float:
        key = instances, step
        known = self._known.get(key)
        if known is not None:
            return known
        if any(fewer <= instances and step <= to for fewer, to in self._none.items()):
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


_USED = 0.7
"""The part of the error budget that is planned to be used: the rest is for what no plan foresees."""

_LEAST_USED = 0.2
"""However much was missed of late, so much of that is planned with: repaying all at once costs most."""

_GAIN = 0.1
_LARGEST_STEP = 0.3
_START, _LOWEST, _HIGHEST = 0.5, 0.25, 16.0
"""The price in halves of the error budget: where it begins, and its bounds."""

_BIAS_WINDOWS, _BIAS_MEMORY = 240, 1440
"""How many windows without a difference it begins with, and after how many it forgets."""


class ErrorBudget:
    """The price of an instance in misses.

    Sizes are chosen so that instances at a price and misses together are least, and the price is the dual
    variable of the promise that misses stay within ``1 - target_attainment`` over time (dual ascent): it
    falls while more are planned for than may be, and rises while fewer are. So misses are taken where
    avoiding them is dearest. Planned misses lead it, since they vary less than those that happen; by how much
    the latter are more, in the mean of a day of minutes, is added.
    """

    def __init__(self, target_attainment: float) -> None:
        self._allowed = 1.0 - target_attainment
        self._log = math.log(_START)
        self._bias = 0.0
        self._windows = _BIAS_WINDOWS

    @property
    def price(self) -> float:
        """The share of the usual requests that an instance must save from missing to be had."""
        return self._allowed / 2.0 * math.exp(self._log)

    def compare(self, missed: float, planned: float) -> None:
        """Take in the share of a window's requests that missed, and what had been planned for it."""
        self._windows = min(self._windows + 1, _BIAS_MEMORY)
        self._bias += (missed - planned - self._bias) / self._windows

    def plan(self, planned: float) -> None:
        """Take in the share of the usual requests that the sizes just chosen are expected to miss."""
        allowed = max(self._allowed - max(self._bias, 0.0), _LEAST_USED * self._allowed)
        # From what is meant to be used up to what may be, the price stays: sizes are whole.
        over = planned / min(max(planned, _USED * allowed), allowed) - 1.0
        step = min(max(_GAIN * over, -_LARGEST_STEP), _LARGEST_STEP)
        self._log = min(max(self._log - step, math.log(_LOWEST)), math.log(_HIGHEST))
