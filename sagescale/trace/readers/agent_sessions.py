"""Recorded coding sessions of kv-cache-tester: requests that follow answers, with sub-agents beside them.

Two shapes of one source (github.com/callanjfox/kv-cache-tester). Its own: a JSON object a session, whose
``requests`` have lists of block ids and nested sub-agents. And JSON lines with a ``header`` line a session, a
line a request with its ids as runs ``[first, count]``, and a ``marker`` line a sub-agent.

What is read of the loop:

* A request waits for the one before it of its session, and of its sub-agent likewise.
* A sub-agent's first request waits for its parent's request before it. The marker is of when it was done:
  it began ``duration_ms`` before, and the times of its requests count from there. One that was only launched
  (``async_launched``) has no duration, and its marker is of when it began.
* The parent's next request waits for all sub-agents that were done by then; one that went on longer ran
  beside it and is waited for by the first request after its end.
* Thinking is what is recorded as ``think_time`` where the answer before has an ``api_time``; else the time
  from the last answer waited for to the request.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from sagescale.errors import InputError
from sagescale.json_guard import parse_json
from sagescale.trace.readers.answers import MODELLED, answer_times
from sagescale.trace.readers.fields import MAX_MADE_IDS, MAX_TOKENS, SECONDS
from sagescale.trace.readers.format import NestedFormat, Rows
from sagescale.trace.readers.json_rows import amount, objects, refuse, requests_of, whole
from sagescale.trace.sessions import Turns, session_number

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from sagescale.trace.prefix_builder import PrefixBuilder
    from sagescale.trace.source import Head, Source

    Runs = list[tuple[int, int]]

_STAMP_S = 1.0
"""Its times are whole seconds: an answer may seem to end so much after the request that waited for it."""

_HIGHEST_ID = 2**62
_NOTHING_GENERATED = "requests that generated nothing count as 1 token: their prompts were computed"


@dataclass(slots=True)
class _Request:
    """A request as recorded.

    Attributes:
        place: where it stands.
        name: of its session, or ``session/agent``.
        t_s: since its session or sub-agent began.
        isl: prompt tokens.
        osl: generated tokens, at least 1.
        api_s: from the request to the end of its answer; None when not recorded.
        think_s: from the last recorded answer to the request; None when not recorded.
        runs: first id and count of each run of block ids.
    """

    place: str
    name: str
    t_s: float
    isl: int
    osl: int
    api_s: float | None
    think_s: float | None
    runs: Runs


@dataclass(slots=True)
class _Session:
    """A session: its requests in file order, those of sub-agents among them.

    Attributes:
        is_global: its ids are those of all sessions.
        begins: when each sub-agent began, s since its parent did, by name; None when not recorded.
    """

    is_global: bool = False
    requests: list[tuple[int, _Request]] = field(default_factory=list)
    begins: dict[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSessions(NestedFormat):
    """The format, in both shapes; ``keys`` are those of its own."""

    @property
    def shape(self) -> str:
        """Container, keys and unit of time, for messages."""
        return "JSON or JSONL id,requests,block_size, or JSONL header lines and requests; time: s"

    def recognise(self, head: Head) -> bool:
        """Tell from container and keys alone whether this may be the format."""
        keys = set(head.columns)
        lines = keys == {"header"} or keys >= {"session", "t", "in", "out"} or keys == {"session", "marker"}
        return NestedFormat.recognise(self, head) or (head.container == "jsonl" and lines)

    def has_ids(self, head: Head) -> bool:
        """Tell that it may have prefix ids."""
        del head
        return True

    def stated_block_tokens(self, source: Source, head: Head) -> int:
        """Return how many tokens an id covers, as the first session of a file says; 0 where it does not.

        Raises:
            InputError: it says no number.
        """
        _, first = next(_objects(source, head))
        header = first.get("header", first)
        if not isinstance(header, dict) or header.get("block_size") is None:
            return 0
        size = whole(source, "the first session, 'block_size'", header["block_size"], MAX_TOKENS)
        if not size:
            refuse(source, "the first session, 'block_size'", 0, "a whole number of tokens above 0")
        return size

    def _rows(self, source: Source, head: Head, builder: PrefixBuilder | None) -> Rows:
        sessions = _Reading(source, head, builder.block_tokens if builder else self.block_tokens).sessions()
        names, found = list(sessions), list(sessions.values())
        requests = [request for _, request in sorted(row for one in found for row in one.requests)]
        if not requests:
            raise InputError(f"{source.path}: has no requests; expected at least one")
        owner = np.empty(len(requests), np.int64)
        arrival_s, think_s = np.empty(len(requests)), np.zeros(len(requests))
        after: list[list[int]] = [[] for _ in requests]
        answer_s = _answers(requests)
        for number, session in enumerate(found):
            for row, at_s, waits, thought_s in _linked(session, answer_s):
                owner[row], arrival_s[row], after[row], think_s[row] = number, at_s, waits, thought_s
        columns: dict[str, Any] = {
            "isl": np.array([request.isl for request in requests], np.int32),
            "osl": np.array([request.osl for request in requests], np.int32),
            "session_id": np.array([session_number(f"{source.sha256} {name}") for name in names])[owner],
        }
        if builder is not None:
            is_global = np.array([session.is_global for session in found])
            columns["hash_ids"] = _nodes(requests, owner, is_global, builder)
        notes = [_NOTHING_GENERATED] if any(request.osl == 0 for request in requests) else []
        np.maximum(columns["osl"], 1, out=columns["osl"])
        if any(request.api_s is None for request in requests):
            notes.append(MODELLED)
        return Rows(arrival_s, columns, tuple(notes), Turns.of(after, think_s), starts_recorded=False)

    def place(self, source: Source, head: Head, row: int, id_tokens: int = 0) -> str:
        """Say where a request of a file stands, counted from 0; the file is read once more for it."""
        sessions = _Reading(source, head, id_tokens or self.block_tokens).sessions().values()
        request = dict(one for session in sessions for one in session.requests)[row]
        return f"{request.place}, session {request.name}"


KV_CACHE_TESTER = AgentSessions(
    name="kv-cache-tester",
    containers=("json", "jsonl"),
    keys=("id", "requests", "block_size"),
    arrival="t",
    clock=SECONDS,
    block_tokens=64,
)


def _objects(source: Source, head: Head) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each object of the file and where it stands."""
    if head.container == "json":
        with source.open() as stream:
            document = parse_json(stream.read().decode("utf-8-sig", "replace"))
        assert isinstance(document, dict)  # its head was read
        yield "", document
        return
    yield from objects(source)


@dataclass(slots=True)
class _Reading:
    """What has been read of a file."""

    source: Source
    head: Head
    block_tokens: int
    rows: int = 0
    found: dict[str, _Session] = field(default_factory=dict)
    headed: set[str] = field(default_factory=set)

    def sessions(self) -> dict[str, _Session]:
        """Read all sessions, by name."""
        for place, row in _objects(self.source, self.head):
            if "requests" in row:
                name = f"{place}{row.get('id')}"
                self._header(place, name, row)
                self._nested(place, name, name, row)
            elif "header" in row:
                header = row["header"]
                if not isinstance(header, dict) or not isinstance(header.get("id"), str):
                    refuse(self.source, f"{place}, 'header'", header, "an object with a text 'id'")
                self._header(place, header["id"], header)
            else:
                given = row.get("session")
                if not isinstance(given, str) or not given:
                    refuse(self.source, f"{place}, 'session'", given, "the name of a session")
                root = self._root(given)
                if "marker" in row:
                    self._marker(place, root, given, row["marker"])
                else:
                    self._request(place, root, given, row)
        return {name: session for name, session in self.found.items() if session.requests}

    def _root(self, name: str) -> str:
        """Return the session that a name is of: the longest that a header names, else what is before a /."""
        root = name
        while root not in self.headed and "/" in root:
            root = root.rpartition("/")[0]
        return root if root in self.headed else name.partition("/")[0]

    def _session(self, root: str) -> _Session:
        return self.found.setdefault(root, _Session())

    def _header(self, place: str, name: str, header: dict[str, Any]) -> None:
        if header.get("block_size") is not None:
            where = f"{place}, 'block_size'".removeprefix(", ")
            size = whole(self.source, where, header["block_size"], MAX_TOKENS)
            if size != self.block_tokens:
                expected = f"{self.block_tokens}, one size of block in all sessions"
                refuse(self.source, where, size, expected)
        self.headed.add(name)
        self._session(name).is_global = header.get("hash_id_scope") == "global"

    def _nested(self, place: str, root: str, name: str, session: dict[str, Any]) -> None:
        for number, request in enumerate(requests_of(self.source, place, session), 1):
            where = f"{place}, request {number}".removeprefix(", ")
            if "requests" in request:
                agent = f"{name}/{number}"
                self._begins(where, root, agent, request)
                self._nested(where, root, agent, request)
            else:
                self._request(where, root, name, request)

    def _marker(self, place: str, root: str, name: str, marker: object) -> None:
        if not isinstance(marker, dict):
            refuse(self.source, f"{place}, 'marker'", marker, "an object")
        agent = marker.get("agent_id")
        if isinstance(agent, str) and agent:
            self._begins(place, root, f"{name}/{agent}", marker)

    def _begins(self, place: str, root: str, agent: str, marker: dict[str, Any]) -> None:
        end, took = marker.get("t"), marker.get("duration_ms")
        begins = None
        if end is not None and (took is not None or marker.get("status") != "completed"):
            end_s = amount(self.source, f"{place}, 't'", end, SECONDS)
            took_ms = 0.0 if took is None else amount(self.source, f"{place}, 'duration_ms'", took, SECONDS)
            begins = max(end_s - took_ms / 1000, 0.0)
        self._session(root).begins[agent] = begins

    def _request(self, place: str, root: str, name: str, row: dict[str, Any]) -> None:
        for key in ("t", "in", "out"):
            if key not in row:
                raise InputError(
                    f"{self.source.path}: {place}: key '{key}' is missing; found {','.join(map(str, row))}; "
                    f"expected a request (t,in,out), or a line with a header or a marker"
                )
        isl = whole(self.source, f"{place}, prompt tokens 'in'", row["in"], MAX_TOKENS)
        osl = whole(self.source, f"{place}, generated tokens 'out'", row["out"], MAX_TOKENS)
        request = _Request(
            place,
            name,
            amount(self.source, f"{place}, 't'", row["t"], SECONDS),
            isl,
            osl,
            self._known(place, "api_time", row),
            self._known(place, "think_time", row),
            self._runs(place, row, isl),
        )
        self._session(root).requests.append((self.rows, request))
        self.rows += 1

    def _known(self, place: str, key: str, row: dict[str, Any]) -> float | None:
        """Return seconds; None when not recorded, or below 0 as of requests that were sent side by side."""
        value = row.get(key)
        if value is None or (type(value) in (int, float) and value < 0):
            return None
        return amount(self.source, f"{place}, '{key}'", value, SECONDS)

    def _runs(self, place: str, row: dict[str, Any], isl: int) -> Runs:
        key = "blocks" if "blocks" in row else "hash_ids"
        given = row.get(key)
        if given is None:
            return []
        where, most = f"{place}, '{key}'", min(-(-isl // self.block_tokens), MAX_MADE_IDS)
        expected = (
            f"runs [first id, count] of at most {most} ids in all, for {isl} prompt tokens"
            if key == "blocks"
            else f"a list of at most {most} ids, for {isl} prompt tokens"
        )
        if not isinstance(given, list):
            refuse(self.source, where, given, expected)
        runs: Runs = []
        for one in given:
            pair = one if key == "blocks" else [one, 1]
            fits = isinstance(pair, list) and len(pair) == 2 and all(type(number) is int for number in pair)
            if not fits or not 0 <= pair[0] < _HIGHEST_ID or pair[1] < 0:
                refuse(self.source, where, one, expected)
            first, count = pair
            if runs and first == sum(runs[-1]):
                runs[-1] = (runs[-1][0], runs[-1][1] + count)
            else:
                runs.append((first, count))
        total = sum(count for _, count in runs)
        if total > most:
            refuse(self.source, where, f"{total} ids", expected)
        return runs


def _answers(requests: Sequence[_Request]) -> NDArray[np.float64]:
    """Return how long each answer took, s: as recorded, else its tokens times what one usually took."""
    took_s = np.array([np.nan if one.api_s is None else one.api_s for one in requests])
    return answer_times(took_s, np.array([one.osl for one in requests]))


def _linked(
    session: _Session, answer_s: NDArray[np.float64]
) -> Iterator[tuple[int, float, list[int], float]]:
    """Yield row, arrival since the session began, rows waited for and thinking of each of its requests."""
    rows = dict(session.requests)
    begin_s = _beginnings(session, answer_s)
    at_s = {row: begin_s[request.name] + request.t_s for row, request in rows.items()}
    order = sorted(rows, key=lambda row: (at_s[row], row))
    done_s: dict[int, float] = {}
    last_of: dict[str, int] = {}
    for row in reversed(order):
        request = rows[row]
        done_s[row] = at_s[row] + float(answer_s[row])
        follows = last_of.get(request.name)
        if request.api_s is None and follows is not None:
            done_s[row] = min(done_s[row], at_s[follows])
        last_of[request.name] = row
    final = {rows[row].name: row for row in order}
    passed: dict[str, list[int]] = {}
    running: dict[str, list[str]] = {}
    for row in order:
        request, now_s = rows[row], at_s[row] + _STAMP_S
        parent = request.name.rpartition("/")[0]
        is_first = request.name not in passed
        waits = _answered(passed.get(parent if is_first else request.name, []), done_s, now_s)
        is_plain = bool(waits) and not is_first and waits[0] == passed[request.name][-1]
        if is_first and parent:
            running.setdefault(parent, []).append(request.name)
        for agent in list(running.get(request.name, [])):
            end = final[agent]
            if passed[agent][-1] == end and done_s[end] <= now_s:
                running[request.name].remove(agent)
                waits.append(end)
                is_plain = False
        thought_s = 0.0
        if waits:
            thought_s = max(at_s[row] - max(done_s[one] for one in waits), 0.0)
            if is_plain and request.think_s is not None and rows[waits[0]].api_s is not None:
                thought_s = request.think_s
        passed.setdefault(request.name, []).append(row)
        yield row, at_s[row], waits, thought_s


def _answered(passed: Sequence[int], done_s: dict[int, float], now_s: float) -> list[int]:
    """Return the latest request that was answered by now, as a list; empty when there is none."""
    return next(([row] for row in reversed(passed) if done_s[row] <= now_s), [])


def _beginnings(session: _Session, answer_s: NDArray[np.float64]) -> dict[str, float]:
    """Return when the session and each sub-agent began, s, by name.

    Where no marker says it, a sub-agent's times are the session's, or where they cannot be, count from the
    answer to its parent's request before it in the file.
    """
    begin_s: dict[str, float] = {}
    before: dict[str, tuple[int, _Request]] = {}
    for row, request in session.requests:
        name = request.name
        if name not in begin_s:
            parent = name.rpartition("/")[0]
            base_s, found = begin_s.get(parent, 0.0), session.begins.get(name)
            if not parent:
                begin_s[name] = 0.0
            elif found is not None:
                begin_s[name] = base_s + found
            else:
                asked = before.get(parent)
                begin_s[name] = base_s
                if asked is not None and request.t_s < asked[1].t_s:
                    begin_s[name] = base_s + asked[1].t_s + float(answer_s[asked[0]])
        before[name] = row, request
    return begin_s


def _nodes(
    requests: Sequence[_Request],
    owner: NDArray[np.int64],
    is_global: NDArray[np.bool_],
    builder: PrefixBuilder,
) -> NDArray[np.int32]:
    """Give all runs to the builder: ids of a session are its own, one session's behind the other's."""
    runs = np.array([run for request in requests for run in request.runs], np.int64).reshape(-1, 2)
    counts = np.array([len(request.runs) for request in requests])
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    of_session = np.repeat(owner, counts)
    room = np.zeros(len(is_global), np.int64)
    np.maximum.at(room, of_session, runs.sum(axis=1))
    # What all sessions share keeps its ids, below those of the others.
    base = builder.next_id + np.cumsum(np.where(is_global, 0, room)) - room
    base += int(room[is_global].max(initial=0))
    base[is_global] = 0
    runs[:, 0] += base[of_session]
    return builder.add_runs(offsets, runs)
