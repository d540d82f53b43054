"""Coarse arrival stamps: whole seconds make bursts that were none, and can be drawn apart again.

A log that cuts arrivals to the second has everything of a second arrive at its beginning. Queues form that no
user saw. The stamps tell by themselves: all are multiples of one unit, and many requests share one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sagescale.errors import InputError
from sagescale.trace.sessions import beginnings, begun_at

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sagescale.trace.trace import Trace

_FINEST_S, _COARSEST_S = 0.1, 60.0
_FIRST_ROWS = 1000
_FEWEST_STAMPS, _FEWEST_REQUESTS = 10, 50
_FEWEST_SHARED = 0.2
"""Share of the requests that must have their stamp in common with another: a slow trace of whole seconds is
not bursty by it."""


def coarse_stamp_s(arrival_s: NDArray[np.float64]) -> float | None:
    """Return the unit that all arrivals, in order, are multiples of, s; None where it is fine, or no harm."""
    if len(arrival_s) < _FEWEST_REQUESTS:
        return None
    # Most traces are told by their first rows.
    for part in (arrival_s[:_FIRST_ROWS], arrival_s):
        milliseconds = np.round(part * 1000)
        if np.abs(part * 1000 - milliseconds).max() > 1e-3:
            return None
        unit_s = int(np.gcd.reduce(np.diff(milliseconds).astype(np.int64))) / 1000
        if 0 < unit_s < _FINEST_S:
            return None
    sizes = _sizes(arrival_s)
    shared = int(sizes[sizes > 1].sum())
    if len(sizes) < _FEWEST_STAMPS or shared < _FEWEST_SHARED * len(arrival_s) or unit_s > _COARSEST_S:
        return None
    return unit_s


def _sizes(arrival_s: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return how many requests have each stamp."""
    starts = np.flatnonzero(np.diff(arrival_s, prepend=-1.0) > 0)
    return np.diff(starts, append=len(arrival_s))


def coarse_warning(arrival_s: NDArray[np.float64]) -> str | None:
    """Say that the stamps are coarse; None where they are not."""
    unit_s = coarse_stamp_s(arrival_s)
    if unit_s is None:
        return None
    return (
        f"arrivals are stamped to {'whole seconds' if unit_s == 1 else f'{unit_s:g} s'}: up to "
        f"{int(_sizes(arrival_s).max())} "
        "requests come at one instant, which queues and misses targets as the real traffic did not; "
        "--spread-stamps draws them apart"
    )


def spread_stamps(trace: Trace, seed: int = 0) -> Trace:
    """Draw each arrival uniformly within its stamp: requests of second 7 come between 7 and 8.

    Of a trace with turns it is the sessions whose starts are drawn apart.

    Raises:
        InputError: the stamps are not coarse.
    """
    begins = beginnings(trace)
    unit_s = coarse_stamp_s(begins)
    if unit_s is None:
        raise InputError(
            f"--spread-stamps: {trace.path}: arrivals are not stamped coarsely (to {_FINEST_S:g} s or "
            f"more); leave it out"
        )
    rng = np.random.default_rng([seed, 0x57A3])
    drawn = begins + rng.uniform(0.0, unit_s, len(begins))
    spread = begun_at(trace, drawn, f"stamps of {unit_s:g} s spread (seed {seed})")
    spread = spread.begun_later(float(drawn.min()))
    warning = coarse_warning(begins)
    return replace(spread, warnings=tuple(line for line in spread.warnings if line != warning))
