"""JSON from files nobody vouches for: bounded in size, nesting and number of parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sagescale.errors import InputError
from sagescale.json_guard import BadJsonError, parse_json
from sagescale.perf.importers.base import MAX_FILE_BYTES, open_source, read_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader
    from pathlib import Path

__all__ = ["json_records", "load_json"]


def load_json(path: Path) -> object:
    """Return a file's one JSON document; InputError when it is too large, broken or nested too deep."""
    return _parse(read_bytes(path), str(path))


def json_records(path: Path) -> Iterator[tuple[str, object]]:
    """Yield the records of a file: its one document, a list's items, or each line's document.

    Each comes with the words that say where it stands. Lines are read one at a time, so a file of lines
    may be larger than one document. Raises InputError like ``load_json``; an empty file has no records.
    """
    try:
        with open_source(path) as stream:
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


def _next_line(stream: BufferedReader, number: int, path: Path) -> tuple[int, bytes]:
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
    if not (line.lstrip().startswith(b"{") and line.rstrip().endswith(b"}")):
        return None
    try:
        return parse_json(line)
    except BadJsonError:
        return None


def _parse(data: bytes, where: str) -> object:
    try:
        return parse_json(data)
    except BadJsonError as error:
        raise InputError(f"{where}: {error} (expected JSON of a profile source)") from None
