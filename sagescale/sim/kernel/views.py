"""What a router knows of an instance: as it is, or as of its last look and of what it has sent there since.

As it is means as of the instance's last finished step, and of what was routed to it (ENGINES.md 5). A router
with ``router_staleness_s`` looks before anything of the first instant at or after each multiple of it; an
instance that was not READY then is empty to it and cold.
"""

from __future__ import annotations

import numpy as np

from sagescale.sim.kernel import stepped
from sagescale.sim.kernel.compiled import compiled, inlined, optional
from sagescale.sim.kernel.requests import produced, reserves
from sagescale.sim.kernel.step_times import steps_by
from sagescale.sim.state import AGGREGATED_ROLE, DECODE_ROLE, FREE, PREFILL_ROLE, READY, WAITS, State

_BLOCK_TOKENS = 16  # where an engine has no blocks


@inlined
def block_tokens(s: State, slot: int) -> int:
    """Tokens of a block that loads are counted in."""
    pool = s.pools[s.instances[slot].pool]
    return np.int64(pool.block_tokens) if stepped.steps(s, slot) else np.int64(_BLOCK_TOKENS)


# As it is.


@inlined
def _outstanding(s: State, slot: int, t: float) -> int:
    if stepped.steps(s, slot):
        return np.int64(stepped.outstanding(s, slot, t))
    one = s.instances[slot]
    if s.pools[one.pool].role == PREFILL_ROLE:
        return np.int64(one.load + one.answer_tokens)
    ended = steps_by(s, slot, t) if one.running > 0 else 0
    return np.int64(one.bound + one.answer_tokens - one.running * ended)


@inlined
def _waiting(s: State, slot: int) -> int:
    one = s.instances[slot]
    role = s.pools[one.pool].role
    if stepped.steps(s, slot):
        return np.int64(stepped.seen_waiting(s, slot))
    return np.int64(one.bound - one.running if role == DECODE_ROLE else one.queued)


@inlined
def _held_blocks(s: State, slot: int, t: float) -> float:
    if stepped.steps(s, slot):
        return float(stepped.held_blocks(s, slot, t))
    one = s.instances[slot]
    return float(one.load) / _BLOCK_TOKENS if s.pools[one.pool].role == DECODE_ROLE else 0.0


@inlined
def _usage(s: State, slot: int, t: float) -> float:
    pool = s.pools[s.instances[slot].pool]
    if stepped.steps(s, slot):
        return 0.0 if pool.blocks >= 1 << 59 else stepped.held_blocks(s, slot, t) / float(pool.blocks)
    if pool.role != DECODE_ROLE or pool.max_kv_tokens >= 1 << 59:
        return 0.0
    return float(s.instances[slot].load) / pool.max_kv_tokens


@inlined
def _prompt_tokens(s: State, slot: int) -> int:
    if stepped.steps(s, slot):
        return np.int64(stepped.seen_prompt_tokens(s, slot))
    one = s.instances[slot]
    return np.int64(one.load if s.pools[one.pool].role == PREFILL_ROLE else 0)


# As the router knows it.


@inlined
def _is_late(s: State, slot: int) -> bool:
    return bool(s.services[s.pools[s.instances[slot].pool].service].staleness_s > 0.0)


@inlined
def load(s: State, slot: int) -> int:
    """What ``load_balanced`` compares."""
    return np.int64(s.homes.views[slot].load) if _is_late(s, slot) else np.int64(s.instances[slot].load)


@inlined
def outstanding(s: State, slot: int, t: float) -> int:
    """Tokens to compute and to produce of all that are routed to an instance."""
    return np.int64(s.homes.views[slot].outstanding) if _is_late(s, slot) else _outstanding(s, slot, t)


@inlined
def waiting(s: State, slot: int) -> int:
    """Requests routed to an instance and not admitted."""
    return np.int64(s.homes.views[slot].waiting) if _is_late(s, slot) else _waiting(s, slot)


@inlined
def held_blocks(s: State, slot: int, t: float) -> float:
    """Blocks that an instance holds; one that forms batches holds whole lengths."""
    return float(s.homes.views[slot].held_blocks) if _is_late(s, slot) else _held_blocks(s, slot, t)


@inlined
def usage(s: State, slot: int, t: float) -> float:
    """Share of an instance's KV memory that is held."""
    return float(s.homes.views[slot].usage) if _is_late(s, slot) else _usage(s, slot, t)


@inlined
def prompt_tokens(s: State, slot: int) -> int:
    """Prompt tokens that an instance has yet to compute."""
    return np.int64(s.homes.views[slot].prompt_tokens) if _is_late(s, slot) else _prompt_tokens(s, slot)


@compiled
def _look_at(s: State, slot: int, t: float) -> None:
    v = s.homes.views[slot]
    ready = s.instances[slot].status == READY
    v.load = s.instances[slot].load if ready else 0
    v.outstanding = _outstanding(s, slot, t) if ready else 0
    v.waiting = _waiting(s, slot) if ready else 0
    v.prompt_tokens = _prompt_tokens(s, slot) if ready else 0
    v.held_blocks = _held_blocks(s, slot, t) if ready else 0.0
    v.usage = _usage(s, slot, t) if ready else 0.0


@optional("homes")
@compiled
def look(s: State, t: float) -> None:
    """Routers look that are to, before anything of this instant happens."""
    g = s.progress[0]
    g.next_look_s = np.inf
    for service in range(s.services.size):
        w = s.services[service]
        if w.staleness_s == 0.0:
            continue
        if w.next_look_s <= t:
            multiple = np.floor(t / w.staleness_s)
            # Steps that end at that very instant have not ended yet.
            before_s = np.nextafter(multiple * w.staleness_s, -np.inf)
            w.looks += 1
            for pool in range(s.pools.size):
                p = s.pools[pool]
                if p.service == service:
                    for slot in range(p.first_slot, p.first_slot + p.slots):
                        _look_at(s, slot, before_s)
                        if s.instances[slot].status != FREE and stepped.steps(s, slot):
                            stepped.forget_gone(s, slot)
            while w.next_look_s <= t:
                multiple += 1.0
                w.next_look_s = multiple * w.staleness_s
        g.next_look_s = min(g.next_look_s, w.next_look_s)


@inlined
def sent(s: State, slot: int, request: int) -> None:
    """Note what one more request adds, as far as the router knows."""
    pool = s.pools[s.instances[slot].pool]
    v = s.homes.views[slot]
    made = produced(s, request)
    v.waiting += 1
    if pool.role == DECODE_ROLE:
        v.load += reserves(s, request)
        v.outstanding += 1 + s.osl[request] - made
        if not s.services[pool.service].decode_first:
            v.outstanding -= 1
    else:
        tokens = s.prompt[request] + made
        v.load += WAITS if pool.role == AGGREGATED_ROLE else tokens
        v.prompt_tokens += tokens
        v.outstanding += tokens + s.osl[request] - made


@optional("homes")
@inlined
def unknown(s: State, slot: int) -> None:
    """An instance is launched that routers have not looked at yet."""
    if slot < s.homes.views.size:
        v = s.homes.views[slot]
        v.load = 0
        v.outstanding = 0
        v.waiting = 0
        v.prompt_tokens = 0
        v.held_blocks = 0.0
        v.usage = 0.0
