"""Sessions: which answers of its session a request waits for, how long is thought, and when each begins."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn, Self

import numpy as np

from sagescale.errors import InputError
from sagescale.trace.prefixes import freeze

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import ArrayLike, NDArray

    from sagescale.trace.prefixes import Prefixes
    from sagescale.trace.trace import Trace

START_GAP_S = 60.0
"""From one session's start to the next one's, where a file does not say when sessions began."""

NO_STARTS = (
    "when sessions began is not recorded: one begins every {gap_s:g} s, in file order; "
    "--sessions poisson:60/h draws other starts"
)

_LONG_S = 86_400.0
_LONG = "more than a day of thinking"


@dataclass(frozen=True, slots=True, eq=False)
class Turns:
    """Who waits for whose answer: a graph between the requests of a trace, row by row (CSR), and thinking.

    Request ``i`` waits for the rows ``after[after_start[i]:after_start[i + 1]]``, ascending, and arrives
    ``think_s[i]`` seconds after the last of them is answered. Without any it arrives by the clock: it begins
    a session, or joins one at a time of its own.

    Attributes:
        after_start: int64[n + 1].
        after: int32[waits], rows from 0.
        think_s: float64[n] >= 0, 0 where ``after`` is empty.

    Raises:
        ValueError: arrays that do not fit each other, or a row that does not exist, is named twice or waits
            for itself. That rows wait only for rows before them is checked by the trace.
    """

    after_start: NDArray[np.int64]
    after: NDArray[np.int32]
    think_s: NDArray[np.float64]

    def __post_init__(self) -> None:
        for name, dtype in (("after_start", np.int64), ("after", np.int32), ("think_s", np.float64)):
            column = getattr(self, name)
            if column.dtype != dtype or column.ndim != 1:
                raise ValueError(f"{name} must be {np.dtype(dtype)}, one-dimensional")
            freeze(self, name)
        start = self.after_start
        if len(start) != len(self.think_s) + 1 or start[0] != 0 or start[-1] != len(self.after):
            raise ValueError("after_start must lead from 0 to the length of after, one more than think_s")
        if (start[1:] < start[:-1]).any():
            raise ValueError("after_start must not fall")
        if len(self.after) and (self.after.min() < 0 or self.after.max() >= len(self)):
            raise ValueError("after must name rows")
        owner = self.owner
        same = owner[1:] == owner[:-1]
        if (self.after[1:] <= self.after[:-1])[same].any():
            raise ValueError("after must name each row once, ascending")
        if (self.after == owner).any():
            raise ValueError("no row can wait for itself")
        if not np.isfinite(self.think_s).all() or (self.think_s < 0).any():
            raise ValueError("think_s must be finite, 0 or more")
        if self.think_s[~self.waits].any():
            raise ValueError("think_s must be 0 where nothing is waited for")

    @classmethod
    def of(cls, after: Iterable[Iterable[int]], think_s: ArrayLike) -> Self:
        """Make turns of a list of rows each, in any order, and the seconds of thinking."""
        lists = [sorted(rows) for rows in after]
        start = np.concatenate([[0], np.cumsum([len(rows) for rows in lists])]).astype(np.int64)
        flat = np.array([row for rows in lists for row in rows], np.int32)
        return cls(start, flat, np.array(think_s, np.float64))

    def __len__(self) -> int:
        return len(self.think_s)

    @property
    def waits(self) -> NDArray[np.bool_]:
        """Which requests wait for an answer, bool[n]; the others arrive by the clock."""
        return self.after_start[1:] > self.after_start[:-1]

    @property
    def owner(self) -> NDArray[np.int64]:
        """The request that waits, of each entry of ``after``, int64[waits]."""
        return np.repeat(np.arange(len(self)), np.diff(self.after_start))

    def lists(self, start: int, end: int) -> list[list[int]]:
        """The rows that each request from ``start`` to before ``end`` waits for."""
        bounds = self.after_start[start : end + 1].tolist()
        return [self.after[first:last].tolist() for first, last in itertools.pairwise(bounds)]

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Return the turns of several files, one behind the other."""
        rows = np.cumsum([0, *(len(part) for part in parts)]).tolist()
        waits = np.cumsum([0, *(len(part.after) for part in parts)]).tolist()
        starts = [part.after_start[:-1] + before for part, before in zip(parts, waits[:-1], strict=True)]
        after = [part.after + np.int32(before) for part, before in zip(parts, rows[:-1], strict=True)]
        start = np.concatenate([*starts, waits[-1:]]).astype(np.int64)
        return cls(start, np.concatenate(after), np.concatenate([part.think_s for part in parts]))

    def taken(self, rows: NDArray[np.integer], copy: NDArray[np.integer] | None = None) -> Self:
        """Return the turns of other requests, each an old row, by their new numbers.

        Args:
            rows: whole numbers, [requests]: the old row of each.
            copy: which copy of the trace each is of, from 0; copies wait for their own.

        Raises:
            ValueError: a request is left out that another one waits for.
        """
        n, old_rows = len(self), rows.astype(np.int64)
        offset = np.zeros(len(rows), np.int64) if copy is None else copy.astype(np.int64) * n
        new = np.full((int(offset.max(initial=0)) // max(n, 1) + 1) * n, -1, np.int32)
        new[offset + old_rows] = np.arange(len(rows), dtype=np.int32)
        counts = np.diff(self.after_start)[old_rows]
        start = np.concatenate([[0], np.cumsum(counts)])
        places = np.arange(start[-1]) + np.repeat(self.after_start[old_rows] - start[:-1], counts)
        after = new[np.repeat(offset, counts) + self.after[places]]
        if (after < 0).any():
            raise ValueError("a request is left out that another one waits for")
        owner = np.repeat(np.arange(len(rows)), counts)
        after = after[np.lexsort((after, owner))]
        return type(self)(start, after, self.think_s[old_rows])

    def without(self, left_out: NDArray[np.bool_], order: NDArray[np.integer]) -> Self:
        """Return the turns as if some rows had never been asked: who waits for one waits for what it does.

        Where it was the only one waited for, its time to think is added. Rows keep their numbers.

        Args:
            left_out: bool[n].
            order: all rows in an order in which none waits for a later one.
        """
        touched = np.zeros(len(self), bool)
        touched[self.owner[left_out[self.after]]] = True
        if not touched.any():
            return self
        lists = self.lists(0, len(self))
        think_s = self.think_s.copy()
        for row in order[touched[order]].tolist():
            waited = lists[row]
            if len(waited) == 1:
                think_s[row] += think_s[waited[0]]
            found = {one for before in waited for one in (lists[before] if left_out[before] else [before])}
            lists[row] = sorted(found)
            if not found:
                think_s[row] = 0.0
        return type(self).of(lists, think_s)


def long_thinking(turns: Turns, place: Callable[[int], str]) -> list[str]:
    """Warn of who thinks for longer than a day, as recorded by accident: one line, or none.

    Args:
        turns: as read.
        place: says where a row of them stands.
    """
    long = int((turns.think_s > _LONG_S).sum())
    if not long:
        return []
    row = int(turns.think_s.argmax())
    others = f", and {long - 1:,} more such" * (long > 1)
    said = f"{place(row)}: {turns.think_s[row]:.6g} s after the answer it waits for{others}"
    return [f"{_LONG}: {said}; --max-think-s 3600 has nobody think for longer"]


def session_number(name: str) -> int:
    """Return a number of 64 bits for the name of a session: equal ones for equal names, also across files."""
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def session_starts(trace: Trace) -> NDArray[np.float64]:
    """Return when each session begins, s, float64[sessions], ascending: at the first of its requests."""
    assert trace.session_id is not None
    # They are numbered by first arrival: each first one is higher than all before.
    highest = np.maximum.accumulate(trace.session_id)
    return trace.arrival_s[np.flatnonzero(np.diff(highest, prepend=-1))]


def beginnings(trace: Trace) -> NDArray[np.float64]:
    """Return when each request arrives or, of a trace with turns, each session begins, s, ascending."""
    return trace.arrival_s if trace.turns is None else session_starts(trace)


def begun_at(trace: Trace, begin_s: NDArray[np.float64], note: str) -> Trace:
    """Return the trace with its ``beginnings`` at other times; a session moves as a whole."""
    if trace.turns is None or trace.session_id is None:
        return _reordered(trace, begin_s, note, np.arange(len(trace)))
    return restarted(trace, begin_s[trace.session_id], note)


def restarted(
    trace: Trace,
    start_s: NDArray[np.float64],
    note: str,
    rows: NDArray[np.int64] | None = None,
    copy: NDArray[np.int32] | None = None,
    prefixes: Prefixes | None = None,
) -> Trace:
    """Return sessions that begin at other times, each moved as a whole.

    Args:
        trace: it has turns.
        start_s: float64[requests], when the session of each begins, s.
        note: of what was done.
        rows: int64[requests], which request each is; all of them when not given.
        copy: int32[requests], which copy each is of, as of ``Trace.remade``.
        prefixes: of the requests, where they are other ones; in order of ``rows``.
    """
    assert trace.session_id is not None
    if rows is None:
        rows = np.arange(len(trace))
    moved_s = start_s - session_starts(trace)[trace.session_id[rows]]
    # Adding one number keeps the order within a session, ties included.
    return _reordered(trace, np.maximum(trace.arrival_s[rows] + moved_s, 0.0), note, rows, copy, prefixes)


def _reordered(
    trace: Trace,
    arrival_s: NDArray[np.float64],
    note: str,
    rows: NDArray[np.int64],
    copy: NDArray[np.int32] | None = None,
    prefixes: Prefixes | None = None,
) -> Trace:
    """Return requests with other arrivals, sorted, the first at 0."""
    order = np.argsort(arrival_s, kind="stable")
    arrival_s, taken = arrival_s[order], rows[order]
    if prefixes is not None:
        prefixes = prefixes.with_leaf(prefixes.leaf[order])
    return trace.remade(
        arrival_s - arrival_s[0],
        lambda column: column[taken],
        note,
        prefixes,
        None if copy is None else copy[order],
    )


def cap_thinking(trace: Trace, most_s: float) -> Trace:
    """Return the trace with no more thinking than so many seconds before any request.

    Nominal arrivals come as much earlier, after the last of what is waited for.

    Args:
        trace: it has turns.
        most_s: 0 or more.
    """
    turns = trace.turns
    assert turns is not None
    think_s = np.minimum(turns.think_s, most_s)
    saved_s = turns.think_s - think_s
    note = f"think at most {most_s:.12g} s ({int((saved_s > 0).sum())} requests)"
    kept = trace.warnings
    if most_s <= _LONG_S:
        kept = tuple(line for line in kept if not line.startswith(_LONG))
    capped = replace(trace, turns=replace(turns, think_s=think_s), warnings=kept)
    # Plain numbers in lists: a row at a time they take a tenth of the time that arrays do.
    at_s, earlier_s, saved = trace.arrival_s.tolist(), [0.0] * len(trace), saved_s.tolist()
    bounds, after = turns.after_start.tolist(), turns.after.tolist()
    for row in np.flatnonzero(turns.waits).tolist():
        before = after[bounds[row] : bounds[row + 1]]
        earlier_s[row] = saved[row] + min(earlier_s[one] for one in before)
        at_s[row] = max(at_s[row] - earlier_s[row], *(at_s[one] for one in before))
    return _reordered(capped, np.array(at_s), note, np.arange(len(trace)))


def refuse_without_turns(option: str, trace: Trace) -> NoReturn:
    """Refuse an option that only sessions have a use for.

    Raises:
        InputError: always.
    """
    raise InputError(
        f"{option}: {trace.path} ({trace.format}) has no turns that wait for answers; expected a trace that "
        "has: kv-cache-tester's, Qwen's, AIPerf's, a log with --columns session=NAME, columns after and "
        "think_s, or trace synth --sessions"
    )


@dataclass(frozen=True, slots=True, eq=False)
class Waits:
    """Rows of a file, and the rows of it that each waits for.

    Attributes:
        after: int64[waits] >= 0, the rows waited for, one list after the other.
        counts: int64[n], how long each list is.
        think_s: float64[n] >= 0, from the last of those answers to the arrival.
    """

    after: NDArray[np.int64]
    counts: NDArray[np.int64]
    think_s: NDArray[np.float64]

    def fault(
        self, arrival: NDArray[Any], session_id: NDArray[Any], arrival_name: str
    ) -> tuple[int, object, str] | None:
        """Find the first row that waits for what it cannot wait for: a circle is never in order of arrival.

        Returns:
            The row, what was found there and what was expected; None when all is well.
        """
        n = len(self.counts)
        owner = np.repeat(np.arange(n), self.counts)
        if len(beyond := np.flatnonzero(self.after >= n)):
            return self._at(owner, beyond[0], f"a row from 0 to {n - 1}")
        if len(itself := np.flatnonzero(self.after == owner)):
            return self._at(owner, itself[0], f"another row; this one is {owner[itself[0]]} itself")
        if len(other := np.flatnonzero(session_id[self.after] != session_id[owner])):
            return self._at(owner, other[0], "a row of the same session")
        before, now = arrival[self.after], arrival[owner]
        if len(late := np.flatnonzero((before > now) | ((before == now) & (self.after > owner)))):
            expected = f"a row that arrives before this one ({arrival_name}; at one time, above it)"
            return self._at(owner, late[0], expected)
        idle = np.flatnonzero((self.counts == 0) & (self.think_s != 0))
        if len(idle):
            return int(idle[0]), float(self.think_s[idle[0]]), "0 where no row is waited for"
        return None

    def _at(self, owner: NDArray[np.int64], place: np.int64, expected: str) -> tuple[int, object, str]:
        return int(owner[place]), int(self.after[place]), expected

    def turns(self) -> Turns:
        """Return the same as turns of the file's rows; what is named twice counts once."""
        owner = np.repeat(np.arange(len(self.counts)), self.counts)
        pairs = np.unique(np.stack([owner, self.after], axis=1), axis=0)
        counts = np.bincount(pairs[:, 0], minlength=len(self.counts))
        start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return Turns(start, pairs[:, 1].astype(np.int32), self.think_s)
