"""The content of a trace file as a stream, bounded before it is parsed, and what its first lines say.

All that a format is recognised by is the container and the column names: never the file's name.
"""

from __future__ import annotations

import atexit
import csv
import functools
import gzip
import hashlib
import io
import itertools
import sys
import tempfile
import zlib
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sagescale.errors import InputError, UnknownFormatError
from sagescale.files import open_input, shown_path
from sagescale.json_guard import BadJsonError, parse_json

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    Content = io.BufferedReader | gzip.GzipFile

Container = Literal["csv", "jsonl", "json", "parquet"]

MAX_ROWS = 40_000_000
"""Requests in one trace: a recorded week of a large service has 27 million. Ten million take a gigabyte,
with what is computed of them, and so on."""

MAX_LINE_BYTES = 32 << 20
"""A request carries the hash of every block of its prompt: many kilobytes, not megabytes."""

STANDARD_INPUT = "-"
"""The name of a file that means standard input."""

_MAX_BYTES = 4 << 30
_MAX_RATIO, _SMALL = 100, 64 << 20
"""Text of requests packs to a tenth; what unpacks to more than this many times its size, and is not small
even so, is made to fill a memory."""

_MOST_DOCUMENT_BYTES = 256 << 20
"""Of one JSON document, which is parsed whole."""

_GZIP = b"\x1f\x8b"
_PARQUET = b"PAR1"
_CHUNK = 1 << 20
_BOM = b"\xef\xbb\xbf"
_MAX_COLUMNS = 1000
_EXPECTED = "a request trace"


@dataclass(frozen=True, slots=True)
class Head:
    """The container, the column names, and where the rows begin.

    Attributes:
        container: the kind of file; ``json`` is one object over many lines.
        columns: CSV header cells (trimmed), keys of the first JSON object, or Parquet columns.
        header_lines: physical lines up to and with the CSV header; 0 for the others.
        block_tokens: what a Parquet schema's metadata says under ``hash_block_tokens``; None without.
    """

    container: Container
    columns: tuple[str, ...]
    header_lines: int = 0
    block_tokens: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """An input file whose content is of a bounded size: rows, length of a line and bytes, unpacked.

    Attributes:
        path: as the user gave it, for messages.
        sha256: of the file as it lies on disk (packed, if it is).
        size: bytes of the content, unpacked.
        start: the first mebibyte of it.
    """

    path: str
    sha256: str
    size: int
    start: bytes
    _file: Path
    _packed: bool

    @contextmanager
    def open(self) -> Iterator[Content]:
        """Open the content, unpacked, from its beginning. Nothing of it is kept in memory.

        Raises:
            InputError: the file is no longer there.
        """
        with open_input(self._file, _EXPECTED, _MAX_BYTES) as stream:
            if not self._packed:
                yield stream
                return
            with gzip.GzipFile(fileobj=stream, mode="rb") as content:
                yield content

    def lines(self, after: int = 0) -> Iterator[tuple[int, str]]:
        """Yield every line that is not blank, behind the first ``after``, with its number.

        Any line ends will do; bytes that are no UTF-8 become the replacement character.
        """
        with self.open() as stream:
            text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="replace")
            for number, line in enumerate(text, 1):
                if number > after and line.strip():
                    yield number, line

    def place(self, head: Head, row: int) -> str:
        """Say where a row stands, counted from 0: by its line in a text."""
        if head.container == "parquet":
            return f"row {row + 1}"
        number, _ = next(itertools.islice(self.lines(head.header_lines), row, None))
        return f"line {number}"


def open_source(path: str | os.PathLike[str]) -> Source:
    """Look through a file, plain or gzip'ed (told by its first bytes, not by its name).

    Raises:
        InputError: it is missing, no regular file, unreadable, empty, a damaged gzip file, or too large.
    """
    file, name = Path(path), shown_path(path)
    if name == STANDARD_INPUT:
        file = _kept_standard_input()
    if not file.exists():
        raise InputError(f"{name}: no such file; expected a request trace")
    if file.is_dir():
        raise InputError(f"{name}: is a directory; expected a request trace file")
    try:
        with open_input(file, _EXPECTED, _MAX_BYTES) as stream:
            packed = stream.read(2) == _GZIP
            stream.seek(0)
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
            on_disk = stream.tell()
            stream.seek(0)
            content = gzip.GzipFile(fileobj=stream, mode="rb") if packed else stream
            limit = max(_SMALL, on_disk * _MAX_RATIO) if packed else _MAX_BYTES
            start, size = _measured(name, content, min(limit, _MAX_BYTES))
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{name}: damaged or truncated gzip file ({error}); fetch it again") from error
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror or error})") from error
    if not size:
        raise InputError(f"{name}: is empty; expected a request trace")
    return Source(name, sha256, size, start, file, packed)


@functools.cache
def _kept_standard_input() -> Path:
    """Copy standard input, which can be read once, to a file that lasts as long as the process.

    Raises:
        InputError: it is a terminal, or longer than a trace may be.
    """
    if sys.stdin.isatty():
        raise InputError(
            "-: standard input is a terminal; expected a trace, e.g. zcat log.csv.gz | sagescale ... -"
        )
    with tempfile.NamedTemporaryFile(prefix="sagescale-", delete=False) as copy:
        atexit.register(Path(copy.name).unlink, missing_ok=True)
        size = 0
        while chunk := sys.stdin.buffer.read(_CHUNK):
            size += len(chunk)
            if size > _MAX_BYTES:
                raise InputError(f"-: more than {_MAX_BYTES} bytes on standard input; expected at most that")
            copy.write(chunk)
    return Path(copy.name)


def _measured(name: str, content: Content, most_bytes: int) -> tuple[bytes, int]:
    """Read everything once and keep the start; refuse too many bytes, too many lines, too long a line."""
    start = content.read(_CHUNK)
    chunk, size, rows, tail = start, 0, 0, 0
    is_text = not start.startswith(_PARQUET)
    while chunk:
        size += len(chunk)
        if size > most_bytes:
            raise InputError(
                f"{name}: unpacks to more than {most_bytes} bytes; expected a trace of at most "
                f"{_MAX_BYTES}, and at most {_MAX_RATIO} times what is packed"
            )
        if is_text:
            end = max(chunk.rfind(b"\n"), chunk.rfind(b"\r"))
            rows += max(chunk.count(b"\n"), chunk.count(b"\r"))
            tail = tail + len(chunk) if end < 0 else len(chunk) - end
            if rows > MAX_ROWS:
                raise InputError(f"{name}: more than {MAX_ROWS} lines; expected at most as many requests")
            if tail > MAX_LINE_BYTES:
                raise InputError(
                    f"{name}: line {rows + 1}: longer than {MAX_LINE_BYTES} bytes; expected a request a line"
                )
        chunk = content.read(_CHUNK)
    return start, size


def read_head(source: Source) -> Head:
    """Find out what kind of file this is and which columns it has.

    Raises:
        InputError: binary data, an unreadable first line, a JSON array, or a repeated column name.
    """
    if source.start.startswith(_PARQUET):
        import pyarrow as pa
        from pyarrow import parquet

        with damaged_parquet(source), source.open() as stream:
            schema = parquet.read_schema(pa.PythonFile(stream, mode="r"))
        stated = (schema.metadata or {}).get(b"hash_block_tokens")
        return Head(
            "parquet",
            _once(source.path, tuple(schema.names)),
            block_tokens=None if stated is None else stated.decode("utf-8", "replace"),
        )
    number, line = _first_line(source)
    try:
        text = line.removeprefix(_BOM).decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise _unknown(source, "binary data; expected CSV, JSON lines or Parquet") from error
    if text.startswith("["):
        raise _unknown(source, "a JSON array; expected JSON lines, one object a line (jq -c '.[]')")
    if text.startswith("{"):
        try:
            first = parse_json(text)
        except BadJsonError as error:
            whole = _whole_document(source)
            if whole is not None:
                return whole
            raise InputError(
                f"{source.path}: line {number}: not valid JSON ({error}); expected one object a line"
            ) from None
        return Head("jsonl", tuple(first) if isinstance(first, dict) else ())
    try:
        columns = tuple(cell.strip() for cell in next(csv.reader([text])))
    except csv.Error as error:
        raise InputError(
            f"{source.path}: line {number}: not valid CSV ({error}); expected column names"
        ) from None
    if len(columns) > _MAX_COLUMNS:
        raise InputError(
            f"{source.path}: line {number}: {len(columns)} columns; expected at most {_MAX_COLUMNS}"
        )
    return Head("csv", _once(f"{source.path}: line {number}", columns), number)


def _unknown(source: Source, what: str) -> UnknownFormatError:
    return UnknownFormatError(f"{source.path}: {what}", source.path, _EXPECTED)


def _whole_document(source: Source) -> Head | None:
    """Take the file as one JSON object over many lines; None when it is none."""
    if source.size > _MOST_DOCUMENT_BYTES:
        return None
    with source.open() as stream:
        try:
            document = parse_json(stream.read().decode("utf-8-sig", "replace"))
        except BadJsonError:
            return None
    return Head("json", tuple(document)) if isinstance(document, dict) else None


def _once(place: str, columns: tuple[str, ...]) -> tuple[str, ...]:
    twice = [name for name, count in Counter(columns).items() if count > 1]
    if twice:
        raise InputError(f"{place}: column '{twice[0]}' occurs twice; expected it once")
    return columns


def _first_line(source: Source) -> tuple[int, bytes]:
    """Return the number and bytes of the first line that is not blank."""
    if b"\0" in source.start[:4096]:
        raise _unknown(source, "binary data; expected CSV, JSON lines or Parquet")
    lines = source.start.splitlines()
    for number, line in enumerate(lines, 1):
        if line.removeprefix(_BOM).strip():
            if number < len(lines) or source.size <= len(source.start):
                return number, line
            break
    # A first line is short but for JSON with the prefix hashes of a huge prompt.
    with source.open() as stream:
        for number, line in enumerate(iter(stream.readline, b""), 1):
            if line.removeprefix(_BOM).strip():
                return number, line.splitlines()[0]
    raise InputError(f"{source.path}: has only blank lines; expected a request trace")


def arrow_reader(data: bytes | bytearray) -> Any:  # noqa: ANN401 - pyarrow has no types
    """Let Arrow read from a copy of its own.

    Its threads may hold what they read a moment longer than the reading takes. Were it Python's, a file or
    bytes, then one that lets go as the interpreter ends would abort the process.
    """
    import pyarrow as pa

    copy = pa.allocate_buffer(len(data))
    memoryview(copy).cast("B")[:] = data
    return pa.BufferReader(copy)


@contextmanager
def damaged_parquet(source: Source) -> Iterator[None]:
    """Say of what goes wrong inside that the file is damaged.

    Raises:
        InputError: naming the file.
    """
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:  # ValueError: a name that is no UTF-8
        raise InputError(f"{source.path}: damaged or truncated Parquet file ({error})") from error
