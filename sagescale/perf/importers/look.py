"""A first look at a source: enough of its content to recognise the format, each file parsed once."""

from __future__ import annotations

import csv
import os
import zipfile
from functools import cached_property
from pathlib import Path

from sagescale.errors import InputError
from sagescale.perf.importers.base import open_source
from sagescale.perf.importers.json_text import json_records

__all__ = ["MAX_ARCHIVE_BYTES", "Look"]

MAX_ARCHIVE_BYTES = 8 * 1024 * 1024
"""No NPZ archive is larger; real ones are a few kilobytes, and the list of members is read whole."""

_MAX_FILES = 5000
_ENDINGS = (".json", ".jsonl", ".ndjson", ".csv", ".npz")


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
