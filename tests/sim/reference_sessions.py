"""Which request comes when (DESIGN 5.1, ENGINES section 6), and what became of the sessions of a run.

AMBIGUITIES says which choice was made where the specification leaves one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reference_cluster import Job
    from reference_records import Request, RequestOutcome, World

AMBIGUITIES = """
* A session is all requests of one ``session_id``, in trace order; it starts when its first one arrives.
  A request without an id is a session of its own.
* A request of a session that waits for nobody and is not its first comes at its recorded time; where the
  start is not the recorded one (a closed population), as long after the start as recorded.
* A miss ends its session at once: what is due at that very instant and has not been taken yet never arrives.
  Of those that are due together the lowest place in the trace is taken first.
* In a closed population the next session starts at the instant of the end, misses included, though siblings
  of the miss may go on. One that a timeout (6) or a crash lets in comes before anything is formed (7).
* Requests "by arrival" (crashes, victims by ``priority``) stand by when they came, then by place in the
  trace.
* The horizon is as written: a turn that comes later than every start and completion, and is not done, does
  not prolong it.
"""


@dataclass(slots=True, eq=False)
class Session:
    """Requests that belong together."""

    jobs: list[Job] = field(default_factory=list)  # in trace order
    start_s: float | None = None
    has_ended: bool = False  # all its answers are there, or one of them never will be


class Arrivals:
    """Requests on their way to the service, by the clock or by the answers of others."""

    def __init__(self, jobs: Sequence[Job], world: World) -> None:
        self.world = world
        self.jobs = jobs
        self.due: list[
            tuple[float, int]
        ] = []  # a heap of (time, place in the trace) of what waits for nobody
        self.sessions: dict[object, Session] = {}
        self.session_of: dict[Job, Session] = {}
        self.followers: dict[int, list[Job]] = {}  # by the place of the request that they wait for
        self.thinking: set[Job] = set()  # who have all their answers, of which several may come at once
        if not world.closed_loop:
            for job in jobs:
                heappush(self.due, (job.request.arrival_s, job.number))
            return
        for job in jobs:
            name = ("alone", job.number) if job.request.session_id is None else job.request.session_id
            session = self.sessions.setdefault(name, Session())
            session.jobs.append(job)
            self.session_of[job] = session
            for number in job.request.after:
                assert number < job.number
                assert self.session_of[jobs[number]] is session
                self.followers.setdefault(number, []).append(job)
        self.to_start = list(self.sessions.values())  # in trace order
        if world.concurrent_sessions is None:
            for session in list(self.to_start):
                self.start_next(session.jobs[0].request.arrival_s)
        else:
            for _ in range(min(world.concurrent_sessions, len(self.to_start))):
                self.start_next(0.0)

    def start_next(self, start_s: float) -> None:
        """Everybody in it who waits for nobody has a time from now on."""
        session = self.to_start.pop(0)
        session.start_s = start_s
        recorded_s = session.jobs[0].request.arrival_s
        for job in session.jobs:
            if not job.request.after:
                due_s = job.request.arrival_s
                if start_s != recorded_s:
                    due_s = start_s + (due_s - recorded_s)
                heappush(self.due, (due_s, job.number))

    @property
    def last_start_s(self) -> float:
        """Of the sessions; of all requests where the loop is open."""
        if not self.world.closed_loop:
            return self.jobs[-1].request.arrival_s if self.jobs else 0.0
        return max((s.start_s for s in self.sessions.values() if s.start_s is not None), default=0.0)

    @property
    def next_s(self) -> float:
        """When the next request comes."""
        while self.due and self.jobs[self.due[0][1]].state == "never_arrived":
            heappop(self.due)
        return self.due[0][0] if self.due else math.inf

    def take(self, now: float) -> Job | None:
        """The next request that is due, which has arrived with that."""
        if self.next_s > now:
            return None
        due_s, number = heappop(self.due)
        assert due_s == now
        job = self.jobs[number]
        job.arrival_s = now
        return job

    def answered(self, job: Job, now: float) -> None:
        """It is done: those that waited for nobody else come after they have thought."""
        for follower in self.followers.get(job.number, ()):
            done_s = [self.jobs[number].done_s for number in follower.request.after]
            if follower.state == "unfinished" and None not in done_s and follower not in self.thinking:
                assert max(done_s) == now
                self.thinking.add(follower)
                heappush(self.due, (now + follower.request.think_s, follower.number))
        session = self.session_of.get(job)
        if session is not None and all(one.state == "done" for one in session.jobs):
            self.end(session, now)

    def missed(self, job: Job, now: float) -> None:
        """It was rejected or gave up: nobody else of its session comes."""
        job.missed_s = now
        session = self.session_of.get(job)
        if session is not None:
            for other in session.jobs:
                if other.arrival_s is None:
                    other.state = "never_arrived"
            self.end(session, now)

    def end(self, session: Session, now: float) -> None:
        """In a closed population the next one starts."""
        if not session.has_ended:
            session.has_ended = True
            if self.world.concurrent_sessions is not None and self.to_start:
                self.start_next(now)


# What became of them (section 6: "Reported too")


@dataclass(frozen=True, slots=True)
class SessionMeasures:
    """Counts of sessions, and s from the first arrival to the last answer of those finished, rising."""

    sessions: int
    started: int
    finished: int  # all their requests are done
    good: int  # all their requests are good
    finish_s: list[float]


def measured(
    requests: Sequence[Request], outcomes: Sequence[RequestOutcome], is_good: Sequence[bool]
) -> SessionMeasures:
    """What a report says of the sessions, from the requests alone."""
    by_session: dict[object, list[int]] = {}
    for number, request in enumerate(requests):
        name = ("alone", number) if request.session_id is None else request.session_id
        by_session.setdefault(name, []).append(number)
    started = finished = good = 0
    finish_s = []
    for numbers in by_session.values():
        of_session = [outcomes[number] for number in numbers]
        arrivals_s = [one.arrival_s for one in of_session if one.arrival_s is not None]
        started += bool(arrivals_s)
        good += all(is_good[number] for number in numbers)
        if all(one.state == "done" for one in of_session):
            finished += 1
            finish_s.append(max(one.done_s or 0.0 for one in of_session) - min(arrivals_s))
    return SessionMeasures(len(by_session), started, finished, good, sorted(finish_s))
