"""Recursive least squares for a few physically signed factors, and when to use what was learned.

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

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

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

_SCATTER_MEMORY = 0.9
_WIDER = 1.5
"""The dead band in mean absolute misses."""


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
        known = old @ x
        forgotten = _SURPRISED if self._changed(miss) else _FORGOTTEN * (GOOD_NOISE / noise) ** 2
        fresh = x[:, None] * x / noise**2
        self._information = old - known[:, None] * known * (forgotten / float(x @ known)) + fresh
        step = np.linalg.solve(self._information, x) * (miss / noise**2)
        aimed = _projected(self.values + step, self._information)
        self.values = _within_step(aimed, self.values)

    def _changed(self, miss: float) -> bool:
        """Whether this is one of several misses in a row, all large and of one sign."""
        if abs(miss) < _SURPRISE:
            self._streak = 0
            return False
        sign = 1 if miss > 0 else -1
        self._streak = self._streak + sign if self._streak * sign > 0 else sign
        return abs(self._streak) >= _PERSISTENT


def _within_step(aimed: NDArray[np.float64], before: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ``aimed``, each no further than ``LARGEST_STEP`` from where it was."""
    return np.minimum(np.maximum(aimed, before / LARGEST_STEP), before * LARGEST_STEP)


def _projected(values: NDArray[np.float64], information: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the point within bounds nearest by the information: others make up for a bound factor."""
    if all(_LEAST <= value <= _MOST for value in values.tolist()):
        return values
    bounded = np.minimum(np.maximum(values, _LEAST), _MOST)
    bound = bounded != values
    free = ~bound
    if bound.any() and free.any():
        cross = information[np.ix_(free, bound)] @ (bounded - values)[bound]
        bounded[free] = values[free] - np.linalg.solve(information[np.ix_(free, free)], cross)
        bounded = np.clip(bounded, _LEAST, _MOST)
    return bounded


@dataclass(frozen=True, slots=True)
class Trust:
    """How far a profile is trusted: relative standard deviations of each part of both pools' times.

    Prefill: fixed, by token. Decode: fixed, by request, by KV token.

    Within ``dead_band``, relative, what was learned is not used: there it is the noise of windows, and the
    error of reading a window's mean as a point of the surface. Where windows scatter more than that, the
    band is as wide as they scatter. What was learned is used from the third window in a row beyond, until
    the third in a row within half of it.

    Factors start at 1 and ``caution`` deviations: too few instances leave a backlog that is served for longer
    than it takes to learn that one instance too many may go.

    ``most_each``: see :func:`~sagescale.perf.learn.waiting.mean_ttft`.
    """

    prefill: tuple[float, float]
    decode: tuple[float, float, float]
    dead_band: float
    caution: float
    most_each: float


MEASURED = Trust(prefill=(0.15, 0.15), decode=(0.15, 0.15, 0.15), dead_band=0.12, caution=0.0, most_each=1.0)
ESTIMATED = Trust(prefill=(1.0, 0.3), decode=(0.3, 0.3, 0.8), dead_band=0.0, caution=1.0, most_each=0.4)
"""Arithmetic knows the work of a token better than what an engine adds to it, and memory better than KV
kernels: how far estimates are from measured profiles is in docs/profiles.md. What is learned is used at
once."""


@dataclass(slots=True)
class Belief:
    """The factors of one pool's times: those learned, and those in use."""

    prior: tuple[float, ...]
    dead_band: float
    caution: float
    windows: int = 0
    used: bool = field(init=False)
    factors: NDArray[np.float64] = field(init=False)
    _learned: SignedFactors = field(init=False)
    _against: int = 0
    _scatter: float = 0.0

    def __post_init__(self) -> None:
        self._learned = SignedFactors(self.prior, self.caution)
        self.factors = self._learned.values.copy()
        self.used = self.dead_band == 0.0

    @property
    def learned(self) -> NDArray[np.float64]:
        """The factors learned, in use or not."""
        return self._learned.values

    def update(self, slopes: Sequence[float], miss: float, noise: float) -> None:
        """Take in one observation, see :meth:`SignedFactors.update`; factors in use move as slowly."""
        self._learned.update(slopes, miss, noise)
        self.windows += 1
        memory = min(_SCATTER_MEMORY, 1.0 - 1.0 / self.windows)
        self._scatter = memory * self._scatter + (1.0 - memory) * min(abs(miss), LARGEST_STEP)
        x = np.asarray(slopes)
        self._decide(float(x @ self.learned) / float(x.sum()) - 1.0)
        aim = self.learned if self.used else np.ones(len(self.prior))
        self.factors = _within_step(aim, self.factors)

    def _decide(self, difference: float) -> None:
        if self.dead_band == 0.0:
            return
        band = max(self.dead_band, _WIDER * self._scatter)
        wrong = abs(difference) > band if not self.used else abs(difference) < band / 2.0
        self._against = self._against + 1 if wrong else 0
        if self._against >= _PERSISTENT:
            self.used, self._against = not self.used, 0
