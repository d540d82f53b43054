"""Whether a trace's times can be in the unit that its format has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sagescale.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sagescale.trace.readers.fields import Clock

_FEWEST = 5
_DOUBTED_RPS, _REFUSED_RPS = 50.0, 100.0
"""Recorded traces of one service have some dozen requests a second. Whole milliseconds are doubted above
the first rate; with fractions, as seconds have, refused above the second."""


def check_unit(path: str, ticks: NDArray[Any], clock: Clock, column: str) -> str | None:
    """Look at times that are milliseconds by their format.

    Returns:
        A warning, where they may be seconds; None where nothing speaks for it.

    Raises:
        InputError: they have fractions, and come so fast that they hardly are milliseconds.
    """
    if clock.unit != "ms" or len(ticks) < _FEWEST:
        return None
    span_s = float(ticks.max() - ticks.min()) / clock.ticks_per_s
    rate = len(ticks) / span_s if span_s > 0 else np.inf
    fractions = bool((ticks != np.floor(ticks)).any())
    readings = (
        f"{len(ticks):,} requests in {span_s:.3g} s ({rate:.3g}/s) as milliseconds, "
        f"{span_s * 1000:.3g} s ({rate / 1000:.3g}/s) as seconds"
    )
    if fractions and rate > _REFUSED_RPS:
        raise InputError(
            f"{path}: '{column}' has fractions, and its format has milliseconds: {readings}; say which with "
            "--time-unit ms or --time-unit s"
        )
    if fractions or rate > _DOUBTED_RPS:
        why = "has fractions" if fractions else "comes very fast"
        return f"'{column}' {why}, read as milliseconds: {readings}; if it is seconds, say --time-unit s"
    return None
