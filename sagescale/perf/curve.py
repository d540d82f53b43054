"""A monotone cubic through knots, straight outside them.

The interpolant is PCHIP (F. N. Fritsch and J. Butland, "A method for constructing local monotone
piecewise cubic interpolants", SIAM J. Sci. Stat. Comput. 5, 1984): knots are met exactly, nothing
overshoots, and data on a straight line stays on it. It is written out here because importing
``scipy.interpolate`` takes longer than everything else a short run does.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["MonotoneCurve"]


class MonotoneCurve:
    """PCHIP through ``(x[i], y[i])``; outside, lines with the secants of the first and last two knots.

    ``x`` is strictly increasing, at least two knots; ``y`` has shape ``(len(x),)``, or ``(len(x), m)``
    for ``m`` curves over the same knots.
    """

    __slots__ = ("_c1", "_c2", "_c3", "_knots", "_rows", "_secants", "_x", "_y")

    def __init__(self, x: ArrayLike, y: ArrayLike) -> None:
        self._x = np.asarray(x, dtype=np.float64)
        self._y = np.asarray(y, dtype=np.float64)
        h = np.diff(self._x).reshape((-1,) + (1,) * (self._y.ndim - 1))
        secants = np.diff(self._y, axis=0) / h
        d = _derivatives(h, secants)
        self._secants = secants
        self._c1 = d[:-1]
        self._c2 = (3.0 * secants - 2.0 * d[:-1] - d[1:]) / h
        self._c3 = (d[:-1] + d[1:] - 2.0 * secants) / (h * h)
        # Plain lists for the scalar path: an interpreter reads them several times faster than arrays.
        self._knots: list[float] = self._x.tolist()
        self._rows: list[tuple[float, ...]] = []
        if self._y.ndim == 1:
            columns = (self._y[:-1], self._c1, self._c2, self._c3, self._y[1:])
            self._rows = list(zip(*(column.tolist() for column in columns), strict=True))

    def at(self, q: float) -> float:
        """Return the curve at one point; only for a single curve."""
        x = self._knots
        if q < x[0]:
            return self._rows[0][0] + float(self._secants[0]) * (q - x[0])
        if q >= x[-1]:
            return self._rows[-1][4] + float(self._secants[-1]) * (q - x[-1])
        i = bisect_right(x, q) - 1
        c0, c1, c2, c3, end = self._rows[i]
        t = q - x[i]
        value = ((c3 * t + c2) * t + c1) * t + c0
        return min(max(value, min(c0, end)), max(c0, end))

    def __call__(self, q: ArrayLike) -> NDArray[np.float64]:
        """Return the curves at the points ``q`` (1-D), shape ``(len(q),)`` or ``(len(q), m)``."""
        points = np.asarray(q, dtype=np.float64)
        i = np.clip(np.searchsorted(self._x, points, side="right") - 1, 0, len(self._x) - 2)
        column = (-1,) + (1,) * (self._y.ndim - 1)
        t = (points - self._x[i]).reshape(column)
        low, high = self._y[i], self._y[i + 1]
        inside = ((self._c3[i] * t + self._c2[i]) * t + self._c1[i]) * t + low
        inside = np.clip(inside, np.minimum(low, high), np.maximum(low, high))
        before = self._y[0] + self._secants[0] * (points - self._x[0]).reshape(column)
        after = self._y[-1] + self._secants[-1] * (points - self._x[-1]).reshape(column)
        below, above = (points < self._x[0]).reshape(column), (points >= self._x[-1]).reshape(column)
        return np.where(below, before, np.where(above, after, inside))


def _derivatives(h: NDArray[np.float64], secants: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return PCHIP's slope at every knot: weighted harmonic means, and one-sided three-point ends."""
    if len(secants) == 1:
        return np.concatenate([secants, secants])
    s0, s1, h0, h1 = secants[:-1], secants[1:], h[:-1], h[1:]
    w0, w1 = 2.0 * h1 + h0, h1 + 2.0 * h0
    flat = (s0 * s1 <= 0.0) | (s0 == s1)
    safe0, safe1 = np.where(flat, 1.0, s0), np.where(flat, 1.0, s1)
    inner = np.where(flat, 0.0, (w0 + w1) / (w0 / safe0 + w1 / safe1))
    # Equal secants: exactly that slope, so that a line survives to the last bit.
    inner = np.where(s0 == s1, s0, inner)
    first = _end(h[0], h[1], secants[0], secants[1])
    last = _end(h[-1], h[-2], secants[-1], secants[-2])
    return np.concatenate([first[None], inner, last[None]])


def _end(
    h0: NDArray[np.float64], h1: NDArray[np.float64], s0: NDArray[np.float64], s1: NDArray[np.float64]
) -> NDArray[np.float64]:
    d = ((2.0 * h0 + h1) * s0 - h0 * s1) / (h0 + h1)
    d = np.where(np.sign(d) != np.sign(s0), 0.0, d)
    d = np.where((np.sign(s0) != np.sign(s1)) & (np.abs(d) > 3.0 * np.abs(s0)), 3.0 * s0, d)
    return np.asarray(np.where(s0 == s1, s0, d))
