"""How much prefix caches hit, by an instance's age and lately; what a scale-down lost (ENGINES.md 4, 7).

A unit is lost where an instance is drained that alone of those READY had it, and asked again where a prompt
that is first admitted elsewhere goes on with it: each loss counts once.
"""

from __future__ import annotations

import numpy as np

from sagescale.sim.kernel.compiled import compiled, inlined
from sagescale.sim.kernel.prefix_cache import asked_again
from sagescale.sim.state import (
    AGES,
    AGES_UNTIL_S,
    DRAINING,
    HITS_HALVE_S,
    READY,
    State,
)


@inlined
def recent_hits(s: State, slot: int, t: float) -> float:
    """Tokens that prompts found on an instance, those of ``HITS_HALVE_S`` ago counted half; where kept."""
    e = s.stepped.engines[slot]
    return float(e.hits * 0.5 ** ((t - e.hits_at_s) / HITS_HALVE_S))


@compiled
def note_hits(s: State, slot: int, request: int, hit_tokens: int, units: int, t: float) -> None:
    """A request is first admitted, and finds so many tokens, of so many ids."""
    x = s.stepped
    e = x.engines[slot]
    pool = s.pools[s.instances[slot].pool]
    age_s = t - s.life[s.instances[slot].life].ready_s
    age = np.int64(0)
    while age < AGES - 1 and age_s >= AGES_UNTIL_S[age]:
        age += 1
    by_age = x.hits_by_age[pool.service * AGES + age]
    by_age.asked_tokens += s.isl[request]
    by_age.hit_tokens += hit_tokens
    w = s.services[pool.service]
    if w.keeps_hits:
        e.hits = recent_hits(s, slot, t) + hit_tokens
        e.hits_at_s = t
    if w.lost_units > 0:
        w.asked_again_tokens += asked_again(s, slot, request, units)


@inlined
def _is_elsewhere(s: State, slot: int, unit: int) -> bool:
    x = s.stepped
    entry = np.int64(x.first_entry[unit])
    while entry >= 0:
        other = np.int64(x.entries[entry].slot)
        if other >= 0 and other != slot and s.instances[other].status == READY:
            return True
        entry = np.int64(x.entries[entry].chain)
    return False


@compiled
def lose_cache(s: State, slot: int, gone: bool) -> None:
    """An instance is drained, or that has ended (``gone``): what nobody holds there is found no longer."""
    x = s.stepped
    pool = s.pools[s.instances[slot].pool]
    if not pool.prefix_cache or s.instances[slot].status != DRAINING:
        return
    w = s.services[pool.service]
    entry = np.int64(x.engines[slot].oldest_idle)
    while entry >= 0:
        one = x.entries[entry]
        if one.unit >= 0:
            if gone:
                w.drained_tokens += np.int64(one.blocks) * pool.block_tokens
            if not x.lost[one.unit] and not _is_elsewhere(s, slot, np.int64(one.unit)):
                x.lost[one.unit] = True
                w.lost_units += 1
        entry = np.int64(one.newer)
