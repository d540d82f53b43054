"""Plots of characters: a series as one line of bars, curves in braille dots."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

from rich.text import Text

from sagescale.report.formats import figure, known
from sagescale.report.layout import DIM, GOOD, POOR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["BARS", "Braille", "bars", "downsample", "line_plot", "windows_per_bar"]

BARS = "▁▂▃▄▅▆▇█"
_GAP = " "
_AXIS = 9
# Bits of a braille cell's dots by row from the top, left and right column.
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))


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


class Braille:
    """A grid of characters of two by four dots each, dots counted from the lower left.

    ``drawn`` holds for each character (row from the top, column) its dots and who drew there last.
    """

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self.drawn: dict[tuple[int, int], tuple[int, int]] = {}

    def at(self, across: int, up: int) -> tuple[int, int]:
        """Return the row and column of the character that a dot is in."""
        return self._rows - 1 - up // 4, across // 2

    def line(self, ends: Sequence[tuple[int, int]], who: int = 0) -> None:
        """Draw straight lines from each dot to the next."""
        for end in ends[:1]:
            self._dot(*end, who)
        for (x0, y0), (x1, y1) in pairwise(ends):
            steps = max(abs(x1 - x0), abs(y1 - y0), 1)
            for i in range(1, steps + 1):
                self._dot(round(x0 + (x1 - x0) * i / steps), round(y0 + (y1 - y0) * i / steps), who)

    def _dot(self, across: int, up: int, who: int) -> None:
        bits, _ = self.drawn.get(self.at(across, up), (0, who))
        self.drawn[self.at(across, up)] = bits | _DOTS[3 - up % 4][across % 2], who

    def sign(self, row: int, column: int) -> str:
        """Return the character drawn there, empty where there is none."""
        bits, _ = self.drawn.get((row, column), (0, 0))
        return chr(0x2800 + bits) if bits else ""


def line_plot(
    observed: Sequence[float | None], forecast: Sequence[float | None], width: int, height: int = 8
) -> list[Text]:
    """Draw the observed values as a line of braille dots, and a ``+`` where the forecast leaves it.

    Half a cell is as many windows as it takes to fit all (their mean is drawn), or a window several halves.
    They differ in sign and in colour. The axis shows the range, from 0.
    """
    columns = max(1, width - _AXIS)
    windows = max(1, len(observed), len(forecast))
    size = -(-windows // (2 * columns))
    repeat = max(1, 2 * columns // windows)
    first, second = (
        [value for value in downsample(values, size, _mean) for _ in range(repeat)]
        for values in (observed, forecast)
    )
    top = max([value for value in (*first, *second) if value is not None], default=0.0) or 1.0

    def up(value: float) -> int:
        return min(4 * height - 1, max(0, int(value / top * 4 * height)))

    plot = Braille(height)
    for place, value in enumerate(first):
        if value is not None:
            before = first[place - 1] if place else None
            start = up(value) if before is None else up(before)
            # From the last dot's height to this one's, so that steps do not tear the line apart.
            near = start + (up(value) > start) - (up(value) < start)
            plot.line([(place, near), (place, up(value))])
    crosses = {plot.at(place, up(value)) for place, value in enumerate(second) if value is not None}
    lines = []
    for row in range(height):
        label = figure(top) if row == 0 else "0" if row == height - 1 else ""
        line = Text(label.rjust(_AXIS - 2) + " ┤" if label else " " * (_AXIS - 1) + "│", style=DIM)
        for column in range(-(-max(len(first), len(second)) // 2)):
            if sign := plot.sign(row, column):
                line.append(sign, style=GOOD)
            else:
                line.append("+" if (row, column) in crosses else " ", style=POOR)
        line.rstrip()
        lines.append(line)
    return lines


def _mean(values: Iterable[float]) -> float:
    given = list(values)
    return sum(given) / len(given)
