"""The value one season ago."""

from __future__ import annotations

from collections import deque
from math import sqrt
from typing import TYPE_CHECKING

from sagescale.planner.forecast.constant import ConstantPredictor
from sagescale.planner.forecast.error_spread import ErrorSpread
from sagescale.planner.forecast.protocol import Forecast, checked, checked_horizon

if TYPE_CHECKING:
    from sagescale.planner.forecast.protocol import PredictorOptions

_DAY_S = 86_400.0


class SeasonalNaivePredictor:
    """Repeats the last season: the next window is what it was one period ago.

    The season is `season_s`, a day where none is given, rounded to whole windows; the history kept is two of
    them whatever `window_size` is. Where the window a season ago is unknown, the one before that counts, and
    the last known value after it. Until one season has passed the forecast is the last value, and says so.
    """

    name = "seasonal_naive"
    refits = 0
    cadence = "nothing is fitted"

    def __init__(self, options: PredictorOptions) -> None:
        """Take the season, a day by default."""
        self.season = options.season_windows() or max(2, round(_DAY_S / options.interval_s))
        self._history: deque[float | None] = deque(maxlen=2 * self.season)
        self._last_value = ConstantPredictor()
        self._spread = ErrorSpread()

    def observe(self, value: float | None) -> None:
        """See `Predictor.observe`."""
        if value is not None:
            checked(value)
            if len(self._history) >= self.season:
                before = self._a_season_ago(0)
                if before is not None:
                    self._spread.add(value - before)
        self._history.append(value)
        self._last_value.observe(value)

    def forecast(self, horizon: int) -> Forecast | None:
        """See `Predictor.forecast`."""
        checked_horizon(horizon)
        simple = self._last_value.forecast(horizon)
        if simple is None:
            return None
        seen = len(self._history)
        if seen < self.season:
            note = f"{seen} of the {self.season} windows of a season seen: last value"
            return Forecast(simple.mean, simple.std, note)
        means = list(simple.mean)
        deviations = list(simple.std)
        filled = 0
        for step in range(horizon):
            before = self._a_season_ago(step % self.season)
            if before is None:
                filled += 1
            else:
                means[step] = before
                # Until one season could be compared with another, the changes between windows stand in.
                if self._spread.known:
                    deviations[step] = self._spread.rms * sqrt(step // self.season + 1)
        note = f"{filled} windows unknown in every season kept: last value there" if filled else ""
        return Forecast(tuple(means), tuple(deviations), note)

    def _a_season_ago(self, ahead: int) -> float | None:
        """Return the last known value at the phase of the window `ahead + 1` from now."""
        at = len(self._history) - self.season + ahead
        while at >= 0:
            if (value := self._history[at]) is not None:
                return value
            at -= self.season
        return None
