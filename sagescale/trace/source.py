"""The bytes of an input file, mapped or unpacked, with the sha256 that identifies them."""

from __future__ import annotations

import gzip
import hashlib
import mmap
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sagescale.errors import InputError

if TYPE_CHECKING:
    import os

__all__ = ["Source", "open_source"]

_GZIP = b"\x1f\x8b"


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """An input file's content.

    Attributes:
        path: as the user gave it, for messages.
        data: the content, unpacked where the file was gzip'ed. A map of the file where possible, so that
            reading ten million rows does not first copy them.
        sha256: of the file as it lies on disk (packed, if it is).
    """

    path: str
    data: bytes | mmap.mmap
    sha256: str


def open_source(path: str | os.PathLike[str]) -> Source:
    """Open a file, plain or gzip'ed (told by its first bytes, not by its name).

    Raises:
        InputError: it is missing, a directory, unreadable, empty, or a damaged gzip file.
    """
    file, name = Path(path), str(path)
    if not file.exists():
        raise InputError(f"{name}: no such file; expected a request trace")
    if file.is_dir():
        raise InputError(f"{name}: is a directory; expected a request trace file")
    try:
        data = _content(file)
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror or error})") from error
    sha256 = hashlib.sha256(data).hexdigest()
    if data[:2] == _GZIP:
        try:
            data = gzip.decompress(data)
        except (EOFError, OSError, zlib.error) as error:
            raise InputError(f"{name}: damaged or truncated gzip file ({error}); fetch it again") from error
    if not len(data):
        raise InputError(f"{name}: is empty; expected a request trace")
    return Source(name, data, sha256)


def _content(file: Path) -> bytes | mmap.mmap:
    with file.open("rb") as stream:
        if file.is_file() and file.stat().st_size:
            return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        return stream.read()  # a pipe such as /dev/stdin has no size and cannot be mapped
