"""Binary heaps: the steps at which an instance's requests finish, and the hand-offs under way."""

from __future__ import annotations

from typing import Any

from sagescale.sim.kernel.compiled import compiled

__all__ = ["finish_pop", "finish_push", "handoff_pop", "handoff_push"]


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
def handoff_push(heap: Any, size: int, time_s: float, seq: int, request: int, source: int) -> None:
    """Add a hand-off to ``size`` others; those that end at one time leave in the order they began."""
    at = size
    while at > 0:
        up = (at - 1) >> 1
        if heap[up].time_s < time_s or (heap[up].time_s == time_s and heap[up].seq < seq):
            break
        heap[at] = heap[up]
        at = up
    entry = heap[at]
    entry.time_s = time_s
    entry.seq = seq
    entry.request = request
    entry.source = source


@compiled
def handoff_pop(heap: Any, size: int) -> None:
    """Remove the first of ``size`` hand-offs; the caller has read it."""
    last = size - 1
    time_s = heap[last].time_s
    seq = heap[last].seq
    request = heap[last].request
    source = heap[last].source
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
    entry = heap[at]
    entry.time_s = time_s
    entry.seq = seq
    entry.request = request
    entry.source = source
