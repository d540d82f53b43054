"""How source files are opened, read and named: bounded, one way for all importers."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from sagescale.files import open_input, read_input, shown_path
from sagescale.perf.profile import SourceFile

if TYPE_CHECKING:
    from io import BufferedReader
    from pathlib import Path

__all__ = ["MAX_FILE_BYTES", "MAX_LINES_BYTES", "open_source", "read_bytes", "source_file"]

MAX_FILE_BYTES = 64 * 1024 * 1024
"""No source file that is read whole, no line of one read by lines, and no array is larger than this."""

MAX_LINES_BYTES = 1024 * 1024 * 1024
"""No file of JSON lines is larger than this; one line at a time is in memory."""

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
