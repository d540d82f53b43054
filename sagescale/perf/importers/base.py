"""What an importer is, and what all of them share."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Protocol

from sagescale.errors import InputError
from sagescale.perf.profile import SourceFile

if TYPE_CHECKING:
    from pathlib import Path

    from sagescale.perf.measurement import Measurement

__all__ = ["MAX_FILE_BYTES", "Importer", "read_bytes", "source_file"]

MAX_FILE_BYTES = 64 * 1024 * 1024
"""No source file, and no array in one, is larger than this."""


class Importer(Protocol):
    """One source format: says whether a path is of it, and reads it."""

    @property
    def name(self) -> str:
        """The word for ``--format``."""

    def recognise(self, path: Path) -> bool:
        """Whether the content at ``path`` (file or folder) is of this format; never raises."""

    def read(self, path: Path) -> tuple[Measurement, ...]:
        """Read every configuration in the source. Raises InputError naming file, place and value."""


def read_bytes(path: Path) -> bytes:
    """Return a source file's bytes; InputError when it cannot be read or is too large."""
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise InputError(f"{path}: {size} bytes (expected at most {MAX_FILE_BYTES})")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot read: {error.strerror}") from error


def source_file(path: Path, root: Path) -> SourceFile:
    """Name a file by its path inside ``root``'s folder, so that a profile does not depend on where it was."""
    return SourceFile(
        path=path.relative_to(root.parent).as_posix(), sha256=hashlib.sha256(read_bytes(path)).hexdigest()
    )
