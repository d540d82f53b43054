"""The compiled event loop: DESIGN section 5, an instant at a time.

**Why no step is simulated.** Between a join and the next completion a decode instance takes k steps with
the same n running requests, each adding n tokens to the K held. While step time is linear in K,
``a + c*K``, those k steps last

    R(k) = k*(a + c*K) + c*n*k*(k-1)/2

(piecewise: one such term a segment of the profile). So an instance needs an event only where something
changes: at the next completion, or, when a request arrives that may join, at the first step boundary at
or after the arrival, found by inverting R. A request costs a handful of events however long it talks.

**What keeps it logarithmic in requests that wait.** Under FIFO an instance's queue is a list. A policy that
orders it makes it a pairing heap (Fredman, Sedgewick, Sleator & Tarjan 1986) of the requests themselves.

**What keeps it logarithmic in instances.** Routers and event queues are winner trees (Knuth, TAOCP 3,
5.4.1) over instance slots: reading the best is one load, changing one entry climbs log2(slots) levels.

``tests/sim/reference.py`` states the same rules one token at a time; the two agree bit for bit on times
that are exact in binary.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np

from sagescale.sim.compile_cache import CACHED
from sagescale.sim.state import (
    ADAPTIVE,
    DONE,
    DRAINING,
    FIFO,
    FREE,
    IN_HANDOFF,
    IN_POOL_DECODE,
    IN_POOL_PREFILL,
    IN_PREFILL,
    LOST,
    NOT_READY,
    PENDING,
    READY,
    REJECTED,
    REQUEST_BITS,
    RUNNING,
    SLO_AWARE,
    STARTING,
    TIMED_OUT,
    WAITING_DECODE,
    WAITING_PREFILL,
    State,
)

__all__ = [
    "LAUNCHED",
    "MORE_HANDOFFS",
    "REACHED",
    "advance",
    "clear_requests",
    "crash",
    "event_update",
    "kv_tokens_now",
    "make_ready",
    "next_event_s",
    "scale",
    "tree_build",
]

REACHED, MORE_HANDOFFS, LAUNCHED = 0, 1, 2
_REQUEST_MASK = (1 << REQUEST_BITS) - 1
_REBASE_STEPS = 1 << 31
_MOST_RESTARTS = (1 << 16) - 1

_compiled: Any = numba.njit(cache=CACHED, nogil=True, error_model="numpy", _nrt=False)
_inlined: Any = numba.njit(cache=CACHED, nogil=True, error_model="numpy", _nrt=False, inline="always")


# --- winner trees -------------------------------------------------------------------------------------


@_compiled
def event_update(instances: Any, slot: int) -> None:
    """Restore the tree of next events after ``instances[slot].event_s`` changed; ties to the lowest id.

    Node i > 0 of the tree is kept in ``instances[i].event_node``; the leaves are the slots themselves.
    """
    one = np.uintp(1)  # unsigned: an index that cannot be negative needs no test for it
    changed = np.uintp(slot)
    node = (np.uintp(instances.size) + changed) >> one
    left = changed & ~one
    right = changed | one
    while True:
        a = instances[left].event_s
        b = instances[right].event_s
        winner = left if a < b or (a == b and instances[left].id <= instances[right].id) else right
        if winner != changed and winner == np.uintp(instances[node].event_node):
            break  # another slot won here before and does now: nothing changes further up
        instances[node].event_node = winner
        node >>= one
        if node == np.uintp(0):
            break
        left = np.uintp(instances[node << one].event_node)
        right = np.uintp(instances[(node << one) | one].event_node)


@_compiled
def router_update(instances: Any, slot: int) -> None:
    """Restore the router's tree after ``instances[slot].key`` changed; ties to the lowest id."""
    one = np.uintp(1)  # unsigned: an index that cannot be negative needs no test for it
    changed = np.uintp(slot)
    node = (np.uintp(instances.size) + changed) >> one
    left = changed & ~one
    right = changed | one
    while True:
        a = instances[left].key
        b = instances[right].key
        winner = left if a < b or (a == b and instances[left].id <= instances[right].id) else right
        if winner != changed and winner == np.uintp(instances[node].router_node):
            break  # another slot won here before and does now: nothing changes further up
        instances[node].router_node = winner
        node >>= one
        if node == np.uintp(0):
            break
        left = np.uintp(instances[node << one].router_node)
        right = np.uintp(instances[(node << one) | one].router_node)


@_compiled
def tree_build(instances: Any) -> None:
    """Fill both trees of a pool; the number of slots is a power of two, at least 2."""
    size = instances.size
    for node in range(size - 1, 0, -1):
        left = 2 * node
        right = 2 * node + 1
        event_left, event_right = left - size, right - size
        router_left, router_right = left - size, right - size
        if left < size:
            event_left, event_right = instances[left].event_node, instances[right].event_node
            router_left, router_right = instances[left].router_node, instances[right].router_node
        one, other = instances[event_left], instances[event_right]
        first = one.event_s < other.event_s or (one.event_s == other.event_s and one.id <= other.id)
        instances[node].event_node = event_left if first else event_right
        one, other = instances[router_left], instances[router_right]
        first = one.key < other.key or (one.key == other.key and one.id <= other.id)
        instances[node].router_node = router_left if first else router_right


# --- heaps --------------------------------------------------------------------------------------------


@_compiled
def _finish_push(heap: Any, start: int, size: int, item: int) -> None:
    at = size
    while at > 0:
        up = (at - 1) >> 1
        if heap[start + up] <= item:
            break
        heap[start + at] = heap[start + up]
        at = up
    heap[start + at] = item


@_compiled
def _finish_pop(heap: Any, start: int, size: int) -> None:
    """Remove the smallest of ``size`` entries; the caller has read it."""
    last = size - 1
    item = heap[start + last]
    at = 0
    while True:
        down = 2 * at + 1
        if down >= last:
            break
        if down + 1 < last and heap[start + down + 1] < heap[start + down]:
            down += 1
        if heap[start + down] >= item:
            break
        heap[start + at] = heap[start + down]
        at = down
    heap[start + at] = item


@_compiled
def _handoff_push(heap: Any, size: int, time_s: float, seq: int, request: int, source: int) -> None:
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


@_compiled
def _handoff_pop(heap: Any, size: int) -> None:
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


# --- queues that a policy orders ----------------------------------------------------------------------


@_inlined
def _produced(s: State, request: int) -> int:
    """Tokens it had when a crash last threw it back; few were, and the record says which."""
    return int(s.produced[request]) if s.requests[request].restarts > 0 else 0


@_compiled
def _meld(s: State, one: int, other: int) -> int:
    """Make one queue of two, each known by its head (-1: empty): the head that is later goes behind."""
    if one < 0:
        return other
    if other < 0:
        return one
    a = s.places[one]
    b = s.places[other]
    if b.rank < a.rank or (
        b.rank == a.rank and (b.latest_s < a.latest_s or (b.latest_s == a.latest_s and b.joined < a.joined))
    ):
        one, other = other, one
    s.requests[other].link = s.places[one].child
    s.places[one].child = other
    return one


@_compiled
def _join(s: State, head: int, request: int) -> int:
    """Return the head of a queue that a request joins; it has been ranked."""
    g = s.progress[0]
    place = s.places[request]
    place.joined = g.joins
    place.child = -1
    g.joins += 1
    return int(_meld(s, head, request))


@_compiled
def _without_head(s: State, head: int) -> int:
    """Return who is next once the head has left: pairs from the first on, then all of them from the last."""
    behind = np.int64(s.places[head].child)
    s.places[head].child = -1
    pairs = np.int64(-1)
    while behind >= 0:
        second = np.int64(s.requests[behind].link)
        following = np.int64(-1)
        if second >= 0:
            following = np.int64(s.requests[second].link)
        winner = _meld(s, behind, second)
        s.requests[winner].link = pairs
        pairs = winner
        behind = following
    first = np.int64(-1)
    while pairs >= 0:
        following = np.int64(s.requests[pairs].link)
        first = _meld(s, first, pairs)
        pairs = following
    return int(first)


@_compiled
def _due_s(s: State, request: int, produced: int) -> float:
    """When the next token of a request is due: the first by the TTFT target, each later one an ITL on."""
    w = s.world[0]
    first_token_s = s.requests[request].first_token_s
    if np.isnan(first_token_s):
        return float(s.arrival_s[request] + w.target_ttft_s)
    return float(first_token_s + w.target_itl_s * produced)


@_inlined
def _batch_s(s: State, tokens: int, squares: float) -> float:
    """Seconds of a prefill batch of so many prompt tokens, with the sum of the prompts' squares."""
    w = s.world[0]
    top = s.prefill_s.size - 1
    alone_s = s.prefill_s[min(tokens, top)] + w.prefill_slope_s * max(0, tokens - top)
    across = float(tokens) * float(tokens) - squares
    return max(alone_s - w.quadratic_s * across, w.prefill_floor_s)


@_compiled
def _rank_for_prefill(s: State, request: int, by_slack: bool) -> None:
    """By priority, which SLO_AWARE ignores; and by slack, by the latest start in time for the next token."""
    place = s.places[request]
    place.rank = 0.0 if s.world[0].scheduling == SLO_AWARE else float(s.priority[request])
    place.latest_s = 0.0
    if by_slack:
        produced = _produced(s, request)
        size = s.prompt[request] + produced
        place.latest_s = _due_s(s, request, produced) - _batch_s(s, size, float(size) * float(size))


@_compiled
def _rank_for_decode(s: State, request: int, t: float) -> None:
    """By priority, or by when the next token is due; who can only be late with the first one goes last."""
    w = s.world[0]
    place = s.places[request]
    place.latest_s = 0.0
    if w.scheduling != SLO_AWARE:
        place.rank = float(s.priority[request])
        return
    produced = _produced(s, request)
    if not w.decode_first:
        produced += 1
    due_s = _due_s(s, request, produced)
    if due_s < t and np.isnan(s.requests[request].first_token_s):
        place.rank = np.inf
    else:
        place.rank = 0.0
        place.latest_s = due_s


# --- the closed form of decode steps ------------------------------------------------------------------


@_compiled
def steps_s(table: Any, n: int, kv: int, k: int) -> float:
    """R(k): seconds that k steps of n running requests last when they hold ``kv`` tokens at the start."""
    seconds = 0.0
    segment = 0
    held = float(kv)
    while True:
        while held >= table[n, segment].edge:
            segment += 1
        edge = table[n, segment].edge
        a = table[n, segment].base_s
        c = table[n, segment].slope_s
        if held + float(n) * (k - 1) < edge:
            return seconds + (k * (a + c * held) + c * n * (0.5 * k * (k - 1)))
        inside = int(math.ceil((edge - held) / n))
        seconds += inside * (a + c * held) + c * n * (0.5 * inside * (inside - 1))
        held += float(n) * inside
        k -= inside


@_compiled
def _step_s(table: Any, n: int, kv: int) -> float:
    """Seconds of one step."""
    segment = 0
    while kv >= table[n, segment].edge:
        segment += 1
    return float(table[n, segment].base_s + table[n, segment].slope_s * kv)


@_compiled
def _boundary(
    table: Any, n: int, kv: int, start_s: float, join_s: float, limit: int, t: float
) -> tuple[int, float]:
    """The smallest k in 1..limit whose step ends at or after t, and that end: R inverted, then compared."""
    rest = t - start_s - join_s
    segment = 0
    held = float(kv)
    done = 0
    k = 1
    while rest > 0.0:
        while held >= table[n, segment].edge:
            segment += 1
        a = table[n, segment].base_s + table[n, segment].slope_s * held
        cn = table[n, segment].slope_s * n
        b = a - 0.5 * cn
        guess = rest / a if cn == 0.0 else 2.0 * rest / (b + math.sqrt(max(b * b + 2.0 * cn * rest, 0.0)))
        inside = np.ceil((table[n, segment].edge - held) / n)  # math.ceil would make an integer of inf
        if guess <= inside:
            k = done + int(math.ceil(guess))
            break
        if done + inside >= limit:
            k = limit
            break
        count = int(inside)
        rest -= count * a + cn * (0.5 * count * (count - 1))
        held += float(n) * count
        done += count
        k = done
    k = min(max(k, 1), limit)
    end_s = start_s + (join_s + steps_s(table, n, kv, k))
    while k < limit and end_s < t:
        k += 1
        end_s = start_s + (join_s + steps_s(table, n, kv, k))
    while k > 1:
        earlier_s = start_s + (join_s + steps_s(table, n, kv, k - 1))
        if earlier_s < t:
            break
        k -= 1
        end_s = earlier_s
    return k, end_s


@_compiled
def _steps_by(s: State, slot: int, t: float) -> int:
    """Steps of a decode instance's run in progress, with requests in it, that have ended by t."""
    d = s.decode[slot]
    if d.event_s == np.inf:
        return 0
    k, end_s = _boundary(s.steps, d.running, d.kv, d.run_start_s, d.run_join_s, d.run_steps, t)
    return k if end_s <= t else k - 1


# --- small moves (inlined into the event loop) --------------------------------------------------------


@_inlined
def _touch_prefill(s: State, slot: int) -> None:
    g = s.progress[0]
    if not s.prefill[slot].dirty:
        s.prefill[slot].dirty = True
        s.prefill[g.dirty_prefill].dirty_slot = slot
        g.dirty_prefill += 1


@_inlined
def _touch_decode(s: State, slot: int) -> None:
    g = s.progress[0]
    if not s.decode[slot].dirty:
        s.decode[slot].dirty = True
        s.decode[g.dirty_decode].dirty_slot = slot
        g.dirty_decode += 1


@_inlined
def _add_prefill_load(s: State, slot: int, tokens: int) -> None:
    p = s.prefill[slot]
    p.load += tokens
    if p.status == READY and not s.world[0].round_robin:
        p.key = p.load
        router_update(s.prefill, slot)


@_inlined
def _add_decode_load(s: State, slot: int, tokens: int) -> None:
    d = s.decode[slot]
    d.load += tokens
    if d.status == READY and not s.world[0].round_robin:
        d.key = d.load
        router_update(s.decode, slot)


@_inlined
def _route_prefill(s: State, request: int) -> None:
    """Rule 2: to the READY prefill instance with the fewest prompt tokens to do, or whose turn it is."""
    g = s.progress[0]
    w = s.world[0]
    slot = s.prefill[1].router_node
    s.requests[request].link = -1
    if s.prefill[slot].key == NOT_READY:
        s.requests[request].state = IN_POOL_PREFILL
        if g.prefill_queue_tail < 0:
            g.prefill_queue_head = request
        else:
            s.requests[g.prefill_queue_tail].link = request
        g.prefill_queue_tail = request
        g.prefill_queue_len += 1
    else:
        p = s.prefill[slot]
        s.requests[request].state = WAITING_PREFILL
        s.requests[request].bound = slot
        if w.scheduling != FIFO:
            _rank_for_prefill(s, request, p.by_slack)
            p.head = _join(s, p.head, request)
        elif p.tail < 0:
            p.head = request
            p.tail = request
        else:
            s.requests[p.tail].link = request
            p.tail = request
        p.queued += 1
        if w.round_robin:
            g.prefill_turns += 1
            p.key = g.prefill_turns
            router_update(s.prefill, slot)
        _add_prefill_load(s, slot, s.prompt[request] + _produced(s, request))
        if not p.busy:
            _touch_prefill(s, slot)


@_inlined
def _start_handoff(s: State, request: int, source: int, t: float) -> None:
    """Rule 4: latency + isl * rate + decode_steps * the receiver's step in progress."""
    g = s.progress[0]
    w = s.world[0]
    duration = w.kv_latency_s + (s.isl[request] + _produced(s, request)) * w.kv_s_per_token
    if w.kv_decode_steps > 0.0:
        d = s.decode[s.requests[request].bound]
        current = 0.0
        if d.last_step_end_s == t:
            current = d.last_step_s
        elif d.status != FREE and d.running > 0 and d.event_s < np.inf and d.run_start_s < t:
            k, _ = _boundary(s.steps, d.running, d.kv, d.run_start_s, d.run_join_s, d.run_steps, t)
            current = _step_s(s.steps, d.running, d.kv + d.running * (k - 1))
            if k == 1:
                current += d.run_join_s
        duration += w.kv_decode_steps * current
    s.requests[request].state = IN_HANDOFF
    _handoff_push(s.handoff, g.handoffs, t + duration, g.handoff_seq, request, source)
    g.handoffs += 1
    g.handoff_seq += 1
    g.handoff_sum_s += duration


@_compiled
def _resume_chain(s: State, slot: int, t: float) -> None:
    """Blocking hand-off: start the next one of the batch; with none left the instance is free."""
    p = s.prefill[slot]
    while p.cursor >= 0 and not p.handing:
        request = p.cursor
        if s.requests[request].state == TIMED_OUT:
            p.cursor = s.requests[request].chain
        elif s.requests[request].state == IN_POOL_DECODE:
            break
        else:
            p.handing = True
            _start_handoff(s, request, slot, t)
    if p.cursor < 0 and not p.handing:
        p.busy = False
        _touch_prefill(s, slot)


@_compiled
def _resume_chain_at(s: State, request: int, t: float) -> None:
    """Blocking hand-off: this request no longer waits for a decode instance; was it its turn?"""
    if s.world[0].blocks_prefill:
        for slot in range(s.prefill.size):
            p = s.prefill[slot]
            if p.busy and p.cursor == request and not p.handing:
                _resume_chain(s, slot, t)


@_compiled
def _leave(s: State, request: int) -> None:
    """Rule 11: the request has waited too long; whoever held it has let it go."""
    s.requests[request].state = TIMED_OUT
    s.progress[0].timed_out += 1


@_inlined
def _expired(s: State, request: int, t: float) -> bool:
    w = s.world[0]
    # NaN compares unequal to itself: no first token yet.
    return (
        s.arrival_s[request] + w.request_timeout_s <= t
        and s.requests[request].first_token_s != s.requests[request].first_token_s
    )


@_inlined
def _bind_decode(s: State, request: int, t: float) -> None:
    """Rule 2: to the READY decode instance with the fewest reserved KV tokens, or whose turn it is.

    Without one it waits in the pool's queue.
    """
    g = s.progress[0]
    w = s.world[0]
    slot = s.decode[1].router_node
    if s.decode[slot].key == NOT_READY:
        if _expired(s, request, t):
            _leave(s, request)
        else:
            s.requests[request].state = IN_POOL_DECODE
            s.requests[request].link = -1
            if g.decode_queue_tail < 0:
                g.decode_queue_head = request
            else:
                s.requests[g.decode_queue_tail].link = request
            g.decode_queue_tail = request
            g.decode_queue_len += 1
    else:
        s.requests[request].bound = slot
        s.requests[request].state = IN_HANDOFF
        if w.round_robin:
            g.decode_turns += 1
            s.decode[slot].key = g.decode_turns
            router_update(s.decode, slot)
        _add_decode_load(s, slot, np.int64(s.isl[request]) + s.osl[request])
        if not w.blocks_prefill:
            _start_handoff(s, request, -1, t)


@_inlined
def _first_token(s: State, request: int, t: float) -> None:
    g = s.progress[0]
    s.requests[request].first_token_s = t
    g.first_tokens += 1
    ttft_s = t - s.arrival_s[request]
    g.ttft_sum_s += ttft_s
    g.ttft_met += ttft_s <= s.world[0].target_ttft_s


@_inlined
def _complete(s: State, request: int, t: float) -> None:
    g = s.progress[0]
    s.requests[request].done_s = t
    s.requests[request].state = DONE
    s.completed[g.completed] = request
    g.completed += 1
    g.osl_sum += s.osl[request]
    g.duration_sum_s += t - s.arrival_s[request]
    g.last_done_s = t
    if s.osl[request] > 1:
        itl_s = (t - s.requests[request].first_token_s) / (s.osl[request] - 1)
        g.itl_sum_s += itl_s
        g.itl_count += 1
        g.itl_met += itl_s <= s.world[0].target_itl_s


@_inlined
def _drop_decode_head(s: State, slot: int) -> None:
    d = s.decode[slot]
    if s.world[0].scheduling != FIFO:
        d.head = _without_head(s, d.head)
    else:
        d.head = s.requests[d.head].link
        if d.head < 0:
            d.tail = -1


@_inlined
def _head_fits(s: State, slot: int) -> bool:
    """Rule 5: may the queue's head join at the next boundary? Dead heads are dropped on the way."""
    w = s.world[0]
    d = s.decode[slot]
    while d.head >= 0 and s.requests[d.head].state == TIMED_OUT:
        _drop_decode_head(s, slot)
    fits = False
    if d.head >= 0 and d.running < w.max_num_seqs:
        need = np.int64(s.isl[d.head]) + s.osl[d.head]
        fits = d.reserved + need <= w.max_kv_tokens
    return fits


@_inlined
def _queue_changed(s: State, slot: int, t: float) -> None:
    """A decode queue has a new head: if it fits, the run in progress ends at the next step boundary."""
    d = s.decode[slot]
    if d.running == 0 or d.event_s == np.inf:
        _touch_decode(s, slot)
    elif d.run_steps > 1 and _head_fits(s, slot):
        k, end_s = _boundary(s.steps, d.running, d.kv, d.run_start_s, d.run_join_s, d.run_steps, t)
        if k < d.run_steps:
            d.run_steps = k
            d.event_s = end_s
            event_update(s.decode, slot)


@_inlined
def _finish_run(s: State, slot: int, t: float) -> None:
    """Decode steps end: account for the run's tokens and complete what is complete.

    The caller restores the tree of events, which is stale until then.
    """
    w = s.world[0]
    d = s.decode[slot]
    k = d.run_steps
    if w.kv_decode_steps > 0.0:
        d.last_step_s = _step_s(s.steps, d.running, d.kv + d.running * (k - 1))
        if k == 1:
            d.last_step_s += d.run_join_s
        d.last_step_end_s = t
    d.steps += k
    d.kv += d.running * k
    d.run_steps = 0
    d.event_s = np.inf
    request = d.joined
    while request >= 0:
        _first_token(s, request, t)
        request = s.requests[request].link
    d.joined = -1
    start = slot * w.max_num_seqs
    freed = np.int64(0)
    while d.running > 0 and (s.finish[start] >> REQUEST_BITS) == d.steps:
        request = s.finish[start] & _REQUEST_MASK
        _finish_pop(s.finish, start, d.running)
        d.running -= 1
        need = np.int64(s.isl[request]) + s.osl[request]
        freed += need
        d.kv -= need - 1
        _complete(s, request, t)
    if freed > 0:
        d.reserved -= freed
        _add_decode_load(s, slot, -freed)
    if d.running == 0:
        d.steps = 0


@_inlined
def _finish_batch(s: State, slot: int, t: float) -> None:
    """Prefill batches end: first tokens, then each request is bound and its hand-off starts."""
    g = s.progress[0]
    w = s.world[0]
    p = s.prefill[slot]
    p.event_s = np.inf
    event_update(s.prefill, slot)
    _add_prefill_load(s, slot, -p.batch_tokens)
    request = p.batch
    last = np.int64(-1)
    p.batch = -1
    p.cursor = -1
    while request >= 0:
        following = s.requests[request].link
        g.in_service -= 1
        produced = _produced(s, request)
        if not w.decode_first and produced == 0:
            _first_token(s, request, t)
        if s.osl[request] - produced == 1 and not w.decode_first:
            _complete(s, request, t)
        else:
            _bind_decode(s, request, t)
            if w.blocks_prefill and s.requests[request].state != TIMED_OUT:
                s.requests[request].chain = -1
                if last < 0:
                    p.cursor = request
                else:
                    s.requests[last].chain = request
                last = request
        request = following
    if w.blocks_prefill:
        _resume_chain(s, slot, t)
    else:
        p.busy = False
        _touch_prefill(s, slot)


@_inlined
def _deliver(s: State, t: float) -> None:
    """Hand-offs end: the request waits at its decode instance for the next step boundary."""
    g = s.progress[0]
    w = s.world[0]
    request = s.handoff[0].request
    source = s.handoff[0].source
    _handoff_pop(s.handoff, g.handoffs)
    g.handoffs -= 1
    slot = s.requests[request].bound
    d = s.decode[slot]
    if w.decode_first and _expired(s, request, t):
        _leave(s, request)
        _add_decode_load(s, slot, -(np.int64(s.isl[request]) + s.osl[request]))
        _touch_decode(s, slot)
    else:
        s.requests[request].state = WAITING_DECODE
        s.requests[request].link = -1
        if w.scheduling != FIFO:
            _rank_for_decode(s, np.int64(request), t)
            d.head = _join(s, d.head, np.int64(request))
        elif d.tail < 0:
            d.head = request
            d.tail = request
        else:
            s.requests[d.tail].link = request
            d.tail = request
        d.queued += 1
        _queue_changed(s, slot, t)
    if source >= 0:
        p = s.prefill[source]
        p.handing = False
        p.cursor = s.requests[request].chain
        _resume_chain(s, source, t)


@_compiled
def _become_ready(s: State, t: float) -> None:
    """Instances become READY, then the pools' own queues are handed out."""
    g = s.progress[0]
    for i in range(g.becoming_prefill):
        slot = s.prefill[i].becoming_slot
        p = s.prefill[slot]
        p.status = READY
        p.key = p.load
        s.life[p.life].ready_s = t
        router_update(s.prefill, slot)
    g.becoming_prefill = 0
    for i in range(g.becoming_decode):
        slot = s.decode[i].becoming_slot
        d = s.decode[slot]
        d.status = READY
        d.key = d.load
        s.life[d.life].ready_s = t
        router_update(s.decode, slot)
    g.becoming_decode = 0
    if g.prefill_queue_head >= 0 and s.prefill[s.prefill[1].router_node].key != NOT_READY:
        request = g.prefill_queue_head
        g.prefill_queue_head = -1
        g.prefill_queue_tail = -1
        g.prefill_queue_len = 0
        while request >= 0:
            following = s.requests[request].link
            if s.requests[request].state == IN_POOL_PREFILL:
                _route_prefill(s, request)
            request = following
    if g.decode_queue_head >= 0 and s.decode[s.decode[1].router_node].key != NOT_READY:
        request = g.decode_queue_head
        g.decode_queue_head = -1
        g.decode_queue_tail = -1
        g.decode_queue_len = 0
        while request >= 0:
            following = s.requests[request].link
            if s.requests[request].state == IN_POOL_DECODE:
                _bind_decode(s, request, t)
                _resume_chain_at(s, request, t)
            request = following


@_inlined
def _arrive(s: State, request: int) -> None:
    g = s.progress[0]
    g.next_arrival += 1
    g.isl_sum += s.isl[request]
    g.cached_sum += s.isl[request] - s.prompt[request]
    if np.int64(s.isl[request]) + s.osl[request] > s.world[0].max_kv_tokens:
        s.requests[request].state = REJECTED
        g.rejected += 1
    else:
        _route_prefill(s, request)


@_compiled
def _deadline_passes(s: State, request: int, t: float) -> None:
    """Rule 11: a request without its first token leaves the queue it waits in."""
    g = s.progress[0]
    g.next_deadline += 1
    state = s.requests[request].state
    slot = s.requests[request].bound
    if s.requests[request].first_token_s != s.requests[request].first_token_s:
        if state == IN_POOL_PREFILL:
            g.prefill_queue_len -= 1
            _leave(s, request)
        elif state == WAITING_PREFILL:
            s.prefill[slot].queued -= 1
            _leave(s, request)
            _add_prefill_load(s, slot, -np.int64(s.prompt[request]))  # it has produced nothing
            _touch_prefill(s, slot)
        elif state == IN_POOL_DECODE:
            g.decode_queue_len -= 1
            _leave(s, request)
            _resume_chain_at(s, request, t)
        elif state == WAITING_DECODE:
            s.decode[slot].queued -= 1
            _leave(s, request)
            _add_decode_load(s, slot, -(np.int64(s.isl[request]) + s.osl[request]))
            _queue_changed(s, slot, t)
            _touch_decode(s, slot)


@_inlined
def _begin_batch(s: State, slot: int, t: float, tokens: int, seconds: float) -> None:
    p = s.prefill[slot]
    p.batch_tokens = tokens
    p.busy = True
    p.event_s = t + (seconds + p.cold_s)
    if p.cold_s > 0.0:
        s.life[p.life].cold_s = p.cold_s
        p.cold_s = 0.0
    event_update(s.prefill, slot)


@_inlined
def _form_batch(s: State, slot: int, t: float) -> None:
    """Rule 3: FCFS while the prompts' tokens sum to at most max_batch_tokens, always at least one."""
    g = s.progress[0]
    w = s.world[0]
    p = s.prefill[slot]
    tokens = np.int64(0)
    squares = 0.0
    last = np.int64(-1)
    while p.head >= 0:
        request = p.head
        if s.requests[request].state == WAITING_PREFILL:
            size = s.prompt[request] + _produced(s, request)
            if last >= 0 and tokens + size > w.max_batch_tokens:
                break
            tokens += size
            squares += float(size) * float(size)
            s.requests[request].state = IN_PREFILL
            if last < 0:
                p.batch = request
            else:
                s.requests[last].link = request
            last = request
            p.queued -= 1
            g.in_service += 1
        p.head = s.requests[request].link
        if p.head < 0:
            p.tail = -1
    if last >= 0:
        s.requests[last].link = -1
        _begin_batch(s, slot, t, tokens, _batch_s(s, tokens, squares))


@_compiled
def _reorder(s: State, slot: int, by_slack: bool) -> None:
    """Order a prefill queue another way; who joined first stays as it is."""
    p = s.prefill[slot]
    rest = np.int64(p.head)
    head = np.int64(-1)
    while rest >= 0:
        request = rest
        rest = _without_head(s, request)
        if s.requests[request].state == WAITING_PREFILL:
            _rank_for_prefill(s, request, by_slack)
            head = _meld(s, head, request)
    p.head = head
    p.by_slack = by_slack


@_compiled
def _first_in_order(s: State, slot: int, t: float) -> int:
    """Return the head of a prefill queue at t; by slack, those that can only be late go behind all others."""
    p = s.prefill[slot]
    while p.head >= 0:
        request = np.int64(p.head)
        waits = s.requests[request].state == WAITING_PREFILL
        place = s.places[request]
        late = (
            p.by_slack
            and place.latest_s < t
            and place.rank < np.inf
            and np.isnan(s.requests[request].first_token_s)
        )
        if waits and not late:
            break
        p.head = _without_head(s, request)
        if waits:
            place.latest_s = place.rank  # among themselves by priority still
            place.rank = np.inf
            p.head = _meld(s, p.head, request)
    return int(p.head)


@_compiled
def _form_batch_in_order(s: State, slot: int, t: float) -> None:
    """Rule 3 with a queue that a policy orders; by slack, no prompt joins that would make another late."""
    g = s.progress[0]
    w = s.world[0]
    p = s.prefill[slot]
    if w.scheduling == ADAPTIVE:
        by_slack = p.load > w.max_batch_tokens  # nothing is in service: all of it waits
        if by_slack != p.by_slack:
            _reorder(s, slot, by_slack)
    tokens = np.int64(0)
    squares = 0.0
    seconds = 0.0
    due_s = np.inf
    last = np.int64(-1)
    while True:
        request = _first_in_order(s, slot, t)
        if request < 0:
            break
        size = s.prompt[request] + _produced(s, request)
        with_it_s = _batch_s(s, tokens + size, squares + float(size) * float(size))
        due_with_it_s = due_s
        if p.by_slack and s.places[request].rank < np.inf and np.isnan(s.requests[request].first_token_s):
            due_with_it_s = min(due_s, _due_s(s, request, 0))
        if last >= 0 and (tokens + size > w.max_batch_tokens or t + with_it_s > due_with_it_s):
            break
        tokens += size
        squares += float(size) * float(size)
        seconds = with_it_s
        due_s = due_with_it_s
        s.requests[request].state = IN_PREFILL
        p.head = _without_head(s, request)
        s.requests[request].link = -1
        if last < 0:
            p.batch = request
        else:
            s.requests[last].link = request
        last = request
        p.queued -= 1
        g.in_service += 1
    if last >= 0:
        _begin_batch(s, slot, t, tokens, seconds)


@_inlined
def _form_step(s: State, slot: int, t: float) -> None:
    """Rule 5: admit FCFS at the boundary, then run to the next completion."""
    w = s.world[0]
    d = s.decode[slot]
    start = slot * w.max_num_seqs
    joined_isl = np.int64(0)
    if d.steps >= _REBASE_STEPS:  # keep (step << 30 | request) inside 64 bits on an instance never idle
        for i in range(d.running):
            s.finish[start + i] -= d.steps << REQUEST_BITS
        d.steps = 0
    while _head_fits(s, slot):
        request = d.head
        _drop_decode_head(s, slot)
        d.queued -= 1
        s.requests[request].state = RUNNING
        produced = _produced(s, request)
        held = s.isl[request] + produced  # what was prefilled
        joined_isl += held
        d.reserved += np.int64(s.isl[request]) + s.osl[request]
        # A request that has produced j tokens holds isl + j - 1; prefill makes one of them, or none.
        last_step = d.steps + s.osl[request] - produced
        if w.decode_first:
            d.kv += held - 1
            if produced == 0:
                s.requests[request].link = d.joined
                d.joined = request
        else:
            last_step -= 1
            d.kv += held
        _finish_push(s.finish, start, d.running, (last_step << REQUEST_BITS) | request)
        d.running += 1
    if d.running > 0:
        d.run_start_s = t
        d.run_join_s = w.join_s_per_token * joined_isl + d.cold_s
        if d.cold_s > 0.0:
            s.life[d.life].cold_s = d.cold_s
            d.cold_s = 0.0
        d.run_steps = 1 if d.joined >= 0 else (s.finish[start] >> REQUEST_BITS) - d.steps
        d.event_s = t + (d.run_join_s + steps_s(s.steps, d.running, d.kv, d.run_steps))


# --- lifecycle ----------------------------------------------------------------------------------------


@_compiled
def _stop_prefill(s: State, slot: int, t: float) -> None:
    g = s.progress[0]
    p = s.prefill[slot]
    s.life[p.life].stop_s = t
    p.status = FREE
    p.event_s = np.inf
    p.key = NOT_READY
    event_update(s.prefill, slot)
    router_update(s.prefill, slot)
    s.prefill[g.prefill_free].free_slot = slot
    g.prefill_free += 1
    g.gpus_used -= s.world[0].prefill_gpus


@_compiled
def _stop_decode(s: State, slot: int, t: float) -> None:
    g = s.progress[0]
    d = s.decode[slot]
    s.life[d.life].stop_s = t
    d.status = FREE
    d.event_s = np.inf
    d.key = NOT_READY
    event_update(s.decode, slot)
    router_update(s.decode, slot)
    s.decode[g.decode_free].free_slot = slot
    g.decode_free += 1
    g.gpus_used -= s.world[0].decode_gpus


@_compiled
def _launch_prefill(s: State, t: float) -> None:
    """Begin a launch that waited; the caller has made sure that its GPUs are free."""
    g = s.progress[0]
    w = s.world[0]
    g.prefill_waiting -= 1
    g.prefill_free -= 1
    slot = s.prefill[g.prefill_free].free_slot
    p = s.prefill[slot]
    p.status = STARTING
    p.id = g.prefill_ids
    p.load = 0
    p.head = -1
    p.tail = -1
    p.queued = 0
    p.batch = -1
    p.cursor = -1
    p.busy = False
    p.handing = False
    p.by_slack = w.scheduling == SLO_AWARE
    p.cold_s = 0.0
    p.event_s = t + s.startup_s[g.startups]
    g.startups += 1
    g.prefill_ids += 1
    g.gpus_used += w.prefill_gpus
    p.life = g.lives
    g.lives += 1
    s.life[p.life].prefill = True
    s.life[p.life].id = p.id
    s.life[p.life].launch_s = t
    event_update(s.prefill, slot)
    router_update(s.prefill, slot)


@_compiled
def _launch_decode(s: State, t: float) -> None:
    """Begin a launch that waited; the caller has made sure that its GPUs are free."""
    g = s.progress[0]
    w = s.world[0]
    g.decode_waiting -= 1
    g.decode_free -= 1
    slot = s.decode[g.decode_free].free_slot
    d = s.decode[slot]
    d.status = STARTING
    d.id = g.decode_ids
    d.load = 0
    d.head = -1
    d.tail = -1
    d.queued = 0
    d.running = 0
    d.kv = 0
    d.reserved = 0
    d.steps = 0
    d.run_steps = 0
    d.joined = -1
    d.last_step_end_s = -1.0
    d.cold_s = 0.0
    d.event_s = t + s.startup_s[g.startups]
    g.startups += 1
    g.decode_ids += 1
    g.gpus_used += w.decode_gpus
    d.life = g.lives
    g.lives += 1
    s.life[d.life].prefill = False
    s.life[d.life].id = d.id
    s.life[d.life].launch_s = t
    event_update(s.decode, slot)
    router_update(s.decode, slot)


@_compiled
def _asked(instances: Any, waiting: int) -> int:
    """The size a pool is to have: STARTING, READY, and launches that wait."""
    asked = waiting
    for slot in range(instances.size):
        if instances[slot].status == STARTING or instances[slot].status == READY:
            asked += 1
    return asked


@_compiled
def _launch_waiting(s: State, t: float) -> None:
    """Rule 6: a launch that does not fit the budget waits, and starts the instant GPUs are free.

    Where both pools wait, the one that misses the larger share of its size comes first, decode on a tie
    (``planner.constraints.launches``, which says it for the planner and the live mover).
    """
    g = s.progress[0]
    w = s.world[0]
    free = w.max_gpus - g.gpus_used
    prefill = decode = 0
    prefill_size = decode_size = 0
    if g.prefill_waiting > 0 and g.decode_waiting > 0:
        prefill_size = _asked(s.prefill, g.prefill_waiting)
        decode_size = _asked(s.decode, g.decode_waiting)
    while True:
        prefill_left = g.prefill_waiting - prefill
        decode_left = g.decode_waiting - decode
        more_prefill = prefill_left > 0 and w.prefill_gpus <= free
        more_decode = decode_left > 0 and w.decode_gpus <= free
        # prefill_left / prefill_size > decode_left / decode_size, exact in integers.
        if more_prefill and (not more_decode or prefill_left * decode_size > decode_left * prefill_size):
            prefill += 1
            free -= w.prefill_gpus
        elif more_decode:
            decode += 1
            free -= w.decode_gpus
        else:
            break
    for _ in range(prefill):
        _launch_prefill(s, t)
    for _ in range(decode):
        _launch_decode(s, t)
    g.max_gpus_used = max(g.max_gpus_used, g.gpus_used)


@_compiled
def _shrink_prefill(s: State, surplus: int, t: float) -> None:
    g = s.progress[0]
    withdrawn = min(surplus, g.prefill_waiting)
    g.prefill_waiting -= withdrawn
    surplus -= withdrawn
    while surplus > 0:
        newest = -1
        for slot in range(s.prefill.size):
            if s.prefill[slot].status == STARTING and (
                newest < 0 or s.prefill[slot].id > s.prefill[newest].id
            ):
                newest = slot
        if newest < 0:
            break
        _stop_prefill(s, newest, t)
        surplus -= 1
    while surplus > 0:
        least = -1
        for slot in range(s.prefill.size):
            if s.prefill[slot].status == READY and (
                least < 0
                or s.prefill[slot].load < s.prefill[least].load
                or (
                    s.prefill[slot].load == s.prefill[least].load and s.prefill[slot].id > s.prefill[least].id
                )
            ):
                least = slot
        if least < 0:
            break
        p = s.prefill[least]
        p.status = DRAINING
        p.key = NOT_READY
        router_update(s.prefill, least)
        s.life[p.life].drain_s = t
        if not p.busy and p.queued == 0:
            _stop_prefill(s, least, t)
        surplus -= 1


@_compiled
def _shrink_decode(s: State, surplus: int, t: float) -> None:
    g = s.progress[0]
    withdrawn = min(surplus, g.decode_waiting)
    g.decode_waiting -= withdrawn
    surplus -= withdrawn
    while surplus > 0:
        newest = -1
        for slot in range(s.decode.size):
            if s.decode[slot].status == STARTING and (newest < 0 or s.decode[slot].id > s.decode[newest].id):
                newest = slot
        if newest < 0:
            break
        _stop_decode(s, newest, t)
        surplus -= 1
    while surplus > 0:
        least = -1
        for slot in range(s.decode.size):
            if s.decode[slot].status == READY and (
                least < 0
                or s.decode[slot].load < s.decode[least].load
                or (s.decode[slot].load == s.decode[least].load and s.decode[slot].id > s.decode[least].id)
            ):
                least = slot
        if least < 0:
            break
        d = s.decode[least]
        d.status = DRAINING
        d.key = NOT_READY
        router_update(s.decode, least)
        s.life[d.life].drain_s = t
        if d.load == 0:
            _stop_decode(s, least, t)
        surplus -= 1


@_compiled
def scale(s: State, prefill_target: int, decode_target: int, t: float) -> None:
    """Apply a decision at t. Targets count STARTING + READY + launches that wait; shrink before grow.

    The caller has made room: free slots, startup delays and lifetimes for every launch this can cause.
    """
    g = s.progress[0]
    prefill = _asked(s.prefill, g.prefill_waiting)
    decode = _asked(s.decode, g.decode_waiting)
    if prefill > prefill_target:
        _shrink_prefill(s, prefill - prefill_target, t)
    if decode > decode_target:
        _shrink_decode(s, decode - decode_target, t)
    g.prefill_waiting += max(0, prefill_target - prefill)
    g.decode_waiting += max(0, decode_target - decode)
    _launch_waiting(s, t)


@_compiled
def make_ready(s: State, t: float) -> None:
    """Make every STARTING instance READY now: how the initial ones begin."""
    for slot in range(s.prefill.size):
        p = s.prefill[slot]
        if p.status == STARTING:
            p.status = READY
            p.event_s = np.inf
            p.key = p.load
            s.life[p.life].ready_s = t
            event_update(s.prefill, slot)
            router_update(s.prefill, slot)
    for slot in range(s.decode.size):
        d = s.decode[slot]
        if d.status == STARTING:
            d.status = READY
            d.event_s = np.inf
            d.key = d.load
            s.life[d.life].ready_s = t
            event_update(s.decode, slot)
            router_update(s.decode, slot)


@_compiled
def clear_requests(requests: Any) -> None:
    """Write every record once, as before anything has happened."""
    for i in range(requests.size):
        r = requests[i]
        r.first_token_s = np.nan
        r.done_s = np.nan
        r.link = -1
        r.chain = -1
        r.bound = -1
        r.state = PENDING
        r.restarts = 0


# --- crashes ------------------------------------------------------------------------------------------


@_compiled
def _lose_prefill(s: State, slot: int) -> None:
    """Mark what a crashed prefill instance held: queue, batch and, where they hold it, its hand-offs."""
    g = s.progress[0]
    w = s.world[0]
    p = s.prefill[slot]
    for request in range(g.oldest, g.next_arrival):
        if s.requests[request].bound == slot:
            if s.requests[request].state == IN_PREFILL:
                g.in_service -= 1
                s.requests[request].state = LOST
            elif s.requests[request].state == WAITING_PREFILL:
                s.requests[request].state = LOST
    request = p.cursor
    while request >= 0:
        if s.requests[request].state != TIMED_OUT:
            if s.requests[request].state == IN_POOL_DECODE:
                g.decode_queue_len -= 1
            else:
                bound = s.requests[request].bound
                _add_decode_load(s, bound, -(np.int64(s.isl[request]) + s.osl[request]))
                _touch_decode(s, bound)
            if not w.decode_first:
                s.produced[request] += 1
            s.requests[request].state = LOST
        request = s.requests[request].chain
    request = g.decode_queue_head
    g.decode_queue_head = -1
    g.decode_queue_tail = -1
    while request >= 0:
        following = s.requests[request].link
        if s.requests[request].state != LOST:
            s.requests[request].link = -1
            if g.decode_queue_tail < 0:
                g.decode_queue_head = request
            else:
                s.requests[g.decode_queue_tail].link = request
            g.decode_queue_tail = request
        request = following
    p.queued = 0


@_compiled
def _lose_decode(s: State, slot: int, t: float) -> None:
    """Mark everything bound to a crashed decode instance, with the tokens each has produced."""
    g = s.progress[0]
    w = s.world[0]
    d = s.decode[slot]
    start = slot * w.max_num_seqs
    steps = d.steps + (_steps_by(s, slot, t) if d.running > 0 else 0)
    for i in range(d.running):
        request = s.finish[start + i] & _REQUEST_MASK
        left = (s.finish[start + i] >> REQUEST_BITS) - steps
        s.produced[request] = s.osl[request] - left
        s.requests[request].state = LOST
    for request in range(g.oldest, g.next_arrival):
        if s.requests[request].bound == slot and (
            s.requests[request].state == IN_HANDOFF or s.requests[request].state == WAITING_DECODE
        ):
            if not w.decode_first:
                s.produced[request] += 1  # by the prefill it comes from
            s.requests[request].state = LOST
    d.queued = 0
    d.running = 0
    d.kv = 0


@_compiled
def _cut_handoffs(s: State, t: float) -> None:
    """Take what is lost out of the hand-offs: those under way, and those that wait for their turn."""
    g = s.progress[0]
    kept = 0
    for i in range(g.handoffs):
        entry = s.handoff[i]
        if s.requests[entry.request].state != LOST:
            _handoff_push(s.handoff, kept, entry.time_s, entry.seq, entry.request, entry.source)  # kept <= i
            kept += 1
        elif entry.source >= 0:
            s.prefill[entry.source].handing = False
    g.handoffs = kept
    if not s.world[0].blocks_prefill:
        return
    for slot in range(s.prefill.size):
        p = s.prefill[slot]
        while p.cursor >= 0 and s.requests[p.cursor].state == LOST:
            p.cursor = s.requests[p.cursor].chain
        request = p.cursor
        while request >= 0:
            following = s.requests[request].chain
            while following >= 0 and s.requests[following].state == LOST:
                following = s.requests[following].chain
            s.requests[request].chain = following
            request = following
    while True:  # instances whose turn was cut go on, lowest id first
        first = -1
        for slot in range(s.prefill.size):
            p = s.prefill[slot]
            if (
                p.status != FREE
                and p.busy
                and p.batch < 0
                and not p.handing
                and (p.cursor < 0 or s.requests[p.cursor].state != IN_POOL_DECODE)
                and (first < 0 or p.id < s.prefill[first].id)
            ):
                first = slot
        if first < 0:
            break
        _resume_chain(s, first, t)


@_compiled
def crash(s: State, in_prefill: bool, slot: int, t: float) -> None:
    """Rule 12: an instance is gone, and its requests are routed again as prefills of isl + tokens produced.

    In order of arrival. Unless it was DRAINING another launch replaces it. The caller has made room for that
    and for the hand-offs of an instant; ``advance`` to t goes on with what is idle now.
    """
    g = s.progress[0]
    while g.oldest < g.next_arrival and s.requests[g.oldest].state >= DONE:
        g.oldest += 1
    if in_prefill:
        if s.prefill[slot].status != DRAINING:
            g.prefill_waiting += 1
        _lose_prefill(s, slot)
        _stop_prefill(s, slot, t)
    else:
        if s.decode[slot].status != DRAINING:
            g.decode_waiting += 1
        _lose_decode(s, slot, t)
        _stop_decode(s, slot, t)
    _cut_handoffs(s, t)
    for request in range(g.oldest, g.next_arrival):
        if s.requests[request].state == LOST:
            if _expired(s, request, t):
                _leave(s, request)
            else:
                if s.requests[request].restarts < _MOST_RESTARTS:
                    s.requests[request].restarts += 1
                g.restarts += 1
                _route_prefill(s, request)
    _launch_waiting(s, t)


# --- the event loop -----------------------------------------------------------------------------------


@_inlined
def _only_steps_end(s: State, t: float) -> bool:
    """Whether nothing but ends of decode steps, and decode instances becoming READY, happens at t."""
    g = s.progress[0]
    return (
        t < s.prefill[s.prefill[1].event_node].event_s
        and (g.handoffs == 0 or t < s.handoff[0].time_s)
        and (g.next_arrival == s.requests.size or t < s.arrival_s[g.next_arrival])
        and s.world[0].request_timeout_s == np.inf
    )


@_compiled
def next_event_s(s: State) -> float:
    """When something happens next, apart from ticks; inf when nothing can."""
    g = s.progress[0]
    w = s.world[0]
    if g.dirty_prefill + g.dirty_decode > 0:  # a crash left something idle at this instant
        return float(g.now_s)
    t = min(s.decode[s.decode[1].event_node].event_s, s.prefill[s.prefill[1].event_node].event_s)
    if g.handoffs > 0:
        t = min(t, s.handoff[0].time_s)
    if g.next_arrival < s.requests.size:
        t = min(t, s.arrival_s[g.next_arrival])
    if w.request_timeout_s < np.inf:
        while g.next_deadline < g.next_arrival and (
            s.requests[g.next_deadline].first_token_s == s.requests[g.next_deadline].first_token_s
            or s.requests[g.next_deadline].state >= DONE
        ):
            g.next_deadline += 1
        if g.next_deadline < g.next_arrival:
            # Never earlier than now: the deadline of a request in service may have passed unheeded.
            t = min(t, max(s.arrival_s[g.next_deadline] + w.request_timeout_s, g.now_s))
    return t


@_compiled
def advance(s: State, until_s: float) -> int:
    """Process every instant up to and including ``until_s``, in the order of DESIGN 5.9.

    Returns:
        REACHED, or MORE_HANDOFFS when the hand-off heap must grow first, or LAUNCHED after an instant that
        launched something where launches are watched: nothing is half done, call again.
    """
    g = s.progress[0]
    w = s.world[0]
    total = s.requests.size
    while True:
        t = next_event_s(s)
        if t > until_s or t == np.inf:
            g.now_s = max(g.now_s, min(until_s, t))
            return REACHED
        if g.handoffs + g.in_service + g.decode_queue_len + s.prefill.size > s.handoff.size:
            return MORE_HANDOFFS
        g.now_s = t

        slot = s.decode[1].event_node
        stopped = False
        if s.decode[slot].event_s == t and s.decode[slot].status != STARTING and _only_steps_end(s, t):
            # Half of all instants: instances reach a step boundary and nothing else happens.
            while s.decode[slot].event_s == t and s.decode[slot].status != STARTING:
                _finish_run(s, slot, t)
                _form_step(s, slot, t)
                event_update(s.decode, slot)
                if s.decode[slot].status == DRAINING and s.decode[slot].load == 0:
                    _stop_decode(s, slot, t)
                    stopped = True
                slot = s.decode[1].event_node
            if stopped:
                lives = g.lives
                _launch_waiting(s, t)
                if w.watch_launches and g.lives > lives:
                    return LAUNCHED
            continue

        while s.decode[slot].event_s == t:
            if s.decode[slot].status == STARTING:
                s.decode[slot].event_s = np.inf
                event_update(s.decode, slot)
                s.decode[g.becoming_decode].becoming_slot = slot
                g.becoming_decode += 1
            else:
                _finish_run(s, slot, t)
                event_update(s.decode, slot)
                _touch_decode(s, slot)
            slot = s.decode[1].event_node

        slot = s.prefill[1].event_node
        while s.prefill[slot].event_s == t:
            if s.prefill[slot].status == STARTING:
                s.prefill[slot].event_s = np.inf
                event_update(s.prefill, slot)
                s.prefill[g.becoming_prefill].becoming_slot = slot
                g.becoming_prefill += 1
            else:
                _finish_batch(s, slot, t)
            slot = s.prefill[1].event_node

        while g.handoffs > 0 and s.handoff[0].time_s == t:
            _deliver(s, t)

        if g.becoming_prefill + g.becoming_decode > 0:
            _become_ready(s, t)

        while g.next_arrival < total and s.arrival_s[g.next_arrival] == t:
            _arrive(s, g.next_arrival)

        if w.request_timeout_s < np.inf:
            while (
                g.next_deadline < g.next_arrival and s.arrival_s[g.next_deadline] + w.request_timeout_s <= t
            ):
                _deadline_passes(s, g.next_deadline, t)

        for i in range(g.dirty_prefill):
            slot = s.prefill[i].dirty_slot
            s.prefill[slot].dirty = False
            if not s.prefill[slot].busy and s.prefill[slot].status != FREE:
                if w.scheduling != FIFO:
                    _form_batch_in_order(s, slot, t)
                else:
                    _form_batch(s, slot, t)
                if s.prefill[slot].status == DRAINING and not s.prefill[slot].busy:
                    _stop_prefill(s, slot, t)
                    stopped = True
        g.dirty_prefill = 0
        for i in range(g.dirty_decode):
            slot = s.decode[i].dirty_slot
            s.decode[slot].dirty = False
            if s.decode[slot].event_s == np.inf and s.decode[slot].status != FREE:
                _form_step(s, slot, t)
                event_update(s.decode, slot)
                if s.decode[slot].status == DRAINING and s.decode[slot].load == 0:
                    _stop_decode(s, slot, t)
                    stopped = True
        g.dirty_decode = 0
        if stopped:
            lives = g.lives
            _launch_waiting(s, t)
            if w.watch_launches and g.lives > lives:
                return LAUNCHED


@_compiled
def kv_tokens_now(s: State, t: float) -> int:
    """KV tokens that the running requests of all decode instances hold at t, mid-run included."""
    total = np.int64(0)
    for slot in range(s.decode.size):
        d = s.decode[slot]
        if d.running > 0:
            total += d.kv + d.running * _steps_by(s, slot, t)
    return int(total)
