"""The mean of the last windows."""

from __future__ import annotations

from collections import deque
from math import fsum, sqrt
from typing import TYPE_CHECKING

from sagescale.planner.forecast import DEFAULT_WINDOW
from sagescale.planner.forecast.protocol import Forecast, checked, checked_horizon

if TYPE_CHECKING:
    from sagescale.planner.forecast.protocol import PredictorOptions


class MovingAveragePredictor:
    """The mean of the known values among the last `window_size` windows, for every window ahead.

    The deviation is that of a new value around a mean of n: the sample deviation times `sqrt(1 + 1/n)`, the
    same at every step, as for values that scatter around a level.
    """

    name = "moving_average"
    refits = 0
    cadence = "nothing is fitted"

    def __init__(self, options: PredictorOptions) -> None:
        """Take the number of windows to average (10)."""
        self._window: deque[float | None] = deque(maxlen=options.window_size or DEFAULT_WINDOW)
        self._last: float | None = None
        self._moments: tuple[float, float, str] | None = None  # of the present window, until it changes

    def observe(self, value: float | None) -> None:
        """See `Predictor.observe`."""
        if value is not None:
            self._last = checked(value)
        self._window.append(value)
        self._moments = None

    def forecast(self, horizon: int) -> Forecast | None:
        """See `Predictor.forecast`."""
        checked_horizon(horizon)
        if self._last is None:
            return None
        if self._moments is None:
            self._moments = self._mean_and_deviation(self._last)
        mean, deviation, note = self._moments
        return Forecast((mean,) * horizon, (deviation,) * horizon, note)

    def _mean_and_deviation(self, last: float) -> tuple[float, float, str]:
        known = [value for value in self._window if value is not None]
        count = len(known)
        if count == 0:
            return last, 0.0, f"all of the last {len(self._window)} windows are unknown: last known value"
        mean = fsum(known) / count
        if count == 1:
            return mean, 0.0, ""
        squares = fsum([(value - mean) ** 2 for value in known])
        return mean, sqrt(squares / (count - 1) * (1.0 + 1.0 / count)), ""
