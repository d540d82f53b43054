"""Source files, one way for all importers: bounded in size, nesting and parts, recognised by content.

How they are opened, read and named; JSON out of them; and a first look, enough to recognise the format.
"""

from __future__ import annotations

import csv
import hashlib
import os
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sagescale.errors import InputError
from sagescale.files import open_input, read_input, shown_path
from sagescale.json_guard import BadJsonError, parse_json
from sagescale.perf.profile import SourceFile

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from io import BufferedReader

MAX_FILE_BYTES = 64 * 1024 * 1024
"""No source file that is read whole, no line of one read by lines, and no array is larger than this."""

MAX_LINES_BYTES = 1024 * 1024 * 1024
"""No file of JSON lines is larger than this; one line at a time is in memory."""

MAX_ARCHIVE_BYTES = 8 * 1024 * 1024
"""No NPZ archive is larger; real ones are a few kilobytes, and the list of members is read whole."""

_MAX_FILES = 5000
_ENDINGS = (".json", ".jsonl", ".ndjson", ".csv", ".npz")
_EXPECTED = "a profile source"


def open_source(path: Path) -> BufferedReader:
    """Open a source of lines; InputError when it cannot be read or is too large."""
    return open_input(path, _EXPECTED, MAX_LINES_BYTES)


def read_bytes(path: Path) -> bytes:
    """Return a source file's bytes; InputError when it cannot be read or is too large."""
    return read_input(path, _EXPECTED, MAX_FILE_BYTES)


def source_file(path: Path, root: Path) -> SourceFile:
    """Name a file by its path inside ``root``'s folder, so that a profile does not depend on where it was."""
    with open_source(path) as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return SourceFile(path=shown_path(path.relative_to(root.parent)), sha256=digest)


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


@dataclass(frozen=True, slots=True)
class Look:
    """What one file is at first sight: enough to recognise its format. Unknown is empty.

    Attributes:
        path: the file.
        names: the arrays of an NPZ archive; or the keys of the first JSON record, each with the keys of the
            object it holds.
        columns: the column names of a CSV table.
        is_list: whether it is a JSON list.
        problem: why a file that looks like JSON cannot be read.
    """

    path: Path
    names: Mapping[str, frozenset[str]] = field(default_factory=dict)
    columns: frozenset[str] = frozenset()
    is_list: bool = False
    problem: str = ""

    def has(self, names: frozenset[str]) -> bool:
        """Whether all these names are there."""
        return self.names.keys() >= names

    def inner(self, name: str) -> frozenset[str]:
        """Return the keys of the object under ``name`` in the first JSON record."""
        return self.names.get(name, frozenset())


def look_at(path: Path) -> Look:
    """Take a first look at a file; never raises."""
    try:
        with open_source(path) as stream:
            start = stream.read(65536).removeprefix(b"\xef\xbb\xbf")
    except (InputError, OSError):
        return Look(path)
    if start[:2] == b"PK":
        return Look(path, dict.fromkeys(_members(path), frozenset()))
    if start.lstrip()[:1] not in {b"{", b"["}:
        return Look(path, columns=_columns(start))
    is_list = start.lstrip()[:1] == b"["
    try:
        _, record = next(json_records(path), ("", None))
    except InputError as error:
        return Look(path, is_list=is_list, problem=str(error))
    items = record.items() if isinstance(record, dict) else ()
    names = {str(key): frozenset(value if isinstance(value, dict) else ()) for key, value in items}
    return Look(path, names, is_list=is_list)


def looks(path: Path) -> tuple[Look, ...]:
    """Take a first look at the file, or at the data files of the folder's tree by order of path."""
    if path.is_file():
        return (look_at(path),)
    found: list[Path] = []
    for folder, _, names in os.walk(path):
        found += [Path(folder, name) for name in names if name.endswith(_ENDINGS)]
        if len(found) > _MAX_FILES:
            return ()
    return tuple(look_at(file) for file in sorted(found) if file.is_file())


def _columns(start: bytes) -> frozenset[str]:
    line, found, _ = start.partition(b"\n")
    if not found or b"\0" in line:
        return frozenset()
    try:
        (row,) = csv.reader([line.decode("utf-8-sig")])
    except (ValueError, csv.Error):
        return frozenset()
    return frozenset(word.strip() for word in row)


def _members(path: Path) -> list[str]:
    try:
        if path.stat().st_size > MAX_ARCHIVE_BYTES:
            return []
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return []
