"""A fitted linear Gaussian state space, carried on one window at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class SeasonalShape:
    """What is added to each window by its place in the season: one value a phase, scaled units."""

    values: NDArray[np.float64]

    def at(self, window: int) -> float:
        """Return the season's part of window number `window`."""
        return float(self.values[window % len(self.values)])


@dataclass(slots=True)
class StateSpaceModel:
    """`y_t = season_t + Z a_t`, `a_{t+1} = T a_t + c + R e_t`, `e ~ N(0, Q)`: parameters fixed, state moving.

    The Kalman filter's prediction form (Durbin & Koopman 2012, section 4.3), with time-invariant matrices and
    no observation noise, as statsmodels writes ARIMA; one window costs microseconds where extending the
    library's results costs milliseconds. An unknown window is a prediction step.

    Attributes:
        design: Z, shape (k,).
        transition: T, shape (k, k).
        intercept: c, shape (k,).
        disturbance: R Q R', shape (k, k).
        state: Predicted a of the next window, shape (k,).
        covariance: Its P, shape (k, k).
        unit: What one unit of the scaled series is in the series' own.
        window: Number of the next window.
        season: The seasonal part, None without.
        note: See `FittedModel.note`.
    """

    design: NDArray[np.float64]
    transition: NDArray[np.float64]
    intercept: NDArray[np.float64]
    disturbance: NDArray[np.float64]
    state: NDArray[np.float64]
    covariance: NDArray[np.float64]
    unit: float
    window: int
    season: SeasonalShape | None = None
    note: str = ""

    def update(self, value: float | None) -> None:
        """See `FittedModel.update`."""
        state, covariance = self.state, self.covariance
        if value is not None:
            loads = covariance @ self.design
            variance = float(self.design @ loads)
            if variance > 0.0:
                error = value / self.unit - self._seasonal(self.window) - float(self.design @ state)
                state = state + loads * (error / variance)
                covariance = covariance - np.outer(loads, loads / variance)
        self.state = self.transition @ state + self.intercept
        self.covariance = self.transition @ covariance @ self.transition.T + self.disturbance
        self.window += 1

    def predict(self, horizon: int) -> list[tuple[float, float]]:
        """See `FittedModel.predict`."""
        state, covariance = self.state, self.covariance
        seasonal: Callable[[int], float] = self._seasonal
        ahead: list[tuple[float, float]] = []
        for step in range(horizon):
            if step:
                state = self.transition @ state + self.intercept
                covariance = self.transition @ covariance @ self.transition.T + self.disturbance
            mean = float(self.design @ state) + seasonal(self.window + step)
            variance = float(self.design @ covariance @ self.design)
            ahead.append((mean * self.unit, variance * self.unit * self.unit))
        return ahead

    def _seasonal(self, window: int) -> float:
        return 0.0 if self.season is None else self.season.at(window)
