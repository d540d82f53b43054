"""CSV formats: Arrow reads the file at once; when it cannot, a slow walk finds the line to blame."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from sagescale.errors import InputError
from sagescale.trace.readers.arrow import checked_columns, type_choices
from sagescale.trace.readers.base import Layout, Rows, Warn, no_warnings, refuse_cell, require_columns

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sagescale.trace.readers.fields import Field
    from sagescale.trace.recognise import Head
    from sagescale.trace.source import Source

__all__ = ["CsvFormat"]

_BLOCK_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class CsvFormat:
    """A trace format that is a CSV file with a header.

    Attributes:
        name: what ``--format`` calls it.
        layout: its columns.
        absent: columns that make it another format.
        warn: what to tell the user about columns left out.
    """

    name: str
    layout: Layout
    absent: frozenset[str] = frozenset()
    warn: Warn = no_warnings

    @property
    def shape(self) -> str:
        """Container, columns and unit of time, for messages."""
        return f"CSV {self.layout.describe()}"

    def recognise(self, head: Head) -> bool:
        """Tell whether the header has every column of this format and none of another's."""
        return head.kind == "csv" and self.layout.found_in(head) and not self.absent & set(head.columns)

    def read(self, source: Source, head: Head) -> Rows:
        """Read every row; a million take about a tenth of a second a core.

        Raises:
            InputError: naming file, line, column and value, and what was expected.
        """
        if head.kind != "csv":
            raise InputError(f"{source.path}: is {head.kind}; expected {self.shape} ({self.name})")
        fields = self.layout.fields(head)
        require_columns(source, head, fields)
        columns = _parse(source, head, fields)
        if columns is None or np.any(self.layout.excess_cache(columns)):
            _blame(source, head, self.layout)
        return self.layout.rows(columns, self.warn(columns, head))


def _parse(source: Source, head: Head, fields: tuple[Field, ...]) -> dict[str, NDArray[Any]] | None:
    """Read the fields with Arrow; None when some row holds what it should not."""
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    for types in type_choices(fields):
        try:
            with source.open() as stream:
                batches = arrow_csv.open_csv(
                    stream,
                    read_options=arrow_csv.ReadOptions(
                        column_names=head.columns, skip_rows=head.header_lines, block_size=_BLOCK_BYTES
                    ),
                    convert_options=arrow_csv.ConvertOptions(
                        column_types=types, include_columns=list(types), null_values=[""]
                    ),
                )
                return checked_columns(batches, fields)
        except (pa.ArrowException, ValueError):  # ValueError: text that is no UTF-8
            continue
    return None


def _blame(source: Source, head: Head, layout: Layout) -> NoReturn:
    """Walk the file line by line to the first that is wrong.

    Raises:
        InputError: always.
    """
    fields = [(head.columns.index(field.column), field) for field in layout.fields(head)]
    number = 0
    try:
        for number, line in source.lines():
            if number <= head.header_lines:
                continue
            place = f"line {number}"
            (cells,) = csv.reader([line])
            if len(cells) != len(head.columns):
                raise InputError(
                    f"{source.path}: {place}: found {len(cells)} fields, expected {len(head.columns)} "
                    f"({','.join(head.columns)})"
                )
            row: dict[str, float] = {}
            for index, field in fields:
                value = field.kind.number(cells[index].strip())
                if value is None or not field.kind.accepts(value):
                    refuse_cell(source.path, place, field.column, cells[index].strip(), field.kind.expected)
                row[field.column] = value
            if layout.cached is not None and layout.excess_cache(row):
                expected = f"less than {layout.isl} ({row[layout.isl]:g})"
                refuse_cell(source.path, place, layout.cached, int(row[layout.cached]), expected)
    except csv.Error as error:
        raise InputError(f"{source.path}: line {number}: not valid CSV ({error})") from error
    # Each cell is right by itself; what can still be wrong is that some times carry a zone and some do not.
    raise InputError(
        f"{source.path}: column '{layout.arrival}': rows that cannot be read as one column; "
        f"expected {layout.clock.expected}"
    )
