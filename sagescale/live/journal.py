"""The decision journal: everything seen and decided, in SQLite.

A record is written before anything acts on it. Where the file takes none now (full, locked, gone), records
wait in memory and are written, in order, as soon as it does again; nothing waits for the file.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import secrets
import sqlite3
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from sagescale.errors import InputError, UnknownFormatError
from sagescale.fleet import Sizes
from sagescale.json_guard import BadJsonError, parse_json
from sagescale.live.lock import FileLock
from sagescale.live.records import (
    MAX_ID,
    BadRecordError,
    Event,
    TickRecord,
    read_event,
    read_goal,
    read_tick,
)
from sagescale.live.secret import foreign_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_T = TypeVar("_T")

_VERSION = 1
_KEPT_IN_MEMORY = 100_000
_TRIM_EVERY = 50
_SALVAGED = 2000
_OPEN_PATIENCE_S = 5.0
_PATIENCE_MS = 100
"""How long one record may wait for whoever has the file locked: ticks do not wait for their journal."""
_CLOSE_PATIENCE_MS = 5000
_MOST_SET_ASIDE = 3
"""In one run: a disk that damages every file is not to be filled with them."""

_FILE_ERRORS = (sqlite3.Error, UnicodeDecodeError)
"""SQLite's messages quote the file, and Python reads them as UTF-8."""

_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}
"""The last one is said of a table or column that is not there: names in the file are not what we wrote."""

_MAGIC = b"SQLite format 3\0"

_ADD_TICK = "INSERT OR REPLACE INTO ticks VALUES (?, ?, ?, ?, ?, ?)"
_ADD_EVENT = "INSERT INTO events (time_s, tick, kind, text, detail) VALUES (?, ?, ?, ?, ?)"
_REMEMBER = "INSERT OR REPLACE INTO meta VALUES (?, ?)"
_TICKS = "SELECT id, time_s, prefill, decode, acted, record FROM ticks"
_EVENTS = "SELECT id, time_s, tick, kind, text, detail FROM events"
_META = "SELECT key, value FROM meta"

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
_LARGEST = """
SELECT DISTINCT prefill, decode, CASE WHEN json_valid(record) THEN json_extract(record, '$.goal') END
FROM ticks WHERE time_s >= ? AND typeof(time_s) = 'real'
"""


class Journal:
    """The journal of one target, open for writing; no other journal of that file is, meanwhile.

    A damaged file, or one of another version, is moved aside with everything that is in it, and a new one
    begun with what can still be read; ``notices`` says so.

    Args:
        path: The file; created where there is none. ``":memory:"`` keeps nothing.
        target: What is scaled; a journal of another target is refused.
        retention_s: Older records are deleted.

    Raises:
        InputError: the file is no journal, or another target's, or cannot be opened.
        SagescaleError: another planner writes it.
    """

    def __init__(self, path: Path | str, target: str, retention_s: float) -> None:
        self.path = path
        self._target = target
        self._retention_s = retention_s
        self._waiting: deque[tuple[str, tuple[Any, ...]]] = deque()
        self._set_aside = 0
        self._unreadable: set[int] = set()
        self.notices: list[str] = []
        """What its reader should know of the file, a line each; whoever tells it empties the list."""
        self.added = self.lost = 0
        self.failure = ""
        self._writes = 0
        self._lock = None if path == ":memory:" else _lock_of(Path(path))
        known = self._lock is not None and self._take(self._lock)
        try:
            self._open_or_renew(known)
            last = self._last_id()
        except _FILE_ERRORS as error:
            if self._lock is not None and not known:
                self._lock.path.unlink(missing_ok=True)  # the file has never been a journal of ours
            self._unlock()
            raise InputError(f"journal: {path}: cannot be opened: {error}") from None
        except BaseException:
            self._unlock()
            raise
        self._next_id = last + 1
        self.identity = secrets.token_hex(4)
        """Tells this run's orders from those of a run on another journal."""

    def _take(self, lock: FileLock) -> bool:
        """Lock the file; say whether it has been a journal before."""
        path = Path(self.path)
        if not path.parent.is_dir():
            raise InputError(f"journal: {path}: cannot be opened: the folder {path.parent} does not exist")
        known = lock.path.exists()
        lock.acquire_or_refuse()
        with contextlib.suppress(OSError), path.open("rb") as stream:
            known = known or stream.read(len(_MAGIC)) == _MAGIC
        return known

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.release()

    def _open_or_renew(self, known: bool) -> None:
        try:
            self._open()
        except _FILE_ERRORS as error:
            if not known or not _is_damage(error) or not self._renew(str(error)):
                raise
        except _OtherVersionError as error:
            if not self._renew(str(error)):
                raise InputError(f"journal: {self.path}: {error}") from None

    def _open(self) -> None:
        self._db = sqlite3.connect(self.path, timeout=_OPEN_PATIENCE_S, isolation_level=None)
        self._db.text_factory = _text
        self._db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("PRAGMA journal_size_limit = 4000000")
        self._db.executescript(_SCHEMA)
        for every_column in (_TICKS, _EVENTS, _META):
            self._db.execute(f"{every_column} LIMIT 0")
        self._identify()
        self._last_id()  # damage there is to be found now
        self._db.execute(f"PRAGMA busy_timeout = {_PATIENCE_MS}")

    def _last_id(self) -> int:
        found = self._db.execute("SELECT coalesce(max(id), 0) FROM ticks WHERE id <= ?", (MAX_ID,)).fetchone()
        return max(0, int(found[0]))

    def _identify(self) -> None:
        found = dict(self._db.execute(_META).fetchall())
        if found.get("version", str(_VERSION)) != str(_VERSION):
            raise _OtherVersionError(f"of version {foreign_text(found['version'], 20)}; expected {_VERSION}")
        if found.get("target", self._target) != self._target:
            raise InputError(
                f"journal: {self.path}: belongs to {foreign_text(found['target'])}, not to {self._target}; "
                "expected a file of its own"
            )
        for key, value in (("version", str(_VERSION)), ("target", self._target)):
            self._db.execute("INSERT OR IGNORE INTO meta VALUES (?, ?)", (key, value))

    def _renew(self, why: str) -> bool:
        """Move the file aside, begin a new one with what can be read of it, and say whether that worked."""
        if self.path == ":memory:" or self._set_aside >= _MOST_SET_ASIDE:
            return False
        self._set_aside += 1
        ticks = list(_readable(self._db, f"{_TICKS} ORDER BY id DESC", _SALVAGED))
        kept = list(_readable(self._db, _META, _SALVAGED))
        with contextlib.suppress(*_FILE_ERRORS):
            self._db.close()
        path = Path(self.path)
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        aside = path.with_name(f"{path.name}.damaged-{stamp}-{self._set_aside}")
        try:
            for end in ("", "-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    path.with_name(path.name + end).rename(aside.with_name(aside.name + end))
        except OSError as error:
            self.failure = f"{why}; it cannot be moved aside: {error.strerror}"
            return False
        self._open()
        self._db.executemany(_ADD_TICK, reversed(ticks))
        self._db.executemany(
            "INSERT OR IGNORE INTO meta VALUES (?, ?)",
            [pair for pair in kept if pair[0] not in {"version", "target"}],
        )
        self.notices.append(
            f"the journal {path} is damaged ({foreign_text(why, 100)}): moved to {aside.name}, and a new one "
            f"begun with {len(ticks)} ticks that can be read"
        )
        return True

    def next_id(self) -> int:
        """Return the id of the next tick and count on."""
        self._next_id += 1
        return self._next_id - 1

    @property
    def waiting(self) -> int:
        """Records that the file has not taken yet."""
        return len(self._waiting)

    def add_tick(self, record: TickRecord) -> None:
        """Write a tick, or keep it until that is possible."""
        self._write(_ADD_TICK, record.to_row())
        self._trim(record.time_s)

    def add_event(self, event: Event) -> None:
        """Write an event, or keep it until that is possible."""
        self._write(_ADD_EVENT, (event.time_s, event.tick, event.kind, event.text, json.dumps(event.detail)))

    def flush(self) -> bool:
        """Try to write what waits; say whether nothing is left."""
        while self._waiting:
            sql, values = self._waiting[0]
            try:
                self._db.execute(sql, values)
            except (OverflowError, UnicodeEncodeError, sqlite3.DataError) as error:
                self.lost += 1  # no file will ever take it; those after it are not to wait for that
                self.notices.append(f"a record cannot be written: {foreign_text(error, 100)}")
            except _FILE_ERRORS as error:
                if _is_damage(error) and self._renewed(str(error)):
                    continue
                if not self.failure:  # the next ones find out at once
                    self._be_patient(0)
                self.failure = str(error)
                return False
            self._waiting.popleft()
        if self.failure:
            self._be_patient(_PATIENCE_MS)
        self.failure = ""
        return True

    def _renewed(self, why: str) -> bool:
        try:
            return self._renew(why)
        except _FILE_ERRORS as error:
            self.failure = str(error)
            return False

    def _be_patient(self, wait_ms: int) -> None:
        with contextlib.suppress(*_FILE_ERRORS):
            self._db.execute(f"PRAGMA busy_timeout = {wait_ms}")

    def close(self) -> None:
        """Write what waits, if possible, and close; what then still waits is not in the file."""
        self._be_patient(_CLOSE_PATIENCE_MS)
        self.flush()
        with contextlib.suppress(*_FILE_ERRORS):
            self._db.close()
        self._unlock()

    def remember(self, key: str, value: object) -> None:
        """Keep something that is to outlive a restart, in place of what was kept before."""
        self._write(_REMEMBER, (key, json.dumps(value)))

    def recall(self, key: str) -> object:
        """Return what was kept; ``None`` where nothing was, or it cannot be read."""
        waiting = [values[1] for sql, values in self._waiting if sql == _REMEMBER and values[0] == key]
        written = _readable(self._db, "SELECT value FROM meta WHERE key = ?", 1, (key,))
        text = waiting[-1] if waiting else next((value for (value,) in written), None)
        try:
            return parse_json(text) if isinstance(text, str) else None
        except BadJsonError:
            return None

    def largest_goal(self, since_s: float) -> Sizes | None:
        """Return the largest size of each pool gone for since then."""
        rows = [
            (*values[2:4], values[-1])
            for sql, values in self._waiting
            if sql == _ADD_TICK and values[1] >= since_s
        ]
        goals = [(*row[:2], json.loads(row[2])["goal"]) for row in rows]
        goals += [
            (prefill, decode, None if goal is None else parse_json(goal))
            for prefill, decode, goal in _readable(self._db, _LARGEST, None, (since_s,))
        ]
        largest: dict[str, int] = {}
        for columns in goals:
            with contextlib.suppress(BadRecordError):
                for pool, size in read_goal(*columns).items():
                    largest[pool] = max(size, largest.get(pool, 0))
        return Sizes.of(largest) if largest else None

    def last_ticks(self, count: int) -> list[TickRecord]:
        """Return the last ticks that can be read, oldest first; ``notices`` names those that cannot."""
        found: list[TickRecord] = []
        waiting = [values for sql, values in reversed(self._waiting) if sql == _ADD_TICK]
        broken: list[str] = []
        written = _readable(self._db, f"{_TICKS} ORDER BY id DESC", broken=broken)
        for row in itertools.chain(waiting, written):
            if len(found) >= count:
                break
            try:
                found.append(read_tick(row))
            except BadRecordError as error:
                if row[0] not in self._unreadable:
                    self._unreadable.add(row[0])
                    broken.append(f"record {foreign_text(row[0], 20)}: {error}")
        if broken:
            self.notices.append(f"{left_out(broken)}; they stay in {self.path}")
        return found[::-1]

    def _write(self, sql: str, values: tuple[Any, ...]) -> None:
        self.added += 1
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
        except _FILE_ERRORS as error:
            if not (_is_damage(error) and self._renewed(str(error))):
                self.failure = str(error)


def _lock_of(path: Path) -> FileLock:
    return FileLock(
        path.with_name(f"{path.name}.lock"),
        f"writing the journal {path}",
        "stop it first, or name another file (--set journal=FILE)",
    )


class _OtherVersionError(Exception):
    """A journal of another version."""


def read_journal(path: Path, damage: list[str] | None = None) -> tuple[Iterator[TickRecord], list[Event]]:
    """Open a journal for reading only.

    Args:
        path: The file.
        damage: What cannot be read is said here, a line each; what is left out there is the rest.

    Returns:
        Its ticks by time, read as they are consumed, and all its events.

    Raises:
        InputError: there is no such file, or it is no journal.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such journal; expected the file that `sagescale plan` writes")
    broken: list[str] = [] if damage is None else damage
    try:
        db = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=_OPEN_PATIENCE_S)
        db.text_factory = _text
        db.execute("SELECT ticks.id, events.id FROM ticks, events LIMIT 0")
    except _FILE_ERRORS as error:
        raise UnknownFormatError(f"{path}: is no journal: {error}", path, "a journal") from None
    events = _read_all(_from_both_ends(db, _EVENTS, broken), lambda row: read_event(row[1:]), broken)
    return _read_all(_from_both_ends(db, _TICKS, broken), read_tick, broken), list(events)


def _read_all(
    rows: Iterator[tuple[Any, ...]], read: Callable[[tuple[Any, ...]], _T], broken: list[str]
) -> Iterator[_T]:
    for row in rows:
        try:
            yield read(row)
        except BadRecordError as error:
            broken.append(f"record {foreign_text(row[0], 20)}: {error}")


def _from_both_ends(db: sqlite3.Connection, sql: str, broken: list[str]) -> Iterator[tuple[Any, ...]]:
    """Yield rows by id; where a damaged page ends the reading, those after it are read from the other end."""
    last, damage = -1, list[str]()
    for row in _readable(db, f"{sql} ORDER BY id", broken=damage):
        last = row[0]
        yield row
    if damage:
        broken += damage
        after = _readable(db, f"{sql} ORDER BY id DESC")
        yield from reversed(list(itertools.takewhile(lambda row: row[0] > last, after)))


def _readable(
    db: sqlite3.Connection,
    sql: str,
    most: int | None = None,
    values: tuple[Any, ...] = (),
    *,
    broken: list[str] | None = None,
) -> Iterator[tuple[Any, ...]]:
    """Yield rows as far as they can be read."""
    try:
        yield from itertools.islice(db.execute(sql, values), most)
    except _FILE_ERRORS as error:
        if broken is not None:
            broken.append(f"all of a page: {error}")


def left_out(broken: list[str]) -> str:
    """Say in one line what could not be read."""
    return f"{len(broken)} records cannot be read and are left out (first: {broken[0]})"


def _is_damage(error: Exception) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(error, UnicodeDecodeError) or (code is not None and code & 0xFF in _DAMAGED)


def _text(data: bytes) -> str:
    """Read a text of the file; damaged bytes are not to keep the rest of a row from being read."""
    return data.decode("utf-8", "replace")
