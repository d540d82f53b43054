"""sagescale's own columns in a Parquet file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sagescale.errors import InputError
from sagescale.trace.readers.arrow import as_numpy
from sagescale.trace.readers.base import Layout, refuse_cell, require_columns
from sagescale.trace.source import MAX_ROWS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from sagescale.trace.readers.fields import Field
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
    names = [field.column for field in fields]
    try:
        with source.open() as stream:
            file = parquet.ParquetFile(pa.PythonFile(stream, mode="r"))
            if file.metadata.num_rows > MAX_ROWS:
                raise InputError(f"{source.path}: {file.metadata.num_rows} rows; expected at most {MAX_ROWS}")
            _refuse_types(source, file.schema_arrow, fields)
            parts = [_checked(source, batch, start, fields) for start, batch in _batches(file, names)]
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{source.path}: damaged or truncated Parquet file ({error})") from error
    columns = {name: np.concatenate([part[name] for part in parts] or [np.empty(0)]) for name in names}
    excess = layout.excess_cache(columns)
    if layout.cached is not None and np.any(excess):
        row = int(np.argmax(excess))
        expected = f"less than {layout.isl} ({columns[layout.isl][row]:g})"
        refuse_cell(
            source.path, f"row {row + 1}", layout.cached, columns[layout.cached][row].item(), expected
        )
    return columns


def _refuse_types(source: Source, schema: Any, fields: tuple[Field, ...]) -> None:  # noqa: ANN401
    """Refuse columns that are no numbers before any is read: text repeated packs to nothing."""
    import pyarrow as pa

    for field in fields:
        found = schema.field(field.column).type
        if not (pa.types.is_integer(found) or pa.types.is_floating(found)):
            raise InputError(
                f"{source.path}: column '{field.column}': found type {found}, expected {field.kind.expected}"
            )


def _batches(file: Any, names: list[str]) -> Iterator[tuple[int, Any]]:  # noqa: ANN401 - pyarrow has no types
    """Yield batches with the number of rows before each."""
    start = 0
    for batch in file.iter_batches(columns=names):
        yield start, batch
        start += batch.num_rows


def _checked(source: Source, batch: Any, start: int, fields: tuple[Field, ...]) -> dict[str, NDArray[Any]]:  # noqa: ANN401
    """Return a batch's columns, tokens in half the space."""
    columns: dict[str, NDArray[Any]] = {}
    for field in fields:
        column = batch[field.column]
        if column.null_count:
            row = next(i for i, value in enumerate(column) if not value.is_valid)
            refuse_cell(source.path, f"row {start + row + 1}", field.column, None, field.kind.expected)
        values = as_numpy(column)
        if not field.kind.accepts_all(values):
            row = next(i for i, value in enumerate(values.tolist()) if not field.kind.accepts(value))
            refuse_cell(
                source.path, f"row {start + row + 1}", field.column, values[row].item(), field.kind.expected
            )
        columns[field.column] = values.astype(np.int32) if field.kind.whole else values.astype(np.float64)
    return columns
