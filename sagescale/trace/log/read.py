"""Read a service's own log: named columns, chosen rows, a clock that is found out and stated."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import numpy as np

from sagescale.errors import InputError, did_you_mean, one_line
from sagescale.trace.log.dropped import Dropped
from sagescale.trace.log.names import kept_apart, suggested_command
from sagescale.trace.log.rows import column_names, rows_of
from sagescale.trace.log.spec import TIME_UNITS, Condition, LogSpec
from sagescale.trace.log.times import parse_stamp, parse_zone, recognised_unit, to_utc_ns
from sagescale.trace.readers.answers import ANSWER_S_PER_TOKEN, one_after_another
from sagescale.trace.readers.fields import MAX_TOKENS
from sagescale.trace.trace import MAX_SPAN_S

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import tzinfo

    from numpy.typing import NDArray

    from sagescale.trace.log.times import Stamp
    from sagescale.trace.prefix_builder import PrefixBuilder
    from sagescale.trace.sessions import Turns
    from sagescale.trace.source import Head, Source

_MOST_VALUES = 1000
_BUSIEST_RPS = 200.0
"""A log whose numbers, read as seconds, would come faster than this is asked for its unit."""


@dataclass(frozen=True, slots=True, eq=False)
class LogRows:
    """The rows of a log that can be used, in file order.

    Attributes:
        ticks: arrival, int64[n] or float64[n].
        ticks_per_s: how many of them make a second.
        columns: int32[n] each: ``isl``, ``osl``, and as named ``cached_tokens``, ``priority``,
            ``session_id``; ``hash_ids``: the node of each one's last prefix id.
        turns: who waits for whom, where the spec names a ``session``; else None.
        started_at: date and time of the first arrival, in the zone to show; None where the log has no date.
        warnings: how it was read, and what was left out.
    """

    ticks: NDArray[Any]
    ticks_per_s: float
    columns: dict[str, NDArray[np.int32]]
    turns: Turns | None
    started_at: datetime | None
    warnings: tuple[str, ...]


def read_log(
    files: Sequence[tuple[Source, Head]], spec: LogSpec, builder: PrefixBuilder | None = None
) -> LogRows:
    """Read the rows of all files that meet the conditions and can be used.

    Args:
        files: the log.
        spec: how to read it.
        builder: takes the prefix ids, where the spec names their column.

    Raises:
        InputError: a column is missing, no row meets the conditions, too many cannot be used, or the unit of
            the arrivals cannot be known.
    """
    reading = _Reading(spec, Dropped(spec), builder)
    for number, (source, head) in enumerate(files):
        reading.read(number, source, head)
    return reading.finished()


def _tokens(cell: object) -> int | None:
    """Return a count of tokens; None when the cell holds none."""
    if isinstance(cell, bool):
        return None
    try:
        number = float(cell)  # type: ignore[arg-type]  # what is no number raises
    except (TypeError, ValueError):
        return None
    return int(number) if math.isfinite(number) and number == int(number) else None


def _text(cell: object) -> str:
    if isinstance(cell, str):
        return cell.strip()
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return str(cell).lower()
    return f"{cell:.15g}" if isinstance(cell, float) else str(cell)


def _ids(cell: object) -> NDArray[np.int64] | None:
    """Return the ids of a cell, a list or a text such as ``[1, 2, 3]``; None when it holds none of that."""
    if isinstance(cell, str):
        cell = [part for part in re.split(r"[\s,;\[\]]+", cell) if part]
    values = [] if cell is None else cell
    if not isinstance(values, list) or any(isinstance(value, bool | float) for value in values):
        return None
    try:
        return np.array([int(value) for value in values], np.int64)
    except (TypeError, ValueError, OverflowError):
        return None


def _took(arrival: Stamp, cell: object) -> float:
    """Return how long an answer took, in the arrival's unit, by when it ended; NaN where that is no time."""
    done = None if cell is None else parse_stamp(cell)
    fits = done is not None and done.kind == arrival.kind and done.value >= arrival.value
    return float(done.value - arrival.value) if fits and done is not None else math.nan


def _meets(condition: Condition, text: str) -> bool:
    same = text == condition.value
    if not same:
        try:
            same = float(text) == float(condition.value)
        except ValueError:
            same = False
    return same == condition.holds


@dataclass(slots=True)
class _Reading:
    """What has been read so far, row by row."""

    spec: LogSpec
    dropped: Dropped
    builder: PrefixBuilder | None
    paths: list[str] = field(default_factory=list)
    stamps: list[Stamp] = field(default_factory=list)
    places: list[tuple[int, int]] = field(default_factory=list)
    counts: dict[str, list[int]] = field(default_factory=dict)
    rows: int = 0
    left_out: Counter[Condition] = field(default_factory=Counter)
    values: dict[str, Counter[str]] = field(default_factory=dict)
    apart: dict[str, Counter[str]] = field(default_factory=dict)
    sessions: dict[str, int] = field(default_factory=dict)
    blank: Counter[str] = field(default_factory=Counter)
    clipped: int = 0
    took: list[float] = field(default_factory=list)

    def read(self, number: int, source: Source, head: Head) -> None:
        """Read one file."""
        self.paths.append(source.path)
        mapped = dict(self.spec.columns)
        names = column_names(source, head)
        conditions = self.spec.where
        self._check_names(source, names)
        apart = [name for name in kept_apart(names) if all(name != chosen.column for chosen in conditions)]
        wanted = (*mapped.values(), *(condition.column for condition in conditions), *apart)
        for ours in mapped.keys() & {"isl", "osl", "cached_tokens", "priority", "session_id", "hash_ids"}:
            self.counts.setdefault(ours, [])
        if "session" in mapped:
            self.counts.setdefault("session_id", [])
        first_condition, first_apart = len(mapped), len(mapped) + len(conditions)
        for line, cells in rows_of(source, head, wanted):
            self.rows += 1
            if isinstance(cells, str):
                self.dropped.add(f"are {cells}", source.path, line)
                continue
            if conditions and not self._chosen(conditions, cells[first_condition:first_apart]):
                continue
            if self._add(number, line, dict(zip(mapped, cells, strict=False))):
                for name, cell in zip(apart, cells[first_apart:], strict=True):
                    self._count(self.apart, name, _text(cell))

    def _check_names(self, source: Source, names: Sequence[str]) -> None:
        asked = [("--columns", f"{ours}={theirs}", theirs) for ours, theirs in self.spec.columns]
        asked += [("--where", str(condition), condition.column) for condition in self.spec.where]
        for option, text, name in asked:
            if name not in names:
                found = one_line(", ".join(names), 600)
                raise InputError(
                    f"{source.path}: {option} {text}: no column '{name}'; found "
                    f"{found}{did_you_mean(name, names)}; "
                    f"for example: {suggested_command(source.path, names)}"
                )

    def _count(self, where: dict[str, Counter[str]], name: str, text: str) -> None:
        counter = where.get(name)
        if counter is None:  # made for a column, not for each of a million rows
            counter = where[name] = Counter()
        if text in counter or len(counter) < _MOST_VALUES:
            counter[text] += 1

    def _chosen(self, conditions: Sequence[Condition], cells: Sequence[object]) -> bool:
        for condition, cell in zip(conditions, cells, strict=True):
            text = _text(cell)
            self._count(self.values, condition.column, text)
            if not _meets(condition, text):
                self.left_out[condition] += 1
                return False
        return True

    def _add(self, number: int, line: int, cells: dict[str, object]) -> bool:
        """Keep one row, or count why not."""
        mapped, path = dict(self.spec.columns), self.paths[number]
        stamp = None if (cell := cells["arrival"]) is None else parse_stamp(cell)
        if stamp is None:
            name = mapped["arrival"]
            reason = f"lack {name}" if _text(cell) == "" else f"have a {name} that is no time"
            self.dropped.add(
                reason, path, line, cell, "a time such as 2026-11-24T09:00:00Z or seconds since 1970"
            )
            return False
        lengths = {}
        for ours in ("isl", "osl"):
            cell, name = cells[ours], mapped[ours]
            tokens = _tokens(cell)
            if tokens is None or not 0 < tokens <= MAX_TOKENS:
                reason = "lack " + name if _text(cell) == "" else f"have a {name} that is no number of tokens"
                if tokens == 0:
                    reason = f"have {name} 0"
                self.dropped.add(reason, path, line, cell, f"a whole number of tokens from 1 to {MAX_TOKENS}")
                return False
            lengths[ours] = tokens
        for ours in ("cached_tokens", "priority"):
            if ours in cells:
                cell, name = cells[ours], mapped[ours]
                value = 0 if _text(cell) == "" else _tokens(cell)
                if value is None or abs(value) > MAX_TOKENS or (value < 0 and ours == "cached_tokens"):
                    self.dropped.add(
                        f"have a {name} that is no whole number", path, line, cell, "a whole number"
                    )
                    return False
                self.blank[ours] += _text(cell) == ""
                lengths[ours] = value
        if self.builder is not None:
            cell, name = cells["hash_ids"], mapped["hash_ids"]
            ids = _ids(cell)
            reason = f"have {name} that are no list of whole numbers" if ids is None else ""
            if ids is not None:
                lengths["hash_ids"], fits = self._taken(self.builder, ids, lengths["isl"])
                reason = "" if fits else f"have more {name} than blocks of {self.builder.block_tokens} tokens"
            if reason:
                expected = "whole numbers that fit 64 bits, one for each block of the prompt"
                self.dropped.add(reason, path, line, cell, expected)
                return False
        if lengths.get("cached_tokens", 0) >= lengths["isl"]:
            # The last token of a prompt is computed in any case.
            lengths["cached_tokens"] = lengths["isl"] - 1
            self.clipped += 1
        for ours in cells.keys() & {"session", "session_id"}:
            # Without a name it is a session by itself.
            name = _text(cells[ours]) or f" {len(self.sessions)}"
            lengths["session_id"] = self.sessions.setdefault(name, len(self.sessions))
        if "session" in cells:
            self.took.append(_took(stamp, cells.get("done")))
        self.stamps.append(stamp)
        self.places.append((number, line))
        for ours, value in lengths.items():
            self.counts[ours].append(value)
        return True

    def _taken(self, builder: PrefixBuilder, ids: NDArray[np.int64], isl: int) -> tuple[int, bool]:
        """Return the node of a prompt's last id, and whether the prompt is long enough for them."""
        take = builder.add_tokens if self.spec.ids_of_tokens else builder.add
        leaf = take(np.array([0, len(ids)]), ids)
        return int(leaf[0]), int(builder.counts(leaf)[0]) <= -(-isl // builder.block_tokens)

    def finished(self) -> LogRows:
        """Settle the clock, drop what does not fit it, and say what was done."""
        path = self.paths[0] if len(self.paths) == 1 else f"{self.paths[0]} and {len(self.paths) - 1} more"
        if not self.rows:
            raise InputError(f"{path}: has a header and no requests; expected at least one row")
        self._check_some(path)
        clock = self._clock(path)
        keep = clock.keep
        # Without the rows of other clocks, and of a year that is not meant (1970).
        ticks = clock.ticks
        if len(ticks):
            near = np.abs(ticks - np.median(ticks)) <= MAX_SPAN_S * clock.ticks_per_s
            self._drop(keep[~near], "have an arrival more than a year from most others")
            keep, ticks = keep[near], ticks[near]
        considered = self.rows - self.left_out.total()
        common = [f"{name}={held.most_common(1)[0][0]}" for name, held in self.apart.items() if held]
        self.dropped.check(path, considered, " --where ".join(common))
        if not len(keep):
            raise InputError(f"{path}: no request is left: {self.dropped.by_reason()}")
        columns = {
            name: np.array(values, np.int64)[keep].astype(np.int32) for name, values in self.counts.items()
        }
        started_at = None
        if clock.zone is not None:
            first_us = int(ticks.min()) * 1_000_000 // int(clock.ticks_per_s)
            first = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=first_us)
            started_at = first.astimezone(clock.zone)
            last = started_at + timedelta(seconds=float(ticks.max() - ticks.min()) / clock.ticks_per_s)
            span = f", {_shown_time(started_at)} to {_shown_time(last)}"
        else:
            span = f", {float(ticks.max() - ticks.min()) / clock.ticks_per_s:.6g} s in all"
        stated = f"arrival '{dict(self.spec.columns)['arrival']}' read as {clock.stated}{span}"
        notes = [stated, *clock.notes, *self._notes(considered)]
        turns = None
        if "session" in dict(self.spec.columns):
            took_s = np.array(self.took)[keep] / clock.ticks_per_s
            # The first arrival is taken off in the log's own ticks, for the same times as the trace has.
            arrival_s = (ticks - ticks.min()) / clock.ticks_per_s
            turns = one_after_another(arrival_s, columns["session_id"], took_s, columns["osl"])
            notes.append(self._turns_note(turns, took_s, path))
        return LogRows(ticks, clock.ticks_per_s, columns, turns, started_at, tuple(notes))

    def _turns_note(self, turns: Turns, took_s: NDArray[np.float64], path: str) -> str:
        """Say who waits, and how long answers are taken to have taken."""
        known = int(np.isfinite(took_s).sum())
        name = dict(self.spec.columns).get("done")
        if name is not None and not known:
            raise InputError(
                f"{path}: --columns done={name}: no row has a time there that is at or after its arrival; "
                "expected when the answer ended, on the clock of the arrivals (a duration is to be added to "
                "them first)"
            )
        others = f"{ANSWER_S_PER_TOKEN * 1000:g} ms for each of its tokens"
        if known:
            others = "their tokens times the median of what a token of the others took"
        how = {0: others, len(took_s): f"recorded in '{name}'"}.get(
            known, f"recorded in '{name}' for {known:,} and {others} for {len(took_s) - known:,}"
        )
        return (
            f"{len(self.sessions):,} sessions: {int(turns.waits.sum()):,} requests wait for the one before; "
            f"thinking is the gap less the answer's time, which is {how}"
        )

    def _check_some(self, path: str) -> None:
        """Refuse a log without one row to use: what is wrong, or what the columns of the conditions hold."""
        if not self.stamps and self.dropped.count:
            raise InputError(
                f"{path}: no row can be used: {self.dropped.by_reason()}; expected times such as "
                "2026-11-24T09:00:00Z or seconds since 1970, and whole numbers of tokens above 0"
            )
        if self.stamps or not self.left_out:
            return
        condition = next(iter(self.left_out))
        held = self.values[condition.column]
        common = ", ".join(f"{shown or 'nothing'} ({count:,})" for shown, count in held.most_common(8))
        raise InputError(
            f"{path}: --where {condition}: no row is left of {self.rows:,}; {condition.column} holds "
            f"{common}{did_you_mean(condition.value, held)}"
        )

    def _drop(self, which: NDArray[np.int64], reason: str) -> None:
        for index in which.tolist():
            number, line = self.places[index]
            self.dropped.add(reason, self.paths[number], line)

    def _clock(self, path: str) -> _Clock:
        """Find out what the arrivals are, and leave out those that are something else."""
        kinds = np.array([stamp.kind for stamp in self.stamps])
        numeric = kinds == "number"
        keep = np.flatnonzero(numeric if numeric.sum() * 2 > len(kinds) else ~numeric)
        name = dict(self.spec.columns)["arrival"]
        self._drop(np.setdiff1d(np.arange(len(kinds)), keep), f"have a {name} unlike most (date or number)")
        zone = parse_zone(self.spec.time_zone) if self.spec.time_zone else None
        if not len(keep):
            return _Clock(keep, np.empty(0), 1.0, None, "", ())
        if numeric[keep[0]]:
            return self._number_clock(path, name, keep, zone)
        if self.spec.time_unit:
            raise InputError(
                f"--time-unit {self.spec.time_unit}: {path}: column '{name}' holds dates, not numbers"
            )
        naive = kinds[keep] == "naive"
        if zone is None and naive.any() and not naive.all():
            few = naive if naive.sum() * 2 <= len(naive) else ~naive
            words = "without a zone" if few is naive else "with a zone"
            self._drop(keep[few], f"have a {name} {words}, unlike most (say --time-zone for those without)")
            keep, naive = keep[~few], naive[~few]
        ticks = np.array([self.stamps[index].value for index in keep.tolist()], np.int64)
        notes: list[str] = []
        stated = "dates and times"
        if naive.any():
            if zone is None:
                notes.append(
                    f"column '{name}' states no zone: taken as UTC; say which with --time-zone Europe/Berlin"
                )
            else:
                ticks[naive], twice = to_utc_ns(ticks[naive], zone)
                stated += f" of {self.spec.time_zone}"
                if twice:
                    notes.append(
                        f"{twice} rows are in an hour that occurs twice when clocks go back: taken as "
                        f"the first"
                    )
        if zone is None:
            zone = UTC if naive.all() else timezone(timedelta(seconds=self.stamps[keep[0]].offset))
        return _Clock(keep, ticks, 1e9, zone, stated, tuple(notes))

    def _number_clock(self, path: str, name: str, keep: NDArray[np.int64], zone: tzinfo | None) -> _Clock:
        values = [self.stamps[index].value for index in keep.tolist()]
        whole = all(isinstance(value, int) and abs(value) < 2**63 for value in values)
        ticks = np.array(values, np.int64 if whole else np.float64)
        try:
            found = recognised_unit(ticks, name)
        except InputError as error:
            if not self.spec.time_unit:
                raise InputError(f"{path}: {error}") from None
            found = None
        unit = self.spec.time_unit
        if unit:
            # Since 1970 only where that gives a time of this century.
            since_1970 = recognised_unit(ticks, "") == (unit, True)
        elif found is not None:
            unit, since_1970 = found
        else:
            unit, since_1970 = "s", False
            span = float(ticks.max() - ticks.min())
            if span > MAX_SPAN_S or len(ticks) > _BUSIEST_RPS * span > 0:
                raise InputError(
                    f"{path}: column '{name}': {len(ticks):,} numbers from {ticks.min():g} to "
                    f"{ticks.max():g} are hardly "
                    "seconds; say which unit with --time-unit ms (s, ms, us, ns)"
                )
        words = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}[unit]
        stated = f"{words} since {'1970' if since_1970 else 'some start'}"
        return _Clock(keep, ticks, TIME_UNITS[unit], (zone or UTC) if since_1970 else None, stated, ())

    def _notes(self, considered: int) -> list[str]:
        """Say what was left out, and what the reader may not expect to be in."""
        notes = []
        if self.left_out:
            parts = ", ".join(f"{condition} ({count:,})" for condition, count in self.left_out.items())
            notes.append(f"left out {self.left_out.total():,} of {self.rows:,} rows by --where {parts}")
        if self.dropped.count:
            share = self.dropped.count / considered
            notes.append(
                f"dropped {self.dropped.count:,} of {considered:,} rows ({share:.2%}) that cannot be used: "
                f"{self.dropped.by_reason()}"
            )
        for name, held in self.apart.items():
            if 1 < len(held) < _MOST_VALUES:
                common = ", ".join(
                    f"{shown or 'nothing'} ({count:,})" for shown, count in held.most_common(4)
                )
                most = held.most_common(1)[0][0]
                notes.append(
                    f"column '{name}' holds {len(held)} values, all taken: {common}; keep one with "
                    f"--where {name}={most}"
                )
        for ours, count in self.blank.items():
            if count:
                notes.append(f"{dict(self.spec.columns)[ours]} is blank in {count:,} rows: taken as 0")
        if self.clipped:
            notes.append(
                f"{self.clipped:,} prompts are cached whole: their last token is computed all the same"
            )
        if self.sessions and "session_id" in dict(self.spec.columns):
            notes.append(
                f"{len(self.sessions):,} sessions: turns do not wait for the one before; with session= in "
                "place of session_id= they do"
            )
        return [one_line(note, 1500) for note in notes]


@dataclass(frozen=True, slots=True, eq=False)
class _Clock:
    """Arrivals once settled: of which rows, in which unit, in which zone they are shown, and in words."""

    keep: NDArray[np.int64]
    ticks: NDArray[Any]
    ticks_per_s: float
    zone: tzinfo | None
    stated: str
    notes: tuple[str, ...]


def _shown_time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}{at:%z}"
