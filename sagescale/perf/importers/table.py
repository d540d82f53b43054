"""CSV tables of measurements, row by row; a tool's format is a declaration. Errors name line and column."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sagescale.declare import shown
from sagescale.errors import InputError
from sagescale.perf.checks import AMOUNT, COUNT, POSITIVE
from sagescale.perf.importers.source import look_at, read_bytes, source_file
from sagescale.perf.measurement import Measurement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from typing import Never

    from sagescale.declare import Kind
    from sagescale.perf.importers.source import Look

_MAX_CELLS = 2_000_000
"""Of a table: a hundred times the largest that we have seen; each takes a hundred bytes of memory."""


class Row:
    """One row of a table."""

    def __init__(self, path: Path, line: int, cells: dict[str, str]) -> None:
        self.line, self.where, self._cells = line, f"{path}: line {line}", cells

    def has(self, column: str) -> bool:
        """Whether the column is there and not empty."""
        return bool(self._cells.get(column))

    def text(self, column: str) -> str:
        """Return the cell's text, ``""`` when there is none."""
        return self._cells.get(column, "")

    def number(self, column: str) -> float:
        """Return a finite number above 0."""
        return self._checked(column, self.text(column), POSITIVE)

    def amount(self, column: str) -> float:
        """Return a finite number >= 0; 0 when the cell is empty or missing."""
        return self._checked(column, self.text(column) or "0", AMOUNT)

    def _checked(self, column: str, text: str, expected: Kind[float]) -> float:
        try:
            number = expected.read(float(text))
        except ValueError:
            number = None
        if number is None:
            self.fail(column, text, expected.words)
        return number

    def whole(self, column: str, *, default: int | None = None) -> int:
        """Return a whole number >= 1, the default when the cell is empty or missing."""
        if default is not None and not self.has(column):
            return default
        number = self.number(column)
        if not number.is_integer() or COUNT.read(int(number)) is None:
            self.fail(column, self.text(column), COUNT.words)
        return int(number)

    def fail(self, column: str, value: str, expected: str) -> Never:
        """Raise the InputError for a cell."""
        raise InputError(f"{self.where}: {column}: {shown(value)} (expected {expected})")


def read_table(path: Path) -> Iterator[Row]:
    """Yield the rows of a CSV with a header. Raises InputError naming the line for what is no CSV."""
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start}: not UTF-8 (expected a CSV table)") from error
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        header = [word.strip() for word in next(reader, [])]
        left = _MAX_CELLS
        for cells in reader:
            left -= len(cells)
            if left < 0:
                raise InputError(f"{path}: line {reader.line_num}: more than {_MAX_CELLS} cells in the table")
            if not any(cells):
                continue
            if len(cells) != len(header):
                found = f"{len(cells)} cells (expected {len(header)}, as in the header)"
                raise InputError(f"{path}: line {reader.line_num}: {found}")
            yield Row(path, reader.line_num, dict(zip(header, (cell.strip() for cell in cells), strict=True)))
    except csv.Error as error:
        raise InputError(f"{path}: line {reader.line_num}: {error} (expected a CSV table)") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class TableFormat:
    """How one tool writes its table: a row an operating point, of one or more configurations.

    Attributes:
        name: the word for ``--format``.
        problem: says why columns are not the tool's, for messages; ``""`` when they are.
        configuration: what the rows of one configuration have in common, by which they are sorted.
        measurement: adds the points of one configuration's rows to what is known of the source.
    """

    name: str
    problem: Callable[[frozenset[str]], str]
    configuration: Callable[[Row], tuple[object, ...]]
    measurement: Callable[[Measurement, list[Row]], Measurement]

    def recognise(self, path: Path, files: Sequence[Look]) -> bool:
        """Whether it is a table with the tool's columns."""
        return path.is_file() and bool(files[0].columns) and not self.problem(files[0].columns)

    def read(self, path: Path) -> tuple[Measurement, ...]:
        """Read every configuration. Raises InputError naming line and column."""
        problem = self.problem(look_at(path).columns)
        if problem:
            raise InputError(f"{path}: {problem}")
        rows: dict[tuple[object, ...], list[Row]] = {}
        for row in read_table(path):
            rows.setdefault(self.configuration(row), []).append(row)
        source = Measurement(origin=str(path), format=self.name, files=(source_file(path, path),))
        return tuple(self.measurement(source, same) for _, same in sorted(rows.items()))
