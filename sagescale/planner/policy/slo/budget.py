"""How many misses an instance must avoid to be worth having: a price that follows the error budget."""

from __future__ import annotations

import math

__all__ = ["ErrorBudget"]

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
    """The worth of an instance in misses.

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
    def worth(self) -> float:
        """The share of the usual requests that an instance must save from missing to be worth having."""
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
