"""The requests' lengths as they have lately been."""

from __future__ import annotations

import math
from collections import deque
from statistics import NormalDist, median
from typing import TYPE_CHECKING

import numpy as np

from sagescale.planner.policy.twin import Lengths

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sagescale.planner.observation import Observation, Window

__all__ = ["LengthMemory"]

_WINDOWS = 60
_HALF_LIFE = 10.0
"""Windows kept, and after how many one counts half."""

_SAMPLE = 8192
_FINENESS = 4
"""Requests drawn at most, and for each there is: so finely are weights kept."""

_EVERY = 10
_MOVED = 0.05

_HITS = 5
"""Windows whose median is the prefix cache's hit rate: that of one with few requests says little."""


def _lognormal(variation: float, count: int = 64) -> NDArray[np.float64]:
    """Quantiles of a lognormal distribution with mean 1, in order."""
    sigma = math.sqrt(math.log1p(variation * variation))
    normal = NormalDist()
    shape = np.exp([sigma * normal.inv_cdf((at + 0.5) / count) for at in range(count)])
    quantiles: NDArray[np.float64] = shape / shape.mean()
    return quantiles


_SHAPE = _lognormal(1.0)
"""Where only means are known, lengths are taken to be lognormal with a coefficient of variation of 1: those
of the Azure services lie between 0.9 and 1.7."""

_LONGEST = 1 << 30
"""No prompt and no output is longer: an absurd mean does not end the planner, and 32 bits have to hold it."""


class LengthMemory:
    """A sample of the requests of the last windows, late ones most; ``version`` changes when it does.

    Drawn anew every ten windows, and when a mean has moved by 5 %: what was found out about a sample stays
    true while it is the same.

    Args:
        hits_by_window: of each window's prompts as much is computed as its own hit rate left: a few whole
            prompts among many that are nearly all in the cache. Else the same share of every prompt, by the
            median of the last hit rates.
    """

    def __init__(self, *, hits_by_window: bool = False) -> None:
        self.version = 0
        self.sample: Lengths | None = None
        self._windows: deque[NDArray[np.int64]] = deque(maxlen=_WINDOWS)  # ISL and OSL, a row each
        self._hits_by_window = hits_by_window
        self._hits: deque[float | None] = deque(maxlen=_WINDOWS)
        self._age = 0
        self._hit_rates: deque[float] = deque(maxlen=_HITS)

    def observe(self, observation: Observation, window: Window) -> None:
        """Take in a window; of one without the lengths of its requests, its means."""
        lengths = None
        if observation.lengths:
            lengths = np.array(observation.lengths, dtype=np.int64).T
        elif window.isl is not None and window.osl is not None:
            # Which goes with which is not known: every seventh, modulo 64, mixes them.
            osl = np.rint(window.osl * _SHAPE[np.arange(0, 7 * len(_SHAPE), 7) % len(_SHAPE)])
            lengths = np.array((np.rint(window.isl * _SHAPE), osl)).astype(np.int64)
        if lengths is not None:
            self._windows.append(np.clip(lengths, 1, _LONGEST))
            self._hits.append(window.prefix_hit_rate)
        if window.prefix_hit_rate is not None:
            self._hit_rates.append(window.prefix_hit_rate)
        self._age += 1
        if self._windows and (self.sample is None or self._age >= _EVERY or self._moved(self.sample)):
            self._draw()

    def _moved(self, sample: Lengths) -> bool:
        weights = self._weights()
        return any(
            abs(np.log(max(float(weights @ new), 1.0) / float(old.mean()))) > _MOVED
            for new, old in zip(self._all(), (sample.isl, sample.computed, sample.osl), strict=True)
        )

    def _weights(self) -> NDArray[np.float64]:
        """What each of all requests counts for, adding up to 1."""
        ages = np.arange(len(self._windows))[::-1]
        weights = np.repeat(0.5 ** (ages / _HALF_LIFE), [lengths.shape[1] for lengths in self._windows])
        weights /= weights.sum()
        return weights

    def _all(self) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
        isl, osl = np.concatenate(self._windows, axis=1)
        usual = median(self._hit_rates) if self._hit_rates else 0.0
        if not self._hits_by_window:
            return isl, np.maximum(np.rint(isl * (1.0 - usual)), 1.0), osl
        rates = [usual if rate is None else rate for rate in self._hits]
        hit_rate = np.repeat(rates, [lengths.shape[1] for lengths in self._windows])
        return isl, np.maximum(np.rint(isl * (1.0 - hit_rate)), 1.0), osl

    def _draw(self) -> None:
        isl, computed, osl = self._all()
        # As often as each counts, to within one (systematic sampling); in random order.
        count = min(_SAMPLE, _FINENESS * len(isl))
        at = np.searchsorted(np.cumsum(self._weights()), (np.arange(count) + 0.5) / count)
        order = np.random.default_rng(0).permutation(np.minimum(at, len(isl) - 1))
        self.sample = Lengths(*(column[order].astype(np.int32) for column in (isl, computed, osl)))
        self.version += 1
        self._age = 0
