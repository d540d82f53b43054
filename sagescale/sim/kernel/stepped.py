"""Where an engine takes one step after the other: its part of what happens to any.

A kernel for runs without such engines is compiled without any of it: the type of ``State`` says which.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sagescale.sim.kernel import hits, prefix_cache, scheduler, stepping
from sagescale.sim.kernel.compiled import choose, inlined
from sagescale.sim.state import BATCH, State

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "begin", "bind", "clear", "count", "crowded", "deliver", "end", "find_overlaps", "forget",
    "forget_gone", "give_up", "hand_off_ended", "held_blocks", "lose", "lose_cache", "outstanding",
    "overlap", "receive", "recent_hits", "seen_prompt_tokens", "seen_waiting", "step_under_way_s",
    "steps",
]  # fmt: skip


def steps(s: State, slot: int) -> bool:
    """Whether the instance in a slot takes one step after the other."""
    raise NotImplementedError


def begin(s: State, slot: int, t: float) -> None:
    """See ``scheduler.begin_step``."""
    raise NotImplementedError


def end(s: State, slot: int, t: float) -> int:
    """See ``scheduler.end_step``."""
    raise NotImplementedError


def receive(s: State, slot: int, request: int, t: float) -> None:
    """See ``stepping.receive``."""
    raise NotImplementedError


def deliver(s: State, slot: int, request: int, t: float) -> None:
    """See ``stepping.deliver``."""
    raise NotImplementedError


def give_up(s: State, slot: int, request: int, t: float) -> None:
    """See ``stepping.give_up``."""
    raise NotImplementedError


def hand_off_ended(s: State, request: int) -> None:
    """See ``stepping.release_source``."""
    raise NotImplementedError


def lose(s: State, slot: int, first: int, t: float) -> int:
    """See ``stepping.lose``."""
    raise NotImplementedError


def outstanding(s: State, slot: int, t: float) -> int:
    """See ``stepping.outstanding``."""
    raise NotImplementedError


def count(s: State, slot: int, t: float, totals: NDArray[np.int64]) -> None:
    """See ``stepping.count``."""
    raise NotImplementedError


def clear(s: State, slot: int) -> None:
    """See ``stepping.clear``."""
    raise NotImplementedError


def forget(s: State, slot: int) -> None:
    """See ``stepping.forget``."""
    raise NotImplementedError


def forget_gone(s: State, slot: int) -> None:
    """See ``prefix_cache.forget_gone``."""
    raise NotImplementedError


def recent_hits(s: State, slot: int, t: float) -> float:
    """See ``hits.recent_hits``."""
    raise NotImplementedError


def lose_cache(s: State, slot: int, gone: bool) -> None:
    """See ``hits.lose_cache``."""
    raise NotImplementedError


def bind(s: State, slot: int, request: int) -> None:
    """Remember in which order requests are bound to a decode instance."""
    raise NotImplementedError


def step_under_way_s(s: State, slot: int, t: float) -> float:
    """See ``stepping.step_under_way_s``."""
    raise NotImplementedError


def seen_waiting(s: State, slot: int) -> int:
    """See ``stepping.seen_waiting``."""
    raise NotImplementedError


def seen_prompt_tokens(s: State, slot: int) -> int:
    """Prompt tokens that an instance has yet to compute, as of its last finished step."""
    raise NotImplementedError


def held_blocks(s: State, slot: int, t: float) -> int:
    """See ``stepping.held_blocks``."""
    raise NotImplementedError


def find_overlaps(s: State, stage: int, request: int) -> None:
    """See ``prefix_cache.overlaps``, of the instances of a stage; for ``overlap``."""
    raise NotImplementedError


def overlap(s: State, slot: int) -> int:
    """Blocks of the prompt last asked for that an instance has cached."""
    raise NotImplementedError


def crowded(s: State) -> bool:
    """Whether the prefix caches could run out of entries within an instant."""
    raise NotImplementedError


@inlined
def _bind(s: State, request: int) -> None:
    s.stepped.requests[request].bound_at = s.progress[0].joins
    s.progress[0].joins += 1


@inlined
def _find_overlaps(s: State, stage: int, request: int) -> None:
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


# ruff: noqa: ARG005, PLW0108  # a function of numba's has the arguments of what it stands for
choose(
    steps,
    "stepped",
    lambda s, slot: s.pools[s.instances[slot].pool].scheduler != BATCH,
    lambda s, slot: False,
)
choose(begin, "stepped", lambda s, slot, t: scheduler.begin_step(s, slot, t), lambda s, slot, t: None)
choose(end, "stepped", lambda s, slot, t: scheduler.end_step(s, slot, t), lambda s, slot, t: np.int64(-1))
choose(
    receive,
    "stepped",
    lambda s, slot, request, t: stepping.receive(s, slot, request, t),
    lambda s, slot, request, t: None,
)
choose(
    deliver,
    "stepped",
    lambda s, slot, request, t: stepping.deliver(s, slot, request, t),
    lambda s, slot, request, t: None,
)
choose(
    give_up,
    "stepped",
    lambda s, slot, request, t: stepping.give_up(s, slot, request, t),
    lambda s, slot, request, t: None,
)
choose(
    hand_off_ended, "stepped", lambda s, request: stepping.release_source(s, request), lambda s, request: None
)
choose(
    lose,
    "stepped",
    lambda s, slot, first, t: stepping.lose(s, slot, first, t),
    lambda s, slot, first, t: np.int64(-1),
)
choose(
    outstanding,
    "stepped",
    lambda s, slot, t: stepping.outstanding(s, slot, t),
    lambda s, slot, t: np.int64(0),
)
choose(
    count,
    "stepped",
    lambda s, slot, t, totals: stepping.count(s, slot, t, totals),
    lambda s, slot, t, totals: None,
)
choose(clear, "stepped", lambda s, slot: stepping.clear(s, slot), lambda s, slot: None)
choose(forget, "stepped", lambda s, slot: stepping.forget(s, slot), lambda s, slot: None)
choose(forget_gone, "stepped", lambda s, slot: prefix_cache.forget_gone(s, slot), lambda s, slot: None)
choose(recent_hits, "stepped", lambda s, slot, t: hits.recent_hits(s, slot, t), lambda s, slot, t: 0.0)
choose(
    lose_cache, "stepped", lambda s, slot, gone: hits.lose_cache(s, slot, gone), lambda s, slot, gone: None
)
choose(bind, "stepped", lambda s, slot, request: _bind(s, request), lambda s, slot, request: None)
choose(
    crowded,
    "stepped",
    lambda s: min(s.progress[0].free_entries, s.progress[0].free_runs) < s.progress[0].spare_entries,
    lambda s: False,
)
choose(
    step_under_way_s,
    "stepped",
    lambda s, slot, t: stepping.step_under_way_s(s, slot, t),
    lambda s, slot, t: 0.0,
)
choose(seen_waiting, "stepped", lambda s, slot: stepping.seen_waiting(s, slot), lambda s, slot: np.int64(0))
choose(
    seen_prompt_tokens,
    "stepped",
    lambda s, slot: np.int64(s.stepped.engines[slot].seen_prompt_tokens),
    lambda s, slot: np.int64(0),
)
choose(
    held_blocks,
    "stepped",
    lambda s, slot, t: stepping.held_blocks(s, slot, t),
    lambda s, slot, t: np.int64(0),
)
choose(
    find_overlaps,
    "stepped",
    lambda s, stage, request: _find_overlaps(s, stage, request),
    lambda s, stage, request: None,
)
choose(
    overlap, "stepped", lambda s, slot: np.int64(s.stepped.engines[slot].overlap), lambda s, slot: np.int64(0)
)
