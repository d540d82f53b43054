"""Binary heaps: the steps at which an instance's requests finish, and what is due at a time.

Those are records with ``time_s`` and ``seq``, which no two have alike: hand-offs under way, turns to come.
"""

from __future__ import annotations

from typing import Any

from sagescale.sim.kernel.compiled import compiled

__all__ = ["finish_pop", "finish_push", "timed_pop", "timed_push"]


@compiled
def finish_push(heap: Any, start: int, size: int, item: int) -> None:
    """Add a step, packed with its request, to an instance's heap of ``size`` entries."""
    at = size
    while at > 0:
        up = (at - 1) >> 1
        if heap[start + up] <= item:
            break
        heap[start + at] = heap[start + up]
        at = up
    heap[start + at] = item


@compiled
def finish_pop(heap: Any, start: int, size: int) -> None:
    """Remove the smallest of ``size`` entries; the caller has read it."""
    last = size - 1
    item = heap[start + last]
    at = 0
    down = 1
    while down < last:
        # The smaller of two without a branch: it is a matter of chance. Behind the last there is ``item``.
        down += heap[start + down + 1] < heap[start + down]
        below = heap[start + down]
        if below >= item:
            break
        heap[start + at] = below
        at = down
        down = 2 * at + 1
    heap[start + at] = item


@compiled
def timed_push(heap: Any, size: int, time_s: float, seq: int) -> int:
    """Open a place among ``size`` records for one that is due then; of one time the smallest ``seq`` leads.

    Returns:
        Where it is: the caller writes what else the record has.
    """
    at = size
    while at > 0:
        up = (at - 1) >> 1
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
    last = size - 1
    time_s = heap[last].time_s
    seq = heap[last].seq
    at = 0
    while True:
        down = 2 * at + 1
        if down >= last:
            break
        if down + 1 < last and (
            heap[down + 1].time_s < heap[down].time_s
            or (heap[down + 1].time_s == heap[down].time_s and heap[down + 1].seq < heap[down].seq)
        ):
            down += 1
        if time_s < heap[down].time_s or (time_s == heap[down].time_s and seq < heap[down].seq):
            break
        heap[at] = heap[down]
        at = down
    heap[at] = heap[last]
