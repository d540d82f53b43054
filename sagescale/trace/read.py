"""From a file to a ``Trace``: recognise the format by content, read it, put it in order."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sagescale.errors import InputError, did_you_mean
from sagescale.resources import shipped
from sagescale.trace.readers import READERS
from sagescale.trace.recognise import look
from sagescale.trace.source import open_source
from sagescale.trace.trace import MAX_SPAN_S, Trace

if TYPE_CHECKING:
    import os

    from sagescale.trace.readers.base import Reader, Rows
    from sagescale.trace.recognise import Head
    from sagescale.trace.source import Source

__all__ = ["format_names", "read_trace", "shipped_traces"]


def format_names() -> tuple[str, ...]:
    """Return the names of every format that can be read."""
    return tuple(reader.name for reader in READERS)


def shipped_traces() -> dict[str, Path]:
    """Return the traces that come with sagescale, by name."""
    return {file.stem: file for file in sorted(shipped("traces").glob("*.csv"))}


def read_trace(path: str | os.PathLike[str], *, format: str | None = None) -> Trace:  # noqa: A002 - the user's word
    """Read a request trace of any known format, gzip'ed or not.

    Rows are sorted by arrival (stable) and the first arrival becomes 0. Rows with no prompt or no generated
    tokens asked nothing of the server and are dropped. Both are said in ``Trace.warnings``.

    Args:
        path: the file, or the name of a trace that comes with sagescale.
        format: one of ``format_names()``; needed only where content does not decide.

    Raises:
        InputError: a missing or damaged file, an unknown or ambiguous format, a bad line.
    """
    readers = {reader.name: reader for reader in READERS}
    if format is not None and format not in readers:
        raise InputError(
            f"--format {format}: unknown; expected one of {', '.join(readers)}{did_you_mean(format, readers)}"
        )
    located = _located(Path(path))
    source = open_source(located)
    head = look(source)
    reader = _recognised(source.path, head) if format is None else readers[format]
    rows = reader.read(source, head)
    if not len(rows.isl):
        raise InputError(f"{source.path}: has a header and no requests; expected at least one row")
    # A shipped trace goes by its name: where the installation keeps it means nothing elsewhere.
    name = source.path if located == Path(path) else located.stem
    _check_span(rows, source, head, reader)
    return _put_in_order(rows, name, source.sha256, reader.name)


def _located(path: Path) -> Path:
    """Return the file meant: the path, or where there is none the shipped trace of that name."""
    if path.exists() or len(path.parts) != 1:
        return path
    known = shipped_traces()
    if path.name in known:
        return known[path.name]
    if not path.suffix:
        near = did_you_mean(path.name, known)
        raise InputError(
            f"{path}: no such file, nor a trace that comes with sagescale ({', '.join(known)}){near}"
        )
    return path


def _recognised(path: str, head: Head) -> Reader:
    candidates = [reader for reader in READERS if reader.recognise(head)]
    if len(candidates) == 1:
        return candidates[0]
    found = f"{path}: {head.kind} with {','.join(head.columns)}"
    if candidates:
        shapes = " or ".join(f"{reader.name} ({reader.shape})" for reader in candidates)
        raise InputError(f"{found}: ambiguous, could be {shapes}; say which with --format")
    # A file that has a column of a format was probably meant to be it; the others would only be noise.
    shared = {reader.name: len(_column_names(reader) & set(head.columns)) for reader in READERS}
    near = [reader for reader in READERS if shared[reader.name] == max(shared.values())]
    shapes = " or ".join(f"{reader.name} ({reader.shape})" for reader in near)
    raise InputError(f"{found}: no known trace format; expected {shapes}")


def _check_span(rows: Rows, source: Source, head: Head, reader: Reader) -> None:
    """Refuse arrivals further apart than anything is simulated for, naming the row that is."""
    first, last = rows.ticks.argmin(), rows.ticks.argmax()
    # As floats: nanoseconds of two centuries do not fit 64 bits, nor their difference.
    earliest, latest = float(rows.ticks[first]), float(rows.ticks[last])
    span_s = (latest - earliest) / rows.ticks_per_s
    if span_s <= MAX_SPAN_S:
        return
    middle = float(np.median(rows.ticks))
    row = int(last if latest - middle >= middle - earliest else first)
    place = _place(source, head, row)
    other = "first" if row == last else "last"
    raise InputError(
        f"{source.path}: {place}, column '{reader.layout.arrival}': {span_s:.6g} s from the {other} arrival; "
        f"expected a trace of at most {MAX_SPAN_S:.0f} s, a year, in {reader.layout.clock.unit}"
    )


def _place(source: Source, head: Head, row: int) -> str:
    """Say where a row stands, counted from 0: by its line in a text."""
    if head.kind == "parquet":
        return f"row {row + 1}"
    lines = (number for number, _ in source.lines() if number > head.header_lines)
    return f"line {next(itertools.islice(lines, row, None))}"


def _column_names(reader: Reader) -> set[str]:
    return {field.column for field in reader.layout.required}


def _put_in_order(rows: Rows, path: str, sha256: str, name: str) -> Trace:
    """Drop empty requests, sort, rebase to the first arrival, and narrow to the columns' types."""
    warnings = list(rows.warnings)
    cached, priority = rows.cached_tokens, rows.priority
    # Whole ticks stay whole until they are differences; narrower types would not hold those.
    ticks = rows.ticks if rows.ticks.dtype == np.int64 else rows.ticks.astype(np.float64, copy=False)
    isl, osl = rows.isl.astype(np.int32, copy=False), rows.osl.astype(np.int32, copy=False)
    keep = (isl > 0) & (osl > 0)
    if not keep.all():
        for count, what in (
            (int((osl == 0).sum()), rows.zero_osl),
            (int(((isl == 0) & (osl > 0)).sum()), "requests with an empty prompt"),
        ):
            if count:
                warnings.append(f"dropped {count} {what} of {len(isl)} rows")
        if not keep.any():
            raise InputError(f"{path}: no request is left; {'; '.join(warnings)}")
        ticks, isl, osl = ticks[keep], isl[keep], osl[keep]
        cached = None if cached is None else cached[keep]
        priority = None if priority is None else priority[keep]
    backward = int(np.count_nonzero(ticks[1:] < ticks[:-1]))
    if backward:
        warnings.append(f"arrivals out of order: {backward} rows earlier than the row before; sorted")
        order = np.argsort(ticks, kind="stable")
        ticks, isl, osl = ticks[order], isl[order], osl[order]
        cached = None if cached is None else cached[order]
        priority = None if priority is None else priority[order]
    # Subtract first, in the file's own ticks: seconds since 1970 have no room for 100 ns in a double.
    arrival_s = (ticks - ticks[0]) / rows.ticks_per_s
    return Trace(
        arrival_s,
        isl,
        osl,
        None if cached is None else cached.astype(np.int32),
        None if priority is None else priority.astype(np.int32),
        path,
        sha256,
        name,
        warnings=tuple(warnings),
    )
