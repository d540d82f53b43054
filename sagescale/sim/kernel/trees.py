"""Winner trees over instance slots (Knuth, TAOCP 3, 5.4.1): who is next, and who is least loaded.

Reading the winner is one load, changing one entry climbs log2(slots) levels. All slots share one numbering of
nodes (``State``): the tree of events ends at the two halves, decode in node 2 and prefill in node 3; the
router's ends at the pools.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sagescale.sim.kernel.compiled import compiled, entry

DECODE_ROOT, PREFILL_ROOT = 2, 3


@entry
def event_update(slots: Any, slot: int) -> None:
    """Restore the tree of next events after ``slots[slot].event_s`` changed; ties in fleet order.

    Always up to the root, with the winner so far in registers: no branch depends on the data, and what the
    siblings hold is loaded ahead. To stop where nothing changes any more would cost a misprediction.
    """
    one = np.uintp(1)  # unsigned: an index that cannot be negative needs no test for it
    winner = np.uintp(slot)
    node = np.uintp(slots.size) + winner
    event_s = slots[winner].event_s
    first = slots[winner].id
    other = winner ^ one
    while True:
        a = slots[other].event_s
        b = slots[other].id
        loses = (a < event_s) | ((a == event_s) & (b < first))
        winner = other if loses else winner
        event_s = a if loses else event_s
        first = b if loses else first
        node >>= one
        slots[node].event_node = winner
        if node < np.uintp(4):
            break
        other = np.uintp(slots[node ^ one].event_node)


@compiled
def router_update(slots: Any, slot: int, root: int) -> None:
    """Restore a pool's router after ``slots[slot].key`` changed; ties to the lowest id."""
    one = np.uintp(1)
    top = np.uintp(root)
    winner = np.uintp(slot)
    node = np.uintp(slots.size) + winner
    key = slots[winner].key
    first = slots[winner].id
    other = winner ^ one
    while True:
        a = slots[other].key
        b = slots[other].id
        loses = (a < key) | ((a == key) & (b < first))
        winner = other if loses else winner
        key = a if loses else key
        first = b if loses else first
        node >>= one
        slots[node].router_node = winner
        if node == top:
            break
        other = np.uintp(slots[node ^ one].router_node)


@entry
def tree_build(slots: Any) -> None:
    """Fill both trees; the number of slots is a power of two, at least 4."""
    size = slots.size
    for node in range(size - 1, 1, -1):
        left = 2 * node
        right = 2 * node + 1
        event_left, event_right = left - size, right - size
        router_left, router_right = left - size, right - size
        if left < size:
            event_left, event_right = slots[left].event_node, slots[right].event_node
            router_left, router_right = slots[left].router_node, slots[right].router_node
        one, other = slots[event_left], slots[event_right]
        first = one.event_s < other.event_s or (one.event_s == other.event_s and one.id <= other.id)
        slots[node].event_node = event_left if first else event_right
        one, other = slots[router_left], slots[router_right]
        first = one.key < other.key or (one.key == other.key and one.id <= other.id)
        slots[node].router_node = router_left if first else router_right
