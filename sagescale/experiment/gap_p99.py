"""The 99th percentile of the gaps between each request's tokens, from how many of them are longer than what.

The simulator keeps no list of a request's gaps; it counts those longer than a target. Replayed with a row of
targets, each of a request's longest gaps lies between two of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

_COARSE, _FINE = 1.25, 1.02
"""Targets are so many times one another: first over all that is likely, then about what is asked for."""

_REACH = 4.0
"""How far from the measured ones the simulated percentiles may be."""


def gap_p99_ms(
    late: Callable[[float], NDArray[np.int32]],
    osl: NDArray[np.int32],
    largest_ms: NDArray[np.float64],
    measured_ms: NDArray[np.float64],
    percentiles: tuple[float, ...],
) -> NDArray[np.float64]:
    """Return the p99 gap of each request in ms, by linear interpolation between two of its gaps, float64[n].

    True to 1 % for requests near the percentiles, and roughly up to four times from the measured
    ones; NaN where there is no gap or it is not known.

    Args:
        late: the gaps of each request that are longer than a target in ms, int32[n].
        osl: tokens of each.
        largest_ms: the largest gap of each.
        measured_ms: p99 gaps as measured, which say where to look; some are known.
        percentiles: 0 to 100, of the requests' p99 gaps.
    """
    about = np.nanpercentile(measured_ms, percentiles)
    targets = _row(about.min() / _REACH, about.max() * _REACH, _COARSE)
    counts = {target: late(target) for target in targets}
    roughly = _p99_ms(counts, osl, largest_ms)
    if np.isnan(roughly).all():
        return roughly
    for middle in np.nanpercentile(roughly, percentiles):
        for target in _row(middle / _COARSE, middle * _COARSE, _FINE):
            counts[target] = late(target)
    return _p99_ms(counts, osl, largest_ms)


def _row(low: float, high: float, step: float) -> list[float]:
    count = int(np.ceil(np.log(high / low) / np.log(step))) + 1
    return [float(target) for target in np.geomspace(low, high, count)]


def _p99_ms(
    counts: dict[float, NDArray[np.int32]], osl: NDArray[np.int32], largest_ms: NDArray[np.float64]
) -> NDArray[np.float64]:
    targets = np.array(sorted(counts))
    late = np.array([counts[target] for target in targets.tolist()])
    gaps = osl - 1
    at = 0.99 * (gaps - 1)
    below = np.floor(at).astype(np.int64)
    lower = _nth_longest_ms(gaps - below, late, targets, largest_ms)
    upper = _nth_longest_ms(np.maximum(gaps - below - 1, 1), late, targets, largest_ms)
    found = lower + (at - below) * (upper - lower)
    return np.asarray(np.where(gaps > 0, found, np.nan))


def _nth_longest_ms(
    nth: NDArray[np.int64],
    late: NDArray[np.int32],
    targets: NDArray[np.float64],
    largest_ms: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return each request's longest gap, second longest, ...: between two targets, or at an end."""
    passed = (late >= nth).sum(axis=0)
    edges = np.concatenate([targets[:1], np.sqrt(targets[1:] * targets[:-1]), targets[-1:]])
    return np.where(nth == 1, largest_ms, np.minimum(edges[passed], largest_ms))
