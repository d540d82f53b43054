"""Output files: they appear whole or not at all, and are refused before the work rather than after it."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

from sagescale.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["check_writable", "write_whole", "written_whole"]


def check_writable(path: Path) -> None:
    """Refuse a file that could not be written later.

    Raises:
        InputError: it is a directory, or its folder is missing or cannot be written to.
    """
    if path.is_dir():
        raise InputError(f"{path}: is a directory; expected a file to write")
    if not path.parent.is_dir():
        raise InputError(f"{path}: the folder {path.parent} does not exist; create it first")
    if not os.access(path if _is_special(path) else path.parent, os.W_OK):
        raise InputError(f"{path}: cannot be written to: permission denied")


@contextmanager
def written_whole(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for writing; it takes its name only when everything is written.

    A device or pipe (``/dev/stdout``) is written directly.

    Raises:
        InputError: it cannot be written.
    """
    check_writable(path)
    if _is_special(path):
        try:
            with path.open("wb") as stream:
                yield stream
        except BrokenPipeError:
            raise  # whoever read it has had enough
        except OSError as error:
            raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error
        return
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as stream:
            yield stream
        part.replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file in one move.

    Raises:
        InputError: it cannot be written.
    """
    with written_whole(path) as stream:
        stream.write(data)


def _is_special(path: Path) -> bool:
    return path.exists() and not path.is_file()
