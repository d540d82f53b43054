"""What the user says of a log: its columns, the rows that count, its clock, and how much may be left out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sagescale.errors import InputError, did_you_mean
from sagescale.trace.readers.fields import TOKEN_IDS

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sagescale.trace.readers.format import Format

REQUIRED = ("arrival", "isl", "osl")
COLUMNS = (*REQUIRED, "priority", "session", "session_id", "cached_tokens", "hash_ids", "ttft", "done")
"""What ``--columns`` names; a trace needs the first three.

``session`` and ``session_id`` are both the session of a request; with ``session`` each request waits for the
one before it, whose answer took until ``done`` where that is named.
"""

TIME_UNITS = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
"""What ``--time-unit`` may be, and how many of it make a second."""

MAX_DROPPED = 0.05


@dataclass(frozen=True, slots=True)
class Condition:
    """A row counts only where the column holds the value, or does not (``COLUMN!=VALUE``)."""

    column: str
    value: str
    holds: bool = True

    def __str__(self) -> str:
        return f"{self.column}{'=' if self.holds else '!='}{self.value}"


@dataclass(frozen=True, slots=True)
class LogSpec:
    """How to read a log; the defaults read a known format and nothing else.

    Attributes:
        columns: the file's name by ours, as pairs: ``("isl", "prompt_tokens")``. JSON keys may be dotted.
        where: conditions that a row must meet, all of them.
        time_zone: zone of times that state none, and the zone to show times in; empty when not said.
        time_unit: unit of arrivals that are numbers, a key of ``TIME_UNITS``; empty when not said.
        strict: refuse the first row that cannot be used.
        max_dropped: the share of rows that may be unusable.
        hash_block_tokens: how many tokens a prefix id covers; None when not said.
        ids_of_tokens: ``hash_ids`` holds the prompts' tokens, to make ids of.
    """

    columns: tuple[tuple[str, str], ...] = ()
    where: tuple[Condition, ...] = ()
    time_zone: str = ""
    time_unit: str = ""
    strict: bool = False
    max_dropped: float = MAX_DROPPED
    hash_block_tokens: int | None = None
    ids_of_tokens: bool = False

    def __post_init__(self) -> None:
        if self.time_unit and self.time_unit not in TIME_UNITS:
            raise InputError(f"--time-unit {self.time_unit}: expected one of {', '.join(TIME_UNITS)}")
        if not 0 <= self.max_dropped <= 1:
            raise InputError(f"--max-dropped {self.max_dropped:g}: expected a share from 0 to 1, e.g. 0.1")
        if self.hash_block_tokens is not None and not 0 < self.hash_block_tokens < 1 << 31:
            raise InputError(
                f"--hash-block-tokens {self.hash_block_tokens}: expected a whole number above 0, e.g. 16"
            )

    def with_columns_of(self, known: Format, there: Collection[str]) -> LogSpec:
        """Return the same with columns, unit and ids of a known format, whose rows are chosen from.

        Args:
            known: the format.
            there: the columns that the files have.
        """
        names = {"arrival": known.arrival, **known.columns}
        columns = tuple((ours, theirs) for ours, theirs in names.items() if theirs and theirs in there)
        unit = known.clock.unit if known.clock.unit in TIME_UNITS else ""
        return replace(
            self,
            columns=columns,
            time_unit=self.time_unit or unit,
            ids_of_tokens=known.ids_kind == TOKEN_IDS,
        )


def parse_columns(texts: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Read ``arrival=start_time,isl=prompt_tokens``, once or several times.

    Raises:
        InputError: no such pairs, a name of ours that is unknown or given twice, or one of the three missing.
    """
    found: dict[str, str] = {}
    for text in texts:
        for pair in text.split(","):
            ours, equals, theirs = (part.strip() for part in pair.partition("="))
            if not equals or not theirs:
                raise InputError(
                    f"--columns {text}: '{pair}' is no OURS=THEIRS; expected e.g. "
                    "arrival=start_time,isl=prompt_tokens,osl=completion_tokens"
                )
            if ours not in COLUMNS:
                raise InputError(
                    f"--columns {text}: '{ours}' is none of {', '.join(COLUMNS)}{did_you_mean(ours, COLUMNS)}"
                )
            if ours in found:
                raise InputError(f"--columns {text}: {ours} is given twice; expected it once")
            found[ours] = theirs
    if {"session", "session_id"} <= found.keys():
        raise InputError(
            f"--columns {','.join(texts)}: session and session_id are both given; expected session, whose "
            "requests wait for the one before, or session_id, whose do not"
        )
    missing = [name for name in REQUIRED if name not in found]
    if found and missing:
        raise InputError(
            f"--columns {','.join(texts)}: {', '.join(missing)} is missing; add {missing[0]}=NAME, "
            f"the column "
            f"that holds it (needed: {', '.join(REQUIRED)})"
        )
    return tuple(found.items())


def parse_where(texts: Sequence[str]) -> tuple[Condition, ...]:
    """Read ``COLUMN=VALUE`` and ``COLUMN!=VALUE``.

    Raises:
        InputError: a text is neither.
    """
    found = []
    for text in texts:
        column, equals, value = text.partition("=")
        holds = not column.endswith("!")
        column = column.removesuffix("!").strip()
        if not equals or not column:
            raise InputError(f"--where {text}: expected COLUMN=VALUE or COLUMN!=VALUE, e.g. status_code=200")
        found.append(Condition(column, value.strip(), holds))
    return tuple(found)
