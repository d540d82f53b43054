"""Finding a load's period, and its shape as a Fourier series."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# A period shows as values alike one period apart and less alike half a period apart; a slow drift is alike at
# both lags, noise at neither.
_LEAST_CORRELATION = 0.2
_LEAST_CONTRAST = 0.2
_LEAST_WINDOWS = 4  # a period of fewer has no shape to speak of


def find_period(
    values: NDArray[np.float64], interval_s: float, candidates_s: tuple[float, ...]
) -> int | None:
    """Return the candidate period that the series repeats with, in windows.

    Args:
        values: One value a window, NaN where unknown.
        interval_s: Length of a window, s.
        candidates_s: Periods people live by, s. One counts if it is at least 4 windows, the series spans
            it twice, and the autocorrelation of the detrended series at it is over 0.2 and exceeds that at
            half of it by 0.2.

    Returns:
        The candidate of the highest autocorrelation, or None.
    """
    best: tuple[float, int] | None = None
    detrended = _detrend(values)
    for period_s in candidates_s:
        period = round(period_s / interval_s)
        if period < _LEAST_WINDOWS or len(values) < 2 * period:
            continue
        alike = _autocorrelation(detrended, period)
        contrast = alike - _autocorrelation(detrended, period // 2)
        if alike > _LEAST_CORRELATION and contrast > _LEAST_CONTRAST and (best is None or alike > best[0]):
            best = alike, period
    return None if best is None else best[1]


def fourier(start: int, count: int, period: int, harmonics: int) -> NDArray[np.float64]:
    """Return `sin` and `cos` of the first harmonics at windows `start .. start+count-1`: (count, 2 h)."""
    angle = 2.0 * np.pi / period * (np.arange(start, start + count) % period)
    orders = np.arange(1, harmonics + 1)
    waves = np.outer(angle, orders)
    return np.hstack([np.sin(waves), np.cos(waves)])


def _detrend(values: NDArray[np.float64]) -> NDArray[np.float64]:
    known = np.isfinite(values)
    time = np.arange(len(values), dtype=np.float64)
    time -= time[known].mean() if known.any() else 0.0
    centred = values - (np.nanmean(values) if known.any() else 0.0)
    power = float(np.sum(time[known] ** 2))
    slope = float(np.sum(time[known] * centred[known])) / power if power > 0.0 else 0.0
    return np.where(known, centred - slope * time, 0.0)  # unknown windows add nothing to a product


def _autocorrelation(detrended: NDArray[np.float64], lag: int) -> float:
    power = float(np.mean(detrended * detrended))
    if power == 0.0:
        return 0.0
    return float(np.mean(detrended[lag:] * detrended[:-lag])) / power
