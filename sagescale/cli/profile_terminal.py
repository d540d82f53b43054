"""A profile's panels as text: curves in braille dots, measured points as letters."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.text import Text

    from sagescale.perf.panels import Panel

__all__ = ["panel_text"]

_COLOURS = ("bright_blue", "dark_orange", "green", "magenta", "bright_black")
_LETTERS = "abcde"
_ROWS = 14
_MARGIN = 9
# Bits of a braille cell's dots by row, left and right column.
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))


class _Axis:
    """A range of values laid over a number of dots."""

    def __init__(self, values: Sequence[float], dots: int, *, log: bool) -> None:
        self._log, self._dots = log, dots
        self.low, self.high = min(values), max(values)
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


def panel_text(panel: Panel, width: int) -> Text:
    """Draw a panel ``width`` characters wide. Letters stand where something was measured, one a curve."""
    from rich.text import Text

    columns = max(20, width - _MARGIN - 1)
    points = [p for curve in panel.curves for p in (*curve.line, *curve.measured)]
    x_axis = _Axis([x for x, _ in points], 2 * columns, log=panel.log_x)
    y_axis = _Axis([y for _, y in points], 4 * _ROWS, log=panel.log_y)
    dots = [[0] * columns for _ in range(_ROWS)]
    colour = [[-1] * columns for _ in range(_ROWS)]
    letters: dict[tuple[int, int], tuple[str, int]] = {}
    for index, curve in enumerate(panel.curves):
        ends = [(x_axis.dot(x), y_axis.dot(y)) for x, y in curve.line]
        for across, up in _joined(ends):
            row, column = _ROWS - 1 - up // 4, across // 2
            dots[row][column] |= _DOTS[3 - up % 4][across % 2]
            colour[row][column] = index
        for x, y in curve.measured:
            letters[_ROWS - 1 - y_axis.dot(y) // 4, x_axis.dot(x) // 2] = (_LETTERS[index], index)
        if curve.chosen:
            x, y = curve.chosen
            letters[_ROWS - 1 - y_axis.dot(y) // 4, x_axis.dot(x) // 2] = ("★", index)
    target = x_axis.dot(panel.target[0]) // 2 if _is_inside(panel, x_axis) and panel.target else -1

    text = Text()
    text.append(f"{panel.title}: {panel.y_label} over {panel.x_label}\n", style="bold")
    for row in range(_ROWS):
        named = row % 4 == 0 or row == _ROWS - 1
        label = _figure(y_axis.value(4 * (_ROWS - 1 - row) + 1.5)) if named else ""
        text.append(f"{label:>{_MARGIN - 1}} │")
        for column in range(columns):
            letter = letters.get((row, column))
            if letter:
                text.append(letter[0], style=f"bold {_COLOURS[letter[1]]}")
            elif dots[row][column]:
                text.append(chr(0x2800 + dots[row][column]), style=_COLOURS[colour[row][column]])
            else:
                text.append("┊" if column == target else " ")
        text.append("\n")
    text.append(" " * _MARGIN + "└" + "─" * columns + "\n")
    text.append(" " * (_MARGIN + 1) + _ruler(x_axis, columns) + "\n")
    text.append(" " * (_MARGIN + 1))
    for index, curve in enumerate(panel.curves):
        shown = f"{_LETTERS[index]} " if curve.measured else "  "
        text.append(f"━ {shown}{curve.label}   ", style=_COLOURS[index])
    if any(curve.measured for curve in panel.curves):
        text.append("letters: measured   ")
    if panel.target:
        text.append(f"┊ {panel.target[1]}, ★ most tokens within it")
    text.append("\n")
    return text


def _is_inside(panel: Panel, axis: _Axis) -> bool:
    return panel.target is not None and axis.low <= panel.target[0] <= axis.high


def _joined(ends: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return every dot on the straight lines between neighbours."""
    dots = list(ends[:1])
    for (x0, y0), (x1, y1) in pairwise(ends):
        steps = max(abs(x1 - x0), abs(y1 - y0), 1)
        dots += [
            (round(x0 + (x1 - x0) * i / steps), round(y0 + (y1 - y0) * i / steps))
            for i in range(1, steps + 1)
        ]
    return dots


def _ruler(axis: _Axis, columns: int) -> str:
    line = [" "] * columns
    for i in range(5):
        column = round(i * (columns - 1) / 4)
        words = _figure(axis.value(2 * column))
        start = min(max(0, column - len(words) // 2), columns - len(words))
        line[start : start + len(words)] = words
    return "".join(line).rstrip()


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
