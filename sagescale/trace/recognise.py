"""What a trace file says about itself in its first lines: all that a format is recognised by."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from sagescale.errors import InputError
from sagescale.json_guard import BadJsonError, parse_json

if TYPE_CHECKING:
    from sagescale.trace.source import Source

__all__ = ["Head", "look"]

_BOM = b"\xef\xbb\xbf"
_MAX_COLUMNS = 1000


@dataclass(frozen=True, slots=True)
class Head:
    """The container, the column names, and where the rows begin.

    Attributes:
        kind: ``csv``, ``jsonl`` or ``parquet``.
        columns: CSV header cells (trimmed), keys of the first JSON object, or Parquet columns.
        header_lines: physical lines up to and with the CSV header; 0 for the others.
    """

    kind: Literal["csv", "jsonl", "parquet"]
    columns: tuple[str, ...]
    header_lines: int = 0


def look(source: Source) -> Head:
    """Find out what kind of file this is and which columns it has; never looks at its name.

    Raises:
        InputError: binary data, an unreadable first line, a JSON array, or a repeated column name.
    """
    if source.start[:4] == b"PAR1":
        return Head("parquet", _once(source.path, _parquet_columns(source)))
    number, line = _first_line(source)
    try:
        text = line.removeprefix(_BOM).decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise InputError(f"{source.path}: binary data; expected CSV, JSON lines or Parquet") from error
    if text.startswith("["):
        raise InputError(f"{source.path}: a JSON array; expected JSON lines, one object a line (jq -c '.[]')")
    if text.startswith("{"):
        return Head("jsonl", _json_keys(source.path, number, text))
    try:
        columns = tuple(cell.strip() for cell in next(csv.reader([text])))
    except csv.Error as error:
        raise InputError(
            f"{source.path}: line {number}: not valid CSV ({error}); expected column names"
        ) from None
    if len(columns) > _MAX_COLUMNS:
        raise InputError(
            f"{source.path}: line {number}: {len(columns)} columns; expected at most {_MAX_COLUMNS}"
        )
    return Head("csv", _once(f"{source.path}: line {number}", columns), number)


def _once(place: str, columns: tuple[str, ...]) -> tuple[str, ...]:
    twice = [name for name, count in Counter(columns).items() if count > 1]
    if twice:
        raise InputError(f"{place}: column '{twice[0]}' occurs twice; expected it once")
    return columns


def _first_line(source: Source) -> tuple[int, bytes]:
    """Return the number and bytes of the first line that is not blank."""
    if b"\0" in source.start[:4096]:
        raise InputError(f"{source.path}: binary data; expected CSV, JSON lines or Parquet")
    lines = source.start.splitlines()
    for number, line in enumerate(lines, 1):
        if line.removeprefix(_BOM).strip():
            if number < len(lines) or source.size <= len(source.start):
                return number, line
            break
    # A first line is short but for JSON with the prefix hashes of a huge prompt.
    with source.open() as stream:
        for number, line in enumerate(iter(stream.readline, b""), 1):
            if line.removeprefix(_BOM).strip():
                return number, line.splitlines()[0]
    raise InputError(f"{source.path}: has only blank lines; expected a request trace")


def _json_keys(path: str, number: int, text: str) -> tuple[str, ...]:
    try:
        first = parse_json(text)
    except BadJsonError as error:
        raise InputError(
            f"{path}: line {number}: not valid JSON ({error}); expected one object a line"
        ) from None
    return tuple(first) if isinstance(first, dict) else ()


def _parquet_columns(source: Source) -> tuple[str, ...]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with source.open() as stream:
            columns = tuple(parquet.read_schema(pa.PythonFile(stream, mode="r")).names)
    except (pa.ArrowException, OSError, ValueError) as error:  # ValueError: a name that is no UTF-8
        raise InputError(f"{source.path}: damaged or truncated Parquet file ({error})") from error
    return columns
