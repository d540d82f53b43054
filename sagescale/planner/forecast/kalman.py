"""A bank of local-level and local-linear-trend Kalman filters."""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING

import numpy as np

from sagescale.planner.forecast.error_spread import ErrorSpread
from sagescale.planner.forecast.protocol import Forecast, checked, checked_horizon

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sagescale.planner.forecast.protocol import PredictorOptions

# Variances of the level's and the trend's changes a window, as shares of the observation noise.
_LEVEL_RATIOS = (0.0, 0.003, 0.03, 0.1, 0.3, 1.0, 3.0, 30.0)
_TREND_RATIOS = (1e-5, 1e-3, 3e-2)
_MEMORY = 240  # windows over which the evidence for a filter fades


class KalmanPredictor:
    """Weighs filters of a level (and a trend) by how likely each has lately made the data.

    The model is the local linear trend: `y = level + noise`, the level moves by the trend and a random
    step, the trend by a random step (Durbin & Koopman 2012, section 3.2); without it, the local level.
    One noise variance is concentrated out of the likelihood and the two others, as ratios to it, run over a
    grid of 32 filters, all updated together at every window; maximum likelihood over a grid, then, that never
    needs a refit. The likelihood of each fades over 240 windows (or `window_size`), and the forecast is the
    mean weighted with them. An unknown window is a time step without an update.
    """

    name = "kalman"
    refits = 0
    cadence = "every window: recursive, no separate fit"

    def __init__(self, options: PredictorOptions) -> None:
        """Take the memory of the likelihood in windows (240)."""
        grid = [(level, 0.0) for level in _LEVEL_RATIOS]
        grid += [(level, trend) for level in _LEVEL_RATIOS for trend in _TREND_RATIOS]
        self._level_noise = np.array([level for level, _ in grid])
        self._trend_noise = np.array([trend for _, trend in grid])
        self._fade = 1.0 - 1.0 / max(2, options.window_size or _MEMORY)
        self._level = np.zeros(len(grid))  # state predicted for the next window
        self._trend = np.zeros(len(grid))
        # Its covariance in units of the observation noise. A trend filter starts unsure of its trend by one
        # unit, a level filter sure that there is none.
        self._p11 = np.zeros(len(grid))
        self._p12 = np.zeros(len(grid))
        self._p22 = np.where(self._trend_noise > 0.0, 1.0, 0.0)
        self._log_f = np.zeros(len(grid))  # faded sum of log F
        self._squares = np.zeros(len(grid))  # faded sum of v^2 / F
        self._count = 0.0  # faded number of innovations
        self._known = 0
        self._peak = 0.0
        self._spread = ErrorSpread()
        self._ahead: tuple[float, NDArray[np.float64]] | None = None  # next window's mean, and the weights

    def observe(self, value: float | None) -> None:
        """See `Predictor.observe`."""
        if value is not None:
            self._update(checked(value))
        if self._known:
            self._advance()

    def forecast(self, horizon: int) -> Forecast | None:
        """See `Predictor.forecast`."""
        checked_horizon(horizon)
        if not self._known:
            return None
        mean, weights = self._next()
        # Every moment of the mixture is linear in the filters' states: weigh once, then step in scalars.
        share = weights * (self._squares / max(self._count, 1.0))  # weight times noise variance
        p11, p12, p22 = float(share @ self._p11), float(share @ self._p12), float(share @ self._p22)
        noise, level_noise = float(share.sum()), float(share @ self._level_noise)
        trend_noise, trend = float(share @ self._trend_noise), float(weights @ self._trend)
        level_gap, trend_gap = self._level - mean, self._trend - trend
        apart = float(weights @ (level_gap * level_gap))  # between the filters' means, growing with the steps
        apart_both, apart_trend = (
            float(weights @ (level_gap * trend_gap)),
            float(weights @ (trend_gap * trend_gap)),
        )
        means: list[float] = []
        variances: list[float] = []
        for step in range(horizon):
            means.append(max(0.0, mean + step * trend))
            between = apart + 2.0 * step * apart_both + step * step * apart_trend
            variances.append(max(0.0, p11 + noise + between))
            p11 += 2.0 * p12 + p22 + level_noise
            p12 += p22
            p22 += trend_noise
        # The level of the deviation is that of the recent errors; its growth is the model's.
        rms, first = self._spread.rms, variances[0]
        deviations = tuple([rms * sqrt(each / first) if first > 0.0 else rms for each in variances])
        return Forecast(tuple(means), deviations)

    def _next(self) -> tuple[float, NDArray[np.float64]]:
        """Return the mean of the next window and each filter's weight, from the faded likelihoods."""
        if self._ahead is None:
            if self._count > 0.0:
                # Concentrated log-likelihood; the floor keeps a perfect fit from being infinitely likely.
                floor = 1e-12 * (self._peak * self._peak + 1e-300)
                scale = np.maximum(self._squares / self._count, floor)
                likely = -0.5 * (self._log_f + self._count * np.log(scale))
                weights = np.exp(likely - likely.max())
            else:
                weights = np.where(self._trend_noise > 0.0, 0.0, 1.0)  # no evidence for a trend yet
            weights /= weights.sum()
            self._ahead = float(weights @ self._level), weights
        return self._ahead

    def _update(self, value: float) -> None:
        self._peak = max(self._peak, value)
        self._known += 1
        if self._known == 1:
            self._level[:] = value
            self._p11[:] = 1.0
            return
        self._spread.add(value - max(0.0, self._next()[0]))
        error = value - self._level
        f = self._p11 + 1.0
        if self._known > 2:  # the second value only sets the trend
            self._log_f = self._fade * self._log_f + np.log(f)
            self._squares = self._fade * self._squares + error * error / f
            self._count = self._fade * self._count + 1.0
        gain1 = self._p11 / f
        gain2 = self._p12 / f
        self._level = self._level + gain1 * error
        self._trend = self._trend + gain2 * error
        self._p22 = self._p22 - gain2 * self._p12
        self._p12 = self._p12 - gain1 * self._p12
        self._p11 = gain1  # p11 - p11^2 / f, in units where the noise is 1

    def _advance(self) -> None:
        self._level = self._level + self._trend
        self._p11 = self._p11 + 2.0 * self._p12 + self._p22 + self._level_noise
        self._p12 = self._p12 + self._p22
        self._p22 = self._p22 + self._trend_noise
        self._ahead = None
