"""The seam between a trace format and everything else: three members, and what ``read`` returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from sagescale.errors import InputError
from sagescale.trace.readers.fields import PRIORITY, TOKENS, Field

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from sagescale.trace.readers.fields import Clock
    from sagescale.trace.recognise import Head
    from sagescale.trace.source import Source

__all__ = ["Layout", "Reader", "Rows", "Warn", "no_warnings", "refuse_cell", "require_columns"]


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """A file's rows in file order, checked, not yet sorted, rebased or rid of empty requests.

    Attributes:
        ticks: int64[n] or float64[n], arrival in the file's own unit.
        ticks_per_s: how many of them make a second.
        isl: int64[n] or float64[n], whole numbers that fit int32; ``osl``, ``cached_tokens`` and ``priority``
            as well.
        zero_osl: what rows that generated nothing are in this format.
        warnings: what the user should know about columns left out.
    """

    ticks: NDArray[Any]
    ticks_per_s: float
    isl: NDArray[Any]
    osl: NDArray[Any]
    cached_tokens: NDArray[Any] | None
    priority: NDArray[Any] | None
    zero_osl: str
    warnings: tuple[str, ...]


class Reader(Protocol):
    """A trace format."""

    @property
    def name(self) -> str:
        """What ``--format`` calls it."""

    @property
    def shape(self) -> str:
        """Container, columns and unit of time, for messages: ``CSV arrival_s,isl,osl; time: s``."""

    @property
    def layout(self) -> Layout:
        """Which of its columns means what."""

    def recognise(self, head: Head) -> bool:
        """Tell from container and column names alone whether this may be the format."""

    def read(self, source: Source, head: Head) -> Rows:
        """Read every row.

        Raises:
            InputError: naming file, line, column and value, and what was expected.
        """


@dataclass(frozen=True, slots=True)
class Layout:
    """Which column means what, and in which unit.

    Attributes:
        arrival: column of arrival times.
        clock: the unit they are in.
        isl: column of prompt tokens.
        osl: column of generated tokens.
        cached: optional column of prefix-cache hits, where the format has one.
        priority: optional column of priorities, where the format has one.
        also: further columns that must be there and hold what they should.
        zero_osl: what rows that generated nothing are in this format.
    """

    arrival: str
    clock: Clock
    isl: str
    osl: str
    cached: str | None = None
    priority: str | None = None
    also: tuple[Field, ...] = ()
    zero_osl: str = "requests that generated nothing"

    @property
    def required(self) -> tuple[Field, ...]:
        """The columns without which it is not this format."""
        return (Field(self.arrival, self.clock), Field(self.isl, TOKENS), Field(self.osl, TOKENS), *self.also)

    def fields(self, head: Head) -> tuple[Field, ...]:
        """Return the columns to read from a file with this head: the required, and others that are there."""
        optional = ((self.cached, TOKENS), (self.priority, PRIORITY))
        there = (Field(name, kind) for name, kind in optional if name is not None and name in head.columns)
        return (*self.required, *there)

    def found_in(self, head: Head) -> bool:
        """Tell whether the file has every required column."""
        return {field.column for field in self.required} <= set(head.columns)

    def describe(self) -> str:
        """Say the columns and the unit of time, for messages."""
        return f"{','.join(field.column for field in self.required)}; time: {self.clock.unit}"

    def excess_cache(self, values: Mapping[str, Any]) -> Any:  # noqa: ANN401 - a bool, or an array of them
        """Tell where more is cached than a prefill may skip: its last token is always computed.

        Args:
            values: by column, either one row's numbers or whole columns.
        """
        if self.cached is None or self.cached not in values:
            return False
        return (values[self.cached] >= values[self.isl]) & (values[self.isl] > 0)

    def rows(self, columns: Mapping[str, NDArray[Any]], warnings: tuple[str, ...] = ()) -> Rows:
        """Name the columns read."""
        cached = None if self.cached is None else columns.get(self.cached)
        return Rows(
            ticks=columns[self.arrival],
            ticks_per_s=self.clock.ticks_per_s,
            isl=columns[self.isl],
            osl=columns[self.osl],
            cached_tokens=cached,
            priority=None if self.priority is None else columns.get(self.priority),
            zero_osl=self.zero_osl,
            warnings=warnings,
        )


def require_columns(source: Source, head: Head, fields: tuple[Field, ...]) -> None:
    """Refuse a file that lacks a column (only reached when the user named the format).

    Raises:
        InputError: naming the columns found and expected.
    """
    missing = [field.column for field in fields if field.column not in head.columns]
    if missing:
        raise InputError(
            f"{source.path}: column '{missing[0]}' is missing; found {','.join(head.columns)}; "
            f"expected {','.join(field.column for field in fields)}"
        )


def refuse_cell(path: str, place: str, column: str, value: object, expected: str) -> NoReturn:
    """Raise the one line about a bad value.

    Raises:
        InputError: always.
    """
    shown = repr(value)
    shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
    raise InputError(f"{path}: {place}, column '{column}': found {shown}, expected {expected}")


def no_warnings(columns: Mapping[str, NDArray[Any]], head: Head) -> tuple[str, ...]:  # noqa: ARG001 - a default
    """Find nothing to warn of: every column of the format is used, or is known not to matter here."""
    return ()


Warn = Callable[["Mapping[str, NDArray[Any]]", "Head"], tuple[str, ...]]
