"""Writing a trace in sagescale's own format: the same trace gives the same bytes."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import numpy as np

from sagescale.errors import InputError
from sagescale.files import STANDARD_OUTPUT, check_writable, written_whole
from sagescale.trace.trace import REBUILT, REBUILT_ARRIVAL, REBUILT_UNDATED

if TYPE_CHECKING:
    import os

    from sagescale.trace.prefixes import Prefixes
    from sagescale.trace.sessions import Turns
    from sagescale.trace.trace import Trace

SUFFIXES = (".csv", ".csv.gz", ".parquet")
_ROWS_AT_ONCE = 1_000_000
_IDS_AT_ONCE = 8_000_000


def check_destination(path: str | os.PathLike[str]) -> Path:
    """Refuse, before any work is done, a file that could not be written at its end.

    Raises:
        InputError: an unknown suffix, a directory, or a folder that is missing or cannot be written to.
    """
    file = Path(path)
    if str(file) == STANDARD_OUTPUT:
        return file
    if not file.name.endswith(SUFFIXES):
        raise InputError(f"{file}: unknown kind of file; expected a name ending in {', '.join(SUFFIXES)}")
    check_writable(file)
    return file


def write_trace(trace: Trace, path: str | os.PathLike[str]) -> Path:
    """Write ``arrival_s,isl,osl``, and what else is known: ``cached_tokens``, ``priority``, ``session_id``.

    Turns are ``after``, the rows of the file that a request waits for, counted from 0 (in CSV ``3;4``), and
    ``think_s``. Prefix ids are ``hash_ids``, in Parquet alone.

    One rebuilt from metrics has ``rebuilt_arrival``, the date and time in UTC to the microsecond, in place of
    ``arrival_s``.

    As CSV, gzip'ed CSV or Parquet. Times are written with as many digits as it takes to read back the same
    number. The file appears whole or not at all; ``-`` is standard output, as CSV.

    Raises:
        InputError: the destination cannot be written.
    """
    file = check_destination(path)
    with written_whole(file) as stream:
        if file.suffix == ".parquet":
            from pyarrow import parquet

            if trace.prefixes is None:
                parquet.write_table(_table(trace), stream, compression="zstd")
            else:
                _write_with_ids(trace, trace.prefixes, stream)
        elif file.suffix == ".gz":
            # No name and no time in the header: equal traces make equal files.
            with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=stream, mtime=0) as packed:
                _write_csv(trace, cast("IO[bytes]", packed))
        else:
            _write_csv(trace, stream)
    return file


def _write_with_ids(trace: Trace, prefixes: Prefixes, stream: IO[bytes]) -> None:
    """Write Parquet with a list of prefix ids a row, a few rows at a time: all together would not fit."""
    import pyarrow as pa
    from pyarrow import parquet

    plain = _table(trace)
    schema = plain.schema.append(pa.field("hash_ids", pa.list_(pa.int64())))
    schema = schema.with_metadata({"hash_block_tokens": str(prefixes.block_tokens)})
    ends = np.cumsum(prefixes.counts, dtype=np.int64)
    with parquet.ParquetWriter(stream, schema, compression="zstd") as writer:
        start = 0
        while start < len(trace):
            before = ends[start - 1] if start else 0
            end = max(start + 1, int(np.searchsorted(ends, before + _IDS_AT_ONCE, side="right")))
            lists = prefixes.lists(start, end)
            offsets = np.concatenate([[0], ends[start:end] - before]).astype(np.int32)
            ids = pa.ListArray.from_arrays(pa.array(offsets), pa.array(lists))
            writer.write_table(plain.slice(start, end - start).append_column(schema.field("hash_ids"), ids))
            start = end


def _write_csv(trace: Trace, stream: IO[bytes]) -> None:
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    columns = _columns(trace)
    names = [*columns, *(() if trace.turns is None else ("after", "think_s"))]
    stream.write(",".join(names).encode() + b"\n")
    options = arrow_csv.WriteOptions(
        include_header=False, quoting_style="needed" if trace.turns is None else "none"
    )
    for start in range(0, len(trace), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        text = pa.BufferOutputStream()
        part = pa.table({name: column[rows] for name, column in columns.items()})
        if trace.turns is not None:
            part = part.append_column("after", _as_text(trace.turns, start, start + part.num_rows))
            part = part.append_column("think_s", pa.array(trace.turns.think_s[rows]))
        arrow_csv.write_csv(part, text, options)
        stream.write(text.getvalue())


def _table(trace: Trace) -> Any:  # noqa: ANN401 - pyarrow has no types
    """Return all columns but prefix ids."""
    import pyarrow as pa

    table = pa.table(_columns(trace))
    if (turns := trace.turns) is not None:
        after = pa.LargeListArray.from_arrays(pa.array(turns.after_start), pa.array(turns.after))
        table = table.append_column("after", after).append_column("think_s", pa.array(turns.think_s))
    return table


def _as_text(turns: Turns, start: int, end: int) -> Any:  # noqa: ANN401 - pyarrow has no types
    """Return the rows that some requests wait for as texts, ``3;4``, or nothing."""
    import pyarrow as pa
    from pyarrow import compute

    bounds = turns.after_start[start : end + 1]
    words = pa.array(turns.after[bounds[0] : bounds[-1]]).cast(pa.string())
    lists = pa.LargeListArray.from_arrays(pa.array(bounds - bounds[0]), words)
    return compute.binary_join(lists, ";")


def _columns(trace: Trace) -> dict[str, Any]:
    import pyarrow as pa

    if trace.format == REBUILT and trace.started_at is not None:
        first_us = round(trace.started_at.timestamp() * 1e6)
        at = (first_us + np.rint(trace.arrival_s * 1e6).astype(np.int64)).astype("datetime64[us]")
        return {REBUILT_ARRIVAL: pa.array(at, pa.timestamp("us", "UTC")), **trace.columns}
    if trace.format in {REBUILT, REBUILT_UNDATED}:
        return {f"{REBUILT_ARRIVAL}_s": trace.arrival_s, **trace.columns}
    return {"arrival_s": trace.arrival_s, **trace.columns}
