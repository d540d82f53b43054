"""Plots of characters: a series as one line of bars, the panels of a figure in braille dots."""

from __future__ import annotations

import math
from string import ascii_lowercase
from typing import TYPE_CHECKING

from rich.text import Text

from sagescale.report.formats import known
from sagescale.report.layout import DIM, GOOD, POOR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from sagescale.report.figures import Axis, Panel, Series

BARS = "▁▂▃▄▅▆▇█"
_GAP = " "
_ROWS = 14
_MARGIN = 9
_STYLES = {
    "blue": "bright_blue",
    "vermillion": "dark_orange",
    "green": "green",
    "purple": "magenta",
    "muted": "bright_black",
    "sky": GOOD,
    "orange": POOR,
}
_SIGNS = {"star": "★", "cross": "+"}
_BLANK = 0x2800
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


def panel_text(panel: Panel, width: int) -> Text:
    """Draw a panel ``width`` characters wide under its title, with a legend."""
    text = Text()
    text.append(f"{panel.title}: {panel.y.title} over {panel.x.title}\n", style="bold")
    for line in panel_lines(panel, width, _ROWS):
        text.append_text(line).append("\n")
    text.append(" " * (_MARGIN + 1))
    letters, further = _letters(panel), {}
    for series in panel.series:
        if not series.mark:
            letter = f"{letters[series.group]} " if series.group in letters else "  "
            text.append(f"━ {letter}{series.name}   ", style=_STYLES[series.colour])
        else:
            further[series.name] = _SIGNS.get(str(series.mark), "letters:")
    text.append("".join(f"{sign} {name}   " for name, sign in further.items()))
    text.append("   ".join(f"┊ {level.words}" for level in panel.levels if level.axis == "x"))
    text.rstrip()
    return text.append("\n")


def plot_columns(width: int) -> int:
    """Return how many characters across a panel of this width draws on."""
    return max(20, width - _MARGIN - 1)


def panel_lines(panel: Panel, width: int, rows: int) -> list[Text]:
    """Draw a panel in so many rows, over a ruler where its x axis has a title.

    Lines are braille dots, marks signs or the letter of their group; what comes later in the panel covers
    what came before. Axes go from the least of the values to the largest, since there is no room to spare.
    """
    columns = plot_columns(width)
    x_axis = _Scale([x for series in panel.series for x, _ in _known(series)], 2 * columns, panel.x)
    y_axis = _Scale([y for series in panel.series for _, y in _known(series)], 4 * rows, panel.y)
    cells: dict[tuple[int, int], tuple[str, str]] = {}
    letters = _letters(panel)
    for series in panel.series:
        style = _STYLES[series.colour]
        if series.mark:
            sign = _SIGNS.get(str(series.mark)) or letters[series.group]
            for x, y in _known(series):
                cells[rows - 1 - y_axis.dot(y) // 4, x_axis.dot(x) // 2] = sign, f"bold {style}"
            continue
        for across, up in _line(series, x_axis, y_axis):
            cell = rows - 1 - up // 4, across // 2
            drawn = cells.get(cell, ("", ""))[0]
            bits = ord(drawn) - _BLANK if drawn and ord(drawn) >= _BLANK else 0
            cells[cell] = chr(_BLANK | bits | _DOTS[3 - up % 4][across % 2]), style
    upright = {
        x_axis.dot(level.value) // 2
        for level in panel.levels
        if level.axis == "x" and x_axis.low <= level.value <= x_axis.high
    }
    lines = []
    for row in range(rows):
        named = row % 4 == 0 or row == rows - 1
        label = _written(y_axis.value((4 * rows - 1) * (1 - row / (rows - 1)))) if named else ""
        line = Text().append(f"{label:>{_MARGIN - 1}} │", style=DIM)
        for column in range(columns):
            line.append(*cells.get((row, column), ("┊" if column in upright else " ", "")))
        line.rstrip()
        lines.append(line)
    if panel.x.title:
        lines.append(Text(" " * _MARGIN + "└" + "─" * columns, style=DIM))
        lines.append(Text(" " * (_MARGIN + 1) + _ruler(x_axis, columns)))
    return lines


class _Scale:
    """The range of an axis' values laid over a number of dots."""

    def __init__(self, values: Sequence[float], dots: int, axis: Axis) -> None:
        self._log, self._dots = axis.log, dots
        self.low = 0.0 if axis.zero else min(values, default=0.0)
        self.high = max(values, default=0.0) or (1.0 if axis.zero else 0.0)
        self._from, self._to = self._scaled(self.low), self._scaled(self.high)

    def _scaled(self, value: float) -> float:
        return math.log(value) if self._log else value

    def dot(self, value: float) -> int:
        """Return the dot a value falls on."""
        span = self._to - self._from
        share = (self._scaled(value) - self._from) / span if span else 0.0
        return min(self._dots - 1, max(0, round(share * (self._dots - 1))))

    def value(self, dot: float) -> float:
        """Return the value at a dot."""
        at = self._from + dot / (self._dots - 1) * (self._to - self._from)
        return math.exp(at) if self._log else at


def _known(series: Series) -> list[tuple[float, float]]:
    return [(x, y) for x, y in series.points() if x is not None and y is not None]


def _line(series: Series, x_axis: _Scale, y_axis: _Scale) -> Iterator[tuple[int, int]]:
    """Yield the dots of a line, which an unknown value breaks."""
    before: tuple[int, int] | None = None
    for x, y in series.points():
        dot = None if x is None or y is None else (x_axis.dot(x), y_axis.dot(y))
        if dot is not None:
            x0, y0 = before or dot
            steps = max(abs(dot[0] - x0), abs(dot[1] - y0), 1)
            for i in range(steps + 1):
                yield round(x0 + (dot[0] - x0) * i / steps), round(y0 + (dot[1] - y0) * i / steps)
        before = dot


def _letters(panel: Panel) -> dict[str, str]:
    """Return a letter for each group of which something is marked."""
    groups = dict.fromkeys(series.group for series in panel.series)
    marked = {series.group for series in panel.series if series.mark and str(series.mark) not in _SIGNS}
    return {group: letter for group, letter in zip(groups, ascii_lowercase, strict=False) if group in marked}


def _ruler(axis: _Scale, columns: int) -> str:
    line = [" "] * columns
    for i in range(5):
        column = round(i * (columns - 1) / 4)
        words = _written(axis.value(2 * column))
        start = min(max(0, column - len(words) // 2), columns - len(words))
        line[start : start + len(words)] = words
    return "".join(line).rstrip()


def _written(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
