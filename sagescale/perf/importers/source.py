"""Source files, one way for all importers: bounded in size, nesting and parts, recognised by content.

How they are opened, read and named; JSON out of them; and a first look, enough to recognise the format.
"""

from __future__ import annotations

import csv
import hashlib
import os
import zipfile
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from sagescale.errors import InputError
from sagescale.files import open_input, read_input, shown_path
from sagescale.json_guard import BadJsonError, parse_json
from sagescale.perf.profile import SourceFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader

__all__ = [
    "MAX_ARCHIVE_BYTES",
    "MAX_FILE_BYTES",
    "MAX_LINES_BYTES",
    "Look",
    "json_records",
    "load_json",
    "open_source",
    "read_bytes",
    "source_file",
]

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


class Look:
    """What lies at a path. Every property is found on first use and none raises; unknown is empty."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def names(self) -> frozenset[str]:
        """The arrays of an NPZ archive, or the keys of the first JSON record."""
        if self._start[:2] == b"PK":
            return self._members()
        return frozenset(self._record)

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The column names of a CSV table."""
        if not self._start or self._start[:2] == b"PK" or self._start.lstrip()[:1] in {b"{", b"["}:
            return ()
        line, found, _ = self._start.partition(b"\n")
        if not found or b"\0" in line:
            return ()
        try:
            (row,) = csv.reader([line.decode("utf-8-sig")])
        except (ValueError, csv.Error):
            return ()
        return tuple(word.strip() for word in row)

    @cached_property
    def is_list(self) -> bool:
        """Whether the file is a JSON list."""
        return self._start.lstrip()[:1] == b"["

    def inner(self, name: str) -> frozenset[str]:
        """Return the keys of the object under ``name`` in the first JSON record."""
        return self._record.get(name, frozenset())

    @cached_property
    def files(self) -> tuple[Look, ...]:
        """The file itself, or the data files of the folder's tree in the order of their paths."""
        if self.path.is_file():
            return (self,)
        found: list[Path] = []
        for folder, folders, names in os.walk(self.path):
            folders.sort()
            found += [Path(folder, name) for name in sorted(names) if name.endswith(_ENDINGS)]
            if len(found) > _MAX_FILES:
                return ()
        return tuple(Look(path) for path in sorted(found) if path.is_file())

    @cached_property
    def _start(self) -> bytes:
        try:
            with open_source(self.path) as stream:
                return stream.read(65536).removeprefix(b"\xef\xbb\xbf")
        except (InputError, OSError):
            return b""

    @property
    def problem(self) -> str:
        """Why a file that looks like a source cannot be read, ``""`` when it can or looks like none."""
        first = self._first_record
        return str(first) if isinstance(first, InputError) else ""

    @cached_property
    def _record(self) -> dict[str, frozenset[str]]:
        """Keys of the first record, each with the keys of the object it holds."""
        record = self._first_record
        if not isinstance(record, dict):
            return {}
        return record

    @cached_property
    def _first_record(self) -> dict[str, frozenset[str]] | InputError | None:
        """What ``_record`` is made of, or the error that reading it gave. No values are kept."""
        if self._start[:2] == b"PK":
            return None
        if self._start.lstrip()[:1] not in {b"{", b"["}:
            return None
        try:
            _, record = next(json_records(self.path), ("", None))
        except InputError as error:
            return error
        if not isinstance(record, dict):
            return None
        return {
            str(key): frozenset(value) if isinstance(value, dict) else frozenset()
            for key, value in record.items()
        }

    def _members(self) -> frozenset[str]:
        try:
            if self.path.stat().st_size > MAX_ARCHIVE_BYTES:
                return frozenset()
            with zipfile.ZipFile(self.path) as archive:
                return frozenset(name.removesuffix(".npy") for name in archive.namelist())
        except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
            return frozenset()
