"""Named numeric arrays from NPZ or JSON, without trusting the file.

Nothing is unpickled; every array's declared size is bounded before a byte of it is read.
"""

from __future__ import annotations

import io
import lzma
import struct
import tokenize
import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sagescale.errors import InputError
from sagescale.perf.checks import LARGEST, SMALLEST
from sagescale.perf.importers.source import MAX_ARCHIVE_BYTES, MAX_FILE_BYTES, load_json, read_bytes

if TYPE_CHECKING:
    from pathlib import Path
    from typing import IO

    from numpy.typing import NDArray

_DAMAGED = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, ValueError, EOFError, OSError, RuntimeError,
    NotImplementedError, SyntaxError, tokenize.TokenError, LookupError, TypeError, AttributeError,
)  # fmt: skip
"""What zipfile and numpy raise at damage, whichever meets it first; an array's header is parsed as Python."""


@dataclass(frozen=True, slots=True)
class Arrays:
    """The arrays of one file by name; every access checks, and errors name file and array."""

    path: Path
    by_name: dict[str, NDArray[np.generic]]

    def numbers(self, *names: str, ndim: int) -> list[NDArray[np.float64]]:
        """Return arrays of one shape with ``ndim`` axes, not empty, all numbers above 0."""
        shapes = {name: self._get(name).shape for name in names}
        if len(set(shapes.values())) > 1:
            shown = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
            raise InputError(f"{self.path}: {shown} (expected equal shapes)")
        return [self._numbers(name, ndim) for name in names]

    def _numbers(self, name: str, ndim: int) -> NDArray[np.float64]:
        found = self._get(name)
        if found.dtype.kind not in "iuf":
            raise InputError(f"{self.path}: {name}: type {found.dtype} (expected numbers)")
        if found.ndim != ndim or found.size == 0:
            raise InputError(f"{self.path}: {name}: shape {found.shape} (expected {ndim} axes, not empty)")
        values = found.astype(np.float64)
        bad = ~((values >= SMALLEST) & (values <= LARGEST))  # as is_sane; a NaN is neither
        if bad.any():
            place = tuple(int(i) for i in np.argwhere(bad)[0])
            raise InputError(f"{self.path}: {name}{list(place)}: {values[place]} (expected a number > 0)")
        return values

    def text(self, name: str, index: int) -> str:
        """Return an optional text of a configuration, ``""`` when missing."""
        if name not in self.by_name:
            return ""
        column = self.by_name[name].ravel()
        return str(column[index]) if index < len(column) else ""

    def whole(self, name: str, index: int = 0, *, default: int | None = None) -> int:
        """Return one whole number >= 1; the default, if there is one, where the array is missing."""
        if default is not None and name not in self.by_name:
            return default
        column = self._get(name).ravel()
        # As Python's own number: those never wrap.
        value: Any = column[index].item() if index < len(column) and column.dtype.kind in "iuf" else None
        if value is None or not 1 <= value < 2**53 or value != int(value):
            found = column[index] if index < len(column) else None
            raise InputError(f"{self.path}: {name}[{index}]: {found} (expected a whole number >= 1)")
        return int(value)

    def _get(self, name: str) -> NDArray[np.generic]:
        if name not in self.by_name:
            known = ", ".join(sorted(self.by_name))
            raise InputError(f"{self.path}: {name}: missing (found: {known})")
        return self.by_name[name]


def read_arrays(path: Path) -> Arrays:
    """Read a file's arrays. Raises InputError for one that is too large, pickled or broken."""
    data = read_bytes(path)
    if data[:2] == b"PK":
        if len(data) > MAX_ARCHIVE_BYTES:
            raise InputError(
                f"{path}: {len(data)} bytes (expected at most {MAX_ARCHIVE_BYTES} of an NPZ archive)"
            )
        return Arrays(path, _from_npz(path, data))
    return arrays_of(path, load_json(path))


def arrays_of(path: Path, document: object) -> Arrays:
    """Return the arrays of a JSON document that came from a file. Raises InputError for what is none."""
    if not isinstance(document, dict):
        raise InputError(f"{path}: a JSON {type(document).__name__} (expected an object of arrays)")
    return Arrays(path, {str(name): _from_json(path, name, value) for name, value in document.items()})


def _from_json(path: Path, name: str, value: object) -> NDArray[np.generic]:
    try:
        return np.atleast_1d(np.asarray(value))
    except (ValueError, OverflowError) as error:
        raise InputError(f"{path}: {name}: ragged or not numbers (expected an array)") from error


def _from_npz(path: Path, data: bytes) -> dict[str, NDArray[np.generic]]:
    arrays: dict[str, NDArray[np.generic]] = {}
    budget = MAX_FILE_BYTES
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                # The member's own size first: a header may itself be as long as it likes.
                declared = member.file_size
                if declared <= budget:
                    with archive.open(member) as stream:
                        declared = max(declared, _declared_bytes(path, name, stream))
                budget -= declared
                if budget < 0:
                    raise InputError(f"{path}: {name}: {declared} bytes (at most {MAX_FILE_BYTES} in all)")
                with archive.open(member) as stream:
                    arrays[name] = np.lib.format.read_array(stream, allow_pickle=False)
    except _DAMAGED as error:
        raise InputError(f"{path}: {error} (expected an NPZ archive of numbers)") from error
    return arrays


def _declared_bytes(path: Path, name: str, stream: IO[bytes]) -> int:
    """Return the size the array's header claims, before anything is allocated for it."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    if dtype.hasobject:
        raise InputError(f"{path}: {name}: pickled objects (expected numbers or text)")
    count = 1
    for length in shape:
        count *= int(length)
    return count * dtype.itemsize
