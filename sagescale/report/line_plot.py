"""Two series over time as a plot of characters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from sagescale.report.formats import figure, known
from sagescale.report.layout import DIM, GOOD, POOR

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["line_plot"]

_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))  # braille dots by column and row of a cell
_AXIS = 9


def line_plot(
    observed: Sequence[float | None], forecast: Sequence[float | None], width: int, height: int = 8
) -> list[Text]:
    """Draw the observed values as a line of braille dots, and a ``+`` where the forecast leaves it.

    Half a cell is as many windows as it takes to fit all (their mean is drawn), or a window several halves.
    Told apart by sign and by colour. The axis shows the range, from 0.
    """
    columns = max(1, width - _AXIS)
    windows = max(1, len(observed), len(forecast))
    size = -(-windows // (2 * columns))
    repeat = max(1, 2 * columns // windows)
    first, second = (_stretched(_means(values, size), repeat) for values in (observed, forecast))
    top = max([value for value in (*first, *second) if value is not None], default=0.0) or 1.0
    cells = -(-max(len(first), len(second)) // 2)
    grid = [[0] * cells for _ in range(height)]
    crosses = [[False] * cells for _ in range(height)]
    before: int | None = None
    for at, value in enumerate(first):
        if value is None:
            before = None
            continue
        row = _row(value, top, 4 * height)
        # From the last dot to this one, so that steps do not tear the line apart.
        near = row if before is None or before == row else before + (1 if row > before else -1)
        for dot in range(min(row, near), max(row, near) + 1):
            grid[dot // 4][at // 2] |= _DOTS[at % 2][dot % 4]
        before = row
    for at, value in enumerate(second):
        if value is not None:
            crosses[_row(value, top, height)][at // 2] = True
    lines = []
    for row in range(height):
        label = figure(top) if row == 0 else "0" if row == height - 1 else ""
        line = Text(label.rjust(_AXIS - 2) + " ┤" if label else " " * (_AXIS - 1) + "│", style=DIM)
        for dots, cross in zip(grid[row], crosses[row], strict=True):
            if dots:
                line.append(chr(0x2800 + dots), style=GOOD)
            else:
                line.append("+" if cross else " ", style=POOR)
        line.rstrip()
        lines.append(line)
    return lines


def _means(values: Sequence[float | None], size: int) -> list[float | None]:
    means: list[float | None] = []
    for start in range(0, len(values), size):
        group = [number for value in values[start : start + size] if (number := known(value)) is not None]
        means.append(sum(group) / len(group) if group else None)
    return means


def _stretched(values: list[float | None], repeat: int) -> list[float | None]:
    return [value for value in values for _ in range(repeat)]


def _row(value: float, top: float, rows: int) -> int:
    return rows - 1 - min(rows - 1, max(0, int(value / top * rows)))
