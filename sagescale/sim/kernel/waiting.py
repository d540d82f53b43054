"""Who waits at an engine that steps, in which order: as they came or as a policy says (ENGINES.md 2, 3)."""

from __future__ import annotations

import numpy as np

from sagescale.sim.kernel.compiled import compiled, inlined
from sagescale.sim.kernel.instances import add_load, end_run_at_boundary, touch
from sagescale.sim.kernel.prefix_cache import forget_own
from sagescale.sim.kernel.queues import append, can_only_be_late, drop_head, meld, put_behind, without_head
from sagescale.sim.kernel.requests import due_s
from sagescale.sim.state import (
    ADAPTIVE,
    AGGREGATED_ROLE,
    DECODE_ROLE,
    FIFO,
    PREFILL_ROLE,
    PRIORITY,
    RUNS,
    SLO_AWARE,
    WAITING_DECODE,
    WAITING_PREFILL,
    WAITS,
    State,
)


@inlined
def known(s: State, request: int) -> int:
    """Prompt tokens and those produced, as of when it last was not decoding."""
    return np.int64(s.isl[request]) + s.produced[request]


@inlined
def cached(s: State, slot: int, request: int) -> int:
    """Tokens that a request that waits has computed already: at a decode pool all but the last."""
    if s.pools[s.instances[slot].pool].role == DECODE_ROLE:
        return known(s, request) - 1 if s.stepped.requests[request].arrived_computed else np.int64(0)
    return np.int64(s.isl[request] - s.prompt[request])


@inlined
def _alone_s(s: State, pool: int, request: int) -> float:
    """A request's prefill as one step of its own."""
    p = s.pools[pool]
    there = np.int64(s.isl[request] - s.prompt[request])
    tokens = known(s, request) - there
    within = min(tokens, np.int64(p.tokens_top))
    seconds = s.tables_s[p.tokens_table + within] + p.tokens_slope_s * (tokens - within)
    seconds += p.cross_s * (tokens * there) + p.square_s * (0.5 * (tokens * tokens))
    return float(seconds + p.longest_s * known(s, request))


@inlined
def _rank(s: State, slot: int, request: int) -> None:
    """Say where a request belongs that does not stand in front."""
    d = s.instances[slot]
    service = s.pools[d.pool].service
    place = s.places[request]
    place.rank = 0.0 if s.services[service].scheduling == SLO_AWARE else float(s.priority[request])
    place.latest_s = 0.0
    if d.by_slack:
        place.latest_s = due_s(s, service, request, np.int64(s.produced[request])) - _alone_s(
            s, d.pool, request
        )


@compiled
def _enqueue_in_order(s: State, slot: int, request: int, in_front: bool) -> None:
    """Give a request its place in a queue that a policy orders."""
    d = s.instances[slot]
    pool = s.pools[d.pool]
    scheduling = s.services[pool.service].scheduling
    g = s.progress[0]
    place = s.places[request]
    place.child = -1
    if in_front and scheduling == PRIORITY:
        place.rank = float(s.priority[request])
        place.latest_s = 0.0
    elif in_front:
        place.rank = -np.inf
        place.latest_s = np.inf
        place.joined = -g.joins
    else:
        place.joined = g.joins
        if pool.role != DECODE_ROLE:
            _rank(s, slot, request)
    g.joins += 1
    d.head = meld(s, np.int64(d.head), request)


@inlined
def enqueue(s: State, slot: int, request: int, in_front: bool) -> None:
    """Let a request wait; a pre-empted one in front, or by priority where it stood before."""
    d = s.instances[slot]
    pool = s.pools[d.pool]
    scheduling = s.services[pool.service].scheduling
    s.requests[request].state = WAITING_DECODE if pool.role == DECODE_ROLE else WAITING_PREFILL
    s.requests[request].bound = slot
    d.queued += 1
    if scheduling != FIFO:
        _enqueue_in_order(s, slot, request, in_front)
    elif in_front:
        s.requests[request].link = d.head
        d.head = request
        if d.tail < 0:
            d.tail = request
    else:
        s.requests[request].link = -1
        append(s, slot, request)


@inlined
def _waits(s: State, slot: int, request: int) -> bool:
    state = s.requests[request].state
    return state in (WAITING_PREFILL, WAITING_DECODE) and s.requests[request].bound == slot


@inlined
def head(s: State, slot: int) -> int:
    """Who waits first; -1 without anybody. Who has left is dropped on the way."""
    d = s.instances[slot]
    while d.head >= 0 and not _waits(s, slot, np.int64(d.head)):
        drop_head(s, slot)
    return np.int64(d.head)


@compiled
def order(s: State, slot: int) -> None:
    """Order the queue for the step now formed."""
    d = s.instances[slot]
    pool = s.pools[d.pool]
    scheduling = s.services[pool.service].scheduling
    if pool.role == DECODE_ROLE or scheduling not in (SLO_AWARE, ADAPTIVE):
        return
    by_slack = scheduling == SLO_AWARE or s.stepped.engines[slot].waiting_tokens > pool.max_batched_tokens
    if by_slack != d.by_slack:
        d.by_slack = by_slack
        rest = np.int64(d.head)
        first = np.int64(-1)
        while rest >= 0:
            request = rest
            rest = without_head(s, request)
            if _waits(s, slot, request):
                s.places[request].child = -1
                if not s.stepped.requests[request].preempted:
                    _rank(s, slot, request)
                first = meld(s, first, request)
        d.head = first


@compiled
def by_joining(s: State, slot: int) -> None:
    """Order a queue that a policy orders by who joined it first, after those that stand in front."""
    d = s.instances[slot]
    first = np.int64(-1)
    while True:
        request = head(s, slot)
        if request < 0:
            break
        drop_head(s, slot)
        place = s.places[request]
        place.rank = 0.0
        place.latest_s = 0.0
        place.child = -1
        first = meld(s, first, request)
    d.head = first


@inlined
def next_in_order(s: State, slot: int, t: float) -> int:
    """Who is admitted next, -1 for nobody; by slack, those that can only be late go behind all others."""
    d = s.instances[slot]
    if not d.by_slack or s.pools[d.pool].role == DECODE_ROLE:
        return int(head(s, slot))
    return int(_next_in_time(s, slot, t))


@compiled
def _next_in_time(s: State, slot: int, t: float) -> int:
    d = s.instances[slot]
    while True:
        request = head(s, slot)
        if request < 0:
            return -1
        if not can_only_be_late(s, request, t):
            return int(request)
        drop_head(s, slot)
        d.head = put_behind(s, np.int64(d.head), request)


@compiled
def leave_waiting(s: State, slot: int, request: int, forming: bool) -> None:
    """A request that waits gives up; the queue drops it when it comes to its head."""
    x = s.stepped
    e = x.engines[slot]
    d = s.instances[slot]
    pool = s.pools[d.pool]
    extra = x.requests[request]
    tokens = known(s, request) - cached(s, slot, request)
    d.queued -= 1
    e.waiting_tokens -= tokens
    d.answer_tokens -= s.osl[request] - s.produced[request]
    if not extra.arrived_computed:
        e.prompt_tokens -= tokens
        e.recomputing -= 1
    # A router does not know yet what was pre-empted for the step under way.
    under_way = forming or s.slots[slot].event_s < np.inf
    unseen = extra.preempted and extra.preempted_at == e.number and under_way
    seen = known(s, request) - extra.lost if unseen else tokens
    if unseen:
        e.seen_running -= 1
    if pool.role == DECODE_ROLE:
        d.bound -= 1
        if extra.preempted and not unseen:
            e.seen_recomputing -= 1
            e.seen_prompt_tokens -= tokens
    else:
        e.seen_prompt_tokens -= seen
    if pool.role == AGGREGATED_ROLE:
        add_load(s, slot, -RUNS if unseen else -WAITS)
    elif pool.role == PREFILL_ROLE:
        add_load(s, slot, -seen)
    if pool.prefix_cache:
        forget_own(s, slot, request)


@compiled
def waiting_changed(s: State, slot: int, t: float) -> None:
    """Somebody else may wait first: a run of decodes ends at the next boundary, for it to be admitted."""
    d = s.instances[slot]
    if s.slots[slot].event_s == np.inf:
        touch(s, slot)
    elif d.run_steps > 1 and s.stepped.engines[slot].running < s.pools[d.pool].max_num_seqs:
        end_run_at_boundary(s, slot, t)
