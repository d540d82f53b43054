"""Where an engine takes one step after the other: its part of what happens to any.

A kernel for runs without such engines is compiled without any of it: the type of ``State`` says which.
"""

from __future__ import annotations

import numpy as np

from sagescale.sim.kernel import hits, prefix_cache, scheduler, stepping
from sagescale.sim.kernel.compiled import inlined, optional
from sagescale.sim.state import BATCH, State


@optional("stepped", otherwise=False)
@inlined
def steps(s: State, slot: int) -> bool:
    """Whether the instance in a slot takes one step after the other."""
    return bool(s.pools[s.instances[slot].pool].scheduler != BATCH)


_NONE, _NOBODY = np.int64(0), np.int64(-1)

begin = optional("stepped")(scheduler.begin_step)
end = optional("stepped", _NOBODY)(scheduler.end_step)
receive = optional("stepped")(stepping.receive)
deliver = optional("stepped")(stepping.deliver)
give_up = optional("stepped")(stepping.give_up)
hand_off_ended = optional("stepped")(stepping.release_source)
lose = optional("stepped", _NOBODY)(stepping.lose)
outstanding = optional("stepped", _NONE)(stepping.outstanding)
count = optional("stepped")(stepping.count)
clear = optional("stepped")(stepping.clear)
forget = optional("stepped")(stepping.forget)
forget_gone = optional("stepped")(prefix_cache.forget_gone)
recent_hits = optional("stepped", 0.0)(hits.recent_hits)
lose_cache = optional("stepped")(hits.lose_cache)
step_under_way_s = optional("stepped", 0.0)(stepping.step_under_way_s)
seen_waiting = optional("stepped", _NONE)(stepping.seen_waiting)
held_blocks = optional("stepped", _NONE)(stepping.held_blocks)


@optional("stepped")
@inlined
def bind(s: State, request: int) -> None:
    """Remember in which order requests are bound to a decode instance."""
    s.stepped.requests[request].bound_at = s.progress[0].joins
    s.progress[0].joins += 1


@optional("stepped", _NONE)
@inlined
def seen_prompt_tokens(s: State, slot: int) -> int:
    """Prompt tokens that an instance has yet to compute, as of its last finished step."""
    return np.int64(s.stepped.engines[slot].seen_prompt_tokens)


@optional("stepped")
@inlined
def find_overlaps(s: State, stage: int, request: int) -> None:
    """See ``prefix_cache.overlaps``, of the instances of a stage; for ``overlap``."""
    x = s.stepped
    q = s.stages[stage]
    for slot in range(
        s.pools[q.first_pool].first_slot, s.pools[q.end_pool - 1].first_slot + s.pools[q.end_pool - 1].slots
    ):
        x.engines[slot].overlap = 0
        x.engines[slot].overlap_ids = 0
    block = np.int64(s.pools[q.first_pool].block_tokens)
    if s.pools[q.first_pool].prefix_cache:
        w = s.services[q.service]
        prefix_cache.overlaps(s, request, block, np.int64(w.unit_tokens) // block, np.int64(w.looks))


@optional("stepped", _NONE)
@inlined
def overlap(s: State, slot: int) -> int:
    """Blocks of the prompt last asked for that an instance has cached."""
    return np.int64(s.stepped.engines[slot].overlap)


@optional("stepped", otherwise=False)
@inlined
def crowded(s: State) -> bool:
    """Whether the prefix caches could run out of entries within an instant."""
    return bool(min(s.progress[0].free_entries, s.progress[0].free_runs) < s.progress[0].spare_entries)
