"""Requests that wait for answers, in the kernel's terms, and what came of them (ENGINES.md 6).

In a closed loop the kernel numbers requests by arrival, as always; a *row* is where the trace has one.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from sagescale.errors import InputError, SagescaleError
from sagescale.sim.state import POPULATION, SESSION, TURN_ENTRY, TURNING, Turns, joined, read_only
from sagescale.trace import session_starts
from sagescale.trace.trace import MAX_SPAN_S, numbered

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sagescale.sim.config import SimulatorConfig
    from sagescale.sim.engine import ServiceLoad
    from sagescale.trace import Trace

_OPEN = np.iinfo(np.int32).max
_ROOM = 1024


def kernel_turns(
    loads: Sequence[ServiceLoad],
    columns: tuple[NDArray[np.float64], NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]],
    priority: NDArray[np.int32],
    leaf: NDArray[np.int32],
    home: NDArray[np.int32],
) -> Turns | None:
    """What the kernel needs of the turns of all services; None where all requests arrive by the clock.

    Args:
        loads: the services.
        columns: arrival_s, isl, prompt and osl of all rows, one service's after the other's.
        priority: of all rows, or empty.
        leaf: node of each row's last id, or empty.
        home: number of each row among its service's sessions, or empty.
    """
    if all(load.turns is None for load in loads):
        return None
    sessions, populations = [], np.zeros(len(loads), POPULATION)
    session, starts, nexts, thinks, unanswered, clocked, housed = [], [], [], [], [], [], []
    row = number = waits = places = 0
    for service, load in enumerate(loads):
        count = len(load.arrival_s)
        mine, which, roots = _sessions(load, service)
        next_start, next_row, think_s, waited = _successors(load)
        if load.concurrent_sessions is None:
            clocked.append(roots + row)
        else:
            order = roots[np.argsort(which[roots], kind="stable")]
            ends = np.cumsum(np.bincount(which[roots], minlength=len(mine)))
            mine["end_root"], mine["first_root"] = ends + places, np.append(0, ends[:-1]) + places
            housed.append(order + row)
            places += len(order)
            populations[service] = (min(load.concurrent_sessions, len(mine)), number, number + len(mine))
        sessions.append(mine)
        session.append(which + np.int32(number) if number else which)
        starts.append(next_start[:-1] + waits)
        nexts.append(next_row + np.int32(row) if row else next_row)
        thinks.append(think_s)
        unanswered.append(waited)
        row, number, waits = row + count, number + len(mine), waits + len(next_row)
    if waits > np.iinfo(np.int32).max:
        raise SagescaleError(f"turns wait for {waits} answers; the simulator knows of at most {2**31 - 1}")
    arrival_s, isl, prompt, osl = columns
    clock = np.concatenate([np.zeros(0, np.int64), *clocked])
    clock = clock[np.argsort(arrival_s[clock], kind="stable")]
    records = np.concatenate(sessions)
    for name in ("first_root", "end_root"):
        records[name] += len(clock)
    records["next_root"] = records["first_root"]
    progress = np.zeros(1, TURNING)
    progress["end_root"], progress["populations"] = len(clock), populations["sessions"].sum()
    return Turns(
        progress=progress,
        sessions=records,
        populations=populations,
        coming=np.zeros(_ROOM + 2 * int(progress["populations"][0]), TURN_ENTRY),
        roots=np.concatenate([clock, *housed]).astype(np.int32),
        row=np.empty(row, np.int32),
        unanswered=np.concatenate(unanswered),
        next_start=read_only(np.concatenate([*starts, [waits]]).astype(np.int32)),
        next_row=joined(nexts),
        think_s=joined(thinks),
        session=joined(session),
        arrival_s=arrival_s,
        isl=isl,
        prompt=prompt,
        osl=osl,
        priority=priority,
        leaf=leaf,
        home=home,
    )


def _sessions(
    load: ServiceLoad, service: int
) -> tuple[NDArray[np.void], NDArray[np.int32], NDArray[np.int64]]:
    """Its SESSION records, the session of each row, and the rows that wait for nobody."""
    if load.turns is None:
        records = np.zeros(1, SESSION)
        records["service"], records["left"], records["open"] = service, _OPEN, True
        return records, np.zeros(len(load.arrival_s), np.int32), np.arange(len(load.arrival_s))
    assert load.session is not None
    counts = np.bincount(load.session)
    records = np.zeros(len(counts), SESSION)
    records["service"], records["left"] = service, counts
    return records, load.session, np.flatnonzero(~load.turns.waits)


def _successors(
    load: ServiceLoad,
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float64], NDArray[np.int32]]:
    """Who waits for each row (CSR, ascending), how long each row thinks, and how many it waits for."""
    count, turns = len(load.arrival_s), load.turns
    if turns is None:
        nobody = np.zeros(0, np.int32)
        return np.zeros(count + 1, np.int64), nobody, np.zeros(count), np.zeros(count, np.int32)
    waited = np.diff(turns.after_start).astype(np.int32)
    order = np.argsort(turns.after, kind="stable")
    start = np.concatenate([[0], np.cumsum(np.bincount(turns.after, minlength=count))])
    owner = np.repeat(np.arange(count, dtype=np.int32), waited)
    return start, owner[order], turns.think_s, waited


@dataclass(frozen=True, slots=True, eq=False)
class ClosedLoop:
    """Which requests of a trace came, where turns waited for answers.

    Attributes:
        given: the trace as it was given.
        rows: of each request that came, by arrival, which row of that it is; int32[arrived].
        never_behind: how many of a session's turns never came, at the last of its requests that did; those
            of sessions that never began at the last request of all. int32[arrived].
    """

    given: Trace
    rows: NDArray[np.int32]
    never_behind: NDArray[np.int32]

    @property
    def never_arrived(self) -> int:
        """Requests of the trace that never came."""
        return len(self.given) - len(self.rows)


def as_it_came(
    given: Trace,
    rows: NDArray[np.int32],
    arrival_s: NDArray[np.float64],
    isl: NDArray[np.int32],
    osl: NDArray[np.int32],
) -> tuple[Trace, ClosedLoop]:
    """Return what came of a trace as one that arrives by the clock, without prefixes.

    Args:
        given: the trace.
        rows: of each request that came, by arrival, which row it is.
        arrival_s: when it came.
        isl: its prompt tokens.
        osl: the tokens it asked for.
    """
    assert given.session_id is not None
    columns = {"isl": isl, "osl": osl}
    columns |= {name: column[rows] for name, column in given.columns.items() if name not in columns}
    session = columns["session_id"]
    columns["session_id"] = numbered(session)
    came = replace(given, arrival_s=arrival_s, prefixes=None, turns=None, **columns)  # type: ignore[arg-type]  # names of columns
    left = np.bincount(given.session_id)
    left -= np.bincount(session, minlength=len(left))
    last = np.full(len(left), len(rows) - 1)
    last[session] = np.arange(len(rows))  # the last assignment stands
    never = np.zeros(len(rows), np.int32)
    np.add.at(never, last, left)
    return came, ClosedLoop(given, rows, never)


def clock_s(trace: Trace, simulator: SimulatorConfig) -> float:
    """When the last request comes of those that come whatever the system does; of turns, the last session."""
    if trace.turns is None or simulator.open_loop:
        return trace.duration_s
    return 0.0 if simulator.concurrent_sessions is not None else float(session_starts(trace)[-1])


def least_end_s(trace: Trace, rows: NDArray[np.int32], *, by_clock: bool) -> float:
    """When the last of some turns that were answered comes at the earliest: all before it answered at once.

    Args:
        trace: as it was given.
        rows: where it has those turns, and with each the ones that it waits for.
        by_clock: whether sessions begin when the trace says; else any may at 0.
    """
    turns, session = trace.turns, trace.session_id
    assert turns is not None
    assert session is not None
    waits = turns.waits[rows]
    # All thinking of a session one after the other: never less than its longest way, and soon known.
    most_s = np.zeros(int(session.max()) + 1)
    if by_clock:
        np.maximum.at(most_s, session[rows[~waits]], trace.arrival_s[rows[~waits]])
    most_s += np.bincount(session[rows[waits]], turns.think_s[rows[waits]], len(most_s))
    ordered = rows[np.lexsort((rows, session[rows]))]
    ends = np.cumsum(np.bincount(session[rows], minlength=len(most_s)))
    found_s = 0.0
    for one in np.argsort(-most_s).tolist():
        if most_s[one] <= found_s:
            break
        least_s: dict[int, float] = {}
        for row in ordered[ends[one - 1] if one else 0 : ends[one]].tolist():
            before = turns.after[turns.after_start[row] : turns.after_start[row + 1]].tolist()
            began_s = float(trace.arrival_s[row]) if by_clock else 0.0
            answered_s = max((least_s.get(other, 0.0) for other in before), default=began_s)
            least_s[row] = answered_s + float(turns.think_s[row])
        found_s = max(found_s, *least_s.values())
    return found_s


def check_thinking(trace: Trace, concurrent_sessions: int | None) -> None:
    """Refuse turns of which one could not come within the longest run there is, however fast answers are.

    Raises:
        InputError: naming the first such request.
    """
    turns, session = trace.turns, trace.session_id
    assert turns is not None
    assert session is not None
    starts_s = session_starts(trace)

    def begin_s(ends_s: NDArray[np.float64]) -> NDArray[np.float64]:
        return starts_s if concurrent_sessions is None else _begun(ends_s - starts_s, concurrent_sessions)

    # All of a session's thinking one after the other is never less than its longest way, and soon known.
    by_clock = ~turns.waits
    ends_s = starts_s.copy()
    np.maximum.at(ends_s, session[by_clock], trace.arrival_s[by_clock])
    ends_s += np.bincount(session, turns.think_s)
    if (begin_s(ends_s) + ends_s - starts_s).max() <= MAX_SPAN_S:
        return
    least_s = trace.arrival_s.tolist()
    bounds, after, think_s = turns.after_start.tolist(), turns.after.tolist(), turns.think_s.tolist()
    for row in np.flatnonzero(turns.waits).tolist():
        least_s[row] = max(least_s[one] for one in after[bounds[row] : bounds[row + 1]]) + think_s[row]
    ends_s[:] = 0.0
    np.maximum.at(ends_s, session, least_s)
    comes_s = np.array(least_s) + (begin_s(ends_s) - starts_s)[session]
    beyond = np.flatnonzero(comes_s > MAX_SPAN_S)
    if len(beyond):
        row, longest = int(beyond[0]), int(turns.think_s.argmax())
        fewer = "" if concurrent_sessions is None else ", and more --concurrent-sessions take less time"
        raise InputError(
            f"{trace.path}: request {row + 1} by arrival, of session {session[row] + 1}, could not come "
            f"before {comes_s[row]:.6g} s however fast answers are, with times to think of up to "
            f"{think_s[longest]:.6g} s (request {longest + 1}); expected at most {MAX_SPAN_S:.0f} s, a year: "
            f"--max-think-s 3600 has nobody think for longer{fewer}"
        )


def as_recorded(trace: Trace, concurrent_sessions: int | None) -> Trace:
    """Return a trace as it arrives by itself, whatever is answered when; of a closed population without ids.

    There a session goes on as the trace has it from when it begins, and ends at its last arrival: how long
    that one's answer takes is not known.
    """
    if concurrent_sessions is None or trace.session_id is None:
        return trace
    starts_s = session_starts(trace)
    ends_s = starts_s.copy()
    np.maximum.at(ends_s, trace.session_id, trace.arrival_s)
    moved_s = _begun(ends_s - starts_s, concurrent_sessions) - starts_s
    arrival_s = trace.arrival_s + moved_s[trace.session_id]
    return type(trace).from_arrays(arrival_s, trace.isl, trace.osl, trace.cached_tokens)


def _begun(lasts_s: NDArray[np.float64], alive: int) -> NDArray[np.float64]:
    """When sessions begin of which so many are alive at a time, the next beginning as one ends, s.

    Args:
        lasts_s: float64[sessions], how long each lasts.
        alive: at least 1.
    """
    ends_s = [0.0] * min(alive, len(lasts_s))
    begins_s = np.empty(len(lasts_s))
    for session, last_s in enumerate(lasts_s.tolist()):
        begins_s[session] = heapq.heappop(ends_s)
        heapq.heappush(ends_s, begins_s[session] + last_s)
    return begins_s
