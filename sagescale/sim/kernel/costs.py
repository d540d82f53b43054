"""What a router compares instances by where one number kept up to date is not enough (ENGINES.md 5).

Then all READY instances of a stage are compared, as the router knows them (``views``): so much a request and
instance, where the winner trees take its logarithm.
"""

from __future__ import annotations

import math

import numpy as np

from sagescale.sim.kernel import stepped
from sagescale.sim.kernel.compiled import compiled, inlined
from sagescale.sim.kernel.requests import produced
from sagescale.sim.kernel.sessions import row_of
from sagescale.sim.kernel.views import (
    block_tokens,
    held_blocks,
    load,
    outstanding,
    prompt_tokens,
    usage,
    waiting,
)
from sagescale.sim.state import DECODE_ROLE, KV_AWARE, LEAST_TOKENS, PREFIX_AFFINITY, READY, State


@inlined
def _mixed(state: np.uint64) -> np.uint64:
    """The next output of the generator splitmix64 (Steele, Lea & Flood 2014) at this state."""
    z = state + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@inlined
def _uniform(s: State, service: int, request: int) -> float:
    """In [0, 1): one draw a request, wherever it is routed, keyed by (seed, service, row of the trace)."""
    w = s.services[service]
    drawn = _mixed(_mixed(_mixed(w.seed) ^ w.name_crc) ^ np.uint64(row_of(s, request) - w.first_request))
    return float(drawn >> np.uint64(11)) * 2.0**-53


@compiled
def _cost(s: State, slot: int, request: int, longest: int, t: float) -> float:
    """Of an instance by ``kv_aware``, or ``prefix_affinity``, whose highest score costs least."""
    pool = s.pools[s.instances[slot].pool]
    w = s.services[pool.service]
    block = block_tokens(s, slot)
    overlap = np.int64(stepped.overlap(s, slot))
    if w.routing == KV_AWARE:
        prompt = np.int64(0)
        if pool.role != DECODE_ROLE:
            prompt = np.int64(s.prompt[request]) + produced(s, request)
        waits = prompt_tokens(s, slot) / block + prompt / block - w.overlap_credit * overlap
        return w.prefill_load_scale * waits + held_blocks(s, slot, t)
    queue = 1.0 if longest == 0 else 1.0 - waiting(s, slot) / longest
    return -(2.0 * (overlap * block / s.isl[request]) + queue + (1.0 - usage(s, slot, t)))


@compiled
def cheapest(s: State, stage: int, request: int, holding: int, t: float) -> int:
    """The READY instance that costs least, the first of the fleet on a tie; -1 without one."""
    q = s.stages[stage]
    w = s.services[q.service]
    if w.routing in (KV_AWARE, PREFIX_AFFINITY):
        stepped.find_overlaps(s, stage, request)
    longest = np.int64(0)
    if w.routing == PREFIX_AFFINITY:
        for pool in range(q.first_pool, q.end_pool):
            for slot in range(s.pools[pool].first_slot, s.pools[pool].first_slot + s.pools[pool].slots):
                if s.instances[slot].status == READY:
                    longest = max(longest, waiting(s, slot))
    best = np.int64(-1)
    least = np.inf
    most = -np.inf
    for pool in range(q.first_pool, q.end_pool):
        p = s.pools[pool]
        if p.max_kv_tokens < holding:
            continue
        for slot in range(p.first_slot, p.first_slot + p.slots):
            if s.instances[slot].status != READY:
                continue
            if w.routing == LEAST_TOKENS:
                cost = float(outstanding(s, slot, t)) / p.capacity
            elif w.routing < LEAST_TOKENS or w.routing > PREFIX_AFFINITY:
                cost = float(load(s, slot)) / p.capacity
            else:
                cost = _cost(s, slot, request, longest, t)
            s.slots[slot].cost = cost
            most = max(most, cost)
            if cost < least or (cost == least and s.slots[slot].id < s.slots[best].id):
                least = cost
                best = np.int64(slot)
    if best >= 0 and w.routing == KV_AWARE and w.router_temperature > 0.0:
        best = np.int64(_drawn(s, stage, request, holding, least, most))
    return int(best)


@inlined
def _weight(s: State, slot: int, least: float, most: float, temperature: float) -> float:
    if most == least:
        return 1.0
    return math.exp(-(s.slots[slot].cost - least) / ((most - least) * temperature))


@compiled
def _drawn(s: State, stage: int, request: int, holding: int, least: float, most: float) -> int:
    """An instance at random, the likelier the less it costs: softmax of the costs, normalised."""
    q = s.stages[stage]
    w = s.services[q.service]
    total = 0.0
    drawn = 0.0
    for round_ in range(2):
        upper = 0.0
        for pool in range(q.first_pool, q.end_pool):
            p = s.pools[pool]
            if p.max_kv_tokens < holding:
                continue
            last = np.int64(-1)
            while True:  # in the order of the fleet
                slot = np.int64(-1)
                for one in range(p.first_slot, p.first_slot + p.slots):
                    if (
                        s.instances[one].status == READY
                        and s.slots[one].id > last
                        and (slot < 0 or s.slots[one].id < s.slots[slot].id)
                    ):
                        slot = np.int64(one)
                if slot < 0:
                    break
                last = np.int64(s.slots[slot].id)
                upper += _weight(s, slot, least, most, w.router_temperature)
                if round_ == 1 and drawn < upper:
                    return int(slot)
        total = upper
        drawn = _uniform(s, q.service, request) * total
    return int(slot)
