"""The request trace: one columnar type that every reader makes and every other layer takes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from sagescale.trace.prefixes import freeze

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from typing import Self

    from numpy.typing import ArrayLike, NDArray

    from sagescale.trace.prefixes import Prefixes
    from sagescale.trace.sessions import Turns

    Column = NDArray[np.int32]

MAX_SPAN_S = 366 * 86_400.0
"""Files, transforms and synthesis give no longer trace: half a million ticks at an interval of a minute."""

REBUILT = "rebuilt"
"""The format of a trace that was rebuilt from counters: no request of it was seen by itself."""

REBUILT_UNDATED = "rebuilt-undated"
"""The format of one that has lost its dates, e.g. sped up; its column is ``rebuilt_arrival_s``."""

REBUILT_ARRIVAL = "rebuilt_arrival"
"""Its column of arrivals, so that the file says what it is."""

REBUILT_WARNING = (
    "rebuilt from metrics: requests are counted a scrape and drawn within it; ISL and OSL are drawn from "
    "histograms of minutes, each by itself; times without metrics hold no requests"
)


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """When requests arrive and how many tokens each one brings and asks for.

    The columns are read-only, of one length ``n >= 1``, and sorted by arrival; the first arrival is 0.

    Attributes:
        arrival_s: float64[n], seconds since the first arrival.
        isl: int32[n] >= 1, prompt tokens.
        osl: int32[n] >= 1, generated tokens.
        cached_tokens: int32[n] in ``[0, isl)``, prompt tokens found in a prefix cache; None when unknown.
        priority: int32[n], the lowest is the most urgent; None when all are alike.
        path: the file it came from, ``<memory>`` or ``<synth>``.
        sha256: of the file's bytes as they lie on disk; of the columns where there is no file.
        format: the reader's name, e.g. ``azure``.
        transforms: what was done to it since it was read, in order, for the result document.
        warnings: what its user should know, one line each.
        started_at: date and time of the first arrival, with the zone to show times in; None when not known.
        prefixes: which prompts begin alike, at most ``ceil(isl / block_tokens)`` ids each; None when unknown.
        session_id: int32[n], the session of each, numbered from 0 by first arrival; None when unknown.
        turns: which answers of its session each waits for; None when all arrive by the clock. ``arrival_s``
            of those that wait is nominal: as recorded, or what it would be with the answer times modelled.

    Raises:
        ValueError: a column breaks what is said above. Readers refuse bad files before this, by line.
    """

    arrival_s: NDArray[np.float64]
    isl: NDArray[np.int32]
    osl: NDArray[np.int32]
    cached_tokens: NDArray[np.int32] | None = None
    priority: NDArray[np.int32] | None = None
    path: str = "<memory>"
    sha256: str = ""
    format: str = "memory"
    transforms: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    started_at: datetime | None = None
    prefixes: Prefixes | None = None
    session_id: NDArray[np.int32] | None = None
    turns: Turns | None = None

    def __post_init__(self) -> None:
        self._freeze("arrival_s", np.float64)
        for name in self.columns:
            self._freeze(name, np.int32)
        cached = self.cached_tokens
        if cached is not None and (cached.min() < 0 or (cached >= self.isl).any()):
            raise ValueError("cached_tokens must be at least 0 and less than isl")
        if self.session_id is not None and not _is_numbered(self.session_id):
            raise ValueError("session_id must be numbered from 0 by first arrival")
        if self.arrival_s[0] != 0 or not np.isfinite(self.arrival_s[-1]):
            raise ValueError("arrival_s must be finite and start at 0")
        # A NaN anywhere compares false, so it is caught here as well.
        if not (self.arrival_s[1:] >= self.arrival_s[:-1]).all():
            raise ValueError("arrival_s must be sorted and finite")
        if self.isl.min() < 1 or self.osl.min() < 1:
            raise ValueError("isl and osl must be at least 1")
        prefixes = self.prefixes
        if prefixes is not None:
            if len(prefixes.leaf) != len(self.arrival_s):
                raise ValueError("prefixes must be of as many requests as arrival_s")
            if (prefixes.counts > most_ids(self.isl, prefixes.block_tokens)).any():
                raise ValueError("a prompt has at most ceil(isl / block_tokens) prefix ids")
        if self.turns is not None:
            self._check_turns(self.turns)

    def _check_turns(self, turns: Turns) -> None:
        if self.session_id is None or len(turns) != len(self):
            raise ValueError("turns must be of as many requests as arrival_s, each with its session_id")
        owner = turns.owner
        if (turns.after >= owner).any():
            raise ValueError("a request must wait for earlier ones only")
        if (self.session_id[turns.after] != self.session_id[owner]).any():
            raise ValueError("a request must wait for requests of its own session only")

    def _freeze(self, name: str, dtype: type[np.generic]) -> None:
        """Check one column's type and length, and keep a read-only view of it."""
        column = getattr(self, name)
        if column.dtype != dtype or column.ndim != 1 or not len(column) or len(column) != len(self.arrival_s):
            raise ValueError(
                f"{name} must be {np.dtype(dtype)}, one-dimensional, as long as arrival_s, not empty"
            )
        freeze(self, name)

    @classmethod
    def from_arrays(
        cls,
        arrival_s: ArrayLike,
        isl: ArrayLike,
        osl: ArrayLike,
        cached_tokens: ArrayLike | None = None,
        path: str = "<memory>",
        *,
        priority: ArrayLike | None = None,
        session_id: ArrayLike | None = None,
        prefixes: Prefixes | None = None,
        turns: Turns | None = None,
    ) -> Self:
        """Build a trace from anything array-like; sorts by arrival (stable) and rebases the first to 0.

        Raises:
            ValueError: empty, unequal lengths, a token count or priority that is no int32, or an invariant
                broken.
        """
        arrival = np.array(arrival_s, dtype=np.float64)
        given = {"isl": isl, "osl": osl, "cached_tokens": cached_tokens, "priority": priority}
        columns = {name: _int32(name, values) for name, values in given.items() if values is not None}
        if session_id is not None:
            columns["session_id"] = numbered(np.asarray(session_id))
        shapes = {arrival.shape, *(column.shape for column in columns.values())}
        if arrival.ndim != 1 or not len(arrival) or len(shapes) > 1:
            raise ValueError("a trace needs at least one request and columns of one length")
        if (arrival[1:] < arrival[:-1]).any():
            order = np.argsort(arrival, kind="stable")
            arrival = arrival[order]
            columns = {name: column[order] for name, column in columns.items()}
            prefixes = prefixes and prefixes.with_leaf(prefixes.leaf[order])
            turns = None if turns is None else turns.taken(order)
        if "session_id" in columns:
            columns["session_id"] = numbered(columns["session_id"])
        made = cls(
            arrival - arrival[0],
            **columns,  # type: ignore[arg-type]  # names of columns
            path=path,
            prefixes=prefixes,
            turns=turns,
        )
        return made.with_own_hash()

    @property
    def columns(self) -> dict[str, Column]:
        """What is known of each request but its arrival: the columns that are there, by name."""
        columns = {"isl": self.isl, "osl": self.osl}
        if self.cached_tokens is not None:
            columns["cached_tokens"] = self.cached_tokens
        if self.priority is not None:
            columns["priority"] = self.priority
        if self.session_id is not None:
            columns["session_id"] = self.session_id
        return columns

    def remade(
        self,
        arrival_s: NDArray[np.float64],
        make: Callable[[Column], Column],
        note: str,
        prefixes: Prefixes | None = None,
        copy: NDArray[np.int32] | None = None,
    ) -> Self:
        """Return the trace with other arrivals, ``make`` applied to each other column, and a note of it.

        Prefix ids stay as they are, unless ``prefixes`` of the requests made are given. Sessions do, unless
        ``copy`` says which copy each request is of, 0 for none: copies are sessions of their own, whose turns
        wait for their own.
        """
        columns = {name: make(column) for name, column in self.columns.items()}
        if self.session_id is not None:
            session = columns["session_id"].astype(np.int64)
            columns["session_id"] = numbered(
                session if copy is None else session + copy * (int(self.session_id.max()) + 1)
            )
        if prefixes is None and self.prefixes is not None:
            prefixes = self.prefixes.with_leaf(make(self.prefixes.leaf))
        turns = self.turns
        if turns is not None:
            turns = turns.taken(make(np.arange(len(self), dtype=np.int32)), copy)
        return replace(
            self,
            arrival_s=arrival_s,
            transforms=(*self.transforms, note),
            prefixes=prefixes,
            turns=turns,
            **columns,  # type: ignore[arg-type]  # as above
        )

    def begun_later(self, by_s: float) -> Self:
        """Return the trace with its date moved on, where it has one: what came before was cut off."""
        if self.started_at is None:
            return self
        return replace(self, started_at=self.started_at + timedelta(seconds=by_s))

    def with_own_hash(self) -> Self:
        """Return the same trace identified by the sha256 of its columns: for traces that have no file."""
        digest = hashlib.sha256()
        for column in (self.arrival_s, *self.columns.values()):
            digest.update(np.ascontiguousarray(column).data)
        if (tree := self.prefixes) is not None:
            digest.update(f"hash_block_tokens={tree.block_tokens}".encode())
            for column in (tree.leaf, tree.parent, tree.unit, tree.ids):
                digest.update(np.ascontiguousarray(column).data)
        if (turns := self.turns) is not None:
            digest.update(b"turns")
            for column in (turns.after_start, turns.after, turns.think_s):
                digest.update(np.ascontiguousarray(column).data)
        return replace(self, sha256=digest.hexdigest())

    def __len__(self) -> int:
        return len(self.arrival_s)

    @property
    def duration_s(self) -> float:
        """Time from the first arrival to the last, in seconds."""
        return float(self.arrival_s[-1])


def numbered(values: NDArray[Any]) -> NDArray[np.int32]:
    """Number values from 0 by first appearance."""
    _, first, which = np.unique(values, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int32)
    rank[np.argsort(first)] = np.arange(len(first), dtype=np.int32)
    return rank[which]


def _is_numbered(values: NDArray[np.int32]) -> bool:
    """Tell whether values are numbers from 0 by first appearance."""
    most = np.maximum.accumulate(values)
    return bool(values[0] == 0 and values.min() == 0 and (values[1:] <= most[:-1] + 1).all())


def most_ids(isl: NDArray[np.int32], block_tokens: int) -> NDArray[np.int32]:
    """Return how many prefix ids a prompt may have: one for each block that it begins."""
    return -(-isl // np.int32(min(block_tokens, np.iinfo(np.int32).max)))


def _int32(name: str, values: ArrayLike) -> NDArray[np.int32]:
    exact = np.array(values)
    narrow = exact.astype(np.int32)
    if not np.array_equal(narrow, exact):
        raise ValueError(f"{name} must hold whole numbers that fit int32")
    return narrow
