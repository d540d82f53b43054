"""What a trace file says about itself in its first lines: all that a format is recognised by."""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from sagescale.errors import InputError

if TYPE_CHECKING:
    from sagescale.trace.source import Source

__all__ = ["Head", "look"]

_BOM = b"\xef\xbb\xbf"
# A first line is short but for JSON with the prefix hashes of a huge prompt.
_LOOKS = (1 << 20, 1 << 26, 1 << 62)


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
    if source.data[:4] == b"PAR1":
        return Head("parquet", _parquet_columns(source))
    number, line = _first_line(source)
    try:
        text = line.removeprefix(_BOM).decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise InputError(f"{source.path}: binary data; expected CSV, JSON lines or Parquet") from error
    if text.startswith("["):
        raise InputError(f"{source.path}: a JSON array; expected JSON lines, one object a line (jq -c '.[]')")
    if text.startswith("{"):
        return Head("jsonl", _json_keys(source.path, number, text))
    columns = tuple(cell.strip() for cell in next(csv.reader([text])))
    twice = [name for name, count in Counter(columns).items() if count > 1]
    if twice:
        raise InputError(f"{source.path}: line {number}: column '{twice[0]}' occurs twice; expected it once")
    return Head("csv", columns, number)


def _first_line(source: Source) -> tuple[int, bytes]:
    """Return the number and bytes of the first line that is not blank."""
    if b"\0" in source.data[:4096]:
        raise InputError(f"{source.path}: binary data; expected CSV, JSON lines or Parquet")
    for size in _LOOKS:
        lines = source.data[:size].splitlines()
        for number, line in enumerate(lines, 1):
            if line.removeprefix(_BOM).strip() and (number < len(lines) or size >= len(source.data)):
                return number, line
    raise InputError(f"{source.path}: has only blank lines; expected a request trace")


def _json_keys(path: str, number: int, text: str) -> tuple[str, ...]:
    try:
        first = json.loads(text)
    except ValueError as error:
        raise InputError(
            f"{path}: line {number}: not valid JSON ({error}); expected one object a line"
        ) from error
    return tuple(first)


def _parquet_columns(source: Source) -> tuple[str, ...]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return tuple(parquet.read_schema(pa.BufferReader(source.data)).names)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{source.path}: damaged or truncated Parquet file ({reason})") from error
