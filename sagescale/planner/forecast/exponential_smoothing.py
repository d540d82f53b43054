"""Holt's damped trend on the last windows."""

from __future__ import annotations

from collections import deque
from math import sqrt
from typing import TYPE_CHECKING

from sagescale.planner.forecast import DEFAULT_WINDOW
from sagescale.planner.forecast.protocol import Forecast, checked, checked_horizon

if TYPE_CHECKING:
    from sagescale.planner.forecast.protocol import PredictorOptions

# Fixed, not optimised: ten points do not determine three parameters, and choosing them anew on every window
# follows its noise.
_LEVEL = 0.5  # alpha
_TREND = 0.1  # beta*: share of a level correction that goes into the trend is alpha * beta*
_DAMPING = 0.9  # phi: the trend fades to a third in ten windows, so no horizon runs away


class ExponentialSmoothingPredictor:
    """Follows a level and a slowly changing, fading trend over the last `window_size` windows.

    Holt's method with damped trend, ETS(A, Ad, N): level `l = p + a e`, trend `b = phi b + a b* e`, with
    `p = l + phi b` the one-step forecast and `e` its error, started at the window's first known value without
    trend; unknown windows only let time pass. The forecast h ahead is `l + (phi + .. + phi^h) b`, its
    variance `s^2 (1 + sum_{j<h} (a + a b* (phi + .. + phi^j))^2)` (Hyndman et al. 2008, table 6.1), `s^2` the
    mean squared error within the window.
    """

    name = "exponential_smoothing"
    refits = 0
    cadence = "nothing is fitted: fixed smoothing parameters"

    def __init__(self, options: PredictorOptions) -> None:
        """Take the number of windows to smooth over (10)."""
        self._window: deque[float | None] = deque(maxlen=options.window_size or DEFAULT_WINDOW)
        self._last: float | None = None
        self._state: tuple[float, float, float, str] | None = None  # level, trend, variance, note

    def observe(self, value: float | None) -> None:
        """See `Predictor.observe`."""
        if value is not None:
            self._last = checked(value)
        self._window.append(value)
        self._state = None

    def forecast(self, horizon: int) -> Forecast | None:
        """See `Predictor.forecast`."""
        checked_horizon(horizon)
        if self._last is None:
            return None
        if self._state is None:
            self._state = self._smooth(self._last)
        level, trend, variance, note = self._state
        means: list[float] = []
        deviations: list[float] = []
        reach = 0.0  # phi + .. + phi^h
        growth = 1.0
        damping = 1.0
        for _ in range(horizon):
            damping *= _DAMPING
            reach += damping
            means.append(max(0.0, level + reach * trend))
            deviations.append(sqrt(variance * growth))
            growth += (_LEVEL + _LEVEL * _TREND * reach) ** 2
        return Forecast(tuple(means), tuple(deviations), note)

    def _smooth(self, last: float) -> tuple[float, float, float, str]:
        level: float | None = None
        trend = squares = 0.0
        errors = 0
        for value in self._window:
            if level is None:
                level = value
                continue
            trend *= _DAMPING
            level += trend
            if value is not None:
                error = value - level
                squares += error * error
                errors += 1
                level += _LEVEL * error
                trend += _LEVEL * _TREND * error
        if level is None:
            return (
                last,
                0.0,
                0.0,
                f"all of the last {len(self._window)} windows are unknown: last known value",
            )
        if errors == 0:
            return level, 0.0, 0.0, ""
        return level, trend, squares / errors, ""
