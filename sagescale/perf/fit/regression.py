"""Regressions in relative error: non-negative coefficients, sequences and grids that never fall, a line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sagescale.perf.checks import MAX_MS, MAX_TOKENS, all_positive
from sagescale.perf.profile import FitError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sagescale.perf.measurement import KvPoint

_SWEEPS = 1000


def relative_nnls(
    columns: tuple[NDArray[np.float64], ...],
    y: NDArray[np.float64],
    weight: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Return the coefficients >= 0 that minimise ``sum(weight * ((X @ coefficients - y) / y)^2)``.

    ``columns`` are the regressors, each as long as ``y`` (> 0). Columns are scaled to the same size first,
    so coefficients that differ by ten orders of magnitude (ms, ms per token squared) lose no digits.
    """
    from scipy.optimize import nnls

    root = np.ones_like(y) if weight is None else np.sqrt(weight)
    design = np.column_stack([root * column / y for column in columns])
    scale = np.sqrt((design**2).sum(axis=0))
    scale[scale == 0.0] = 1.0
    solution, _ = nnls(design / scale, root)
    return np.asarray(solution / scale, dtype=np.float64)


def fit_error(fitted: NDArray[np.float64], measured: NDArray[np.float64]) -> FitError:
    """Median, 90th percentile and largest of ``|fitted - measured| / measured``, to six places."""
    relative = np.abs(fitted - measured) / measured
    median, p90 = np.percentile(relative, [50.0, 90.0])
    return FitError(
        n=len(relative),
        median=round(float(median), 6),
        p90=round(float(p90), 6),
        max=round(float(relative.max()), 6),
    )


def round_digits(value: float) -> float:
    """Keep 13 significant digits: below any measurement's meaning, above what platforms disagree on."""
    return float(f"{value:.13g}")


def project_line(y: NDArray[np.float64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the non-decreasing sequence nearest to ``y`` in weighted squares (pool adjacent violators)."""
    from scipy.optimize import isotonic_regression

    if np.all(y[1:] >= y[:-1]):
        return y.copy()
    return np.asarray(isotonic_regression(y, weights=weight).x)


def project_grid(y: NDArray[np.float64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the grid non-decreasing along both axes that is nearest to ``y`` in weighted squares.

    Dykstra's alternating projections (R. L. Dykstra, "An algorithm for restricted least squares regression",
    JASA 78, 1983). A grid already in order is returned as it is. Running maxima at the end take out what
    the last sweep leaves, so the order holds to the last bit.
    """
    x = y.copy()
    if _in_order(x):
        return x
    down, across = np.zeros_like(x), np.zeros_like(x)
    tolerance = 1e-12 * float(np.abs(y).max())
    for _ in range(_SWEEPS):
        before = x
        moved = x + down
        x = np.column_stack([project_line(moved[:, j], weight[:, j]) for j in range(x.shape[1])])
        down = moved - x
        moved = x + across
        x = np.vstack([project_line(moved[i], weight[i]) for i in range(x.shape[0])])
        across = moved - x
        if float(np.abs(x - before).max()) <= tolerance:
            break
    return np.asarray(np.maximum.accumulate(np.maximum.accumulate(x, axis=0), axis=1))


def _in_order(x: NDArray[np.float64]) -> bool:
    return bool(np.all(x[1:] >= x[:-1]) and np.all(x[:, 1:] >= x[:, :-1]))


def fit_kv_transfer(points: Sequence[KvPoint]) -> tuple[float, float]:
    """Return (latency ms, ms per 1000 tokens): ``ms = latency + rate * tokens / 1000``, both >= 0.

    Least squares in relative error; a single point is taken as a pure rate. Raises ValueError for figures
    that no transfer has.
    """
    all_positive("kv_transfer tokens", [point.tokens for point in points], MAX_TOKENS)
    all_positive("kv_transfer ms", [point.ms for point in points], MAX_MS)
    tokens = np.array([point.tokens for point in points], dtype=np.float64) / 1000.0
    ms = np.array([point.ms for point in points])
    if len(np.unique(tokens)) == 1:
        return 0.0, round_digits(float(np.median(ms) / tokens[0]))
    latency, rate = relative_nnls((np.ones_like(tokens), tokens), ms)
    return round_digits(float(latency)), round_digits(float(rate))
