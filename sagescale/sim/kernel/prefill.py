"""Rule 3: a prefill instance forms a batch when it is free, and hands its requests on when it ends."""

from __future__ import annotations

import numpy as np

from sagescale.sim.kernel.compiled import compiled, inlined
from sagescale.sim.kernel.gaps import token_made
from sagescale.sim.kernel.handoff import resume_chain
from sagescale.sim.kernel.instances import add_load, cold_start_s, touch
from sagescale.sim.kernel.queues import can_only_be_late, meld, put_behind, rank_for_prefill, without_head
from sagescale.sim.kernel.requests import complete, due_s, first_token, produced
from sagescale.sim.kernel.routing import bind_decode
from sagescale.sim.kernel.step_times import batch_s
from sagescale.sim.kernel.trees import event_update
from sagescale.sim.state import ADAPTIVE, FIFO, IN_PREFILL, TIMED_OUT, WAITING_PREFILL, State


@inlined
def _bind(s: State, slot: int, request: int, last: int, t: float) -> int:
    """Bind a request that prefill is done with; who is the last now of those handed over one by one."""
    p = s.instances[slot]
    pool = s.pools[p.pool]
    bind_decode(s, s.services[pool.service].decode_stage, request, t)
    if not pool.blocks_prefill or s.requests[request].state == TIMED_OUT:
        return last
    s.requests[request].chain = -1
    if last < 0:
        p.cursor = request
    else:
        s.requests[last].chain = request
    return np.int64(request)


@inlined
def finish_batch(s: State, slot: int, t: float) -> None:
    """Prefill batches end: first tokens, then each request is bound and its hand-off starts."""
    g = s.progress[0]
    p = s.instances[slot]
    pool = s.pools[p.pool]
    service = pool.service
    w = s.services[service]
    s.slots[slot].event_s = np.inf
    event_update(s.slots, slot)
    add_load(s, slot, -p.batch_tokens)
    request = p.batch
    last = np.int64(-1)
    p.batch = -1
    p.cursor = -1
    while request >= 0:
        following = s.requests[request].link
        g.in_service -= 1
        s.stages[pool.stage].in_service -= 1
        made = produced(s, request)
        p.answer_tokens -= s.osl[request] - made
        if not w.decode_first:
            token_made(s, request, t)
            if made == 0:
                first_token(s, service, request, t)
        if s.osl[request] - made == 1 and not w.decode_first:
            complete(s, service, request, t)
        else:
            last = _bind(s, slot, request, last, t)
        request = following
    if pool.blocks_prefill:
        resume_chain(s, slot, t)
    else:
        p.busy = False
        touch(s, slot)


@compiled
def hand_over(s: State, slot: int, first: int, t: float) -> None:
    """Prompts that steps have completed, linked from the first on, are bound and handed over."""
    p = s.instances[slot]
    last = np.int64(-1)
    p.cursor = -1
    request = np.int64(first)
    while request >= 0:
        following = np.int64(s.requests[request].link)
        last = _bind(s, slot, request, last, t)
        request = following
    if last >= 0:
        p.busy = True
        resume_chain(s, slot, t)


@inlined
def _begin_batch(s: State, slot: int, t: float, tokens: int, seconds: float) -> None:
    p = s.instances[slot]
    p.batch_tokens = tokens
    p.busy = True
    s.slots[slot].event_s = t + (seconds + cold_start_s(s, slot))
    event_update(s.slots, slot)


@inlined
def _take_into_batch(s: State, slot: int, last: int, request: int) -> None:
    """Append a request to the batch that is being formed, ``last`` being the one before it."""
    p = s.instances[slot]
    s.requests[request].state = IN_PREFILL
    if last < 0:
        p.batch = request
    else:
        s.requests[last].link = request
    p.queued -= 1
    s.progress[0].in_service += 1
    s.stages[s.pools[p.pool].stage].in_service += 1


@inlined
def _form_batch_in_turn(s: State, slot: int, t: float) -> None:
    """Rule 3: FCFS while the prompts' tokens sum to at most max_batch_tokens, always at least one."""
    p = s.instances[slot]
    pool = s.pools[p.pool]
    tokens = np.int64(0)
    squares = 0.0
    last = np.int64(-1)
    while p.head >= 0:
        request = p.head
        if s.requests[request].state == WAITING_PREFILL:
            size = s.prompt[request] + produced(s, request)
            if last >= 0 and tokens + size > pool.max_batch_tokens:
                break
            tokens += size
            squares += float(size) * float(size)
            _take_into_batch(s, slot, last, request)
            last = request
        p.head = s.requests[request].link
        if p.head < 0:
            p.tail = -1
    if last >= 0:
        s.requests[last].link = -1
        _begin_batch(s, slot, t, tokens, batch_s(s, p.pool, tokens, squares))


@compiled
def _reorder(s: State, slot: int, by_slack: bool) -> None:
    """Order a prefill queue another way; who joined first stays as it is."""
    p = s.instances[slot]
    rest = np.int64(p.head)
    head = np.int64(-1)
    while rest >= 0:
        request = rest
        rest = without_head(s, request)
        if s.requests[request].state == WAITING_PREFILL:
            rank_for_prefill(s, p.pool, request, by_slack)
            head = meld(s, head, request)
    p.head = head
    p.by_slack = by_slack


@compiled
def _first_in_order(s: State, slot: int, t: float) -> int:
    """Return the head of a prefill queue at t; by slack, those that can only be late go behind all others."""
    p = s.instances[slot]
    while p.head >= 0:
        request = np.int64(p.head)
        waits = s.requests[request].state == WAITING_PREFILL
        if waits and not (p.by_slack and can_only_be_late(s, request, t)):
            break
        p.head = without_head(s, request)
        if waits:
            p.head = put_behind(s, np.int64(p.head), request)
    return int(p.head)


@compiled
def _form_batch_in_order(s: State, slot: int, t: float) -> None:
    """Rule 3 with a queue that a policy orders; by slack, no prompt joins that would make another late."""
    p = s.instances[slot]
    pool = s.pools[p.pool]
    if s.services[pool.service].scheduling == ADAPTIVE:
        by_slack = p.load > pool.max_batch_tokens  # nothing is in service: all of it waits
        if by_slack != p.by_slack:
            _reorder(s, slot, by_slack)
    tokens = np.int64(0)
    squares = 0.0
    seconds = 0.0
    due = np.inf
    last = np.int64(-1)
    while True:
        request = _first_in_order(s, slot, t)
        if request < 0:
            break
        size = s.prompt[request] + produced(s, request)
        with_it_s = batch_s(s, p.pool, tokens + size, squares + float(size) * float(size))
        due_with_it = due
        if p.by_slack and s.places[request].rank < np.inf and np.isnan(s.requests[request].first_token_s):
            due_with_it = min(due, due_s(s, pool.service, request, np.int64(0)))
        if last >= 0 and (tokens + size > pool.max_batch_tokens or t + with_it_s > due_with_it):
            break
        tokens += size
        squares += float(size) * float(size)
        seconds = with_it_s
        due = due_with_it
        p.head = without_head(s, request)
        s.requests[request].link = -1
        _take_into_batch(s, slot, last, request)
        last = request
    if last >= 0:
        _begin_batch(s, slot, t, tokens, seconds)


@inlined
def form_batch(s: State, slot: int, t: float) -> None:
    """Begin a batch if anything waits."""
    if s.services[s.pools[s.instances[slot].pool].service].scheduling != FIFO:
        _form_batch_in_order(s, slot, t)
    else:
        _form_batch_in_turn(s, slot, t)
