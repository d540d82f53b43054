"""What a GPU has to save to be worth it, so that over the last hours no more is missed than may be."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Price", "Savings"]

_HALF_LIFE_S = 7200.0
_MEMORY = 480
"""What a window counts for halves in so long; windows remembered at most."""


_ROUNDED = 1.0 - 1e-9
"""A price that is what a size saves buys that size."""


class Savings(NamedTuple):
    """What more instances of a pool save, most a GPU first: the lower convex hull of misses over sizes.

    Attributes:
        sizes: rising; the first is the fewest that get through the load.
        missed: the share of requests expected to miss at each, falling.
        per_gpu: the share that each size after the first saves a GPU more, falling.
    """

    sizes: NDArray[np.int64]
    missed: NDArray[np.float64]
    per_gpu: NDArray[np.float64]

    @classmethod
    def of(cls, sizes: Sequence[int], missed: Sequence[float], gpus: int) -> Savings:
        """Keep of some sizes, rising, those that a price can choose; an instance has so many GPUs."""
        hull: list[int] = []
        for at in range(len(sizes)):
            if hull and missed[at] >= missed[hull[-1]]:
                continue
            while len(hull) > 1:
                (a, b) = hull[-2:]
                saved = (missed[a] - missed[b]) * (sizes[at] - sizes[b])
                if saved > (missed[b] - missed[at]) * (sizes[b] - sizes[a]):
                    break
                hull.pop()
            hull.append(at)
        kept = np.array([sizes[at] for at in hull], np.int64)
        shares = np.array([missed[at] for at in hull])
        return cls(kept, shares, -np.diff(shares) / np.diff(kept) / gpus)

    def size(self, per_gpu: float) -> int:
        """The largest size whose last GPU saves at least such a share."""
        return int(self.sizes[np.count_nonzero(self.per_gpu >= per_gpu * _ROUNDED)])


class Price:
    """Requests a second that one more GPU has to save, wherever it is put.

    It is the multiplier of one problem: the fewest GPU-hours over the windows of the last hours, each sized
    for what was to be expected in it, that together miss no more than may be missed. Where misses fall
    steeply from a size on, that is the size that misses as much in each window; where they fall slowly, a
    quiet window misses less than may be and a busy one more, which takes fewer GPUs for the same promise
    (Everett 1963).

    Args:
        interval_s: between windows.
        allowed: the share of all requests that may be missed.
    """

    def __init__(self, interval_s: float, allowed: float) -> None:
        self._allowed = allowed
        self._fades = 0.5 ** (interval_s / _HALF_LIFE_S)
        self._windows: deque[tuple[float, tuple[Savings, ...]]] = deque(maxlen=_MEMORY)
        self.requests_per_s = 0.0

    def observe(self, requests_per_s: float, pools: tuple[Savings, ...]) -> None:
        """Take in a window: requests expected, and what sizes of each pool save of them."""
        self._windows.append((requests_per_s, pools))
        weight, left, values, amounts = 1.0, 0.0, [], []
        for rate, savings in reversed(self._windows):
            for pool in savings:
                values.append(rate * pool.per_gpu)
                amounts.append(weight * rate * -np.diff(pool.missed))
                left += weight * rate * float(pool.missed[0])
            left -= weight * rate * self._allowed
            weight *= self._fades
        value, amount = np.concatenate(values), np.concatenate(amounts)
        order = np.argsort(-value, kind="stable")
        enough = np.searchsorted(np.cumsum(amount[order]), left)
        if left <= 0.0:
            self.requests_per_s = np.inf
        else:
            self.requests_per_s = float(value[order[enough]]) if enough < len(order) else 0.0

    def per_gpu(self, requests_per_s: float) -> float:
        """The share of so many requests a second that a GPU has to save."""
        return self.requests_per_s / requests_per_s if requests_per_s > 0.0 else np.inf
