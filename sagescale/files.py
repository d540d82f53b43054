"""Files in and out.

Input is regular files of a bounded size: a device or a pipe has no end. Output files appear whole or not at
all, and are refused before the work rather than after it.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
import sys
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import IO, TYPE_CHECKING, TextIO

from sagescale.errors import InputError, UnknownFormatError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from io import BufferedReader


def open_input(path: str | os.PathLike[str], expected: str, at_most: int) -> BufferedReader:
    """Open a regular file of at most ``at_most`` bytes for reading.

    What was opened is checked, not the name: nothing can be put in its place in between.

    Args:
        path: the file.
        expected: what it should be, for messages: ``a fault file``.
        at_most: the largest size, in bytes.

    Raises:
        InputError: it is missing, unreadable, a folder, a device, a pipe or too large, or one of
            :func:`inputs_kept`'s outputs.
    """
    # Without O_NONBLOCK opening a pipe would wait for a writer.
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path}: cannot be read: {reason} (expected {expected})") from error
    found = os.fstat(handle)
    problem = ""
    if stat.S_ISDIR(found.st_mode):
        problem = f"cannot be read: is a directory (expected {expected})"
    elif not stat.S_ISREG(found.st_mode):
        problem = f"not a regular file (expected {expected}); write it to a file first"
    elif found.st_size > at_most:
        problem = f"{found.st_size} bytes (expected at most {at_most} of {expected})"
    elif (found.st_dev, found.st_ino) in _outputs:
        problem = "is to be read, and to be written; give the output a file of its own"
    if problem:
        os.close(handle)
        raise InputError(f"{path}: {problem}")
    return os.fdopen(handle, "rb")


_outputs: set[tuple[int, int]] = set()


@contextmanager
def inputs_kept(outputs: Iterable[str | os.PathLike[str]]) -> Iterator[None]:
    """Refuse to open an input that is one of the files that will be written, under whatever name."""
    found = set()
    for path in outputs:
        try:
            there = Path(path).stat()
        except (OSError, ValueError):  # ValueError: a NUL in the name
            continue
        found.add((there.st_dev, there.st_ino))
    new = found - _outputs
    _outputs.update(new)
    try:
        yield
    finally:
        _outputs.difference_update(new)


def read_input(path: str | os.PathLike[str], expected: str, at_most: int) -> bytes:
    """Read a file whole; see :func:`open_input`.

    Raises:
        InputError: as there, or it grew beyond the limit meanwhile.
    """
    with open_input(path, expected, at_most) as stream:
        try:
            data = stream.read(at_most + 1)
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror} (expected {expected})") from error
    if len(data) > at_most:
        raise InputError(f"{path}: more than {at_most} bytes (expected at most that of {expected})")
    return data


def read_input_text(path: str | os.PathLike[str], expected: str, at_most: int) -> str:
    """Read a file of UTF-8 text, with or without a byte order mark; see :func:`open_input`.

    Raises:
        InputError: as there, or it is not UTF-8.
    """
    try:
        return read_input(path, expected, at_most).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"{path}: byte {error.start}: not UTF-8 text (expected {expected})"
        raise UnknownFormatError(message, path, expected) from None


def shown_path(path: str | os.PathLike[str]) -> str:
    r"""Return a path as text that can be printed and stored; bytes that are no UTF-8 become ``\xff``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


STANDARD_OUTPUT = "-"
"""The name of a file that means standard output."""

_kept: list[TextIO] = []


@contextmanager
def documents_alone() -> Iterator[None]:
    """Keep standard output for what is written to ``-``; all else printed meanwhile goes to stderr."""
    _kept.append(sys.stdout)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _kept.pop()


def check_writable(*paths: Path | None) -> None:
    """Refuse files that could not be written later; ``-`` always can, and None is no file.

    Raises:
        InputError: one is a directory, or its folder is missing or cannot be written to.
    """
    for path in paths:
        if path is not None:
            _check_writable(path)


def _check_writable(path: Path) -> None:
    if str(path) == STANDARD_OUTPUT:
        return
    descriptor = _open_already(path)
    if descriptor is not None:
        _check_descriptor(path, descriptor)
        return
    path = _target(path)
    if path.is_dir():
        raise InputError(f"{path}: is a directory; expected a file to write")
    if not path.parent.is_dir():
        raise InputError(f"{path}: the folder {path.parent} does not exist; create it first")
    if not os.access(path if _is_special(path) else path.parent, os.W_OK):
        raise InputError(f"{path}: cannot be written to: permission denied")


@contextmanager
def written_whole(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for writing; it takes its name only when everything is written.

    A device or pipe is written directly, and so is what is open already (``/dev/stdout``, wherever it leads)
    and standard output, which ``-`` means. Of a link the file it leads to is written.

    Raises:
        InputError: it cannot be written.
    """
    check_writable(path)
    if str(path) == STANDARD_OUTPUT:
        output = _kept[-1] if _kept else sys.stdout
        output.flush()
        yield output.buffer
        output.buffer.flush()
        return
    descriptor = _open_already(path)
    if descriptor is not None or _is_special(path):
        sys.stdout.flush()
        try:
            with path.open("wb") if descriptor is None else os.fdopen(os.dup(descriptor), "wb") as stream:
                yield stream
        except BrokenPipeError:
            raise  # whoever read it has had enough
        except OSError as error:
            raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error
        return
    path = _target(path)
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


_DESCRIPTOR = re.compile(r"/(?:dev|proc/self)/fd/(\d+)")
_STANDARD = {"/dev/stdout": 1, "/dev/stderr": 2}


def _open_already(path: Path) -> int | None:
    """The descriptor that a path means: opened anew, a file would be cut off, and replaced, the link lost."""
    found = _DESCRIPTOR.fullmatch(str(path))
    return int(found[1]) if found else _STANDARD.get(str(path))


def _check_descriptor(path: Path, descriptor: int) -> None:
    try:
        readable_only = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
    except OSError as error:
        raise InputError(f"{path}: cannot be written to: {error.strerror or error}") from None
    if readable_only:
        raise InputError(f"{path}: cannot be written to: it is open for reading")


def _target(path: Path) -> Path:
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def _is_special(path: Path) -> bool:
    return path.exists() and not path.is_file()


_PACKAGE = Path(__file__).resolve().parent


def shipped(kind: str) -> Path:
    """Return the folder of shipped ``"profiles"`` or ``"traces"``.

    In a wheel they lie inside the package (``_data/``); in a checkout at the repository's top level.
    """
    inside = _PACKAGE / "_data" / kind
    return inside if inside.is_dir() else _PACKAGE.parent / kind
