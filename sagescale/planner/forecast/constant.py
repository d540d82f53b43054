"""The last value repeated."""

from __future__ import annotations

from math import inf, sqrt
from typing import TYPE_CHECKING

from sagescale.planner.forecast.protocol import Forecast, checked, checked_horizon

if TYPE_CHECKING:
    from sagescale.planner.forecast.protocol import PredictorOptions

_FADE = 1.0 - 1.0 / 30.0  # errors fade over 30 windows, as in ErrorSpread; inlined: this is the hot path


class ConstantPredictor:
    """Repeats the last known value: right for a random walk, and what everything else is compared with.

    The deviation is that of a random walk, recent one-window changes times the root of the windows since
    the last known value. A change seen across k unknown windows counts as that of k windows.
    """

    name = "constant"
    refits = 0
    cadence = "nothing is fitted"

    def __init__(self, options: PredictorOptions | None = None) -> None:
        """Take no option: the last value needs none."""
        del options
        self.last: float | None = None
        self._gap = 1  # windows from the last known value to the next observation
        self._squares = 0.0
        self._weight = 0.0

    def observe(self, value: float | None) -> None:
        """See `Predictor.observe`."""
        if value is None:
            self._gap += 1
            return
        if not 0.0 <= value < inf:
            checked(value)  # raises
        if self.last is not None:
            change = value - self.last
            self._squares = _FADE * self._squares + change * change / self._gap
            self._weight = _FADE * self._weight + 1.0
        self.last = value
        self._gap = 1

    def forecast(self, horizon: int) -> Forecast | None:
        """See `Predictor.forecast`."""
        if self.last is None:
            return None
        # One value says nothing of its spread: it is taken as 0.
        variance = self._squares / self._weight if self._weight else 0.0
        if horizon == 1:
            return Forecast((self.last,), (sqrt(variance * self._gap),))
        steps = range(self._gap, self._gap + checked_horizon(horizon))
        return Forecast((self.last,) * horizon, tuple([sqrt(variance * step) for step in steps]))
