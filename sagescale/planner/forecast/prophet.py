"""Prophet, level-corrected between fits."""

from __future__ import annotations

import logging
import shutil
import sys
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from math import isnan
from multiprocessing import parent_process
from multiprocessing.util import Finalize
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from sagescale.planner.forecast.fitted import FitError, FittedPredictor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray
    from prophet import Prophet

    from sagescale.planner.forecast.protocol import PredictorOptions

_DAY_S = 86_400.0
_WEEK_S = 7.0 * _DAY_S
_HISTORY_S = 4.0 * _WEEK_S
_LEAST_WINDOWS = 20
_ROWS = 1_440  # a fit sees at most so many rows: longer histories are averaged into bins
_ROWS_PER_SEASON = 12  # but no bin is wider than this part of the season it must show
_LEAST_SEASON = 4  # windows
_ROWS_PER_CHANGEPOINT = 6
_RESIDUAL_WINDOWS = 720  # the latest residuals, that the first fit estimates persistence on
_PERSISTENCE_FADE = 1.0 - 1.0 / 60.0
_CHUNK = 1_024  # windows evaluated ahead at each fit; more than the longest wait for the next one
_ORIGIN = "2000-01-03"  # a Monday; predictors know no date, so weeks start anywhere


class _Persistence:
    """How much of one window's miss is still there in the next: an AR(1) by fading least squares.

    Fed with misses of windows that the curve had not seen when it was fitted, over refits: within the fitted
    windows a flexible curve has bent towards every value, and its residuals forget faster than its errors do.
    """

    __slots__ = ("_cross", "_power", "_squares", "_weight")

    def __init__(self) -> None:
        self._cross = self._power = self._squares = self._weight = 0.0

    def add(self, before: float, after: float) -> None:
        """Take the misses of two windows in a row."""
        error = after - self.decay * before
        self._cross = _PERSISTENCE_FADE * self._cross + before * after
        self._power = _PERSISTENCE_FADE * self._power + before * before
        self._squares = _PERSISTENCE_FADE * self._squares + error * error
        self._weight = _PERSISTENCE_FADE * self._weight + 1.0

    @property
    def decay(self) -> float:
        """The share that persists, in [0, 1]."""
        return min(1.0, max(0.0, self._cross / self._power)) if self._power > 0.0 else 0.0

    @property
    def variance(self) -> float:
        """Of what is new in each window."""
        return self._squares / self._weight if self._weight else 0.0


@dataclass(slots=True)
class _Curve:
    """Prophet's curve and an autoregression of order one of what it misses.

    `y_t = curve_t + r_t`, `r_{t+1} = decay r_t + e_t`. An unknown window lets the residual decay unseen.
    """

    start: int  # window number of curve[0]
    curve: NDArray[np.float64]
    persistence: _Persistence
    window: int  # number of the next window
    note: str = ""
    residual: float = 0.0  # of the window before the next: seen, or expected
    unsure: float | None = None  # its variance: 0 where seen, None before any was

    def update(self, value: float | None) -> None:
        """See `FittedModel.update`."""
        if value is None:
            decay = self.persistence.decay
            self.residual *= decay
            if self.unsure is not None:
                self.unsure = decay * decay * self.unsure + self.persistence.variance
        else:
            residual = value - self._at(self.window)
            if self.unsure == 0.0:
                self.persistence.add(self.residual, residual)
            self.residual, self.unsure = residual, 0.0
        self.window += 1

    def predict(self, horizon: int) -> list[tuple[float, float]]:
        """See `FittedModel.predict`."""
        decay, new = self.persistence.decay, self.persistence.variance
        residual, variance = self.residual, self.unsure or 0.0
        ahead: list[tuple[float, float]] = []
        for step in range(horizon):
            residual *= decay
            variance = decay * decay * variance + new
            ahead.append((self._at(self.window + step) + residual, variance))
        return ahead

    def look_back(self, values: NDArray[np.float64]) -> None:
        """Take the state after windows that the curve was fitted to; they tell nothing of its persistence."""
        known = np.flatnonzero(np.isfinite(values))
        last = int(known[-1])
        self.window += last
        self.unsure = None
        self.update(float(values[last]))
        for _ in range(len(values) - 1 - last):
            self.update(None)

    def _at(self, window: int) -> float:
        """Return the curve at a window; past the end of what was evaluated it stays level."""
        return float(self.curve[min(window - self.start, len(self.curve) - 1)])


class ProphetPredictor(FittedPredictor):
    """Prophet's piecewise trend with daily and weekly seasons, each only where the history spans it twice.

    * Seasons: a day and a week, or `season_s` alone where given. One that the history does not span twice is
      left out, and the note says so: what is left is a trend line.
    * Growth is linear with Prophet's changepoints where no season is known, for there the trend is all that
      follows the load, and flat where one is: over the hours between fits a load has no trend apart from its
      season, and with two periods of history a bending trend explains the season away.
    * Fits see some 1,440 rows; longer histories (four weeks are kept) are averaged into bins, so that a fit
      takes a few tenths of a second whatever the history.
    * Between fits the curve is extrapolated and level-corrected: the last window's miss is added, fading over
      the steps as the misses of the last 60 windows or so did (a first-order autoregression).
    * No sampling: the deviation is that of the autoregression, in closed form. Nothing is random.
    """

    name = "prophet"
    least_windows = _LEAST_WINDOWS

    def __init__(self, options: PredictorOptions) -> None:
        """Take the history in windows (four weeks) and the season."""
        default = max(_ROWS, round(_HISTORY_S / options.interval_s))
        super().__init__(options.window_size or default)
        self._interval_s = options.interval_s
        self._seed = options.seed
        self._persistence: _Persistence | None = None
        self._asked_s = options.season_s
        self.seasons_s: tuple[float, ...] = ()  # of the last fit

    def _fit(self, values: NDArray[np.float64], start: int) -> _Curve:
        seasons = (_DAY_S, _WEEK_S) if self._asked_s is None else (self._asked_s,)
        span_s = len(values) * self._interval_s
        least_s = _LEAST_SEASON * self._interval_s
        self.seasons_s = tuple(each for each in seasons if least_s <= each <= 0.5 * span_s)
        note = ""
        if not self.seasons_s:
            windows = seasons[0] / self._interval_s
            short = f"{len(values)} windows are under two seasons of {windows:g}"
            why = short if windows >= _LEAST_SEASON else f"a season of {windows:g} windows has no shape"
            note = f"{why}: no seasonality, a trend line"
        bin_windows = -(-len(values) // _ROWS)
        if self.seasons_s:
            widest = int(min(self.seasons_s) / self._interval_s / _ROWS_PER_SEASON)
            bin_windows = max(1, min(bin_windows, widest))
            kept = min(len(values), max(_ROWS * bin_windows, self._windows_for(self.seasons_s)))
            start, values = start + len(values) - kept, values[-kept:]
        curve_start = max(start, start + len(values) - _RESIDUAL_WINDOWS)
        end = start + len(values)
        if not np.isfinite(values[curve_start - start :]).any():
            raise FitError(f"none of the last {_RESIDUAL_WINDOWS} windows is known")
        curve = self._curve(values, start, bin_windows, range(curve_start, end + _CHUNK))
        if not np.isfinite(curve).all():
            raise FitError("the curve is not finite")
        # The first fit has only its own residuals to go by.
        persistence = _Persistence() if self._persistence is None else self._persistence
        model = _Curve(curve_start, curve, persistence, curve_start, note)
        if self._persistence is None:
            for value in values[curve_start - start :].tolist():
                model.update(None if isnan(value) else value)
            self._persistence = persistence
        else:
            model.look_back(values[curve_start - start :])
        return model

    def _windows_for(self, seasons_s: tuple[float, ...]) -> int:
        return int(-(-2.0 * max(seasons_s) // self._interval_s))

    def _curve(
        self, values: NDArray[np.float64], start: int, bin_windows: int, wanted: range
    ) -> NDArray[np.float64]:
        """Fit Prophet to the binned values and evaluate it at the wanted windows."""
        centres, means = _binned(values, start, bin_windows)
        with _quiet():
            import pandas as pd

            origin = pd.Timestamp(_ORIGIN)
            model = _import_prophet()(
                growth="flat" if self.seasons_s else "linear",
                daily_seasonality=False,
                weekly_seasonality=False,
                yearly_seasonality=False,
                uncertainty_samples=0,
                n_changepoints=min(25, len(means) // _ROWS_PER_CHANGEPOINT),
            )
            for season_s in self.seasons_s:
                harmonics = min(4, int(season_s / (bin_windows * self._interval_s) - 1) // 2)
                model.add_seasonality(f"{season_s:g} s", season_s / _DAY_S, max(1, harmonics))
            rows = pd.DataFrame({"ds": origin + pd.to_timedelta(centres * self._interval_s, "s"), "y": means})
            with TemporaryDirectory(prefix="sagescale-prophet-") as scratch:
                model.fit(rows, seed=self._seed % 2**31, output_dir=scratch)
            seconds = np.arange(wanted.start, wanted.stop) * self._interval_s
            predicted = model.predict(pd.DataFrame({"ds": origin + pd.to_timedelta(seconds, "s")}))
        return np.asarray(predicted["yhat"], dtype=np.float64)


def _binned(
    values: NDArray[np.float64], start: int, width: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return centre (in windows) and mean of every bin with a known value; bins are anchored to window 0."""
    windows = np.arange(start, start + len(values))
    known = np.isfinite(values)
    bins, at = np.unique(windows[known] // width, return_inverse=True)
    means = np.bincount(at, values[known]) / np.bincount(at)
    centres = bins * width + 0.5 * (width - 1)
    return centres.astype(np.float64), means.astype(np.float64)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Prophet and its Stan interface inside this block alone."""
    loggers = [logging.getLogger(name) for name in ("cmdstanpy", "prophet", "prophet.models", "prophet.plot")]
    before = [logger.disabled for logger in loggers]
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.disabled = True
        try:
            yield
        finally:
            for logger, disabled in zip(loggers, before, strict=True):
                logger.disabled = disabled


def _import_prophet() -> Callable[..., Prophet]:
    """Import Prophet, and leave no scratch folder of its Stan interface behind in worker processes.

    cmdstanpy makes a folder when imported and registers its removal with `atexit`, which the workers of
    `multiprocessing` do not run.
    """
    first = "cmdstanpy" not in sys.modules
    from prophet import Prophet

    if first and parent_process() is not None:
        import cmdstanpy

        Finalize(None, shutil.rmtree, (cmdstanpy._TMPDIR, True), exitpriority=0)  # noqa: SLF001  (its only name)
    made: Callable[..., Prophet] = Prophet
    return made
