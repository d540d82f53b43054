"""Rule 5: continuous batching. Requests join at step boundaries, and a run of steps lasts until then."""

from __future__ import annotations

import numpy as np

from sagescale.sim.kernel import stepped
from sagescale.sim.kernel.compiled import compiled, inlined
from sagescale.sim.kernel.gaps import join_batch, leave_batch, run_of_batch_ended
from sagescale.sim.kernel.handoff import resume_chain
from sagescale.sim.kernel.heaps import finish_pop, finish_push, timed_pop
from sagescale.sim.kernel.instances import add_load, cold_start_s, end_run_at_boundary, touch, unbind
from sagescale.sim.kernel.queues import append, drop_head, join, rank_for_decode
from sagescale.sim.kernel.requests import complete, expired, first_token, leave, produced, reserves
from sagescale.sim.kernel.step_times import begin_run, spread_s, step_now_s
from sagescale.sim.state import FIFO, REQUEST_BITS, RUNNING, TIMED_OUT, WAITING_DECODE, State

REQUEST_MASK = (1 << REQUEST_BITS) - 1
_REBASE_STEPS = 1 << 31


@inlined
def _head_fits(s: State, slot: int) -> bool:
    """Rule 5: may the queue's head join at the next boundary? Dead heads are dropped on the way."""
    d = s.instances[slot]
    pool = s.pools[d.pool]
    while d.head >= 0 and s.requests[d.head].state == TIMED_OUT:
        drop_head(s, slot)
    return (
        d.head >= 0
        and d.running < pool.max_num_seqs
        and d.reserved + reserves(s, d.head) <= pool.max_kv_tokens
    )


@inlined
def queue_changed(s: State, slot: int, t: float) -> None:
    """A decode queue has a new head: if it fits, the run in progress ends at the next step boundary."""
    d = s.instances[slot]
    if d.running == 0 or s.slots[slot].event_s == np.inf:
        touch(s, slot)
    elif d.run_steps > 1 and _head_fits(s, slot):
        end_run_at_boundary(s, slot, t)


@compiled
def _longest(s: State, slot: int) -> int:
    """The most KV tokens that one running request holds."""
    d = s.instances[slot]
    longest = np.int64(0)
    for i in range(d.running):
        item = s.finish[d.finish + i]
        longest = max(longest, reserves(s, item & REQUEST_MASK) - 1 - ((item >> REQUEST_BITS) - d.steps))
    return int(longest)


@inlined
def finish_run(s: State, slot: int, t: float) -> None:
    """Decode steps end: account for the run's tokens and complete what is complete.

    The caller restores the tree of events, which is stale until then.
    """
    d = s.instances[slot]
    pool = s.pools[d.pool]
    k = d.run_steps
    run_of_batch_ended(s, slot, k)
    if pool.kv_decode_steps > 0.0:
        d.last_step_s = step_now_s(s, slot, k)
        d.last_step_end_s = t
    d.steps += k
    d.kv += d.running * k
    d.answer_tokens -= d.running * k
    d.run_steps = 0
    s.slots[slot].event_s = np.inf
    request = d.joined
    while request >= 0:
        first_token(s, pool.service, request, t)
        request = s.requests[request].link
    d.joined = -1
    start = d.finish
    freed = np.int64(0)
    while d.running > 0 and (s.finish[start] >> REQUEST_BITS) == d.steps:
        request = s.finish[start] & REQUEST_MASK
        finish_pop(s.finish, start, d.running)
        d.running -= 1
        d.bound -= 1
        need = reserves(s, request)
        freed += need
        d.kv -= need - 1
        leave_batch(s, slot, request)
        complete(s, pool.service, request, t)
    if freed > 0:
        d.reserved -= freed
        add_load(s, slot, -freed)
    if d.running == 0:
        d.steps = 0


@inlined
def form_step(s: State, slot: int, t: float) -> None:
    """Rule 5: admit FCFS at the boundary, then run to the next completion."""
    d = s.instances[slot]
    pool = s.pools[d.pool]
    decode_first = s.services[pool.service].decode_first
    start = d.finish
    joined_isl = np.int64(0)
    if d.steps >= _REBASE_STEPS:  # keep (step << 30 | request) inside 64 bits on an instance never idle
        for i in range(d.running):
            s.finish[start + i] -= d.steps << REQUEST_BITS
        d.steps = 0
    while _head_fits(s, slot):
        request = d.head
        drop_head(s, slot)
        d.queued -= 1
        s.requests[request].state = RUNNING
        made = produced(s, request)
        held = s.isl[request] + made  # what was prefilled
        joined_isl += held
        d.reserved += reserves(s, request)
        # A request that has produced j tokens holds isl + j - 1; prefill makes one of them, or none.
        last_step = d.steps + s.osl[request] - made
        if decode_first:
            d.kv += held - 1
            if made == 0:
                s.requests[request].link = d.joined
                d.joined = request
        else:
            last_step -= 1
            d.kv += held
        join_batch(s, slot, request)
        finish_push(s.finish, start, d.running, (last_step << REQUEST_BITS) | request)
        d.running += 1
    if d.running > 0:
        d.run_start_s = t
        d.run_join_s = pool.join_s_per_token * joined_isl + cold_start_s(s, slot)
        d.run_spread_s = 0.0
        if pool.spread >= 0:
            d.run_spread_s = spread_s(s, d.pool, d.running, d.kv, _longest(s, slot))
        d.run_steps = 1 if d.joined >= 0 else (s.finish[start] >> REQUEST_BITS) - d.steps
        s.slots[slot].event_s = t + begin_run(s, slot)


@inlined
def deliver(s: State, t: float) -> None:
    """Hand-offs end: the request waits at its decode instance for the next step boundary."""
    g = s.progress[0]
    request = np.int64(s.handoff[0].request)
    source = np.int64(s.handoff[0].source)
    timed_pop(s.handoff, np.int64(g.handoffs))
    g.handoffs -= 1
    slot = np.int64(s.requests[request].bound)
    d = s.instances[slot]
    service = s.pools[d.pool].service
    w = s.services[service]
    stepped.hand_off_ended(s, request)
    if w.decode_first and expired(s, service, request, t):
        leave(s, service, request)
        unbind(s, slot, request)
        touch(s, slot)
    elif stepped.steps(s, slot):
        stepped.deliver(s, slot, request, t)
    else:
        s.requests[request].state = WAITING_DECODE
        s.requests[request].link = -1
        if w.scheduling != FIFO:
            rank_for_decode(s, service, request, t)
            d.head = join(s, d.head, request)
        else:
            append(s, slot, request)
        d.queued += 1
        queue_changed(s, slot, t)
    if source >= 0:
        p = s.instances[source]
        p.handing = False
        p.cursor = s.requests[request].chain
        resume_chain(s, source, t)
