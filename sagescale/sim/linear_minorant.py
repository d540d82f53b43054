"""The largest linear function under a table of values, whatever a linear program's tolerance."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SAFETY = 1e-9
"""A bound gives up this share of its terms against rounding, its own and the simulator's."""

_WIDE, _ROUNDS = 1e4, 40
"""Limits of the scaled linear program, and how often rows are added to it at most."""

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

    Rows and bounds are at or above 0. A cutting-plane linear program: solved on a sample of the rows, the
    worst violated ones added until none is. What violation the tolerance leaves is then removed: x goes
    back inside its limits, and is scaled down until every row holds; x = 0 always does.

    Args:
        rows: shape (rows, variables).
        bounds: of each row.
        weights: of the variables.
        limits: low and high of each variable, with 0 within.
        couplings: further rows, with ``couplings @ x <= 0``; these only up to the solver's tolerance.

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
    from scipy.optimize import linprog

    size = np.abs(rows).max(axis=0)
    size[size == 0.0] = 1.0
    unit, longest = rows / size, float(bounds.max())
    if longest <= 0.0:
        return np.zeros(rows.shape[1])
    heights = bounds / longest
    objective = -(weights / size)
    objective /= max(float(np.abs(objective).max()), 1e-300)
    # Wide finite limits: what the sample leaves unbounded, the rows added later bound.
    lower, upper = np.clip(np.array(limits).T * (size / longest), -_WIDE, _WIDE)
    chosen = np.unique(np.linspace(0, len(rows) - 1, 400).astype(np.int64))
    best = np.zeros(rows.shape[1])
    coupled = np.zeros((0, rows.shape[1])) if couplings is None else couplings / size
    for _ in range(_ROUNDS):
        solved = linprog(
            objective,
            A_ub=np.concatenate([unit[chosen], coupled]),
            b_ub=np.concatenate([heights[chosen], np.zeros(len(coupled))]),
            bounds=list(zip(lower, upper, strict=True)),
            method="highs",
        )
        if not solved.success:
            break
        best = np.asarray(solved.x, dtype=np.float64)
        excess = unit @ best - heights
        worst = np.argsort(excess)[-50:]
        added = np.setdiff1d(worst[excess[worst] > 1e-12], chosen)
        if not len(added):
            break
        chosen = np.union1d(chosen, added)
    best = np.clip(best, lower, upper)
    reached = unit @ best
    above = reached > heights
    if above.any():
        best = best * float((heights[above] / reached[above]).min())
    return np.asarray(best / size * longest, dtype=np.float64)
