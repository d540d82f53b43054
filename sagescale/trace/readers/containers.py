"""CSV, JSON lines and Parquet: checked columns of numbers out of each.

Arrow reads a text at once; when it cannot, a slow walk finds the line to blame.
"""

from __future__ import annotations

import csv
import itertools
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from sagescale.errors import InputError
from sagescale.json_guard import BadJsonError, parse_json
from sagescale.trace.readers.fields import AFTER, IDS, MAX_TOKENS, TOKEN_IDS
from sagescale.trace.readers.json_rows import refuse
from sagescale.trace.source import MAX_LINE_BYTES, MAX_ROWS, arrow_reader, damaged_parquet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from sagescale.trace.prefix_builder import PrefixBuilder
    from sagescale.trace.readers.fields import Field
    from sagescale.trace.source import Container, Content, Head, Source

    Columns = dict[str, NDArray[Any]]

COUNTS = " counts"
"""Behind the name of a column of lists: how many each row has."""

_IDS = (IDS, TOKEN_IDS)
_LISTS = (*_IDS, AFTER)
_ROWS_OF_LISTS = 4096

_CSV_BLOCK_BYTES = 4 << 20
_JSON_BLOCK_BYTES = 8 << 20


def refuse_cell(source: Source, place: str, column: str, value: object, expected: str) -> NoReturn:
    """Raise the one line about a bad value.

    Raises:
        InputError: always.
    """
    refuse(source, f"{place}, column '{column}'", value, expected)


def _read_csv(
    source: Source, head: Head, fields: tuple[Field, ...], builder: PrefixBuilder | None = None
) -> Columns:
    # A million rows take about a tenth of a second a core.
    from pyarrow import csv as arrow_csv

    def batches(stream: Content, types: dict[str, Any]) -> Iterable[Any]:
        header_lines = head.header_lines
        convert = arrow_csv.ConvertOptions(column_types=types, include_columns=list(types), null_values=[""])
        for block in _whole_lines(stream, _CSV_BLOCK_BYTES):
            rows = block
            if header_lines:
                lines = block.splitlines(keepends=True)
                rows, header_lines = b"".join(lines[header_lines:]), max(0, header_lines - len(lines))
            if rows.strip(b"\r\n"):
                read = arrow_csv.ReadOptions(column_names=head.columns, block_size=len(rows) + 1)
                yield from arrow_csv.read_csv(arrow_reader(rows), read, convert_options=convert).to_batches()

    columns = _parsed(source, fields, batches, builder)
    if columns is None:
        _blame_csv(source, head, fields)
    return columns


def _read_json_lines(
    source: Source,
    head: Head,  # noqa: ARG001 - as READ
    fields: tuple[Field, ...],
    builder: PrefixBuilder | None = None,
) -> Columns:
    import pyarrow as pa
    from pyarrow import json as arrow_json

    def batches(stream: Content, types: dict[str, Any]) -> Iterable[Any]:
        options = arrow_json.ParseOptions(
            explicit_schema=pa.schema(types.items()), unexpected_field_behavior="ignore"
        )
        # A block of whole lines at a time.
        while block := stream.read(_JSON_BLOCK_BYTES):
            block += stream.readline(MAX_LINE_BYTES)
            if not block.isspace():
                whole = arrow_json.ReadOptions(block_size=len(block) + 1)
                yield from arrow_json.read_json(arrow_reader(block), whole, options).to_batches()

    columns = _parsed(source, fields, batches, builder)
    if columns is None:
        _blame_json(source, fields)
    return columns


def _read_parquet(
    source: Source,
    head: Head,  # noqa: ARG001 - as READ
    fields: tuple[Field, ...],
    builder: PrefixBuilder | None = None,
) -> Columns:
    import pyarrow as pa
    from pyarrow import parquet

    names = [field.column for field in fields]
    with damaged_parquet(source), source.open() as stream:
        file = parquet.ParquetFile(pa.PythonFile(stream, mode="r"))
        if file.metadata.num_rows > MAX_ROWS:
            raise InputError(f"{source.path}: {file.metadata.num_rows} rows; expected at most {MAX_ROWS}")
        # Columns that are no numbers are refused before any is read: text repeated packs to nothing.
        for field in fields:
            found = file.schema_arrow.field(field.column).type
            if field.kind.dated:
                fits = pa.types.is_timestamp(found)
            elif field.kind in _LISTS:
                fits = _is_list(found) and pa.types.is_integer(found.value_type)
            else:
                fits = pa.types.is_integer(found) or pa.types.is_floating(found)
            if not fits:
                raise InputError(
                    f"{source.path}: column '{field.column}': found type {found}, "
                    f"expected {field.kind.expected}"
                )
        columns = _checked_columns(_batches(file, names), fields, builder)
        if columns is None:
            _blame_parquet(source, _batches(file, names), fields)
    kinds = {field.column: field.kind for field in fields}
    return {
        name: values.astype(kinds[name].dtype, copy=False) if name in kinds else values
        for name, values in columns.items()
    }


READ: dict[Container, Callable[[Source, Head, tuple[Field, ...], PrefixBuilder | None], Columns]] = {
    "csv": _read_csv,
    "jsonl": _read_json_lines,
    "parquet": _read_parquet,
}
"""By container: read the fields' columns, tokens as int32, times of day as int64 ns, other times as float64,
lists of prefix ids as int32 nodes of the builder given, lists of rows one after the other, with their lengths
under the name and ``COUNTS``.

Each raises InputError naming file, line or row, column and value, and what was expected.
"""

TITLES: dict[Container, str] = {"csv": "CSV", "jsonl": "JSONL", "json": "JSON", "parquet": "Parquet"}


def _parsed(
    source: Source,
    fields: tuple[Field, ...],
    batches: Callable[[Content, dict[str, Any]], Iterable[Any]],
    builder: PrefixBuilder | None,
) -> Columns | None:
    """Read the fields with Arrow; None when some row holds what it should not."""
    import pyarrow as pa

    for types in _type_choices(fields):
        try:
            with source.open() as stream:
                return _checked_columns(batches(stream, types), fields, builder)
        except (pa.ArrowException, ValueError):  # ValueError: text that is no UTF-8
            continue
    return None


def _whole_lines(stream: Content, size: int) -> Iterator[bytes]:
    """Yield the content in blocks of about ``size`` bytes, each of whole lines, whatever ends them."""
    rest = b""
    while chunk := stream.read(size):
        text = rest + chunk
        end = max(text.rfind(b"\n"), text.rfind(b"\r", 0, -1)) + 1  # behind a last \r may come its \n
        rest = text[end:]
        if end:
            yield text[:end]
    if rest:
        yield rest


def _is_list(found: Any) -> bool:  # noqa: ANN401 - pyarrow has no types
    import pyarrow as pa

    return bool(pa.types.is_list(found) or pa.types.is_large_list(found))


def _batches(file: Any, names: list[str]) -> Iterable[Any]:  # noqa: ANN401 - pyarrow has no types
    """Yield a Parquet file's rows, few at a time where each has a list."""
    rows = _ROWS_OF_LISTS if any(_is_list(file.schema_arrow.field(name).type) for name in names) else 65_536
    batches: Iterable[Any] = file.iter_batches(batch_size=rows, columns=names)
    return batches


def _type_choices(fields: tuple[Field, ...]) -> Iterator[dict[str, Any]]:
    """Yield Arrow types by column, the likeliest first.

    Whole numbers come before fractions (``512.0``) and times without a zone before times with one; all
    columns of a kind have the same type.
    """
    import pyarrow as pa

    types = {
        "int64": pa.int64(),
        "float64": pa.float64(),
        "list_int64": pa.list_(pa.int64()),
        "string": pa.string(),
        "timestamp_ns": pa.timestamp("ns"),
        "timestamp_ns_utc": pa.timestamp("ns", "UTC"),
    }
    kinds = tuple({field.kind: None for field in fields})
    for names in itertools.product(*(kind.arrow_types for kind in kinds)):
        chosen = dict(zip(kinds, names, strict=True))
        yield {field.column: types[chosen[field.kind]] for field in fields}


def _checked_columns(
    batches: Iterable[Any], fields: tuple[Field, ...], builder: PrefixBuilder | None
) -> Columns | None:
    """Return the columns as numpy arrays; None where a cell is missing or wrong.

    Batch by batch, tokens in half the space: the text and the wide numbers are never in memory as a whole.
    """
    parts: dict[str, list[NDArray[Any]]] = {field.column: [] for field in fields}
    parts |= {field.column + COUNTS: [] for field in fields if field.kind == AFTER}
    for batch in batches:
        for field in fields:
            column = batch[field.column]
            if field.kind == AFTER:
                lists = _rows_named(column)
                if lists is None:
                    return None
                parts[field.column].append(lists[0])
                parts[field.column + COUNTS].append(lists[1])
                continue
            if field.kind in _IDS:
                nodes = _nodes(column, field, builder)
                if nodes is None:
                    return None
                parts[field.column].append(nodes)
                continue
            if column.null_count:
                return None
            values = _as_numpy(column)
            if not field.kind.accepts_all(values):
                return None
            parts[field.column].append(values.astype(field.kind.dtype) if field.kind.whole else values)
    empty = {field.column: np.empty(0, field.kind.dtype) for field in fields}
    return {
        name: np.concatenate(parts.pop(name) or [empty.get(name, np.empty(0, np.int64))])
        for name in list(parts)
    }


def _as_numpy(column: Any) -> NDArray[Any]:  # noqa: ANN401 - pyarrow has no types
    """Return a numeric column of a batch, without nulls, as an array; times of day as int64 ns.

    ``Array.to_numpy`` would import pandas, which takes longer than reading most traces.
    """
    import pyarrow as pa

    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("ns", column.type.tz)).cast(pa.int64())
    values: NDArray[Any] = np.from_dlpack(column)
    return values


def _nodes(column: Any, field: Field, builder: PrefixBuilder | None) -> NDArray[np.int32] | None:  # noqa: ANN401 - pyarrow has no types
    """Give the lists of a batch to the builder; None where one holds what it should not."""
    import pyarrow as pa
    from pyarrow import compute

    assert builder is not None  # whoever asks for ids brings one
    try:
        column = column.cast(pa.large_list(pa.int64()))
    except pa.ArrowInvalid:
        return None
    ids = column.flatten()
    if ids.null_count:
        return None
    lengths = _as_numpy(compute.fill_null(compute.list_value_length(column), 0))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    take = builder.add_tokens if field.kind == TOKEN_IDS else builder.add
    return take(offsets, _as_numpy(ids))


def _rows_named(
    column: Any,  # noqa: ANN401 - pyarrow has no types
) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Return the rows that each cell names, list after list, and how many each; None where one is wrong."""
    import pyarrow as pa
    from pyarrow import compute

    if pa.types.is_string(column.type):
        trimmed = compute.utf8_trim(compute.replace_substring_regex(column, "[; ]+", ";"), ";")
        column = compute.split_pattern(trimmed, ";")
        column = compute.if_else(compute.equal(trimmed, ""), None, column)
    column = column.cast(pa.large_list(pa.int64()))
    rows = column.flatten()
    if rows.null_count:
        return None
    values = _as_numpy(rows)
    if len(values) and (values.min() < 0 or values.max() > MAX_TOKENS):
        return None
    return values, _as_numpy(compute.fill_null(compute.list_value_length(column), 0)).astype(np.int64)


def _blame_csv(source: Source, head: Head, fields: tuple[Field, ...]) -> NoReturn:
    """Walk the file line by line to the first that is wrong.

    Raises:
        InputError: always.
    """
    number = 0
    try:
        for number, line in source.lines(head.header_lines):
            (cells,) = csv.reader([line])
            if len(cells) != len(head.columns):
                raise InputError(
                    f"{source.path}: line {number}: found {len(cells)} fields, expected {len(head.columns)} "
                    f"({','.join(head.columns)})"
                )
            row = dict(zip(head.columns, cells, strict=True))
            for field in fields:
                text = row[field.column].strip()
                if not field.kind.accepts_text(text):
                    refuse_cell(source, f"line {number}", field.column, text, field.kind.expected)
    except csv.Error as error:
        raise InputError(f"{source.path}: line {number}: not valid CSV ({error})") from error
    # Each cell is right by itself; what can still be wrong is that some times carry a zone and some do not.
    arrival = fields[0]
    raise InputError(
        f"{source.path}: column '{arrival.column}': rows that cannot be read as one column; "
        f"expected {arrival.kind.expected}"
    )


def _blame_json(source: Source, fields: tuple[Field, ...]) -> NoReturn:
    """Walk the file line by line to the first that is wrong.

    Raises:
        InputError: always.
    """
    for number, line in source.lines():
        place = f"line {number}"
        try:
            row = parse_json(line)
        except BadJsonError as error:
            raise InputError(
                f"{source.path}: {place}: not valid JSON ({error}); expected one object a line"
            ) from None
        if not isinstance(row, dict):
            raise InputError(f"{source.path}: {place}: found a JSON {type(row).__name__}, expected an object")
        for field in fields:
            if field.column not in row and field.kind not in _LISTS:
                raise InputError(
                    f"{source.path}: {place}: key '{field.column}' is missing; found {','.join(row)}"
                )
            value: Any = row.get(field.column)
            fits = type(value) in (int, float) or field.kind in _LISTS
            if not fits or not field.kind.accepts(value):
                refuse_cell(source, place, field.column, value, field.kind.expected)
    raise InputError(f"{source.path}: not one JSON object a line; expected one object a line (jq -c .)")


def _blame_parquet(source: Source, batches: Iterable[Any], fields: tuple[Field, ...]) -> NoReturn:
    """Walk the batches to the first row of the first column that is wrong.

    Raises:
        InputError: always.
    """
    start = 1
    for batch in batches:
        for field in fields:
            column = batch[field.column]
            # Of a time all that can be wrong is that it is not there.
            values = [there or None for there in column.is_valid().to_pylist()]
            if not field.kind.dated:
                values = column.to_pylist()
            value: Any
            for row, value in enumerate(values, start):
                missing = value is None and field.kind not in _LISTS
                if missing or not field.kind.accepts(value):
                    refuse_cell(source, f"row {row}", field.column, value, field.kind.expected)
        start += batch.num_rows
    raise AssertionError("a batch was refused and all its values are right")
