"""What a column of a trace file may hold: how it is parsed, what is accepted, in which unit."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_TOKENS = 2**31 - 1

MAX_MADE_IDS = 2**20
"""Prefix ids of a prompt that are made from its length or come in runs: a small file must not fill memory.
At 16 tokens an id they are of 16.8 million, where the longest context windows of today hold 10 million."""

_YEARS = (1678, 2261)
"""Whole years that 64 bits of nanoseconds around 1970 hold."""

_WALL_CLOCK = re.compile(r"(\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d)(?:\.\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?")


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of number: a token count, a time.

    Attributes:
        expected: how to say it to the person whose file holds something else.
        arrow_types: Arrow types to parse it with, the first that takes every row.
        high: the largest value accepted; the smallest is ``low``.
        whole: fractions are refused.
    """

    expected: str
    arrow_types: tuple[str, ...]
    low: float = 0.0
    high: float = np.finfo(np.float64).max
    whole: bool = False

    @property
    def dtype(self) -> type[np.generic]:
        """What an array of it holds."""
        if self.dated:
            return np.int64
        if not self.whole:
            return np.float64
        return np.int32 if self.high <= MAX_TOKENS else np.int64

    @property
    def dated(self) -> bool:
        """Whether it is a date and time of day, not a number."""
        return self.arrow_types[0].startswith("timestamp")

    def accepts(self, value: float) -> bool:
        """Tell whether one value is of this kind."""
        # Comparisons first: they also hold for a NaN and for whole numbers that no float can hold.
        return self.low <= value <= self.high and not (self.whole and value != math.floor(value))

    def accepts_all(self, values: NDArray[Any]) -> bool:
        """Tell whether every value is of this kind (``accepts``, for a column)."""
        if not len(values):
            return True
        # A NaN makes both comparisons false.
        inside = bool(values.min() >= self.low and values.max() <= self.high)
        return inside and not (self.whole and values.dtype.kind == "f" and (values != np.floor(values)).any())

    def accepts_text(self, text: str) -> bool:
        """Tell whether one CSV cell is of this kind."""
        value = self.number(text)
        return value is not None and self.accepts(value)

    def number(self, text: str) -> float | None:
        """Parse one CSV cell; None when it is not a number in Arrow's notation (Python also takes +1_0)."""
        if "_" in text or text.startswith("+"):
            return None
        try:
            return int(text) if self.whole and text.lstrip("-").isdigit() else float(text)
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class Clock(Kind):
    """A kind of time: what is read from the file, divided by ``ticks_per_s``, is seconds."""

    ticks_per_s: float = 1.0
    unit: str = "s"


@dataclass(frozen=True, slots=True)
class _WallClock(Clock):
    """A date and time of day, read into integer nanoseconds, so that differences are exact."""

    def accepts_all(self, values: NDArray[Any]) -> bool:  # noqa: ARG002 - as in Kind
        return True  # whatever Arrow parsed is a time; there is no wrong year

    def number(self, text: str) -> float | None:
        match = _WALL_CLOCK.fullmatch(text)
        try:
            at = None if match is None else datetime.fromisoformat(match[1])
        except ValueError:
            return None
        return None if at is None or not _YEARS[0] <= at.year <= _YEARS[1] else at.toordinal()


@dataclass(frozen=True, slots=True)
class _Ids(Kind):
    """A list of whole numbers a row; a row may have none. Arrays of it hold nodes of a ``PrefixBuilder``."""

    @property
    def dtype(self) -> type[np.generic]:
        return np.int32

    def accepts(self, value: object) -> bool:
        return value is None or (
            isinstance(value, list)
            and all(type(one) is int and -MAX_ID - 1 <= one <= MAX_ID for one in value)
        )


@dataclass(frozen=True, slots=True)
class _Rows(Kind):
    """A list of rows of the file a row, in CSV a text such as ``3;4``; a row may have none."""

    @property
    def dtype(self) -> type[np.generic]:
        return np.int64

    def accepts(self, value: object) -> bool:
        return (
            value is None
            or (isinstance(value, str) and self.accepts_text(value))
            or (isinstance(value, list) and all(type(one) is int and 0 <= one <= MAX_TOKENS for one in value))
        )

    def accepts_text(self, text: str) -> bool:
        # As floats: Python refuses whole numbers of thousands of digits.
        return all(row.isdecimal() and float(row) <= MAX_TOKENS for row in text.replace(";", " ").split())


MAX_ID = 2**63 - 1
AFTER = _Rows("rows of the file, counted from 0, such as 3;4, or nothing", ("list_int64", "string"))
IDS = _Ids("a list of whole numbers that fit 64 bits", ("list_int64",))
TOKEN_IDS = _Ids("a list of whole numbers, the prompt's tokens", ("list_int64",))
TOKENS = Kind(
    f"a whole number of tokens from 0 to {MAX_TOKENS}", ("int64", "float64"), high=MAX_TOKENS, whole=True
)
COUNT = Kind(f"a whole number from 0 to {MAX_TOKENS}", ("int64", "float64"), high=MAX_TOKENS, whole=True)
PRIORITY = Kind(
    f"a whole number from {-MAX_TOKENS} to {MAX_TOKENS}, the lowest the most urgent",
    ("int64", "float64"),
    low=-MAX_TOKENS,
    high=MAX_TOKENS,
    whole=True,
)
SESSION = Kind(
    "a whole number that fits 64 bits, the same in all requests of a session",
    ("int64",),
    low=-MAX_ID - 1,
    high=MAX_ID,
    whole=True,
)
CHAT = Kind(
    "a whole number that fits 64 bits, the name of a request",
    ("int64",),
    low=-MAX_ID - 1,
    high=MAX_ID,
    whole=True,
)
BATCH_OF_ONE = Kind("1 (one request a row)", ("int64",), low=1, high=1, whole=True)
THINK_S = Kind("a finite number of seconds, 0 or more", ("float64",))
SECONDS = Clock("a finite number of seconds, 0 or more", ("float64",))
MS = Clock("a finite number of milliseconds, 0 or more", ("float64",), ticks_per_s=1e3, unit="ms")
US = Clock("a finite number of microseconds, 0 or more", ("float64",), ticks_per_s=1e6, unit="us")
NS = Clock("a finite number of nanoseconds, 0 or more", ("float64",), ticks_per_s=1e9, unit="ns")
WALL_CLOCK = _WallClock(
    f"a time like '2023-11-16 18:17:03.9799600' of the years {_YEARS[0]} to {_YEARS[1]} "
    "(all rows with, or all without a zone)",
    ("timestamp_ns", "timestamp_ns_utc"),
    ticks_per_s=1e9,
    unit="wall clock",
)


@dataclass(frozen=True, slots=True)
class Field:
    """A column of a format: its name in the file and the kind of number in it."""

    column: str
    kind: Kind
