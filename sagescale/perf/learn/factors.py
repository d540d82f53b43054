"""Recursive least squares for a few physically signed factors.

A time is a sum of parts by the profile, each with a factor that is 1 where the profile is right. A part of
a time is never negative, so neither is a factor. An observation says by how much the time expected was
missed, and how the time would change with each factor:

    miss = observed / expected - 1,      x_i = d(expected) / d(f_i) / expected

Old windows are forgotten only in the direction in which a new one speaks (S. Cao and H. Schwartz, "A
directional forgetting algorithm based on the decomposition of the information matrix", Automatica 36, 2000;
for one output the same as B. Lai and D. Bernstein, "SIFt-RLS", 2024), and only as much as it has to say.
With the information matrix ``R``, the noise variance ``v`` and that of a good window ``v0``,

    R <- R - (1 - l) v0/v * R x x' R / (x' R x) + x x' / v,      f <- f + R^-1 x * miss / v

so directions in which nothing happens keep what is known of them (the profile, at first), and the gain
there does not wind up, as it does when everything is forgotten alike. Without noise the error in the
directions that are excited falls geometrically, by ``l`` a good window in the end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["GOOD_NOISE", "LARGEST_STEP", "SignedFactors", "within_step"]

LARGEST_STEP = 1.25
"""No window moves any factor by more than this ratio, whatever it says."""

_LEAST, _MOST = 0.05, 20.0
"""A part of a time never vanishes altogether, nor grows without end."""

GOOD_NOISE = 0.05
"""Relative deviation of a good window's mean from the surface."""

_FORGOTTEN = 0.1
"""What a good window makes forget of the information in its direction: a memory of ten of them."""

_SURPRISE, _PERSISTENT, _SURPRISED = 0.10, 3, 0.8
"""Misses of a tenth, the same way, in so many windows in a row are a change: much more is forgotten."""


class SignedFactors:
    """The factors of the parts of a time, with a standard deviation of ``prior`` each.

    They are 1 and ``caution`` of these deviations at first.
    """

    def __init__(self, prior: Sequence[float], caution: float = 0.0) -> None:
        self.values: NDArray[np.float64] = 1.0 + caution * np.asarray(prior)
        self._information: NDArray[np.float64] = np.diag(np.asarray(prior) ** -2.0)
        self._streak = 0

    def update(self, slopes: Sequence[float], miss: float, noise: float) -> None:
        """Take in one observation.

        Args:
            slopes: Relative change of the expected time with each factor; none negative, not all zero.
            miss: Relative difference of the observed time from the expected.
            noise: Standard deviation of the miss if all factors were right, at least ``GOOD_NOISE``.
        """
        x = np.asarray(slopes, dtype=np.float64)
        miss = min(max(miss, 1.0 / LARGEST_STEP - 1.0), LARGEST_STEP - 1.0)
        old = self._information
        told = old @ x
        forgotten = _SURPRISED if self._changed(miss) else _FORGOTTEN * (GOOD_NOISE / noise) ** 2
        fresh = x[:, None] * x / noise**2
        self._information = old - told[:, None] * told * (forgotten / float(x @ told)) + fresh
        step = np.linalg.solve(self._information, x) * (miss / noise**2)
        aimed = _projected(self.values + step, self._information)
        self.values = within_step(aimed, self.values)

    def _changed(self, miss: float) -> bool:
        """Whether this is one of several misses in a row, all large and of one sign."""
        if abs(miss) < _SURPRISE:
            self._streak = 0
            return False
        sign = 1 if miss > 0 else -1
        self._streak = self._streak + sign if self._streak * sign > 0 else sign
        return abs(self._streak) >= _PERSISTENT


def within_step(aimed: NDArray[np.float64], before: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ``aimed``, each no further than ``LARGEST_STEP`` from where it was."""
    return np.minimum(np.maximum(aimed, before / LARGEST_STEP), before * LARGEST_STEP)


def _projected(values: NDArray[np.float64], information: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the point within bounds nearest by the information: others make up for a bound factor."""
    bounded = np.minimum(np.maximum(values, _LEAST), _MOST)
    bound = bounded != values
    free = ~bound
    if bound.any() and free.any():
        cross = information[np.ix_(free, bound)] @ (bounded - values)[bound]
        bounded[free] = values[free] - np.linalg.solve(information[np.ix_(free, free)], cross)
        bounded = np.clip(bounded, _LEAST, _MOST)
    return bounded
