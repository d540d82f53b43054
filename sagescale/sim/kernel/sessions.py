"""ENGINES.md 6: who arrives when an answer is there, or when a session has ended.

A kernel for traces without turns is compiled without any of it: the type of ``State`` says which.
"""

from __future__ import annotations

import numpy as np

from sagescale.sim.kernel.compiled import compiled, entry, inlined, optional
from sagescale.sim.kernel.heaps import timed_pop, timed_push
from sagescale.sim.state import State


@optional("turns", otherwise=False)
@inlined
def has_turns(s: State) -> bool:  # noqa: ARG001 - its type says it
    """Whether requests wait for answers."""
    return True


@inlined
def _itself(s: State, request: int) -> int:  # noqa: ARG001 - as of ``row_of``
    return np.int64(request)


@optional("turns", _itself)
@inlined
def row_of(s: State, request: int) -> int:
    """Which request of the trace it is."""
    return np.int64(s.turns.row[request])


@optional("stepped")
@inlined
def _set_leaf(s: State, request: int, row: int) -> None:
    s.stepped.requests[request].leaf = s.turns.leaf[row]


@optional("homes")
@inlined
def _set_home(s: State, request: int, row: int) -> None:
    if s.turns.home.size > 0:
        s.homes.session[request] = s.turns.home[row]


@compiled
def _push(s: State, time_s: float, row: int) -> None:
    """Let a row arrive at a time; of one instant the first of the trace leads."""
    g = s.turns.progress[0]
    timed_push(s.turns.coming, np.int64(g.coming), time_s, row)
    g.coming += 1


@compiled
def _pop(s: State) -> None:
    """Take the first turn off the heap; the caller has read it."""
    g = s.turns.progress[0]
    timed_pop(s.turns.coming, np.int64(g.coming))
    g.coming -= 1


@inlined
def _over(s: State, row: int) -> bool:
    return s.turns.sessions[s.turns.session[row]].ended


@inlined
def _clock_s(s: State) -> float:
    """When the next begins that waits for nobody."""
    x = s.turns
    g = x.progress[0]
    return x.arrival_s[x.roots[g.next_root]] if g.next_root < g.end_root else np.inf


@compiled
def note_next(s: State) -> None:
    """Note when the next request of any service arrives; turns of sessions that have ended are dropped."""
    x = s.turns
    g = x.progress[0]
    while g.coming > 0 and _over(s, np.int64(x.coming[0].seq)):
        _pop(s)
    while g.next_root < g.end_root and _over(s, np.int64(x.roots[g.next_root])):
        g.next_root += 1
    coming_s = x.coming[0].time_s if g.coming > 0 else np.inf
    s.progress[0].next_arrival_s = min(_clock_s(s), coming_s)


@compiled
def next_due(s: State, t: float) -> int:
    """Take the first row that arrives at t, in the order of the trace; -1 without one."""
    x = s.turns
    g = x.progress[0]
    note_next(s)
    if s.progress[0].next_arrival_s != t:
        return -1
    row = np.int64(-1)
    if _clock_s(s) == t:
        row = np.int64(x.roots[g.next_root])
    if g.coming > 0 and x.coming[0].time_s == t and (row < 0 or x.coming[0].seq < row):
        row = np.int64(x.coming[0].seq)
        _pop(s)
    else:
        g.next_root += 1
    return int(row)


@compiled
def take(s: State, row: int, t: float) -> int:
    """A row arrives: return its service, whose next request it is."""
    x = s.turns
    g = x.progress[0]
    q = x.sessions[x.session[row]]
    service = np.int64(q.service)
    request = np.int64(s.services[service].next_arrival)
    x.row[request] = row
    s.arrival_s[request] = t
    s.isl[request] = x.isl[row]
    s.prompt[request] = x.prompt[row]
    s.osl[request] = x.osl[row]
    if s.priority.size > 0:
        s.priority[request] = x.priority[row]
    _set_leaf(s, request, row)
    _set_home(s, request, row)
    g.due += x.next_start[row + 1] - x.next_start[row]
    if q.first_root < q.next_root and x.roots[q.next_root - 1] == row and q.next_root < q.end_root:
        later = np.int64(x.roots[q.next_root])
        q.next_root += 1
        _push(s, q.began_s + (x.arrival_s[later] - x.arrival_s[x.roots[q.first_root]]), later)
    return int(service)


@compiled
def _begin(s: State, session: int, t: float) -> None:
    """A session of a closed population begins."""
    q = s.turns.sessions[session]
    q.began_s = t
    q.next_root += 1
    _push(s, t, np.int64(s.turns.roots[q.next_root - 1]))


@compiled
def _end(s: State, session: int, t: float) -> None:
    """Nothing more of a session arrives; in a closed population the next one begins."""
    x = s.turns
    q = x.sessions[session]
    q.ended = True
    p = x.populations[q.service]
    if p.sessions > 0 and p.next_session < p.end_session:
        p.next_session += 1
        _begin(s, np.int64(p.next_session - 1), t)
    note_next(s)


@optional("turns")
@compiled
def answered(s: State, request: int, t: float) -> None:
    """A request's last token is there: who waited for it alone arrives after thinking."""
    x = s.turns
    row = np.int64(x.row[request])
    session = np.int64(x.session[row])
    q = x.sessions[session]
    first = x.next_start[row]
    end = x.next_start[row + 1]
    x.progress[0].due -= end - first
    for i in range(first, end):
        later = np.int64(x.next_row[i])
        x.unanswered[later] -= 1
        if x.unanswered[later] == 0 and not q.ended:
            arrival_s = t + x.think_s[later]
            _push(s, arrival_s, later)
            s.progress[0].next_arrival_s = min(s.progress[0].next_arrival_s, arrival_s)
    q.left -= 1
    if q.left == 0 and not q.ended:
        _end(s, session, t)


@optional("turns")
@compiled
def missed(s: State, request: int) -> None:
    """A request will not be answered: nothing more of its session arrives."""
    x = s.turns
    row = np.int64(x.row[request])
    session = np.int64(x.session[row])
    x.progress[0].due -= x.next_start[row + 1] - x.next_start[row]
    if not x.sessions[session].ended and not x.sessions[session].open:
        _end(s, session, s.progress[0].now_s)


@optional("turns", otherwise=False)
@inlined
def crowded(s: State) -> bool:
    """Whether the heap of turns to come could overflow within an instant."""
    # A session that ends lets one begin; after those of an instant, a crash may end as many again.
    g = s.turns.progress[0]
    return g.coming + g.due + 2 * g.populations > s.turns.coming.size


@entry
def begin_populations(s: State) -> None:
    """Begin the first sessions of closed populations at 0, and note who arrives first."""
    x = s.turns
    for service in range(x.populations.size):
        p = x.populations[service]
        most = min(p.end_session, p.next_session + p.sessions)
        while p.sessions > 0 and p.next_session < most:
            _begin(s, np.int64(p.next_session), 0.0)
            p.next_session += 1
    note_next(s)
