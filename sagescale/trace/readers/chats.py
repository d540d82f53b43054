"""Conversations of Qwen's and Mooncake's traces: each request names the one that it answers to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sagescale.trace.readers.answers import GAPS, answer_times, wait_for

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sagescale.trace.sessions import Turns


@dataclass(frozen=True, slots=True, eq=False)
class Chats:
    """Who belongs together and who waits for whom.

    Attributes:
        session_id: int64[n], a number for each conversation.
        turns: in rows of the file.
        notes: what the user should know.
    """

    session_id: NDArray[np.int64]
    turns: Turns
    notes: tuple[str, ...]


def chats_of(
    arrival_s: NDArray[np.float64],
    chat: NDArray[np.int64],
    parent: NDArray[np.int64],
    osl: NDArray[Any],
) -> Chats:
    """Link each request to the last one before it whose chat is its parent.

    A parent that is not in the file, or only later, is none: the request begins a conversation.

    Args:
        arrival_s: float64[n], in file order.
        chat: int64[n], what each is called.
        parent: int64[n], what the request before it is called; anything else, such as -1, for none.
        osl: generated tokens, [n].
    """
    n = len(chat)
    rank = np.empty(n, np.int64)
    rank[np.argsort(arrival_s, kind="stable")] = np.arange(n)
    order = np.lexsort((rank, chat))
    names, first = np.unique(chat[order], return_index=True)
    group = np.minimum(np.searchsorted(names, parent), len(names) - 1)
    there = names[group] == parent
    # Of each chat its rows by arrival, one chat after the other: the last before this one.
    key = np.searchsorted(names, chat[order]) * np.int64(n) + rank[order]
    place = np.searchsorted(key, group * np.int64(n) + rank) - 1
    before = np.where(there & (place >= first[group]), order[place], -1)
    late = int((there & (before < 0)).sum())
    gone = int((~there & (parent >= 0)).sum())
    notes = [GAPS] if (before >= 0).any() else []
    if late:
        notes.append(f"{late:,} turns come before the one they answer to: they begin a conversation")
    if gone:
        notes.append(f"{gone:,} turns answer to one that is not in the file: they begin a conversation")
    took_s = answer_times(np.full(n, np.nan), osl)
    return Chats(chat[_roots(before)], wait_for(arrival_s, before, took_s), tuple(notes))


def _roots(before: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the first request of each one's conversation, int64[n]: there are no circles."""
    root = np.where(before < 0, np.arange(len(before)), before)
    while True:
        further = root[root]
        if np.array_equal(further, root):
            return root
        root = further


def circle(chat: NDArray[np.int64], parent: NDArray[np.int64]) -> int | None:
    """Return a row whose chain of parents goes round; None where none does, or several share a name."""
    names, row_of = np.unique(chat, return_index=True)
    if len(names) < len(chat):
        return None
    group = np.minimum(np.searchsorted(names, parent), len(names) - 1)
    row = np.where(names[group] == parent, row_of[group], -1)
    at = row.copy()
    # Twice as far each time: what still has a parent after n steps goes round.
    for _ in range(len(chat).bit_length() + 1):
        on = at >= 0
        if not on.any():
            return None
        at = np.where(on, at[at], -1)
    return int(np.flatnonzero(at >= 0)[0])
