"""What comes to an engine that steps, leaves it from outside, and is seen of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sagescale.sim.kernel.compiled import compiled, inlined
from sagescale.sim.kernel.gaps import leave_steps
from sagescale.sim.kernel.instances import add_load, touch
from sagescale.sim.kernel.memory import blocks_of, blocks_within
from sagescale.sim.kernel.prefix_cache import forget_all, let_go
from sagescale.sim.kernel.queues import drop_head, rank_for_decode
from sagescale.sim.kernel.scheduler import note_gaps, steps_ended
from sagescale.sim.kernel.step_times import run_boundary, step_now_s, steps_s
from sagescale.sim.kernel.waiting import (
    by_joining,
    cached,
    enqueue,
    head,
    known,
    leave_waiting,
    waiting_changed,
)
from sagescale.sim.state import (
    AGGREGATED_ROLE,
    DECODE_ROLE,
    FIFO,
    FREE,
    IN_HANDOFF,
    LOST,
    NEVER,
    PREFILL_ROLE,
    PRIORITY,
    WAITS,
    State,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray


@inlined
def _joins(s: State, slot: int, request: int, t: float) -> None:
    e = s.stepped.engines[slot]
    d = s.instances[slot]
    tokens = known(s, request) - cached(s, slot, request)
    e.waiting_tokens += tokens
    pool = s.pools[d.pool]
    if pool.role != DECODE_ROLE:
        e.prompt_tokens += tokens
        e.seen_prompt_tokens += tokens
        e.recomputing += 1
        d.answer_tokens += s.osl[request] - s.produced[request]
    enqueue(s, slot, request, False)
    if pool.role == AGGREGATED_ROLE:
        add_load(s, slot, WAITS)
    elif pool.role == PREFILL_ROLE:
        add_load(s, slot, tokens)
    if head(s, slot) == request or s.services[pool.service].scheduling > PRIORITY:
        waiting_changed(s, slot, t)


@compiled
def receive(s: State, slot: int, request: int, t: float) -> None:
    """A request is routed to an instance that computes prompts."""
    x = s.stepped.requests[request]
    x.preempted = False
    x.arrived_computed = False
    x.lost = 0
    _joins(s, slot, request, t)


@compiled
def deliver(s: State, slot: int, request: int, t: float) -> None:
    """A request comes to a decode instance, computed."""
    service = s.pools[s.instances[slot].pool].service
    w = s.services[service]
    if w.scheduling != FIFO:
        rank_for_decode(s, service, request, t)
    if not w.decode_first:
        s.produced[request] += 1
    x = s.stepped.requests[request]
    x.preempted = False
    x.lost = 0
    x.arrived_computed = True
    _joins(s, slot, request, t)


@compiled
def give_up(s: State, slot: int, request: int, t: float) -> None:
    """A request that waits has been waiting for too long."""
    leave_waiting(s, slot, request, False)
    waiting_changed(s, slot, t)
    touch(s, slot)


@compiled
def release_source(s: State, request: int) -> None:
    """A request's hand-off has ended, or will not take place: prefill holds its blocks no longer."""
    x = s.stepped
    extra = x.requests[request]
    slot = np.int64(extra.source)
    if slot >= 0:
        extra.source = -1
        if s.instances[slot].status != FREE and s.slots[slot].id == extra.source_id:
            pool = s.pools[s.instances[slot].pool]
            e = x.engines[slot]
            e.used -= blocks_of(np.int64(extra.computed), pool.block_tokens) - extra.shared
            if pool.prefix_cache:
                let_go(s, slot, extra, np.int64(extra.computed), np.int64(0))
            if s.slots[slot].event_s == np.inf:
                touch(s, slot)


@compiled
def forget(s: State, slot: int) -> None:
    """An instance is gone, and with it its cache and what it held of requests that are being handed over."""
    x = s.stepped
    pool = s.pools[s.instances[slot].pool]
    if not pool.prefix_cache:
        return
    if pool.role == PREFILL_ROLE:
        w = s.services[pool.service]
        for request in range(w.oldest, w.next_arrival):
            extra = x.requests[request]
            if extra.source == slot:
                extra.source = -1
                let_go(s, slot, extra, np.int64(extra.computed), np.int64(0))
    forget_all(s, slot)


# What is seen.


@inlined
def outstanding(s: State, slot: int, t: float) -> int:
    """Tokens to compute and to produce of all routed to an instance, as of its last finished step."""
    e = s.stepped.engines[slot]
    d = s.instances[slot]
    left = e.seen_prompt_tokens + d.answer_tokens
    if s.pools[d.pool].role == DECODE_ROLE:
        left += d.bound - e.seen_recomputing
    else:
        left += e.seen_decoding
    return np.int64(left - d.running * steps_ended(s, slot, t))


@inlined
def seen_waiting(s: State, slot: int) -> int:
    """Requests routed to an instance and, as of its last finished step, not admitted."""
    e = s.stepped.engines[slot]
    d = s.instances[slot]
    here = d.bound if s.pools[d.pool].role == DECODE_ROLE else d.queued + e.running
    return np.int64(here - e.seen_running)


@inlined
def held_blocks(s: State, slot: int, t: float) -> int:
    """Distinct blocks that those admitted hold, as of the last finished step."""
    e = s.stepped.engines[slot]
    ended = steps_ended(s, slot, t)
    if ended == 0:
        return np.int64(e.seen_used)
    return np.int64(e.used) + blocks_within(s, slot, np.int64(1), ended)


@inlined
def step_under_way_s(s: State, slot: int, t: float) -> float:
    """Seconds of the step in progress, one that begins now not counted; 0 without one."""
    d = s.instances[slot]
    if s.slots[slot].event_s == np.inf or d.run_start_s >= t:
        return 0.0
    if s.stepped.engines[slot].prompts:
        return float(s.slots[slot].event_s - d.run_start_s)
    k, _ = run_boundary(s, slot, t)
    return float(step_now_s(s, slot, k))


@compiled
def count(s: State, slot: int, t: float, totals: NDArray[np.int64]) -> None:
    """Add to a service's totals: prompts being computed, requests that decode, and the KV tokens of all."""
    x = s.stepped
    d = s.instances[slot]
    e = x.engines[slot]
    totals[1] += e.running - e.decoding
    totals[3] += e.decoding
    totals[4] += e.base + e.decoding * d.steps + d.running * steps_ended(s, slot, t)
    for i in range(e.members, e.members + e.running):
        if x.members[i].finish < 0:
            totals[4] += x.members[i].base


# The life of an instance.


@compiled
def lose(s: State, slot: int, first: int, t: float) -> int:
    """An instance crashes: what it held, in order, chained behind ``first`` and its chain; -1 for none.

    Those that run come before those that wait and, at a decode instance, those that are under way to it. What
    the steps that have ended produced stands; the step under way yields nothing.
    """
    x = s.stepped
    d = s.instances[slot]
    e = x.engines[slot]
    pool = s.pools[d.pool]
    w = s.services[pool.service]
    last = first
    while last >= 0 and s.requests[last].chain >= 0:
        last = np.int64(s.requests[last].chain)
    last_s = t
    if s.slots[slot].event_s < np.inf:
        k = steps_ended(s, slot, t)
        note_gaps(s, slot, k, 0.0)
        last_s = d.run_start_s
        if k > 0:
            seconds = d.run_join_s + steps_s(s.steps, d.segment, d.running, d.kv, k, d.run_spread_s)
            if e.short:
                s.pools[d.pool].short_s += seconds
            last_s += seconds
            d.steps += k
    for i in range(e.running):
        m = x.members[e.members + i]
        request = np.int64(m.request)
        computed = np.int64(m.base)
        if m.finish >= 0:
            computed += d.steps
            if m.left_out:
                computed += 1  # what the step under way would have brought was taken off
            s.produced[request] = computed + 1 - s.isl[request]
            leave_steps(s, slot, m)
            s.gaps.requests[request].last_s = last_s - m.stall_s
        if pool.prefix_cache:
            let_go(s, slot, m, computed + m.chunk, np.int64(0))
        first, last = _chain(s, first, last, request)
    if w.scheduling != FIFO:
        by_joining(s, slot)
    while True:
        request = head(s, slot)
        if request < 0:
            break
        drop_head(s, slot)
        first, last = _chain(s, first, last, request)
    if pool.role == DECODE_ROLE:
        first = _chain_under_way(s, slot, first, last, not w.decode_first, w.oldest, w.next_arrival)
    d.queued = 0
    d.running = 0
    e.running = 0
    return int(first)


@inlined
def _chain(s: State, first: int, last: int, request: int) -> tuple[int, int]:
    s.requests[request].state = LOST
    s.requests[request].chain = -1
    if last < 0:
        return request, request
    s.requests[last].chain = request
    return first, request


@compiled
def _chain_under_way(
    s: State, slot: int, first: int, last: int, prefilled: bool, oldest: int, end: int
) -> int:
    """Chain those bound to a decode instance that have not come yet, in the order of their binding."""
    x = s.stepped.requests
    bound_at = np.int64(-1)
    while True:
        found = np.int64(-1)
        for request in range(oldest, end):
            if (
                s.requests[request].bound == slot
                and s.requests[request].state == IN_HANDOFF
                and x[request].bound_at > bound_at
                and (found < 0 or x[request].bound_at < x[found].bound_at)
            ):
                found = np.int64(request)
        if found < 0:
            return first
        bound_at = np.int64(x[found].bound_at)
        if prefilled:
            s.produced[found] += 1  # by the prefill it comes from
        first, last = _chain(s, first, last, found)


@compiled
def clear(s: State, slot: int) -> None:
    """An instance is launched, cold."""
    x = s.stepped
    e = x.engines[slot]
    for i in range(e.phases, e.phases + s.pools[s.instances[slot].pool].block_tokens):
        x.phases[i] = 0
    e.running = 0
    e.decoding = 0
    e.base = 0
    e.next_finish = NEVER
    e.longest = -NEVER
    e.used = 0
    e.waiting_tokens = 0
    e.idle = 0
    e.gone = -1
    e.hits = 0.0
    e.hits_at_s = 0.0
    e.oldest_idle = -1
    e.newest_idle = -1
    e.prompt_tokens = 0
    e.recomputing = 0
    e.first_chunk = 0
    e.joined_tokens = 0
    e.prompts = False
    e.advance = True
    e.marked = False
    e.first_tokens = 0
    e.stalled = False
    e.short = False
    e.expired = -1
    e.number = 0
    e.seen_prompt_tokens = 0
    e.seen_decoding = 0
    e.seen_running = 0
    e.seen_recomputing = 0
    e.seen_used = 0
