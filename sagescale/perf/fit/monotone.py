"""Projection onto data that never falls: along a line, and along both axes of a grid."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["project_grid", "project_line"]

_SWEEPS = 1000


def project_line(y: NDArray[np.float64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the non-decreasing sequence nearest to ``y`` in weighted squares (pool adjacent violators)."""
    if np.all(y[1:] >= y[:-1]):
        return y.copy()
    means: list[float] = []
    weights: list[float] = []
    sizes: list[int] = []
    for value, w in zip(y.tolist(), weight.tolist(), strict=True):
        means.append(value)
        weights.append(w)
        sizes.append(1)
        while len(means) > 1 and means[-2] > means[-1]:
            total = weights[-2] + weights[-1]
            mean = (means[-2] * weights[-2] + means[-1] * weights[-1]) / total
            size = sizes[-2] + sizes[-1]
            del means[-1], weights[-1], sizes[-1]
            means[-1], weights[-1], sizes[-1] = mean, total, size
    return np.repeat(np.asarray(means), sizes)


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
