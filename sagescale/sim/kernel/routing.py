"""Rule 2: which instance a request goes to, and the queue of a stage while none is READY."""

from __future__ import annotations

import numpy as np

from sagescale.sim.kernel import stepped
from sagescale.sim.kernel.compiled import compiled, inlined, optional
from sagescale.sim.kernel.costs import cheapest
from sagescale.sim.kernel.handoff import start_handoff
from sagescale.sim.kernel.instances import add_load, set_key, touch
from sagescale.sim.kernel.queues import append, join, rank_for_prefill
from sagescale.sim.kernel.requests import expired, leave, produced, reserves
from sagescale.sim.kernel.views import load, sent
from sagescale.sim.state import (
    FIFO,
    IN_HANDOFF,
    IN_POOL_DECODE,
    IN_POOL_PREFILL,
    NOT_READY,
    READY,
    SESSION_AFFINITY,
    WAITING_PREFILL,
    State,
)

# Typed, since a literal would have what it is passed to compiled once more.
_NO_SOURCE, _NOTHING = np.int64(-1), np.int64(0)


@compiled
def _best_of_pools(s: State, stage: int, holding: int) -> int:
    """The best of several pools' best, by load over capacity, of those that can hold so many tokens."""
    first = s.stages[stage].first_pool
    best = s.slots[s.pools[first].root].router_node
    least = np.inf
    round_robin = s.services[s.stages[stage].service].round_robin
    for pool in range(first, s.stages[stage].end_pool):
        slot = s.slots[s.pools[pool].root].router_node
        key = s.slots[slot].key
        if key == NOT_READY or s.pools[pool].max_kv_tokens < holding:
            continue
        cost = float(key) if round_robin else float(key) / s.pools[pool].capacity
        if cost < least:
            least = cost
            best = slot
    return best if least < np.inf else -1


@compiled
def _home(s: State, stage: int, request: int) -> int:
    """Where the request's session was last routed, if READY and not loaded far above the mean; else -1."""
    q = s.stages[stage]
    home = s.homes.home[q.homes + s.homes.session[request]]
    found = np.int64(-1)
    total = np.int64(0)
    ready = 0
    for pool in range(q.first_pool, q.end_pool):
        for slot in range(s.pools[pool].first_slot, s.pools[pool].first_slot + s.pools[pool].slots):
            if s.instances[slot].status == READY:
                total += load(s, slot)
                ready += 1
                if s.slots[slot].id == home:
                    found = np.int64(slot)
    if found >= 0 and load(s, found) * ready <= s.services[q.service].affinity_max_load * total:
        return int(found)
    return -1


@optional("homes", np.int64(-1))
@compiled
def _considered(s: State, stage: int, request: int, holding: int) -> int:
    """The best by a strategy, or a late router, that looks at all instances."""
    q = s.stages[stage]
    w = s.services[q.service]
    slot = np.int64(-1)
    if w.routing == SESSION_AFFINITY:
        slot = np.int64(_home(s, stage, request))
        if slot < 0 and w.staleness_s == 0.0:
            slot = np.int64(_best_of_pools(s, stage, holding))
    if slot < 0:
        slot = np.int64(cheapest(s, stage, request, holding, s.progress[0].now_s))
    if slot >= 0 and w.routing == SESSION_AFFINITY:
        s.homes.home[q.homes + s.homes.session[request]] = s.slots[slot].id
    if slot >= 0 and w.staleness_s > 0.0:
        sent(s, slot, request)
    return int(slot)


@inlined
def _best(s: State, stage: int, request: int, holding: int) -> int:
    """The READY instance with the least to do, or whose turn it is; -1 without one."""
    first = s.stages[stage].first_pool
    if s.services[s.stages[stage].service].considers:
        return int(_considered(s, stage, request, holding))
    if s.stages[stage].end_pool - first > 1:
        return int(_best_of_pools(s, stage, holding))
    slot = np.int64(s.slots[s.pools[first].root].router_node)
    return -1 if s.slots[slot].key == NOT_READY else int(slot)


@inlined
def _take_turn(s: State, stage: int, slot: int) -> None:
    s.stages[stage].turns += 1
    set_key(s, slot, s.stages[stage].turns)


@inlined
def _wait_in_stage(s: State, stage: int, request: int) -> None:
    q = s.stages[stage]
    if q.queue_tail < 0:
        q.queue_head = request
    else:
        s.requests[q.queue_tail].link = request
    q.queue_tail = request
    q.queued += 1


@inlined
def route_prefill(s: State, stage: int, request: int) -> None:
    """Rule 2: to the READY prefill instance with the fewest prompt tokens to do, or whose turn it is."""
    w = s.services[s.stages[stage].service]
    slot = _best(s, stage, request, _NOTHING)
    s.requests[request].link = -1
    if slot < 0:
        s.requests[request].state = IN_POOL_PREFILL
        _wait_in_stage(s, stage, request)
    elif stepped.steps(s, slot):
        if w.round_robin:
            _take_turn(s, stage, slot)
        stepped.receive(s, slot, request, s.progress[0].now_s)
    else:
        p = s.instances[slot]
        s.requests[request].state = WAITING_PREFILL
        s.requests[request].bound = slot
        if w.scheduling != FIFO:
            rank_for_prefill(s, p.pool, request, p.by_slack)
            p.head = join(s, p.head, request)
        else:
            append(s, slot, request)
        p.queued += 1
        if w.round_robin:
            _take_turn(s, stage, slot)
        add_load(s, slot, s.prompt[request] + produced(s, request))
        p.answer_tokens += s.osl[request] - produced(s, request)
        if not p.busy:
            touch(s, slot)


@inlined
def bind_decode(s: State, stage: int, request: int, t: float) -> None:
    """Rule 2: to the READY decode instance with the fewest reserved KV tokens, or whose turn it is.

    Without one it waits in the stage's queue.
    """
    service = s.stages[stage].service
    slot = _best(s, stage, request, reserves(s, request))
    if slot < 0:
        if expired(s, service, request, t):
            leave(s, service, request)
            stepped.hand_off_ended(s, request)
        else:
            s.requests[request].state = IN_POOL_DECODE
            s.requests[request].link = -1
            _wait_in_stage(s, stage, request)
            s.progress[0].queued_decode += 1
    else:
        # It comes from a prefill instance; one that hands over its batch one by one begins that itself.
        in_turn = s.pools[s.instances[s.requests[request].bound].pool].blocks_prefill
        s.requests[request].bound = slot
        s.requests[request].state = IN_HANDOFF
        stepped.bind(s, request)
        if s.services[service].round_robin:
            _take_turn(s, stage, slot)
        add_load(s, slot, reserves(s, request))
        d = s.instances[slot]
        d.bound += 1
        d.answer_tokens += s.osl[request] - produced(s, request)
        if not s.services[service].decode_first:
            d.answer_tokens -= 1
        if not in_turn:
            start_handoff(s, request, _NO_SOURCE, t)
