"""KV memory of an engine that is a step at a time: blocks that are held, idle in the cache, or free.

Each request that decodes takes a block every ``block`` tokens. So over ``block`` steps all take one each, and
within them as the counts by phase say: when memory runs out is known without taking the steps.
"""

from __future__ import annotations

import numpy as np

from sagescale.sim.kernel.compiled import compiled, inlined
from sagescale.sim.kernel.prefix_cache import evict
from sagescale.sim.state import State


@inlined
def blocks_of(tokens: int, block: int) -> int:
    """Blocks that so many tokens take."""
    return (tokens + block - 1) // block


@inlined
def available(s: State, slot: int) -> int:
    """Blocks to be had: free, or idle in the cache."""
    return int(s.pools[s.instances[slot].pool].blocks - s.stepped.engines[slot].used)


@inlined
def take(s: State, slot: int, blocks: int) -> None:
    """Take blocks that are to be had: the free ones first, then what the cache keeps."""
    e = s.stepped.engines[slot]
    e.used += blocks
    if e.used + e.idle > s.pools[s.instances[slot].pool].blocks:
        evict(s, slot)


@inlined
def decode_phase(s: State, slot: int, base: int) -> int:
    """Where the count is of those that decode and take a block when this one does."""
    return int(s.stepped.engines[slot].phases + base % s.pools[s.instances[slot].pool].block_tokens)


@inlined
def blocks_within(s: State, slot: int, first: int, end: int) -> int:
    """Blocks that those that decode take in steps ``first`` to ``end`` - 1 from now, the next being 0."""
    e = s.stepped.engines[slot]
    block = np.int64(s.pools[s.instances[slot].pool].block_tokens)
    whole = (end - first) // block
    rest = (end - first) - whole * block
    total = whole * e.decoding
    if rest > 0:
        phase = (-(s.instances[slot].steps + first)) % block
        for _ in range(rest):
            total += s.stepped.phases[e.phases + phase]
            phase -= 1
            if phase < 0:
                phase = block - 1
    return int(total)


@inlined
def steps_that_fit(s: State, slot: int, room: int, limit: int) -> int:
    """How many of the next steps, at most ``limit``, take no more than so many blocks in all."""
    e = s.stepped.engines[slot]
    block = np.int64(s.pools[s.instances[slot].pool].block_tokens)
    if e.decoding * ((limit + block - 1) // block) <= room:
        return limit
    return int(_count_steps(s, slot, block, room, limit))


@compiled
def _count_steps(s: State, slot: int, block: int, room: int, limit: int) -> int:
    e = s.stepped.engines[slot]
    rounds = room // e.decoding
    room -= rounds * e.decoding
    steps = rounds * block
    phase = (-(s.instances[slot].steps + steps)) % block
    while steps < limit:
        room -= s.stepped.phases[e.phases + phase]
        if room < 0:
            break
        steps += 1
        phase -= 1
        if phase < 0:
            phase = block - 1
    return min(steps, limit)
