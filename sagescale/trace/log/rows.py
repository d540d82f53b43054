"""The rows of a log one by one, whatever its container: where each stands, and its cells or what is wrong."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
from typing import TYPE_CHECKING, Any

from sagescale.errors import InputError
from sagescale.json_guard import BadJsonError, parse_json
from sagescale.trace.source import MAX_LINE_BYTES, damaged_parquet

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sagescale.trace.source import Head, Source

    Row = tuple[int, list[object] | str]

_LINES_LOOKED_AT = 100
_DELIMITERS = ("\t", ";", "|")


def _delimiter(head: Head) -> str:
    """Return what separates the cells: a comma, unless the header has none."""
    (only, *others) = head.columns or ("",)
    return "," if others else next((sign for sign in _DELIMITERS if sign in only), ",")


def column_names(source: Source, head: Head) -> tuple[str, ...]:
    """Return the names of all columns; of JSON lines those of the first hundred, nested ones with dots."""
    if head.container == "jsonl":
        found: dict[str, None] = {}
        for _, line in itertools.islice(source.lines(), _LINES_LOOKED_AT):
            with contextlib.suppress(BadJsonError):
                found |= dict.fromkeys(_flat_names(parse_json(line), ""))
        return tuple(found)
    if head.container == "csv" and _delimiter(head) != ",":
        return tuple(name.strip() for name in next(csv.reader(head.columns, delimiter=_delimiter(head))))
    return head.columns


def _flat_names(value: object, before: str) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if isinstance(inner, dict):
                yield from _flat_names(inner, f"{before}{key}.")
            else:
                yield f"{before}{key}"


def rows_of(source: Source, head: Head, names: Sequence[str]) -> Iterator[Row]:
    """Yield each row's line (of Parquet: its number, from 1) with the named cells, or with what is wrong."""
    match head.container:
        case "csv":
            return _csv_rows(source, head, names)
        case "jsonl":
            return _json_rows(source, names)
        case "parquet":
            return _parquet_rows(source, names)
        case "json":
            raise InputError(f"{source.path}: one JSON document; expected JSON lines, an object a request")


@contextlib.contextmanager
def _long_cells() -> Iterator[None]:
    """Let cells of CSV be as long as lines may be, since a log may hold the prompt itself; then as before."""
    before = csv.field_size_limit(MAX_LINE_BYTES)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _csv_rows(source: Source, head: Head, names: Sequence[str]) -> Iterator[Row]:
    columns = column_names(source, head)
    places = [columns.index(name) for name in names]
    with source.open() as stream, _long_cells():
        text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="replace", newline="")
        for _ in range(head.header_lines):
            text.readline()
        reader = csv.reader(text, delimiter=_delimiter(head))
        while True:
            line = head.header_lines + reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield line, f"not valid CSV ({error})"
                continue
            if not cells:
                continue
            if len(cells) != len(columns):
                yield line, f"{len(cells)} fields where the header has {len(columns)}"
            else:
                yield line, [cells[place] for place in places]


def _json_rows(source: Source, names: Sequence[str]) -> Iterator[Row]:
    for number, line in source.lines():
        try:
            row = parse_json(line)
        except BadJsonError:
            yield number, "not valid JSON"
            continue
        if isinstance(row, dict):
            yield number, [_value_at(row, name) for name in names]
        else:
            yield number, "not a JSON object"


def _value_at(row: dict[str, Any], name: str) -> object:
    """Return what is under a key, or under keys within keys that are written with dots."""
    if name in row:
        return row[name]
    value: object = row
    for key in name.split("."):
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value


def _parquet_rows(source: Source, names: Sequence[str]) -> Iterator[Row]:
    import pyarrow as pa
    from pyarrow import parquet

    number = 0
    with damaged_parquet(source), source.open() as stream:
        file = parquet.ParquetFile(pa.PythonFile(stream, mode="r"))
        for batch in file.iter_batches(columns=list(dict.fromkeys(names))):
            columns = []
            for name in names:
                column = batch[name]
                if pa.types.is_timestamp(column.type):
                    # Without what is below a microsecond: Python's times hold no more.
                    column = column.cast(pa.timestamp("us", column.type.tz), safe=False)
                    columns.append([None if at is None else at.isoformat() for at in column.to_pylist()])
                else:
                    columns.append(column.to_pylist())
            for cells in zip(*columns, strict=True):
                number += 1
                yield number, list(cells)
