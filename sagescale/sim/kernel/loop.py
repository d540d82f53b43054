"""The event loop: DESIGN section 5, an instant at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sagescale.sim.kernel import sessions, stepped
from sagescale.sim.kernel.compiled import compiled, entry, inlined, optional
from sagescale.sim.kernel.decode import deliver, finish_run, form_step, queue_changed
from sagescale.sim.kernel.handoff import resume_chain_at
from sagescale.sim.kernel.instances import add_load, touch, unbind
from sagescale.sim.kernel.lifecycle import become_ready, idle, launch_waiting, stop
from sagescale.sim.kernel.prefill import finish_batch, form_batch, hand_over
from sagescale.sim.kernel.requests import leave, reserves
from sagescale.sim.kernel.routing import route_prefill
from sagescale.sim.kernel.step_times import steps_by
from sagescale.sim.kernel.trees import DECODE_ROOT, PREFILL_ROOT, event_update
from sagescale.sim.kernel.views import look
from sagescale.sim.state import (
    DONE,
    DRAINING,
    FREE,
    IN_POOL_DECODE,
    IN_POOL_PREFILL,
    REJECTED,
    STARTING,
    WAITING_DECODE,
    WAITING_PREFILL,
    State,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

REACHED, MORE_HANDOFFS, LAUNCHED, MORE_ENTRIES, MORE_TURNS = 0, 1, 2, 3, 4

_COUNTS = 5
"""Numbers that ``gauges_now`` says of a pool: instances by status, and launches that wait."""


@inlined
def _note_next_arrival(s: State) -> None:
    """Note when the next request of any service arrives."""
    g = s.progress[0]
    g.next_arrival_s = np.inf
    for service in range(s.services.size):
        w = s.services[service]
        if w.next_arrival < w.end_request:
            g.next_arrival_s = min(g.next_arrival_s, s.arrival_s[w.next_arrival])


@inlined
def _arrive(s: State, service: int, request: int) -> None:
    w = s.services[service]
    w.next_arrival += 1
    w.isl_sum += s.isl[request]
    w.cached_sum += s.isl[request] - s.prompt[request]
    if reserves(s, request) > w.max_kv_tokens or reserves(s, request) > w.max_whole_tokens:
        s.requests[request].state = REJECTED
        w.rejected += 1
        sessions.missed(s, request)
    else:
        route_prefill(s, w.prefill_stage, request)


@inlined
def _arrivals_by_clock(s: State, t: float) -> None:
    for service in range(s.services.size):
        w = s.services[service]
        while w.next_arrival < w.end_request and s.arrival_s[w.next_arrival] == t:
            _arrive(s, service, w.next_arrival)
    _note_next_arrival(s)


@optional("turns", _arrivals_by_clock)
@inlined
def _arrivals(s: State, t: float) -> None:
    """The requests of an instant arrive, in the order of the trace."""
    row = np.int64(sessions.next_due(s, t))
    while row >= 0:
        service = np.int64(sessions.take(s, row, t))
        _arrive(s, service, s.services[service].next_arrival)
        row = np.int64(sessions.next_due(s, t))


@compiled
def _deadline_passes(s: State, service: int, request: int, t: float) -> None:
    """Rule 11: a request without its first token leaves the queue it waits in."""
    w = s.services[service]
    w.next_deadline += 1
    state = s.requests[request].state
    slot = np.int64(s.requests[request].bound)
    if s.requests[request].first_token_s != s.requests[request].first_token_s:
        if state == IN_POOL_PREFILL:
            s.stages[w.prefill_stage].queued -= 1
            leave(s, service, request)
        elif state == WAITING_PREFILL and stepped.steps(s, slot):
            leave(s, service, request)
            stepped.give_up(s, slot, request, t)
        elif state == WAITING_PREFILL:
            s.instances[slot].queued -= 1
            leave(s, service, request)
            add_load(s, slot, -np.int64(s.prompt[request]))  # it has produced nothing
            s.instances[slot].answer_tokens -= s.osl[request]
            touch(s, slot)
        elif state == IN_POOL_DECODE:
            s.stages[w.decode_stage].queued -= 1
            s.progress[0].queued_decode -= 1
            leave(s, service, request)
            stepped.hand_off_ended(s, request)
            resume_chain_at(s, service, request, t)
        elif state == WAITING_DECODE and stepped.steps(s, slot):
            leave(s, service, request)
            stepped.give_up(s, slot, request, t)
            add_load(s, slot, -reserves(s, request))
        elif state == WAITING_DECODE:
            s.instances[slot].queued -= 1
            leave(s, service, request)
            unbind(s, slot, request)
            queue_changed(s, slot, t)
            touch(s, slot)


@inlined
def _deadlines(s: State, t: float) -> None:
    for service in range(s.services.size):
        w = s.services[service]
        while w.next_deadline < w.next_arrival and s.arrival_s[w.next_deadline] + w.request_timeout_s <= t:
            _deadline_passes(s, service, w.next_deadline, t)


@compiled
def _next_deadline_s(s: State) -> float:
    t = np.inf
    for service in range(s.services.size):
        w = s.services[service]
        if w.request_timeout_s < np.inf:
            while w.next_deadline < w.next_arrival and (
                s.requests[w.next_deadline].first_token_s == s.requests[w.next_deadline].first_token_s
                or s.requests[w.next_deadline].state >= DONE
            ):
                w.next_deadline += 1
            if w.next_deadline < w.next_arrival:
                # Never earlier than now: the deadline of a request in service may have passed unheeded.
                t = min(t, max(s.arrival_s[w.next_deadline] + w.request_timeout_s, s.progress[0].now_s))
    return t


@inlined
def _only_steps_end(s: State, t: float) -> bool:
    """Whether nothing but ends of decode steps, and decode instances becoming READY, happens at t."""
    g = s.progress[0]
    return (
        t < s.slots[s.slots[PREFILL_ROOT].event_node].event_s
        and (g.handoffs == 0 or t < s.handoff[0].time_s)
        and t < g.next_arrival_s
        and not g.timeouts
        and not g.steps_hand_over
        and not sessions.has_turns(s)  # an answer may have somebody arrive at once
    )


@entry
def gauges_now(s: State, service: int, t: float, found: NDArray[np.int64]) -> None:
    """Count what a service's gauges show at t, decode runs under way included.

    ``found`` is written: for each pool of the service its instances by status and the launches that wait;
    then the requests queued for prefill, in prefill batches, queued for decode, in decode batches, and the KV
    tokens that these hold.
    """
    found[:] = 0
    totals = found[-5:]
    first = s.stages[s.services[service].prefill_stage].first_pool
    for role in range(2):
        stage_index = s.services[service].decode_stage if role else s.services[service].prefill_stage
        if role and stage_index == s.services[service].prefill_stage:
            break  # aggregated: one stage
        stage = s.stages[stage_index]
        decode = role == 1
        queued = stage.queued
        for index in range(stage.first_pool, stage.end_pool):
            pool = s.pools[index]
            counts = found[_COUNTS * (index - first) : _COUNTS * (index - first + 1)]
            counts[_COUNTS - 1] = pool.waiting
            for slot in range(pool.first_slot, pool.first_slot + pool.slots):
                one = s.instances[slot]
                counts[one.status] += 1
                queued += one.queued
                if stepped.steps(s, slot) and one.status != FREE:
                    stepped.count(s, slot, t, totals)
                elif decode and one.running > 0:
                    totals[3] += one.running
                    totals[4] += one.kv + one.running * steps_by(s, slot, t)
        totals[2 if decode else 0] = queued
        if not decode:
            totals[1] += stage.in_service


@entry
def next_event_s(s: State) -> float:
    """When something happens next, besides ticks; inf when nothing can."""
    g = s.progress[0]
    if g.dirty_prefill + g.dirty_decode > 0:  # a crash left something idle at this instant
        return float(g.now_s)
    t = min(
        s.slots[s.slots[DECODE_ROOT].event_node].event_s,
        s.slots[s.slots[PREFILL_ROOT].event_node].event_s,
    )
    if g.handoffs > 0:
        t = min(t, s.handoff[0].time_s)
    t = min(t, g.next_arrival_s)
    if g.timeouts:
        t = min(t, _next_deadline_s(s))
    return t


@inlined
def _becomes_ready(s: State, slot: int) -> None:
    g = s.progress[0]
    s.slots[slot].event_s = np.inf
    event_update(s.slots, slot)
    s.instances[g.becoming].becoming_slot = slot
    g.becoming += 1


@inlined
def _stop_if_drained(s: State, slot: int, t: float) -> bool:
    drained = s.instances[slot].status == DRAINING and idle(s, slot)
    if drained:
        stop(s, slot, t)
    return drained


@inlined
def _prompts_leave(s: State, t: float) -> None:
    """Prompts that steps have completed are bound: routers see all decode steps of the instant ended.

    The instances whose steps have ended are all to be looked at, in the order of the fleet.
    """
    g = s.progress[0]
    if g.steps_hand_over:
        for i in range(g.dirty_decode):
            slot = np.int64(s.instances[i].dirty_slot)
            first = np.int64(s.instances[slot].batch)
            if first >= 0:
                s.instances[slot].batch = -1
                hand_over(s, slot, first, t)


@inlined
def _form_batches(s: State, t: float) -> bool:
    """Free prefill instances begin batches; whether one that was draining has stopped."""
    g = s.progress[0]
    stopped = False
    half = s.instances.size >> 1
    for i in range(g.dirty_prefill):
        slot = np.int64(s.instances[half + i].dirty_slot)
        p = s.instances[slot]
        p.dirty = False
        if not p.busy and p.status != FREE:
            form_batch(s, slot, t)
            stopped |= _stop_if_drained(s, slot, t)
    g.dirty_prefill = 0
    return stopped


@inlined
def _form_steps(s: State, t: float) -> bool:
    """Decode instances between steps begin the next; whether one that was draining has stopped."""
    g = s.progress[0]
    stopped = False
    for i in range(g.dirty_decode):
        slot = np.int64(s.instances[i].dirty_slot)
        d = s.instances[slot]
        d.dirty = False
        if s.slots[slot].event_s == np.inf and d.status != FREE:
            if stepped.steps(s, slot):
                stepped.begin(s, slot, t)
            else:
                form_step(s, slot, t)
            event_update(s.slots, slot)
            stopped |= _stop_if_drained(s, slot, t)
    g.dirty_decode = 0
    return stopped


@entry
def advance(s: State, until_s: float) -> int:
    """Process every instant up to and including ``until_s``, in the order of DESIGN 5.9.

    Returns:
        REACHED, or MORE_HANDOFFS, MORE_ENTRIES or MORE_TURNS when the hand-off heap, the prefix caches or the
        heap of turns to come must grow first,
        or LAUNCHED after an instant that launched something where launches are watched: nothing is half done,
        call again.
    """
    g = s.progress[0]
    while True:
        t = next_event_s(s)
        if t > until_s or t == np.inf:
            g.now_s = max(g.now_s, min(until_s, t))
            return REACHED
        if g.handoffs + g.in_service + g.queued_decode + s.instances.size > s.handoff.size:
            return MORE_HANDOFFS
        if stepped.crowded(s):
            return MORE_ENTRIES
        if sessions.crowded(s):
            return MORE_TURNS
        g.now_s = t
        if g.next_look_s <= t:
            look(s, t)

        slot = np.int64(s.slots[DECODE_ROOT].event_node)
        stopped = False
        if s.slots[slot].event_s == t and s.instances[slot].status != STARTING and _only_steps_end(s, t):
            # Half of all instants: instances reach a step boundary and nothing else happens.
            while s.slots[slot].event_s == t and s.instances[slot].status != STARTING:
                if stepped.steps(s, slot):
                    stepped.end(s, slot, t)
                    stepped.begin(s, slot, t)
                else:
                    finish_run(s, slot, t)
                    form_step(s, slot, t)
                event_update(s.slots, slot)
                stopped |= _stop_if_drained(s, slot, t)
                slot = np.int64(s.slots[DECODE_ROOT].event_node)
        else:
            while s.slots[slot].event_s == t:
                if s.instances[slot].status == STARTING:
                    _becomes_ready(s, slot)
                else:
                    if stepped.steps(s, slot):
                        s.instances[slot].batch = stepped.end(s, slot, t)
                    else:
                        finish_run(s, slot, t)
                    event_update(s.slots, slot)
                    touch(s, slot)
                slot = np.int64(s.slots[DECODE_ROOT].event_node)
            _prompts_leave(s, t)

            slot = np.int64(s.slots[PREFILL_ROOT].event_node)
            while s.slots[slot].event_s == t:
                if s.instances[slot].status == STARTING:
                    _becomes_ready(s, slot)
                else:
                    finish_batch(s, slot, t)
                slot = np.int64(s.slots[PREFILL_ROOT].event_node)

            while g.handoffs > 0 and s.handoff[0].time_s == t:
                deliver(s, t)

            if g.becoming > 0:
                become_ready(s, t)

            while True:
                if g.next_arrival_s == t:
                    _arrivals(s, t)
                if g.timeouts:
                    _deadlines(s, t)
                if not sessions.has_turns(s) or g.next_arrival_s != t:
                    break  # else a session has given up, and the next one begins

            stopped |= _form_batches(s, t)
            stopped |= _form_steps(s, t)

        if stopped:
            lives = g.lives
            launch_waiting(s, t)
            if g.watch_launches and g.lives > lives:
                return LAUNCHED
