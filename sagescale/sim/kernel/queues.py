"""The instances' queues: under FIFO a list, else a pairing heap of the requests themselves.

(Fredman, Sedgewick, Sleator & Tarjan 1986.)
"""

from __future__ import annotations

import numpy as np

from sagescale.sim.kernel.compiled import compiled, inlined
from sagescale.sim.kernel.requests import due_s, produced
from sagescale.sim.kernel.step_times import batch_s
from sagescale.sim.state import FIFO, SLO_AWARE, State


@compiled
def meld(s: State, one: int, other: int) -> int:
    """Make one queue of two, each known by its head (-1: empty): the head that is later goes behind."""
    if one < 0:
        return other
    if other < 0:
        return one
    a = s.places[one]
    b = s.places[other]
    if b.rank < a.rank or (
        b.rank == a.rank and (b.latest_s < a.latest_s or (b.latest_s == a.latest_s and b.joined < a.joined))
    ):
        one, other = other, one
    s.requests[other].link = s.places[one].child
    s.places[one].child = other
    return one


@compiled
def join(s: State, head: int, request: int) -> int:
    """Return the head of a queue that a request joins; it has been ranked."""
    g = s.progress[0]
    place = s.places[request]
    place.joined = g.joins
    place.child = -1
    g.joins += 1
    return int(meld(s, head, request))


@compiled
def without_head(s: State, head: int) -> int:
    """Return who is next once the head has left: pairs from the first on, then all of them from the last."""
    behind = np.int64(s.places[head].child)
    s.places[head].child = -1
    pairs = np.int64(-1)
    while behind >= 0:
        second = np.int64(s.requests[behind].link)
        following = np.int64(-1)
        if second >= 0:
            following = np.int64(s.requests[second].link)
        winner = meld(s, behind, second)
        s.requests[winner].link = pairs
        pairs = winner
        behind = following
    first = np.int64(-1)
    while pairs >= 0:
        following = np.int64(s.requests[pairs].link)
        first = meld(s, first, pairs)
        pairs = following
    return int(first)


@compiled
def rank_for_prefill(s: State, pool: int, request: int, by_slack: bool) -> None:
    """By priority, which SLO_AWARE ignores; and by slack, by the latest start in time for the next token."""
    service = s.pools[pool].service
    place = s.places[request]
    place.rank = 0.0 if s.services[service].scheduling == SLO_AWARE else float(s.priority[request])
    place.latest_s = 0.0
    if by_slack:
        made = produced(s, request)
        size = s.prompt[request] + made
        place.latest_s = due_s(s, service, request, made) - batch_s(s, pool, size, float(size) * float(size))


@compiled
def rank_for_decode(s: State, service: int, request: int, t: float) -> None:
    """By priority, or by when the next token is due; who can only be late with the first one goes last."""
    w = s.services[service]
    place = s.places[request]
    place.latest_s = 0.0
    if w.scheduling != SLO_AWARE:
        place.rank = float(s.priority[request])
        return
    made = produced(s, request)
    if not w.decode_first:
        made += 1
    due = due_s(s, service, request, made)
    if due < t and np.isnan(s.requests[request].first_token_s):
        place.rank = np.inf
    else:
        place.rank = 0.0
        place.latest_s = due


@inlined
def can_only_be_late(s: State, request: int, t: float) -> bool:
    """By slack: whether a request that has not been put behind others can have no first token in time."""
    place = s.places[request]
    return bool(place.latest_s < t and place.rank < np.inf and np.isnan(s.requests[request].first_token_s))


@compiled
def put_behind(s: State, head: int, request: int) -> int:
    """Return the head of a queue that a request, just off it, joins again behind all that can be in time."""
    place = s.places[request]
    place.latest_s = place.rank  # among themselves by priority still
    place.rank = np.inf
    return int(meld(s, head, request))


@inlined
def append(s: State, slot: int, request: int) -> None:
    """Put a request, linked to nobody, at the end of an instance's list."""
    instance = s.instances[slot]
    if instance.tail < 0:
        instance.head = request
    else:
        s.requests[instance.tail].link = request
    instance.tail = request


@inlined
def drop_head(s: State, slot: int) -> None:
    """Take the head off an instance's queue."""
    instance = s.instances[slot]
    if s.services[s.pools[instance.pool].service].scheduling != FIFO:
        instance.head = without_head(s, instance.head)
    else:
        instance.head = s.requests[instance.head].link
        if instance.head < 0:
            instance.tail = -1
