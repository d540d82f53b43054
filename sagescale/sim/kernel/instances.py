"""Small moves on one instance: what it has to do, and that it is to be looked at."""

from __future__ import annotations

import numpy as np

from sagescale.sim.kernel.compiled import inlined
from sagescale.sim.kernel.requests import produced, reserves
from sagescale.sim.kernel.step_times import run_boundary
from sagescale.sim.kernel.trees import event_update, router_update
from sagescale.sim.state import READY, State


@inlined
def touch(s: State, slot: int) -> None:
    """Have an instance looked at before the instant ends: it may have something to begin, or be done."""
    instance = s.instances[slot]
    if not instance.dirty:
        g = s.progress[0]
        instance.dirty = True
        half = s.instances.size >> 1
        if slot >= half:
            s.instances[half + g.dirty_prefill].dirty_slot = slot
            g.dirty_prefill += 1
        else:
            s.instances[g.dirty_decode].dirty_slot = slot
            g.dirty_decode += 1


@inlined
def set_key(s: State, slot: int, key: int) -> None:
    """Tell the router what to compare an instance by."""
    instance = s.instances[slot]
    s.slots[slot].key = key
    router_update(s.slots, slot, s.pools[instance.pool].root)


@inlined
def add_load(s: State, slot: int, tokens: int) -> None:
    """Change what an instance has to do."""
    instance = s.instances[slot]
    instance.load += tokens
    if instance.status == READY and not s.services[s.pools[instance.pool].service].round_robin:
        set_key(s, slot, instance.load)


@inlined
def end_run_at_boundary(s: State, slot: int, t: float) -> None:
    """End the run of steps in progress at the next step boundary: at t, unless steps have begun there."""
    d = s.instances[slot]
    k, end_s = run_boundary(s, slot, np.nextafter(t, np.inf) if s.progress[0].formed else t)
    if k < d.run_steps:
        d.run_steps = k
        s.slots[slot].event_s = end_s
        event_update(s.slots, slot)


@inlined
def cold_start_s(s: State, slot: int) -> float:
    """What the first batch or step of an instance takes longer, which is noted; 0 of later ones."""
    instance = s.instances[slot]
    seconds = float(instance.cold_s)
    if seconds > 0.0:
        s.life[instance.life].cold_s = seconds
        instance.cold_s = 0.0
    return seconds


@inlined
def unbind(s: State, slot: int, request: int) -> None:
    """A request that was bound to a decode instance, and has made no token there, is so no longer."""
    d = s.instances[slot]
    d.bound -= 1
    d.answer_tokens -= s.osl[request] - produced(s, request)
    if not s.services[s.pools[d.pool].service].decode_first:
        d.answer_tokens += 1
    add_load(s, slot, -reserves(s, request))
