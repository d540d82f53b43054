"""What the CSV and JSON readers share: which Arrow types to try, and checked columns out of a table."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from sagescale.trace.readers.fields import Field

__all__ = ["checked_columns", "type_choices"]


def type_choices(fields: tuple[Field, ...]) -> Iterator[dict[str, Any]]:
    """Yield Arrow types by column, the likeliest first.

    Whole numbers come before fractions (``512.0``) and times without a zone before times with one; all
    columns of a kind have the same type.
    """
    import pyarrow as pa

    types = {
        "int64": pa.int64(),
        "float64": pa.float64(),
        "timestamp_ns": pa.timestamp("ns"),
        "timestamp_ns_utc": pa.timestamp("ns", "UTC"),
    }
    kinds = tuple({field.kind: None for field in fields})
    for names in itertools.product(*(kind.arrow_types for kind in kinds)):
        chosen = dict(zip(kinds, names, strict=True))
        yield {field.column: types[chosen[field.kind]] for field in fields}


def checked_columns(table: Any, fields: tuple[Field, ...]) -> dict[str, NDArray[Any]] | None:  # noqa: ANN401 - pyarrow has no types
    """Return the columns as numpy arrays, times of day as int64 ns; None where a cell is missing or wrong."""
    columns: dict[str, NDArray[Any]] = {}
    for field in fields:
        column = table[field.column]
        if column.null_count:
            return None
        values = column.to_numpy()
        values = values.view("i8") if values.dtype.kind == "M" else values
        if not field.kind.accepts_all(values):
            return None
        columns[field.column] = values
    return columns
