"""Rule 6: STARTING, READY, DRAINING, gone; and who gets the GPUs that are free."""

from __future__ import annotations

import numpy as np

from sagescale.sim.kernel import stepped
from sagescale.sim.kernel.compiled import compiled, entry, inlined
from sagescale.sim.kernel.gaps import clear_gaps
from sagescale.sim.kernel.handoff import resume_chain_at
from sagescale.sim.kernel.instances import set_key
from sagescale.sim.kernel.routing import bind_decode, route_prefill
from sagescale.sim.kernel.trees import event_update
from sagescale.sim.kernel.views import unknown
from sagescale.sim.state import (
    AGGREGATED_ROLE,
    BATCH,
    DECODE_ROLE,
    DRAINING,
    FREE,
    IN_POOL_DECODE,
    IN_POOL_PREFILL,
    NOT_READY,
    POOL_SHIFT,
    READY,
    SLO_AWARE,
    STARTING,
    State,
)


@inlined
def idle(s: State, slot: int) -> bool:
    """Whether an instance has nothing left to do."""
    return s.instances[slot].load == 0 and not s.instances[slot].busy


@compiled
def stop(s: State, slot: int, t: float) -> None:
    """An instance gives its GPUs back."""
    instance = s.instances[slot]
    pool = s.pools[instance.pool]
    s.life[instance.life].stop_s = t
    if stepped.steps(s, slot):
        stepped.lose_cache(s, slot, True)
        stepped.forget(s, slot)
    instance.status = FREE
    s.slots[slot].event_s = np.inf
    event_update(s.slots, slot)
    set_key(s, slot, NOT_READY)
    s.instances[pool.first_slot + pool.free].free_slot = slot
    pool.free += 1
    s.stock[pool.stock].used -= pool.gpus
    s.services[pool.service].gpus_used -= pool.gpus


@compiled
def want(s: State, pool: int, more: int) -> None:
    """Ask for more launches, or for fewer; they begin in ``launch_waiting``."""
    service = s.services[s.pools[pool].service]
    if service.waiting == 0:
        service.waiting_since = s.progress[0].decisions
    s.pools[pool].waiting += more
    service.waiting += more
    s.progress[0].waiting += more


@inlined
def _wants(s: State, pool: int) -> bool:
    """Whether a launch of a pool waits for nothing but GPUs in stock."""
    p = s.pools[pool]
    w = s.services[p.service]
    return p.waiting > p.begins and not w.launches_held and w.gpus_used + p.gpus <= w.max_gpus


@inlined
def _in_stock(s: State, pool: int) -> bool:
    p = s.pools[pool]
    return s.stock[p.stock].used + p.gpus <= s.stock[p.stock].gpus


@inlined
def _must_let_pass(s: State, pool: int) -> bool:
    """Whether another service has waited longer for GPUs of the same type, and needs more than are free."""
    p = s.pools[pool]
    for other in range(s.pools.size):
        q = s.pools[other]
        if (
            q.service != p.service
            and q.stock == p.stock
            and _wants(s, other)
            and s.services[q.service].waiting_since < s.services[p.service].waiting_since
            and not _in_stock(s, other)
        ):
            return True
    return False


@inlined
def _next_launch(s: State) -> int:
    """The pool that the GPUs now free go to next; -1 for none (``fleet.next_launches``).

    The service that has waited longest comes first; of its pools the one that misses the largest share of its
    size, the later one in the fleet on a tie.
    """
    best = -1
    for pool in range(s.pools.size):
        if not _wants(s, pool) or not _in_stock(s, pool) or _must_let_pass(s, pool):
            continue
        if best < 0:
            best = pool
            continue
        p, b = s.pools[pool], s.pools[best]
        if p.service == b.service:
            # The shares waiting / target, exact in integers.
            if (p.waiting - p.begins) * b.target >= (b.waiting - b.begins) * p.target:
                best = pool
        elif s.services[p.service].waiting_since < s.services[b.service].waiting_since:
            best = pool
    return best


@compiled
def _launch(s: State, pool: int, t: float) -> None:
    g = s.progress[0]
    p = s.pools[pool]
    want(s, pool, np.int64(-1))
    p.free -= 1
    slot = np.int64(s.instances[p.first_slot + p.free].free_slot)
    instance = s.instances[slot]
    instance.status = STARTING
    s.slots[slot].id = (np.int64(pool) << POOL_SHIFT) | p.launched
    instance.load = 0
    instance.bound = 0
    instance.answer_tokens = 0
    instance.head = -1
    instance.tail = -1
    instance.queued = 0
    instance.running = 0
    instance.kv = 0
    instance.reserved = 0
    instance.steps = 0
    instance.run_steps = 0
    instance.joined = -1
    instance.last_step_end_s = -1.0
    instance.batch = -1
    instance.cursor = -1
    instance.busy = False
    instance.handing = False
    instance.by_slack = s.services[p.service].scheduling == SLO_AWARE
    instance.cold_s = 0.0
    s.slots[slot].event_s = t + s.startup_s[p.startups]
    instance.life = g.lives
    life = s.life[g.lives]
    life.pool = pool
    life.number = p.launched
    life.launch_s = t
    p.startups += 1
    p.launched += 1
    g.lives += 1
    event_update(s.slots, slot)
    set_key(s, slot, NOT_READY)
    clear_gaps(s, slot)
    unknown(s, slot)
    if stepped.steps(s, slot):
        stepped.clear(s, slot)


@entry
def launch_waiting(s: State, t: float) -> None:
    """Rule 6: a launch that does not fit the stock waits, and starts the instant GPUs are free."""
    if s.progress[0].waiting == 0:
        return
    while True:
        pool = _next_launch(s)
        if pool < 0:
            break
        p = s.pools[pool]
        p.begins += 1
        stock = s.stock[p.stock]
        stock.used += p.gpus
        stock.most_used = max(stock.most_used, stock.used)
        service = s.services[p.service]
        service.gpus_used += p.gpus
        service.max_gpus_used = max(service.max_gpus_used, service.gpus_used)
    for pool in range(s.pools.size):
        while s.pools[pool].begins > 0:
            s.pools[pool].begins -= 1
            _launch(s, pool, t)


@inlined
def _newest_starting(s: State, pool: int) -> int:
    p = s.pools[pool]
    newest = -1
    for slot in range(p.first_slot, p.first_slot + p.slots):
        if s.instances[slot].status == STARTING and (newest < 0 or s.slots[slot].id > s.slots[newest].id):
            newest = slot
    return newest


@inlined
def _first_to_drain(s: State, pool: int, t: float) -> int:
    """The READY instance with the least to do, or that has lately hit least; of equals the last."""
    p = s.pools[pool]
    by_hits = s.services[p.service].keeps_hits and p.role != DECODE_ROLE and p.scheduler != BATCH
    least = -1
    least_tokens = np.int64(0)
    least_hits = 0.0
    hits = 0.0
    for slot in range(p.first_slot, p.first_slot + p.slots):
        if s.instances[slot].status != READY:
            continue
        tokens = (
            stepped.outstanding(s, slot, t)
            if s.pools[pool].role == AGGREGATED_ROLE
            else s.instances[slot].load
        )
        if by_hits:
            hits = stepped.recent_hits(s, slot, t)
        if (
            least < 0
            or hits < least_hits
            or (
                hits == least_hits
                and (
                    tokens < least_tokens or (tokens == least_tokens and s.slots[slot].id > s.slots[least].id)
                )
            )
        ):
            least = slot
            least_tokens = tokens
            least_hits = hits
    return least


@compiled
def _shrink(s: State, pool: int, surplus: int, t: float) -> None:
    """Withdraw launches that wait, then cancel the newest STARTING, then drain READY ones."""
    withdrawn = min(surplus, s.pools[pool].waiting)
    want(s, pool, -withdrawn)
    surplus -= withdrawn
    while surplus > 0:
        slot = _newest_starting(s, pool)
        if slot < 0:
            break
        stop(s, slot, t)
        surplus -= 1
    while surplus > 0:
        slot = _first_to_drain(s, pool, t)
        if slot < 0:
            break
        instance = s.instances[slot]
        instance.status = DRAINING
        set_key(s, slot, NOT_READY)
        s.life[instance.life].drain_s = t
        if stepped.steps(s, slot):
            stepped.lose_cache(s, slot, False)
        if idle(s, slot):
            stop(s, slot, t)
        surplus -= 1


@entry
def scale(s: State, service: int, t: float) -> None:
    """Bring a service's pools to their targets at t: STARTING + READY + waiting; shrink before grow.

    The caller has made room: free slots, startup delays and lifetimes for every launch this can cause.
    """
    s.progress[0].decisions += 1
    for pool in range(s.pools.size):
        p = s.pools[pool]
        if p.service == service:
            size = p.waiting
            for slot in range(p.first_slot, p.first_slot + p.slots):
                if s.instances[slot].status == STARTING or s.instances[slot].status == READY:
                    size += 1
            if size > p.target:
                _shrink(s, pool, size - p.target, t)
            elif size < p.target:
                want(s, pool, p.target - size)
    launch_waiting(s, t)


@inlined
def _make_ready(s: State, slot: int, t: float) -> None:
    instance = s.instances[slot]
    instance.status = READY
    s.life[instance.life].ready_s = t
    set_key(s, slot, instance.load)


@entry
def make_ready(s: State, t: float) -> None:
    """Make every STARTING instance READY now: how the initial ones begin."""
    for slot in range(s.instances.size):
        if s.instances[slot].status == STARTING:
            s.slots[slot].event_s = np.inf
            event_update(s.slots, slot)
            _make_ready(s, slot, t)


@inlined
def _any_ready(s: State, stage: int) -> bool:
    for pool in range(s.stages[stage].first_pool, s.stages[stage].end_pool):
        if s.slots[s.slots[s.pools[pool].root].router_node].key != NOT_READY:
            return True
    return False


@compiled
def become_ready(s: State, t: float) -> None:
    """Instances become READY, then the stages' queues are handed out."""
    g = s.progress[0]
    for i in range(g.becoming):
        _make_ready(s, np.int64(s.instances[i].becoming_slot), t)
    g.becoming = 0
    for stage in range(s.stages.size):
        q = s.stages[stage]
        if q.queue_head >= 0 and _any_ready(s, stage):
            service = q.service
            decodes = s.services[service].decode_stage == stage
            if decodes:
                g.queued_decode -= q.queued
            request = q.queue_head
            q.queue_head = -1
            q.queue_tail = -1
            q.queued = 0
            while request >= 0:
                following = s.requests[request].link
                if s.requests[request].state == IN_POOL_PREFILL:
                    route_prefill(s, stage, request)
                elif decodes and s.requests[request].state == IN_POOL_DECODE:
                    bind_decode(s, stage, request, t)
                    resume_chain_at(s, service, request, t)
                request = following
