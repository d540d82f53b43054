"""JSON from files nobody vouches for: bounded in size, nesting and number of parts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sagescale.errors import InputError
from sagescale.perf.importers.base import MAX_FILE_BYTES, MAX_LINES_BYTES, read_bytes, refuse_large

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

__all__ = ["json_records", "load_json"]

_MAX_PARTS = 1_000_000
"""Objects and lists in one document: an empty list is 2 bytes in the file and 60 in memory."""


def load_json(path: Path) -> object:
    """Return a file's one JSON document; InputError when it is too large, broken or nested too deep."""
    return _parse(read_bytes(path), str(path))


def json_records(path: Path) -> Iterator[tuple[str, object]]:
    """Yield the records of a file: its one document, a list's items, or each line's document.

    Each comes with the words that say where it stands. Lines are read one at a time, so a file of lines
    may be larger than one document. Raises InputError like ``load_json``; an empty file has no records.
    """
    refuse_large(path, MAX_LINES_BYTES)
    try:
        with path.open("rb") as stream:
            number, line = _next_line(stream, 0, path)
            first = _complete(line.removeprefix(b"\xef\xbb\xbf"))
            if first is not None:
                yield f"{path}: line {number}", first
                while True:
                    number, line = _next_line(stream, number, path)
                    if not line:
                        return
                    yield f"{path}: line {number}", _parse(line, f"{path}: line {number}")
    except OSError as error:
        raise InputError(f"{path}: cannot read: {error.strerror}") from error
    document = load_json(path)
    if isinstance(document, list):
        yield from ((f"{path}: item {index}", item) for index, item in enumerate(document))
    else:
        yield str(path), document


def _next_line(stream: BinaryIO, number: int, path: Path) -> tuple[int, bytes]:
    """Return the next line that is not blank and its number; an empty line at the end of the file."""
    while True:
        line = stream.readline(MAX_FILE_BYTES + 1)
        number += 1
        if len(line) > MAX_FILE_BYTES:
            raise InputError(f"{path}: line {number}: longer than {MAX_FILE_BYTES} bytes")
        if not line or line.strip():
            return number, line


def _complete(line: bytes) -> object | None:
    """Return the object a first line holds; None when the file is not one of JSON lines."""
    if not (line.lstrip().startswith(b"{") and line.rstrip().endswith(b"}")) or _too_many_parts(line):
        return None
    try:
        found: object = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found


def _parse(data: bytes, where: str) -> object:
    if _too_many_parts(data):
        raise InputError(f"{where}: more than {_MAX_PARTS} objects and lists (expected a profile source)")
    try:
        document: object = json.loads(data)
    except RecursionError as error:
        raise InputError(f"{where}: nested too deep (expected a profile source)") from error
    except json.JSONDecodeError as error:
        cut = " -- the file ends early" if error.pos >= len(error.doc.rstrip()) else ""
        raise InputError(f"{where}: {error}{cut} (expected JSON)") from error
    except ValueError as error:
        raise InputError(f"{where}: {error} (expected JSON)") from error
    return document


def _too_many_parts(data: bytes) -> bool:
    return data.count(b"{") + data.count(b"[") > _MAX_PARTS
