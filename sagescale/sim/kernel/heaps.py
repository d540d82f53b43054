"""Binary heaps: the steps at which an instance's requests finish, and what is due at a time.

Those are records with ``time_s`` and ``seq``, which no two have alike: hand-offs under way, turns to come.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sagescale.sim.kernel.compiled import compiled, inlined

_ONE = np.uintp(1)  # unsigned: an index that cannot be negative needs no test for it


@compiled
def finish_push(heap: Any, start: int, size: int, item: int) -> None:
    """Add a step, packed with its request, to an instance's heap of ``size`` entries."""
    root = np.uintp(start)
    at = np.uintp(size)
    while at:
        up = (at - _ONE) >> _ONE
        if heap[root + up] <= item:
            break
        heap[root + at] = heap[root + up]
        at = up
    heap[root + at] = item


@compiled
def finish_pop(heap: Any, start: int, size: int) -> None:
    """Remove the smallest of ``size`` entries; the caller has read it."""
    root = np.uintp(start)
    last = np.uintp(size) - _ONE
    item = heap[root + last]
    at = np.uintp(0)
    down = _ONE
    while down < last:
        # The smaller of two without a branch: it is a matter of chance. Behind the last there is ``item``.
        down += np.uintp(heap[root + down + _ONE] < heap[root + down])
        below = heap[root + down]
        if below >= item:
            break
        heap[root + at] = below
        at = down
        down = (at << _ONE) + _ONE
    heap[root + at] = item


@inlined
def _sooner(time_s: float, seq: int, other_s: float, other_seq: int) -> bool:
    """Whether a record leads another, without a branch.

    It takes no records: numba would take those of one heap for those of the other, which have fewer fields.
    """
    return bool((time_s < other_s) | ((time_s == other_s) & (seq < other_seq)))


@compiled
def timed_push(heap: Any, size: int, time_s: float, seq: int) -> int:
    """Open a place among ``size`` records for one that is due then; of one time the smallest ``seq`` leads.

    Returns:
        Where it is: the caller writes what else the record has.
    """
    at = np.uintp(size)
    while at:
        up = (at - _ONE) >> _ONE
        if heap[up].time_s < time_s or (heap[up].time_s == time_s and heap[up].seq < seq):
            break
        heap[at] = heap[up]
        at = up
    heap[at].time_s = time_s
    heap[at].seq = seq
    return at


@compiled
def timed_pop(heap: Any, size: int) -> None:
    """Remove the first of ``size`` records; the caller has read it."""
    last = np.uintp(size) - _ONE
    at = np.uintp(0)
    down = _ONE
    while down < last:
        beside = down + _ONE  # as in ``finish_pop``
        down += np.uintp(_sooner(heap[beside].time_s, heap[beside].seq, heap[down].time_s, heap[down].seq))
        if not _sooner(heap[down].time_s, heap[down].seq, heap[last].time_s, heap[last].seq):
            break
        heap[at] = heap[down]
        at = down
        down = (at << _ONE) + _ONE
    heap[at] = heap[last]
