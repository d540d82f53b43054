"""The decision journal: everything seen and decided, in SQLite.

A record is written before anything acts on it. Where the disk refuses (full, gone), records wait in
memory and are written, in order, as soon as it accepts again.
"""

from __future__ import annotations

import dataclasses
import json
import secrets
import sqlite3
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from sagescale.errors import InputError
from sagescale.json_guard import BadJsonError, parse_json
from sagescale.live.foreign_text import foreign_text
from sagescale.planner import Observation, PoolCounts, Sizes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = ["Event", "Journal", "Note", "TickRecord", "read_journal"]

_VERSION = 1
_KEPT_IN_MEMORY = 100_000
_TRIM_EVERY = 50

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS ticks (
    id INTEGER PRIMARY KEY, time_s REAL NOT NULL,
    prefill INTEGER NOT NULL, decode INTEGER NOT NULL, acted INTEGER NOT NULL,
    record TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS ticks_by_time ON ticks (time_s);
CREATE TABLE IF NOT EXISTS events (
    id INTEGER PRIMARY KEY, time_s REAL NOT NULL, tick INTEGER, kind TEXT NOT NULL, text TEXT NOT NULL,
    detail TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS events_by_time ON events (time_s);
"""


@dataclass(frozen=True, slots=True)
class Note:
    """Why the loop did something else than the planner asked, or what was wrong; like a reason."""

    code: str
    text: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", foreign_text(self.text, 1000))


@dataclass(frozen=True, slots=True)
class TickRecord:
    """One tick: what was seen, what the planner decided, and what the loop made of it.

    Attributes:
        id: Counts up, across restarts.
        time_s: When it was decided, seconds since 1970 (of the pools' own time, where that is scaled).
        observation: What the planner was given.
        problems: What was wrong with the metrics.
        decision: The planner's decision, in plain JSON types.
        goal: The sizes to go for, after the loop's own rules.
        notes: What those rules changed.
        acted: Whether anything was to act on it.
        settings: The configuration values that explain it (limits, budget, predictor).
        kind: ``look`` is between ticks: a short window, and instances are only added.
        last_look: The short window right before a tick, where the planner was shown one.
    """

    id: int
    time_s: float
    observation: Observation
    problems: tuple[Note, ...]
    decision: Mapping[str, Any]
    goal: Sizes
    notes: tuple[Note, ...]
    acted: bool
    settings: Mapping[str, Any]
    kind: Literal["tick", "look"] = "tick"
    last_look: Observation | None = None

    @property
    def current(self) -> Sizes:
        """The sizes found."""
        return Sizes(self.observation.prefill.asked, self.observation.decode.asked)

    def to_json(self) -> str:
        """Return what the journal keeps."""
        return json.dumps(
            {
                "observation": dataclasses.asdict(self.observation),
                "problems": [dataclasses.asdict(item) for item in self.problems],
                "decision": self.decision,
                "notes": [dataclasses.asdict(item) for item in self.notes],
                "settings": self.settings,
                "kind": self.kind,
                "last_look": None if self.last_look is None else dataclasses.asdict(self.last_look),
            },
            separators=(",", ":"),
        )


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened between ticks: an order, a failure, a start or an end."""

    time_s: float
    tick: int | None
    kind: str
    text: str
    detail: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", foreign_text(self.text, 1000))


class Journal:
    """The journal of one target, open for writing.

    Args:
        path: The file; created where there is none. ``":memory:"`` keeps nothing.
        target: What is scaled; a journal of another target is refused.
        retention_s: Older records are deleted.

    Raises:
        InputError: the file is no journal, or another target's, or cannot be opened.
    """

    def __init__(self, path: Path | str, target: str, retention_s: float) -> None:
        self.path = path
        self._retention_s = retention_s
        self._waiting: deque[tuple[str, tuple[Any, ...]]] = deque()
        self.lost = 0
        self.failure = ""
        self._writes = 0
        try:
            self._db = sqlite3.connect(path, timeout=5.0, isolation_level=None)
            self._db.execute("PRAGMA auto_vacuum = INCREMENTAL")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.execute("PRAGMA journal_size_limit = 4000000")
            self._db.executescript(_SCHEMA)
            self._identify(target)
            (last,) = self._db.execute("SELECT coalesce(max(id), 0) FROM ticks").fetchone()
        except sqlite3.Error as error:
            raise InputError(f"journal: {path}: cannot be opened: {error}") from None
        self._next_id = int(last) + 1
        self.identity = secrets.token_hex(4)
        """Tells this run's orders from those of a run on another journal."""

    def _identify(self, target: str) -> None:
        found = dict(self._db.execute("SELECT key, value FROM meta").fetchall())
        if found.get("version", str(_VERSION)) != str(_VERSION):
            raise InputError(f"journal: {self.path}: of version {found['version']}; expected {_VERSION}")
        if found.get("target", target) != target:
            raise InputError(
                f"journal: {self.path}: belongs to {found['target']}, not to {target}; "
                "expected a file of its own"
            )
        for key, value in (("version", str(_VERSION)), ("target", target)):
            self._db.execute("INSERT OR IGNORE INTO meta VALUES (?, ?)", (key, value))

    def next_id(self) -> int:
        """Return the id of the next tick and count on."""
        self._next_id += 1
        return self._next_id - 1

    @property
    def waiting(self) -> int:
        """Records that the disk has not taken yet."""
        return len(self._waiting)

    def add_tick(self, record: TickRecord) -> None:
        """Write a tick, or keep it until that is possible."""
        self._write(
            "INSERT OR REPLACE INTO ticks VALUES (?, ?, ?, ?, ?, ?)",
            (record.id, record.time_s, *record.goal, int(record.acted), record.to_json()),
        )
        self._trim(record.time_s)

    def add_event(self, event: Event) -> None:
        """Write an event, or keep it until that is possible."""
        self._write(
            "INSERT INTO events (time_s, tick, kind, text, detail) VALUES (?, ?, ?, ?, ?)",
            (event.time_s, event.tick, event.kind, event.text, json.dumps(event.detail)),
        )

    def flush(self) -> bool:
        """Try to write what waits; say whether nothing is left."""
        while self._waiting:
            sql, values = self._waiting[0]
            try:
                self._db.execute(sql, values)
            except sqlite3.Error as error:
                self.failure = str(error)
                return False
            self._waiting.popleft()
        self.failure = ""
        return True

    def close(self) -> None:
        """Write what waits, if possible, and close."""
        self.flush()
        self._db.close()

    def remember(self, key: str, value: object) -> None:
        """Keep something that is to outlive a restart, in place of what was kept before; best effort."""
        try:
            self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, json.dumps(value)))
        except sqlite3.Error as error:
            self.failure = str(error)

    def recall(self, key: str) -> object:
        """Return what was kept; ``None`` where nothing was, or it cannot be read."""
        try:
            row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
            return None if row is None else parse_json(row[0].encode())
        except (sqlite3.Error, BadJsonError, AttributeError):
            return None

    def largest_goal(self, since_s: float) -> Sizes | None:
        """Return the largest size of either pool gone for since then."""
        try:
            row = self._db.execute(
                "SELECT max(prefill), max(decode) FROM ticks WHERE time_s >= ?", (since_s,)
            ).fetchone()
        except sqlite3.Error:
            return None
        return None if row[0] is None else Sizes(*row)

    def last_ticks(self, count: int) -> list[TickRecord]:
        """Return the last ticks, oldest first."""
        rows = self._db.execute(
            "SELECT id, time_s, prefill, decode, acted, record FROM ticks ORDER BY id DESC LIMIT ?", (count,)
        ).fetchall()
        return [read_tick(row) for row in reversed(rows)]

    def _write(self, sql: str, values: tuple[Any, ...]) -> None:
        self._waiting.append((sql, values))
        if len(self._waiting) > _KEPT_IN_MEMORY:
            self._waiting.popleft()
            self.lost += 1
        self.flush()

    def _trim(self, now_s: float) -> None:
        self._writes += 1
        if self._writes % _TRIM_EVERY:
            return
        try:
            for table in ("ticks", "events"):
                self._db.execute(f"DELETE FROM {table} WHERE time_s < ?", (now_s - self._retention_s,))  # noqa: S608  # two names of our own
            self._db.execute("PRAGMA incremental_vacuum(200)").fetchall()
        except sqlite3.Error as error:
            self.failure = str(error)


def read_tick(row: Sequence[Any]) -> TickRecord:
    """Build a record from a row ``id, time_s, prefill, decode, acted, record``."""
    identity, time_s, prefill, decode, acted, text = row
    kept = json.loads(text)
    last_look = kept.get("last_look")
    return TickRecord(
        id=identity,
        time_s=time_s,
        observation=_read_observation(kept["observation"]),
        problems=tuple(Note(**item) for item in kept["problems"]),
        decision=kept["decision"],
        goal=Sizes(prefill, decode),
        notes=tuple(Note(**item) for item in kept["notes"]),
        acted=bool(acted),
        settings=kept["settings"],
        kind=kept.get("kind", "tick"),
        last_look=None if last_look is None else _read_observation(last_look),
    )


def _read_observation(seen: dict[str, Any]) -> Observation:
    for pool in ("prefill", "decode"):
        seen[pool] = PoolCounts(**seen[pool])
    if (pairs := seen.get("lengths")) is not None:
        seen["lengths"] = tuple((isl, osl) for isl, osl in pairs)
    return Observation(**seen)


def read_journal(path: Path) -> tuple[Iterator[TickRecord], list[Event]]:
    """Open a journal for reading only.

    Returns:
        Its ticks by time, read as they are consumed, and all its events.

    Raises:
        InputError: there is no such file, or it is no journal.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such journal; expected the file that `sagescale plan` writes")
    try:
        db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5.0)
        rows = db.execute("SELECT time_s, tick, kind, text, detail FROM events ORDER BY id").fetchall()
        ticks = db.execute("SELECT id, time_s, prefill, decode, acted, record FROM ticks ORDER BY id")
    except sqlite3.Error as error:
        raise InputError(f"{path}: is no journal: {error}") from None
    events = [
        Event(time_s, tick, kind, text, json.loads(detail)) for time_s, tick, kind, text, detail in rows
    ]
    return (read_tick(row) for row in ticks), events
