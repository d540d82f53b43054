"""Lines with a label at the left: filled to the console's width, indented where they go on."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from rich.text import Text

from sagescale.report.figures import LIGHT
from sagescale.report.formats import MARK, Poor, plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

_INDENT = 12
"""Columns of the labels."""

# A mark says the same.
GOOD = LIGHT["sky"]
POOR = f"bold {LIGHT['orange']}"
DIM = "dim"
STRONG = "bold"

_NARROWEST = 60
_BULLET = " · "
_IN_ASCII = str.maketrans("▁▂▃▄▅▆▇█▲·–−×→±…", "_.:-=+*#!|--x>~.")


class Page:
    """Writes a report to a console of any width and encoding.

    Nothing is cut: a path that is too long goes over the edge, since half of it identifies nothing.
    Where the output's encoding is not a Unicode one, ASCII stands for the signs it lacks.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._ascii = console.options.ascii_only
        self.width = max(_NARROWEST, console.width)
        self.body_width = self.width - _INDENT

    def blank(self) -> None:
        """Write an empty line."""
        self._console.print()

    def field(self, label: str, *parts: str | Text, separator: str = _BULLET) -> None:
        """Write a label and the parts after it, breaking lines between parts where possible."""
        lines: list[Text] = []
        for part in parts:
            text = _printable(
                part if isinstance(part, Text) else Text(part, style=POOR if isinstance(part, Poor) else "")
            )
            if not text.plain:
                continue
            if lines and lines[-1].cell_len + len(separator) + text.cell_len <= self.body_width:
                lines[-1].append(separator, style=DIM).append_text(text)
            else:
                # Each on a text of no style of its own, which would be that of what is appended to it.
                lines.extend(Text().append_text(line) for line in _broken(text, self.body_width))
        for number, line in enumerate(lines):
            self._line(label if number == 0 else "", line)

    def warnings(self, warnings: Sequence[str]) -> None:
        """Write what whoever reads should know, a field each."""
        for warning in warnings:
            self.field("warning", Poor(f"{MARK} {plain(warning)}"))

    def table(self, label: str, header: Sequence[str], rows: Sequence[tuple[str, Sequence[Text]]]) -> None:
        """Write labelled rows of cells under a header, right-aligned, no wider than they need to be.

        Without rows nothing is written.
        """
        if not rows:
            return
        columns = list(zip(*(cells for _, cells in rows), strict=True))
        widths = [
            max(len(name), *(cell.cell_len for cell in column))
            for name, column in zip(header, columns, strict=True)
        ]
        head = [Text(name, style=DIM) for name in header]
        for name, cells in ((label, head), *rows):
            line = Text()
            for cell, width in zip(cells, widths, strict=True):
                line.append(" " * (width - cell.cell_len + (2 if line.plain else 0))).append_text(cell)
            self._line(name, line)

    def _line(self, label: str, body: Text) -> None:
        line = Text(label.ljust(_INDENT), style="")
        line.stylize(STRONG, 0, len(label))
        line.append_text(body)
        line.rstrip()
        if self._ascii:
            # One character for one, so that the styles stay where they are.
            line.plain = line.plain.translate(_IN_ASCII).encode("ascii", "replace").decode("ascii")
        self._console.print(line, soft_wrap=True, highlight=False)


def _printable(text: Text) -> Text:
    """Return a text with a space for each tab or line break in it: one for one, its styles stay in place."""
    made = text.copy()
    made.plain = "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in text.plain)
    return made


def _broken(text: Text, width: int) -> list[Text]:
    """Break a text between words; a word longer than the width stays whole."""
    lines: list[Text] = []
    end = 0
    for line in textwrap.wrap(text.plain, width, break_long_words=False, break_on_hyphens=False):
        start = text.plain.index(line, end)
        end = start + len(line)
        lines.append(text[start:end])
    return lines
