"""Rule 4: the KV cache of a request goes from the prefill instance to the decode instance."""

from __future__ import annotations

import numpy as np

from sagescale.sim.kernel import stepped
from sagescale.sim.kernel.compiled import compiled, inlined
from sagescale.sim.kernel.heaps import timed_push
from sagescale.sim.kernel.instances import touch
from sagescale.sim.kernel.requests import produced
from sagescale.sim.kernel.step_times import run_boundary, step_now_s
from sagescale.sim.state import FREE, IN_HANDOFF, IN_POOL_DECODE, TIMED_OUT, State


@inlined
def start_handoff(s: State, request: int, source: int, t: float) -> None:
    """Rule 4: latency + isl * rate + decode_steps * the receiver's step in progress."""
    g = s.progress[0]
    slot = np.int64(s.requests[request].bound)
    d = s.instances[slot]
    pool = s.pools[d.pool]
    duration = pool.kv_latency_s + (s.isl[request] + produced(s, request)) * pool.kv_s_per_token
    if pool.kv_decode_steps > 0.0:
        current = 0.0
        if d.last_step_end_s == t:
            current = d.last_step_s
        elif stepped.steps(s, slot):
            current = stepped.step_under_way_s(s, slot, t)
        elif d.status != FREE and d.running > 0 and s.slots[slot].event_s < np.inf and d.run_start_s < t:
            k, _ = run_boundary(s, slot, t)
            current = step_now_s(s, slot, k)
        duration += pool.kv_decode_steps * current
    s.requests[request].state = IN_HANDOFF
    at = timed_push(s.handoff, np.int64(g.handoffs), t + duration, np.int64(g.handoff_seq))
    s.handoff[at].request = request
    s.handoff[at].source = source
    g.handoffs += 1
    g.handoff_seq += 1
    w = s.services[pool.service]
    w.handoffs += 1
    w.handoff_sum_s += duration


@compiled
def resume_chain(s: State, slot: int, t: float) -> None:
    """Blocking hand-off: start the next one of the batch; with none left the instance is free."""
    p = s.instances[slot]
    while p.cursor >= 0 and not p.handing:
        request = p.cursor
        if s.requests[request].state == TIMED_OUT:
            p.cursor = s.requests[request].chain
        elif s.requests[request].state == IN_POOL_DECODE:
            break
        else:
            p.handing = True
            start_handoff(s, request, slot, t)
    if p.cursor < 0 and not p.handing:
        p.busy = False
        touch(s, slot)


@compiled
def resume_chain_at(s: State, service: int, request: int, t: float) -> None:
    """Blocking hand-off: this request no longer waits for a decode instance; was it its turn?"""
    stage = s.stages[s.services[service].prefill_stage]
    for index in range(stage.first_pool, stage.end_pool):
        pool = s.pools[index]
        if pool.blocks_prefill:
            for slot in range(pool.first_slot, pool.first_slot + pool.slots):
                p = s.instances[slot]
                if p.busy and p.cursor == request and not p.handing:
                    resume_chain(s, slot, t)
