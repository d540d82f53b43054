"""What an importer is, and what all of them share."""

from __future__ import annotations

import hashlib
import stat
from typing import TYPE_CHECKING, Protocol

from sagescale.errors import InputError
from sagescale.perf.profile import SourceFile

if TYPE_CHECKING:
    from pathlib import Path

    from sagescale.perf.importers.look import Look
    from sagescale.perf.measurement import Measurement

__all__ = ["MAX_FILE_BYTES", "MAX_LINES_BYTES", "Importer", "read_bytes", "refuse_large", "source_file"]

MAX_FILE_BYTES = 64 * 1024 * 1024
"""No source file that is read whole, no line of one read by lines, and no array is larger than this."""

MAX_LINES_BYTES = 1024 * 1024 * 1024
"""No file of JSON lines is larger than this; one line at a time is in memory."""


class Importer(Protocol):
    """One source format: says whether a path is of it, and reads it."""

    @property
    def name(self) -> str:
        """The word for ``--format``."""

    def recognise(self, look: Look) -> bool:
        """Whether what lies there (file or folder) is of this format; never raises."""

    def read(self, path: Path) -> tuple[Measurement, ...]:
        """Read every configuration in the source. Raises InputError naming file, place and value."""


def refuse_large(path: Path, limit: int) -> None:
    """Refuse a file above ``limit`` bytes, or no regular file at all, before anything of it is read."""
    try:
        found = path.stat()
    except OSError as error:
        raise InputError(f"{path}: cannot read: {error.strerror}") from error
    if not stat.S_ISREG(found.st_mode):
        raise InputError(f"{path}: not a regular file")
    if found.st_size > limit:
        raise InputError(f"{path}: {found.st_size} bytes (expected at most {limit})")


def read_bytes(path: Path) -> bytes:
    """Return a source file's bytes; InputError when it cannot be read or is too large."""
    refuse_large(path, MAX_FILE_BYTES)
    try:
        with path.open("rb") as stream:
            return stream.read(MAX_FILE_BYTES)
    except OSError as error:
        raise InputError(f"{path}: cannot read: {error.strerror}") from error


def source_file(path: Path, root: Path) -> SourceFile:
    """Name a file by its path inside ``root``'s folder, so that a profile does not depend on where it was."""
    refuse_large(path, MAX_LINES_BYTES)
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return SourceFile(path=path.relative_to(root.parent).as_posix(), sha256=digest)
