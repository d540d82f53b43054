"""The largest linear function under a table of values, whatever a linear program's tolerance."""

from __future__ import annotations

import contextlib
import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SAFETY = 1e-9
"""A bound gives up this share of its terms against rounding, its own and the simulator's."""

_WIDE, _STEPS, _TOLERANCE = 1e4, 500, 1e-12
"""Limits of the scaled linear program, how many corners it goes to at most, and what counts as rounding."""

_KEPT = 256
_answers: dict[bytes, NDArray[np.float64]] = {}
"""By a digest of what was asked: the runs of a comparison complete the same requests, and ask the same."""


def summed(weights: NDArray[np.float64], coefficients: NDArray[np.float64]) -> float:
    """Return the sum of weights times coefficients, less what rounding may have added; 0 at least."""
    terms = weights * coefficients
    return max(0.0, float(terms.sum() - SAFETY * np.abs(terms).sum()))


def largest_minorant(
    rows: NDArray[np.float64],
    bounds: NDArray[np.float64],
    weights: NDArray[np.float64],
    limits: list[tuple[float, float]],
    couplings: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Maximise ``weights @ x`` over ``rows @ x <= bounds`` and ``limits``, whatever the solver's tolerance.

    Rows and bounds are at or above 0. The dual simplex method: from the corner where nothing but the limits
    holds to one after the other in which the row exceeded most holds as well, until none is exceeded. With
    five variables at most that is some ten steps; to load ``scipy.optimize`` takes longer than a short run.
    What rounding leaves is then removed: x goes back inside its limits, and is scaled down until every row
    holds; x = 0 always does.

    Args:
        rows: shape (rows, variables).
        bounds: of each row.
        weights: of the variables.
        limits: low and high of each variable, with 0 within.
        couplings: further rows, with ``couplings @ x <= 0``; these only up to rounding.

    Returns:
        x, not to be written to: it is kept for who asks the same again.
    """
    asked = hashlib.blake2b(repr((rows.shape, limits)).encode())
    for part in (rows, bounds, weights, couplings):
        asked.update(b"none" if part is None else part.tobytes())
    found = _answers.get(asked.digest())
    if found is None:
        found = _solved(rows, bounds, weights, limits, couplings)
        found.setflags(write=False)
        if len(_answers) >= _KEPT:
            _answers.clear()
        _answers[asked.digest()] = found
    return found


def _solved(
    rows: NDArray[np.float64],
    bounds: NDArray[np.float64],
    weights: NDArray[np.float64],
    limits: list[tuple[float, float]],
    couplings: NDArray[np.float64] | None,
) -> NDArray[np.float64]:
    size = np.abs(rows).max(axis=0)
    size[size == 0.0] = 1.0
    unit, longest = rows / size, float(bounds.max())
    count = rows.shape[1]
    if longest <= 0.0:
        return np.zeros(count)
    heights = bounds / longest
    gains = weights / size
    gains /= max(float(np.abs(gains).max()), 1e-300)
    # Wide finite limits, so that there is a corner to begin at: rows bound what nothing else does.
    lower, upper = np.clip(np.array(limits).T * (size / longest), -_WIDE, _WIDE)
    coupled = np.zeros((0, count)) if couplings is None else couplings / size
    sides = np.concatenate([np.eye(count), -np.eye(count), coupled, unit])
    ends = np.concatenate([upper, -lower, np.zeros(len(coupled)), heights])
    corner = np.arange(count) + np.where(gains < 0.0, count, 0)
    best = np.zeros(count)
    with contextlib.suppress(np.linalg.LinAlgError):  # what there is by then is scaled down
        for _ in range(_STEPS):
            best = np.linalg.solve(sides[corner], ends[corner])
            excess = sides @ best - ends
            enters = int(excess.argmax())
            if excess[enters] <= _TOLERANCE or enters in corner:
                break
            # The side that enters, and the gains, as sums of those that meet in the corner.
            shares, prices = np.linalg.solve(sides[corner].T, np.column_stack([sides[enters], gains])).T
            leaving = shares > _TOLERANCE
            if not leaving.any():
                break
            ratios = np.divide(prices, shares, out=np.full(count, np.inf), where=leaving)
            corner[int(ratios.argmin())] = enters
    best = np.clip(best, lower, upper)
    reached = unit @ best
    above = reached > heights
    if above.any():
        best = best * float((heights[above] / reached[above]).min())
    return np.asarray(best / size * longest, dtype=np.float64)
