"""A series over time in one line of text."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sagescale.report.formats import known

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["BARS", "bars", "downsample", "windows_per_bar"]

BARS = "▁▂▃▄▅▆▇█"
_GAP = " "


def windows_per_bar(windows: int, width: int) -> int:
    """Return how many windows share a bar so that all of them fit; every bar but the last has as many."""
    return max(1, math.ceil(windows / max(1, width)))


def downsample(
    values: Sequence[float | None], size: int, pick: Callable[[Iterable[float]], float]
) -> list[float | None]:
    """Return one value for every ``size`` windows: what ``pick`` makes of the known ones, else ``None``.

    With ``max`` or ``min`` the extremes of the series are never averaged away.
    """
    picked: list[float | None] = []
    for start in range(0, len(values), size):
        group = [number for value in values[start : start + size] if (number := known(value)) is not None]
        picked.append(pick(group) if group else None)
    return picked


def bars(values: Sequence[float | None], low: float, high: float) -> str:
    """Draw one character a value between ``low`` (lowest bar) and ``high`` (full); unknown is a gap.

    Values beyond the range are drawn at its end. Where the range is empty, its value is a full bar
    above zero and the lowest at zero.
    """
    return "".join(
        _GAP if (number := known(value)) is None else BARS[_height(number, low, high)] for value in values
    )


def _height(value: float, low: float, high: float) -> int:
    top = len(BARS) - 1
    if value >= high:
        return top if high > low or value > 0 else 0
    if value <= low:
        return 0
    # Halved first: the range of two finite numbers may not be finite.
    return min(top, int((value / 2 - low / 2) / (high / 2 - low / 2) * len(BARS)))
