"""From a file to a ``Trace``: recognise the format by content, read it, put it in order."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sagescale.errors import InputError, did_you_mean
from sagescale.resources import shipped
from sagescale.trace.readers import FORMATS
from sagescale.trace.source import open_source, read_head
from sagescale.trace.trace import MAX_SPAN_S, Trace

if TYPE_CHECKING:
    import os

    from sagescale.trace.readers.format import Format, Rows
    from sagescale.trace.source import Head, Source

__all__ = ["format_names", "read_trace", "shipped_traces"]


def format_names() -> tuple[str, ...]:
    """Return the names of every format that can be read."""
    return tuple(known.name for known in FORMATS)


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
    formats = {known.name: known for known in FORMATS}
    if format is not None and format not in formats:
        raise InputError(
            f"--format {format}: unknown; expected one of {', '.join(formats)}{did_you_mean(format, formats)}"
        )
    located = _located(Path(path))
    source = open_source(located)
    head = read_head(source)
    found = _recognised(source.path, head) if format is None else formats[format]
    rows = found.read(source, head)
    if not len(rows.ticks):
        raise InputError(f"{source.path}: has a header and no requests; expected at least one row")
    _check_span(rows, source, head, found)
    # A shipped trace goes by its name: where the installation keeps it means nothing elsewhere.
    name = source.path if located == Path(path) else located.stem
    return _put_in_order(rows, found, name, source.sha256)


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


def _recognised(path: str, head: Head) -> Format:
    candidates = [known for known in FORMATS if known.recognise(head)]
    if len(candidates) == 1:
        return candidates[0]
    found = f"{path}: {head.container} with {','.join(head.columns)}"
    if candidates:
        shapes = " or ".join(f"{known.name} ({known.shape})" for known in candidates)
        raise InputError(f"{found}: ambiguous, could be {shapes}; say which with --format")
    # A file that has a column of a format was probably meant to be it; the others would only be noise.
    shared = {known: len({f.column for f in known.required} & set(head.columns)) for known in FORMATS}
    most = max(shared.values())
    shapes = " or ".join(f"{known.name} ({known.shape})" for known, count in shared.items() if count == most)
    raise InputError(f"{found}: no known trace format; expected {shapes}")


def _check_span(rows: Rows, source: Source, head: Head, found: Format) -> None:
    """Refuse arrivals further apart than anything is simulated for, naming the row that is."""
    first, last = rows.ticks.argmin(), rows.ticks.argmax()
    # As floats: nanoseconds of two centuries do not fit 64 bits, nor their difference.
    earliest, latest = float(rows.ticks[first]), float(rows.ticks[last])
    span_s = (latest - earliest) / found.clock.ticks_per_s
    if span_s <= MAX_SPAN_S:
        return
    middle = float(np.median(rows.ticks))
    row, other = (last, "first") if latest - middle >= middle - earliest else (first, "last")
    raise InputError(
        f"{source.path}: {source.place(head, int(row))}, column '{found.arrival}': {span_s:.6g} s from the "
        f"{other} arrival; expected a trace of at most {MAX_SPAN_S:.0f} s, a year, in {found.clock.unit}"
    )


def _put_in_order(rows: Rows, found: Format, path: str, sha256: str) -> Trace:
    """Drop empty requests, sort, and rebase to the first arrival."""
    warnings = list(rows.warnings)
    ticks, columns = rows.ticks, rows.columns
    isl, osl = columns["isl"], columns["osl"]
    asked = (isl > 0) & (osl > 0)
    if not asked.all():
        for count, what in (
            (int((osl == 0).sum()), found.zero_osl),
            (int(((isl == 0) & (osl > 0)).sum()), "requests with an empty prompt"),
        ):
            if count:
                warnings.append(f"dropped {count} {what} of {len(isl)} rows")
        if not asked.any():
            raise InputError(f"{path}: no request is left; {'; '.join(warnings)}")
        ticks = ticks[asked]
        columns = {name: column[asked] for name, column in columns.items()}
    backward = int(np.count_nonzero(ticks[1:] < ticks[:-1]))
    if backward:
        warnings.append(f"arrivals out of order: {backward} rows earlier than the row before; sorted")
        order = np.argsort(ticks, kind="stable")
        ticks = ticks[order]
        columns = {name: column[order] for name, column in columns.items()}
    return Trace(
        # Subtract first, in the file's own ticks: seconds since 1970 have no room for 100 ns in a double.
        arrival_s=(ticks - ticks[0]) / found.clock.ticks_per_s,
        **columns,  # type: ignore[arg-type]  # names of columns
        path=path,
        sha256=sha256,
        format=found.name,
        warnings=tuple(warnings),
    )
