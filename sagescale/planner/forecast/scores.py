"""How good forecasts were, as plain functions of arrays.

All take one value a window, in the series' unit, NaN (or None) where unknown; a window in which either side
is unknown is left out. With no window left the score is NaN: nothing was measured.
"""

from __future__ import annotations

from math import isnan, nan
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def mape(actual: ArrayLike, predicted: ArrayLike) -> float:
    """Return the mean absolute percentage error, as a fraction (0.1 is 10 %).

    `mean(|predicted - actual| / actual)` over windows whose actual value is above 0: a window without traffic
    has no percentage. `wape` counts those too.

    Raises:
        ValueError: The arrays differ in shape.
    """
    truth, guess = _both_known(actual, predicted)
    above = truth > 0.0
    return _mean(np.abs(guess[above] - truth[above]) / truth[above])


def wape(actual: ArrayLike, predicted: ArrayLike) -> float:
    """Return the weighted absolute percentage error, as a fraction: `sum |predicted - actual| / sum actual`.

    NaN where every actual value is 0.

    Raises:
        ValueError: The arrays differ in shape.
    """
    truth, guess = _both_known(actual, predicted)
    total = float(truth.sum())
    return float(np.abs(guess - truth).sum()) / total if total > 0.0 else nan


def bias(actual: ArrayLike, predicted: ArrayLike) -> float:
    """Return `mean(predicted - actual)` in the series' unit: above 0 forecasts too much, below too little.

    Raises:
        ValueError: The arrays differ in shape.
    """
    truth, guess = _both_known(actual, predicted)
    return _mean(guess - truth)


def pinball(actual: ArrayLike, quantile_forecast: ArrayLike, q: float) -> float:
    """Return the mean pinball loss of a forecast of quantile `q`, in the series' unit; less is better.

    `q (actual - forecast)` where the actual value is above the forecast, `(1 - q) (forecast - actual)` where
    it is below (Koenker & Bassett 1978).

    Raises:
        ValueError: The arrays differ in shape, or `q` is not strictly between 0 and 1.
    """
    if not 0.0 < q < 1.0:
        raise ValueError(f"a quantile of {q}: expected a probability strictly between 0 and 1")
    truth, guess = _both_known(actual, quantile_forecast)
    gap = truth - guess
    return _mean(np.maximum(q * gap, (q - 1.0) * gap))


def coverage(actual: ArrayLike, quantile_forecast: ArrayLike) -> float:
    """Return the share of windows at or under the forecast quantile; near `q` for a calibrated one.

    Raises:
        ValueError: The arrays differ in shape.
    """
    truth, guess = _both_known(actual, quantile_forecast)
    return _mean((truth <= guess).astype(np.float64))


def if_known(score: float) -> float | None:
    """Return a score, or a window's value, as documents have it: None where it is NaN."""
    return None if isnan(score) else score


def _both_known(actual: ArrayLike, predicted: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    truth, guess = np.asarray(actual, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    if truth.shape != guess.shape:
        raise ValueError(f"{truth.shape} actual values and {guess.shape} forecasts: expected as many")
    known = np.isfinite(truth) & np.isfinite(guess)
    return truth[known], guess[known]


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if values.size else nan
