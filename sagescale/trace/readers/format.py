"""A trace format as a declaration: its container, which column means what, and in which unit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sagescale.errors import InputError
from sagescale.trace.readers.chats import Chats, chats_of, circle
from sagescale.trace.readers.containers import COUNTS, READ, TITLES, refuse_cell
from sagescale.trace.readers.fields import (
    AFTER,
    CHAT,
    COUNT,
    IDS,
    PRIORITY,
    SESSION,
    THINK_S,
    TOKENS,
    Clock,
    Field,
    Kind,
)
from sagescale.trace.readers.prefix_ids import check_ids, stated
from sagescale.trace.sessions import Waits
from sagescale.trace.source import Head, Source

if TYPE_CHECKING:
    from sagescale.trace.prefix_builder import PrefixBuilder
    from sagescale.trace.sessions import Turns
    from sagescale.trace.source import Container

Warn = Callable[[Mapping[str, NDArray[Any]], Head], tuple[str, ...]]


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """A file's rows in file order, checked, not yet sorted, rebased or rid of empty requests.

    Attributes:
        ticks: int64[n] or float64[n], arrival in the file's own unit.
        columns: int32[n] each: ``isl``, ``osl``, and where the file has them ``cached_tokens``, ``priority``;
            ``hash_ids``: the node of each one's last prefix id;
            ``session_id`` int64[n].
        warnings: what the user should know about columns left out.
        turns: which rows of the file each waits for, where it says so.
        starts_recorded: when sessions began is known; else ``ticks`` count from the beginning of each.
    """

    ticks: NDArray[Any]
    columns: dict[str, NDArray[np.int32]]
    warnings: tuple[str, ...]
    turns: Turns | None = None
    starts_recorded: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceFormat(ABC):
    """A trace format: how a file of it is known, and how it is read.

    Attributes:
        name: what ``--format`` calls it.
        containers: the kinds of file it occurs in.
        arrival: what its arrivals are called: a column, or a key.
        clock: the unit they are in.
        block_tokens: how many tokens a prefix id covers, where the format says it; 0 where files do.
        zero_osl: what rows that generated nothing are in this format.
    """

    name: str
    containers: tuple[Container, ...] = ("csv",)
    arrival: str
    clock: Clock
    block_tokens: int = 0
    zero_osl: str = "requests that generated nothing"

    @property
    @abstractmethod
    def required(self) -> tuple[Field, ...]:
        """The columns, or top keys, without which it is not this format."""

    @property
    def shape(self) -> str:
        """Container, columns and unit of time, for messages: ``CSV arrival_s,isl,osl; time: s``."""
        containers = " or ".join(TITLES[container] for container in self.containers)
        return f"{containers} {','.join(field.column for field in self.required)}; time: {self.clock.unit}"

    def recognise(self, head: Head) -> bool:
        """Tell from container and column names alone whether this may be the format."""
        required = {field.column for field in self.required}
        return head.container in self.containers and required <= set(head.columns)

    def has_ids(self, head: Head) -> bool:
        """Tell whether a file has, or may have, prefix ids."""
        del head
        return False

    def stated_block_tokens(self, source: Source, head: Head) -> int:
        """Return how many tokens an id covers, as a file says; 0 where it does not.

        Raises:
            InputError: what it says is no number of tokens.
        """
        del source, head
        return 0

    def read(self, source: Source, head: Head, builder: PrefixBuilder | None = None) -> Rows:
        """Read every row.

        Args:
            source: the file.
            head: its columns.
            builder: takes the prefix ids; without one they are skipped.

        Raises:
            InputError: naming file, line or row, column and value, and what was expected.
        """
        if head.container not in self.containers:
            raise InputError(f"{source.path}: is {head.container}; expected {self.shape} ({self.name})")
        return self._rows(source, head, builder)

    @abstractmethod
    def _rows(self, source: Source, head: Head, builder: PrefixBuilder | None) -> Rows:
        """Read a file of one of the containers."""

    def place(self, source: Source, head: Head, row: int, id_tokens: int = 0) -> str:
        """Say where a row of a file stands, counted from 0, its prefix ids being of so many tokens."""
        del source, head, id_tokens
        return f"request {row + 1}"


@dataclass(frozen=True, slots=True, kw_only=True)
class NestedFormat(TraceFormat):
    """A format whose requests are no flat rows.

    Attributes:
        keys: the columns, or top keys, that it is known by.
    """

    keys: tuple[str, ...]

    @property
    def required(self) -> tuple[Field, ...]:
        """See :class:`TraceFormat`."""
        return tuple(Field(key, COUNT) for key in self.keys)


@dataclass(frozen=True, slots=True, kw_only=True)
class Format(TraceFormat):
    """A format of flat rows: other columns than these are skipped unconverted.

    Attributes:
        isl: column of prompt tokens.
        osl: column of generated tokens.
        cached: optional column of prefix-cache hits, where the format has one.
        priority: optional column of priorities, where the format has one.
        session: optional column of sessions, where the format has one.
        after: optional column of the rows whose answers each waits for, where the format has one.
        think_s: optional column beside it, of the seconds from the last answer to the arrival.
        chat: optional column of what each request is called, where the format has one.
        parent_chat: optional column beside it, of what the request is called that it answers to.
        ids: optional column of prefix ids, where the format has one: a list a row.
        ids_kind: what they are: ``IDS``, or ``TOKEN_IDS`` to make them of.
        also: further columns that must be there and hold what they should.
        only_if: a condition on all columns, to tell apart formats that need the same ones.
        warn: what to tell the user about columns left out.
    """

    isl: str
    osl: str
    cached: str | None = None
    priority: str | None = None
    session: str | None = None
    after: str | None = None
    think_s: str | None = None
    chat: str | None = None
    parent_chat: str | None = None
    ids: str | None = None
    ids_kind: Kind = IDS
    also: tuple[Field, ...] = ()
    only_if: Callable[[frozenset[str]], bool] = lambda columns: True  # noqa: ARG005 - a condition
    warn: Warn = lambda columns, head: ()  # noqa: ARG005 - a Warn

    @property
    def required(self) -> tuple[Field, ...]:
        """See :class:`TraceFormat`."""
        return (Field(self.arrival, self.clock), Field(self.isl, TOKENS), Field(self.osl, TOKENS), *self.also)

    @property
    def columns(self) -> dict[str, str | None]:
        """The column of each of ours but the arrival; None where the format has none."""
        return {
            "isl": self.isl,
            "osl": self.osl,
            "cached_tokens": self.cached,
            "priority": self.priority,
            "session_id": self.session,
            "hash_ids": self.ids,
        }

    def recognise(self, head: Head) -> bool:
        """See :class:`TraceFormat`; formats of the same columns are told apart by others."""
        return TraceFormat.recognise(self, head) and self.only_if(frozenset(head.columns))

    def has_ids(self, head: Head) -> bool:
        """Tell whether a file has a column of prefix ids."""
        return head.container in ("jsonl", "parquet") and self.ids in head.columns

    def stated_block_tokens(self, source: Source, head: Head) -> int:
        """See :func:`sagescale.trace.readers.prefix_ids.stated`."""
        return stated(source, head)

    def place(self, source: Source, head: Head, row: int, id_tokens: int = 0) -> str:
        """Say where a row stands: by its line in a text."""
        del id_tokens
        return source.place(head, row)

    def _rows(self, source: Source, head: Head, builder: PrefixBuilder | None) -> Rows:
        optional = [(self.cached, TOKENS), (self.priority, PRIORITY), (self.session, SESSION)]
        if self.after in head.columns:
            optional += [(self.after, AFTER), (self.think_s, THINK_S)]
        if self.chat in head.columns and self.parent_chat in head.columns:
            optional += [(self.chat, CHAT), (self.parent_chat, CHAT)]
        if builder is not None and self.has_ids(head):
            optional.append((self.ids, self.ids_kind))
        there = (Field(name, kind) for name, kind in optional if name is not None and name in head.columns)
        fields = (*self.required, *there)
        missing = [field.column for field in fields if field.column not in head.columns]
        if missing:
            raise InputError(
                f"{source.path}: column '{missing[0]}' is missing; found {','.join(head.columns)}; "
                f"expected {','.join(field.column for field in fields)}"
            )
        found = READ[head.container](source, head, fields, builder)
        columns = {ours: found[theirs] for ours, theirs in self.columns.items() if theirs in found}
        if "cached_tokens" in columns:
            self._check_cached(source, head, columns["cached_tokens"], columns["isl"])
        if builder is not None and "hash_ids" in columns:
            check_ids(source, head, str(self.ids), columns["isl"], columns["hash_ids"], builder)
        warnings = self.warn(found, head)
        turns = None if self.after not in found else self._turns(source, head, found)
        if self.chat in found:
            chats = self._chats(source, head, found)
            columns["session_id"], turns = chats.session_id, chats.turns
            warnings += chats.notes
        return Rows(found[self.arrival], columns, warnings, turns)

    def _chats(self, source: Source, head: Head, found: Mapping[str, NDArray[Any]]) -> Chats:
        """Link conversations; refuse a request that answers to itself, in however many steps."""
        chat, parent = found[str(self.chat)], found[str(self.parent_chat)]
        row = circle(chat, parent)
        if row is not None:
            expected = "an earlier request's, or -1: this one comes back to itself"
            place = source.place(head, row)
            refuse_cell(source, place, str(self.parent_chat), parent[row].item(), expected)
        return chats_of(found[self.arrival] / self.clock.ticks_per_s, chat, parent, found[self.osl])

    def _turns(self, source: Source, head: Head, found: Mapping[str, NDArray[Any]]) -> Turns:
        """Put the turns together; refuse rows that cannot be waited for."""
        if self.session not in found:
            raise InputError(
                f"{source.path}: column '{self.session}' is missing; it goes with '{self.after}'"
            )
        rows, counts = found[str(self.after)], found[f"{self.after}{COUNTS}"]
        think = found.get(str(self.think_s))
        waits = Waits(rows, counts, np.zeros(len(counts)) if think is None else think)
        fault = waits.fault(found[self.arrival], found[str(self.session)], self.arrival)
        if fault is not None:
            row, value, expected = fault
            column = self.think_s if isinstance(value, float) else self.after
            refuse_cell(source, source.place(head, row), str(column), value, expected)
        return waits.turns()

    def _check_cached(
        self, source: Source, head: Head, cached: NDArray[np.int32], isl: NDArray[np.int32]
    ) -> None:
        """Refuse more cached than a prefill may skip: its last token is always computed."""
        excess = (cached >= isl) & (isl > 0)
        if excess.any():
            row = int(excess.argmax())
            expected = f"less than {self.isl} ({isl[row]})"
            refuse_cell(source, source.place(head, row), str(self.cached), cached[row].item(), expected)
