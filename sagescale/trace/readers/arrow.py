"""What the CSV and JSON readers share: which Arrow types to try, and checked columns out of a table."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from sagescale.trace.readers.fields import Field

__all__ = ["as_numpy", "checked_columns", "type_choices"]


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


def checked_columns(batches: Iterable[Any], fields: tuple[Field, ...]) -> dict[str, NDArray[Any]] | None:
    """Return the columns as numpy arrays, times of day as int64 ns; None where a cell is missing or wrong.

    Batch by batch, tokens in half the space: the text and the wide numbers are never in memory as a whole.
    """
    parts: dict[str, list[NDArray[Any]]] = {field.column: [] for field in fields}
    for batch in batches:
        for field in fields:
            column = batch[field.column]
            if column.null_count:
                return None
            values = as_numpy(column)
            if not field.kind.accepts_all(values):
                return None
            parts[field.column].append(values.astype(np.int32) if field.kind.whole else values)
    return {name: np.concatenate(parts.pop(name) or [np.empty(0)]) for name in list(parts)}


def as_numpy(column: Any) -> NDArray[Any]:  # noqa: ANN401 - pyarrow has no types
    """Return a numeric column of a batch, without nulls, as an array; times of day as int64 ns.

    ``Array.to_numpy`` would import pandas, which takes longer than reading most traces.
    """
    import pyarrow as pa

    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("ns", column.type.tz)).cast(pa.int64())
    values: NDArray[Any] = np.from_dlpack(column)
    return values
