"""Rule 12: an instance is gone with everything on it."""

from __future__ import annotations

import numpy as np

from sagescale.sim.kernel import stepped
from sagescale.sim.kernel.compiled import compiled, entry, inlined
from sagescale.sim.kernel.decode import REQUEST_MASK
from sagescale.sim.kernel.gaps import lost_from_batch, run_of_batch_ended
from sagescale.sim.kernel.handoff import resume_chain
from sagescale.sim.kernel.heaps import timed_push
from sagescale.sim.kernel.instances import touch, unbind
from sagescale.sim.kernel.lifecycle import launch_waiting, stop, want
from sagescale.sim.kernel.requests import expired, leave
from sagescale.sim.kernel.routing import route_prefill
from sagescale.sim.kernel.step_times import steps_by, steps_s
from sagescale.sim.kernel.views import look
from sagescale.sim.state import (
    DECODE_ROLE,
    DONE,
    DRAINING,
    FREE,
    IN_HANDOFF,
    IN_POOL_DECODE,
    IN_PREFILL,
    LOST,
    PREFILL_ROLE,
    REQUEST_BITS,
    TIMED_OUT,
    WAITING_DECODE,
    WAITING_PREFILL,
    State,
)

_MOST_RESTARTS = (1 << 16) - 1


@compiled
def _lose_prefill(s: State, slot: int) -> None:
    """Mark what a crashed prefill instance held: queue, batch and, where they hold it, its hand-offs."""
    g = s.progress[0]
    p = s.instances[slot]
    pool = s.pools[p.pool]
    w = s.services[pool.service]
    for request in range(w.oldest, w.next_arrival):
        if s.requests[request].bound == slot:
            if s.requests[request].state == IN_PREFILL:
                g.in_service -= 1
                s.stages[pool.stage].in_service -= 1
                s.requests[request].state = LOST
            elif s.requests[request].state == WAITING_PREFILL:
                s.requests[request].state = LOST
    _lose_chain(s, slot)
    p.queued = 0


@compiled
def _lose_chain(s: State, slot: int) -> None:
    """Mark what an instance holds until it has been handed over, one after the other."""
    g = s.progress[0]
    p = s.instances[slot]
    w = s.services[s.pools[p.pool].service]
    q = s.stages[w.decode_stage]
    request = p.cursor
    while request >= 0:
        if s.requests[request].state != TIMED_OUT:
            if s.requests[request].state == IN_POOL_DECODE:
                q.queued -= 1
                g.queued_decode -= 1
            else:
                bound = np.int64(s.requests[request].bound)
                unbind(s, bound, request)
                touch(s, bound)
            if not w.decode_first:
                s.produced[request] += 1
            s.requests[request].state = LOST
        request = s.requests[request].chain
    request = q.queue_head
    q.queue_head = -1
    q.queue_tail = -1
    while request >= 0:
        following = s.requests[request].link
        if s.requests[request].state != LOST:
            s.requests[request].link = -1
            if q.queue_tail < 0:
                q.queue_head = request
            else:
                s.requests[q.queue_tail].link = request
            q.queue_tail = request
        request = following


@inlined
def _is_cut(s: State, request: int, crashing: int) -> bool:
    r = s.requests[request]
    return bool(r.state == LOST or (r.state == IN_HANDOFF and r.bound == crashing))


@compiled
def _cut_chains(s: State, pool: int, crashing: int) -> None:
    """Take what is lost, or under way to a decode instance that crashes, out of what waits for its turn."""
    first = s.pools[pool].first_slot
    for slot in range(first, first + s.pools[pool].slots):
        p = s.instances[slot]
        while p.cursor >= 0 and _is_cut(s, p.cursor, crashing):
            p.cursor = s.requests[p.cursor].chain
        request = p.cursor
        while request >= 0:
            following = s.requests[request].chain
            while following >= 0 and _is_cut(s, following, crashing):
                following = s.requests[following].chain
            s.requests[request].chain = following
            request = following


@compiled
def _lose_stepping(s: State, slot: int, t: float) -> int:
    """Mark what an engine that steps held; the first of it in the order in which it is routed again."""
    p = s.instances[slot]
    first = np.int64(-1)
    if s.pools[p.pool].role == PREFILL_ROLE:
        _lose_chain(s, slot)
        last = np.int64(-1)
        request = np.int64(p.cursor)
        while request >= 0:
            following = np.int64(s.requests[request].chain)
            if s.requests[request].state == LOST:
                s.requests[request].chain = -1
                if last < 0:
                    first = request
                else:
                    s.requests[last].chain = request
                last = request
            request = following
    elif s.pools[p.pool].role == DECODE_ROLE:
        # Those under way to it are chained anew below: before that, who comes behind them has to be kept.
        stage = s.stages[s.services[s.pools[p.pool].service].prefill_stage]
        for index in range(stage.first_pool, stage.end_pool):
            if s.pools[index].blocks_prefill:
                _cut_chains(s, index, slot)
    return int(stepped.lose(s, slot, first, t))


@compiled
def _lose_decode(s: State, slot: int, t: float) -> None:
    """Mark everything bound to a crashed decode instance, with the tokens each has produced."""
    d = s.instances[slot]
    w = s.services[s.pools[d.pool].service]
    start = d.finish
    ended = np.int64(steps_by(s, slot, t) if d.running > 0 else 0)
    last_s = d.run_start_s
    if ended > 0:
        run_of_batch_ended(s, slot, ended)
        last_s += d.run_join_s + steps_s(s.steps, d.segment, d.running, d.kv, ended, d.run_spread_s)
    steps = d.steps + ended
    for i in range(d.running):
        request = s.finish[start + i] & REQUEST_MASK
        left = (s.finish[start + i] >> REQUEST_BITS) - steps
        s.produced[request] = s.osl[request] - left
        lost_from_batch(s, slot, np.int64(request), last_s)
        s.requests[request].state = LOST
    for request in range(w.oldest, w.next_arrival):
        if s.requests[request].bound == slot and (
            s.requests[request].state == IN_HANDOFF or s.requests[request].state == WAITING_DECODE
        ):
            if not w.decode_first:
                s.produced[request] += 1  # by the prefill it comes from
            s.requests[request].state = LOST
    d.queued = 0
    d.running = 0
    d.kv = 0


@compiled
def _cut_handoffs(s: State, service: int, t: float) -> None:
    """Take what is lost out of the hand-offs: those under way, and those that wait for their turn."""
    g = s.progress[0]
    remaining = 0
    for i in range(g.handoffs):
        entry = s.handoff[i]
        if s.requests[entry.request].state != LOST:
            request, source = np.int64(entry.request), np.int64(entry.source)  # before it is written over
            at = timed_push(s.handoff, np.int64(remaining), entry.time_s, np.int64(entry.seq))
            s.handoff[at].request = request
            s.handoff[at].source = source
            remaining += 1  # <= i
        elif entry.source >= 0:
            s.instances[entry.source].handing = False
    g.handoffs = remaining
    stage = s.stages[s.services[service].prefill_stage]
    for index in range(stage.first_pool, stage.end_pool):
        if s.pools[index].blocks_prefill:
            _cut_chains(s, index, np.int64(-1))
            _resume_chains(s, index, t)


@compiled
def _resume_chains(s: State, pool: int, t: float) -> None:
    """Instances whose turn was cut go on, lowest id first."""
    slots = s.pools[pool].slots
    start = s.pools[pool].first_slot
    while True:
        first = -1
        for slot in range(start, start + slots):
            p = s.instances[slot]
            if (
                p.status != FREE
                and p.busy
                and p.batch < 0
                and not p.handing
                and (p.cursor < 0 or s.requests[p.cursor].state != IN_POOL_DECODE)
                and (first < 0 or s.slots[slot].id < s.slots[first].id)
            ):
                first = slot
        if first < 0:
            break
        resume_chain(s, first, t)


@compiled
def _route_again(s: State, service: int, request: int, t: float) -> None:
    w = s.services[service]
    stepped.hand_off_ended(s, request)
    if expired(s, service, request, t):
        leave(s, service, request)
    else:
        if s.requests[request].restarts < _MOST_RESTARTS:
            s.requests[request].restarts += 1
        w.restarts += 1
        route_prefill(s, w.prefill_stage, request)


@entry
def crash(s: State, slot: int, t: float) -> None:
    """Rule 12: an instance is gone, and its requests are routed again as prefills of isl + tokens produced.

    In order of arrival; of an engine that steps, in the order of ``stepping.lose``. Unless it was DRAINING
    another launch replaces it. The caller has made room for that and for the hand-offs of an instant;
    ``advance`` to t goes on with what is idle now.
    """
    s.progress[0].decisions += 1
    s.progress[0].formed = True
    if s.progress[0].next_look_s <= t:
        look(s, t)
    instance = s.instances[slot]
    pool = np.int64(instance.pool)
    service = s.pools[pool].service
    w = s.services[service]
    while w.oldest < w.next_arrival and s.requests[w.oldest].state >= DONE:
        w.oldest += 1
    if instance.status != DRAINING:
        want(s, pool, np.int64(1))
    lost = np.int64(-1)
    if stepped.steps(s, slot):
        lost = np.int64(_lose_stepping(s, slot, t))
    elif s.pools[pool].role == DECODE_ROLE:
        _lose_decode(s, slot, t)
    else:
        _lose_prefill(s, slot)
    stop(s, slot, t)
    _cut_handoffs(s, service, t)
    while lost >= 0:
        following = np.int64(s.requests[lost].chain)
        s.requests[lost].chain = -1
        _route_again(s, service, lost, t)
        lost = following
    for request in range(w.oldest, w.next_arrival):
        if s.requests[request].state == LOST:
            _route_again(s, service, request, t)
    launch_waiting(s, t)
    s.progress[0].formed = False
