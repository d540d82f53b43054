"""sagescale's own columns in a Parquet file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sagescale.errors import InputError
from sagescale.trace.readers.arrow import as_numpy
from sagescale.trace.readers.base import Layout, refuse_cell, require_columns

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sagescale.trace.recognise import Head
    from sagescale.trace.source import Source

__all__ = ["read_parquet"]


def read_parquet(source: Source, head: Head, layout: Layout) -> dict[str, NDArray[Any]]:
    """Read a layout's columns, checked.

    Raises:
        InputError: naming file, row (from 1), column and value, and what was expected.
    """
    import pyarrow as pa
    from pyarrow import parquet

    fields = layout.fields(head)
    require_columns(source, head, fields)
    try:
        table = parquet.read_table(pa.BufferReader(source.data), columns=[field.column for field in fields])
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{source.path}: damaged or truncated Parquet file ({reason})") from error
    columns: dict[str, NDArray[Any]] = {}
    for field in fields:
        column = table[field.column]
        if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
            raise InputError(
                f"{source.path}: column '{field.column}': found type {column.type}, "
                f"expected {field.kind.expected}"
            )
        if column.null_count:
            row = int(np.argmax(column.is_null().to_numpy()))
            refuse_cell(source.path, f"row {row + 1}", field.column, None, field.kind.expected)
        values = as_numpy(column)
        if not field.kind.accepts_all(values):
            row = next(i for i, value in enumerate(values.tolist()) if not field.kind.accepts(value))
            refuse_cell(source.path, f"row {row + 1}", field.column, values[row].item(), field.kind.expected)
        columns[field.column] = values
    excess = layout.excess_cache(columns)
    if layout.cached is not None and np.any(excess):
        row = int(np.argmax(excess))
        expected = f"less than {layout.isl} ({columns[layout.isl][row]:g})"
        refuse_cell(
            source.path, f"row {row + 1}", layout.cached, columns[layout.cached][row].item(), expected
        )
    return columns
