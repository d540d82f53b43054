"""JSON-lines formats: Arrow reads the file at once; when it cannot, a slow walk finds the line to blame."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import field as attribute
from typing import TYPE_CHECKING, Any, NoReturn

from sagescale.errors import InputError
from sagescale.json_guard import BadJsonError, parse_json
from sagescale.trace.readers.arrow import checked_columns, type_choices
from sagescale.trace.readers.base import Layout, Rows, refuse_cell, require_columns
from sagescale.trace.source import MAX_LINE_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from sagescale.trace.readers.fields import Field
    from sagescale.trace.recognise import Head
    from sagescale.trace.source import Content, Source

__all__ = ["JsonLinesFormat"]

_BLOCK_BYTES = 8 << 20


def _anything(keys: frozenset[str]) -> bool:  # noqa: ARG001 - the default of a condition
    return True


@dataclass(frozen=True, slots=True)
class JsonLinesFormat:
    """A trace format that is one JSON object a line.

    Attributes:
        name: what ``--format`` calls it.
        layout: its keys.
        only_if: a condition on the keys beside those of the layout, to tell formats with the same ones apart.
    """

    name: str
    layout: Layout
    only_if: Callable[[frozenset[str]], bool] = attribute(default=_anything)

    @property
    def shape(self) -> str:
        """Container, keys and unit of time, for messages."""
        return f"JSONL {self.layout.describe()}"

    def recognise(self, head: Head) -> bool:
        """Tell whether the first object has the keys of this format."""
        return head.kind == "jsonl" and self.layout.found_in(head) and self.only_if(frozenset(head.columns))

    def read(self, source: Source, head: Head) -> Rows:
        """Read every line; keys that are not of the layout (prefix hashes) are skipped unconverted.

        Raises:
            InputError: naming file, line, key and value, and what was expected.
        """
        if head.kind != "jsonl":
            raise InputError(f"{source.path}: is {head.kind}; expected {self.shape} ({self.name})")
        fields = self.layout.fields(head)
        require_columns(source, head, fields)
        columns = _parse(source, fields)
        if columns is None:
            _blame(source, fields)
        return self.layout.rows(columns)


def _parse(source: Source, fields: tuple[Field, ...]) -> dict[str, NDArray[Any]] | None:
    """Read the fields with Arrow; None when some line holds what it should not."""
    import pyarrow as pa
    from pyarrow import json as arrow_json

    for types in type_choices(fields):
        options = arrow_json.ParseOptions(
            explicit_schema=pa.schema(types.items()), unexpected_field_behavior="ignore"
        )
        try:
            with source.open() as stream:
                return checked_columns(_batches(stream, options), fields)
        except (pa.ArrowException, ValueError):  # ValueError: text that is no UTF-8
            continue
    return None


def _batches(stream: Content, options: Any) -> Iterator[Any]:  # noqa: ANN401 - pyarrow has no types
    """Parse a block of whole lines at a time."""
    import pyarrow as pa
    from pyarrow import json as arrow_json

    while block := stream.read(_BLOCK_BYTES):
        block += stream.readline(MAX_LINE_BYTES)
        if not block.isspace():
            whole = arrow_json.ReadOptions(block_size=len(block) + 1)
            table = arrow_json.read_json(pa.BufferReader(block), read_options=whole, parse_options=options)
            yield from table.to_batches()


def _blame(source: Source, fields: tuple[Field, ...]) -> NoReturn:
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
            if field.column not in row:
                raise InputError(
                    f"{source.path}: {place}: key '{field.column}' is missing; found {','.join(row)}"
                )
            value = row[field.column]
            if type(value) not in (int, float) or not field.kind.accepts(value):
                refuse_cell(source.path, place, field.column, value, field.kind.expected)
    raise InputError(f"{source.path}: not one JSON object a line; expected one object a line (jq -c .)")
