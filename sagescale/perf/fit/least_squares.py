"""Non-negative least squares in relative error, and relative error figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sagescale.perf.profile import FitError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["fit_error", "relative_nnls", "round_digits"]


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
