"""From a file to a ``Trace``: recognise the format by content, read it, put it in order."""

from __future__ import annotations

import glob
import hashlib
import os
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from sagescale.errors import InputError, UnknownFormatError, did_you_mean, one_line
from sagescale.files import shipped
from sagescale.trace.log.names import guessed, suggested_command
from sagescale.trace.log.read import read_log
from sagescale.trace.log.rows import column_names
from sagescale.trace.log.spec import TIME_UNITS, LogSpec
from sagescale.trace.log.times import parse_zone
from sagescale.trace.readers import FORMATS
from sagescale.trace.readers.containers import READ
from sagescale.trace.readers.fields import TOKENS, Field
from sagescale.trace.readers.format import Format
from sagescale.trace.readers.prefix_ids import block_tokens, coverage_warning, stated
from sagescale.trace.sessions import NO_STARTS, START_GAP_S, Turns, long_thinking, session_number
from sagescale.trace.source import STANDARD_INPUT, open_source, read_head
from sagescale.trace.stamps import coarse_warning
from sagescale.trace.trace import MAX_SPAN_S, Trace, numbered

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from sagescale.trace.prefix_builder import PrefixBuilder
    from sagescale.trace.readers.fields import Clock
    from sagescale.trace.readers.format import Rows, TraceFormat
    from sagescale.trace.source import Head, Source


def format_names() -> tuple[str, ...]:
    """Return the names of every format that can be read."""
    return tuple(known.name for known in FORMATS)


def shipped_traces() -> dict[str, Path]:
    """Return the traces that come with sagescale, by name."""
    return {file.stem: file for file in sorted(shipped("traces").glob("*.csv"))}


def read_trace(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    format: str | None = None,  # noqa: A002 - the user's word
    log: LogSpec = LogSpec(),  # noqa: B008 - frozen
) -> Trace:
    """Read a request trace of a known format, or a service's own log; gzip'ed or not, one file or several.

    Rows are sorted by arrival (stable) and the first arrival becomes 0. Rows with no prompt or no generated
    tokens asked nothing of the server and are dropped. Both are said in ``Trace.warnings``.

    Args:
        path: the file, ``-`` for standard input, a pattern such as ``log-*.csv.gz``, several of these, or the
            name of a trace that comes with sagescale.
        format: one of ``format_names()``; needed only where content does not decide.
        log: columns, conditions and clock of a log; a row that cannot be used is then dropped and counted.

    Raises:
        InputError: a missing or damaged file, an unknown or ambiguous format, a bad line, too many of them.
    """
    formats = {known.name: known for known in FORMATS}
    if format is not None and format not in formats:
        raise InputError(
            f"--format {format}: unknown; expected one of {', '.join(formats)}{did_you_mean(format, formats)}"
        )
    if format is not None and log.columns:
        raise InputError(f"--format {format}: --columns name the columns already; give one of the two")
    located = [(given, _located(given)) for given in files_meant(path)]
    # A shipped trace goes by its name: where the installation keeps it means nothing elsewhere.
    sources = [(open_source(file), given == file) for given, file in located]
    names = [
        source.path if own else file.stem for (source, own), (_, file) in zip(sources, located, strict=True)
    ]
    files = [(source, read_head(source)) for source, _ in sources]
    identity = _Identity(_together(names), _digest([source.sha256 for source, _ in files]))
    if log.columns:
        return _from_log(files, log, identity, "log", 0)
    known = [_recognised(source, head) if format is None else formats[format] for source, head in files]
    found = known[0]
    for (source, _), other in zip(files, known, strict=True):
        if other is not found:
            raise InputError(
                f"{source.path}: is {other.name}, and {files[0][0].path} is {found.name}; expected "
                f"files of one format"
            )
    if log.where:
        if not isinstance(found, Format):
            raise InputError(f"--where {log.where[0]}: {found.name} has no rows to choose from; leave it out")
        there = set.intersection(*(set(head.columns) for _, head in files))
        columns = log.with_columns_of(found, there)
        chosen = _from_log(files, columns, identity, found.name, found.block_tokens)
        if not there.isdisjoint({found.after, found.chat}):
            lost = "--where leaves out which answers a request waits for: all arrive by the clock"
            chosen = replace(chosen, warnings=(*chosen.warnings, lost))
        return chosen
    return _from_format(files, found, log, identity)


def format_of(path: str | os.PathLike[str]) -> str:
    """Return the name of the format that a file's beginning is of.

    Raises:
        InputError: it cannot be read, or is of none, or of several.
    """
    source = open_source(Path(path))
    return _recognised(source, read_head(source)).name


def read_lengths(path: str | os.PathLike[str]) -> Lengths:
    """Read prompt and output tokens of each request, from a trace or from a file that has no arrivals.

    Without arrivals the two columns are those of a known format, or have usual names (``prompt_tokens``).

    Raises:
        InputError: as :func:`read_trace`, or there are no such columns.
    """
    located = _located(Path(path))
    source = open_source(located)
    head = read_head(source)
    if any(known.recognise(head) for known in FORMATS):
        trace = read_trace(path)
        return Lengths(trace.path, trace.isl, trace.osl)
    names = set(head.columns)
    pairs = {(known.isl, known.osl) for known in FORMATS if isinstance(known, Format)}
    there = sorted(pair for pair in pairs if names.issuperset(pair))
    usual = guessed(head.columns)
    if not there and {"isl", "osl"} <= usual.keys():
        there = [(usual["isl"], usual["osl"])]
    if len(there) != 1:
        found = one_line(f"{source.path}: {head.container} with {','.join(head.columns)}", 400)
        raise InputError(
            f"{found}: no lengths to draw from; expected columns isl,osl, those of a trace format, or "
            f"usual names "
            "such as prompt_tokens,completion_tokens"
        )
    ((isl_name, osl_name),) = there
    columns = READ[head.container](source, head, (Field(isl_name, TOKENS), Field(osl_name, TOKENS)), None)
    isl, osl = columns[isl_name], columns[osl_name]
    asked = (isl > 0) & (osl > 0)
    if not asked.any():
        raise InputError(f"{source.path}: no row has both prompt and output tokens; expected some above 0")
    return Lengths(source.path, isl[asked], osl[asked])


@dataclass(frozen=True, slots=True, eq=False)
class Lengths:
    """Tokens of requests whose arrivals do not matter.

    Attributes:
        path: the file.
        isl: int32[n] >= 1, prompt tokens.
        osl: int32[n] >= 1, generated tokens.
    """

    path: str
    isl: NDArray[np.int32]
    osl: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class _Identity:
    """What the trace is called, and the sha256 of what it was read from."""

    path: str
    sha256: str


def files_meant(given: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[Path]:
    """Return the files of a name, a pattern, or several of them, in order.

    Raises:
        InputError: a pattern that matches nothing, or a file named twice.
    """
    texts = [given] if isinstance(given, str | os.PathLike) else list(given)
    found: list[Path] = []
    for text in texts:
        path = Path(text)
        if path.exists() or not glob.has_magic(str(path)):
            found.append(path)
            continue
        matching = sorted(glob.glob(str(path)))  # noqa: PTH207 - a pattern from the root, too
        if not matching:
            raise InputError(f"{path}: no file matches; expected request traces")
        found += map(Path, matching)
    twice = next((path for path in found if found.count(path) > 1), None)
    if twice is not None:
        raise InputError(f"{twice}: given twice; its requests would count twice")
    return found


def _together(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _digest(digests: Sequence[str]) -> str:
    """Return the sha256 of one file, or of the list of several."""
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _from_log(
    files: Sequence[tuple[Source, Head]],
    log: LogSpec,
    identity: _Identity,
    name: str,
    usual_block_tokens: int,
) -> Trace:
    builder = None
    if "hash_ids" in dict(log.columns):
        builder = _builder(files, log, usual_block_tokens)
    elif log.hash_block_tokens:
        _refuse_block_tokens(log, identity, name)
    rows = read_log(files, log, builder)
    warnings = list(rows.warnings)
    if rows.turns is not None:
        warnings += long_thinking(rows.turns, lambda row: f"{identity.path}: request {row + 1}")
    made = _put_in_order(
        rows.ticks,
        rows.columns,
        rows.ticks_per_s,
        identity,
        warnings,
        builder=builder,
        turns=rows.turns,
    )
    return replace(made, format=name, started_at=rows.started_at)


def _from_format(
    files: Sequence[tuple[Source, Head]], found: TraceFormat, log: LogSpec, identity: _Identity
) -> Trace:
    clock = found.clock
    if log.time_unit:
        if clock.unit not in TIME_UNITS:
            raise InputError(
                f"--time-unit {log.time_unit}: {identity.path} has dates and times; leave it out"
            )
        clock = replace(clock, ticks_per_s=TIME_UNITS[log.time_unit], unit=log.time_unit)
    if log.time_zone and clock.unit in TIME_UNITS:
        raise InputError(
            f"--time-zone {log.time_zone}: {identity.path} ({found.name}) has no dates; leave it out"
        )
    zone = parse_zone(log.time_zone) if log.time_zone else UTC
    builder = None
    with_ids = [file for file in files if found.has_ids(file[1])]
    if with_ids:
        builder = _builder(with_ids, log, found.block_tokens, found.stated_block_tokens)
    elif log.hash_block_tokens:
        _refuse_block_tokens(log, identity, found.name)
    digests: list[str] = []
    repeated: list[str] = []
    parts, id_tokens = [], builder.block_tokens if builder else 0
    for source, head in files:
        rows = found.read(source, head, builder)
        if not len(rows.ticks):
            raise InputError(f"{source.path}: has a header and no requests; expected at least one row")
        _check_span(rows, source, head, found, clock, id_tokens)
        if (copies := digests.count(source.sha256)) and rows.turns is not None:
            # Byte by byte a file that was read already: its sessions are others that did the same.
            rows.columns["session_id"] = rows.columns["session_id"] ^ session_number(f"copy {copies}")
            earlier = files[digests.index(source.sha256)][0].path
            repeated.append(f"{source.path} has the same content as {earlier}: its requests count again")
        digests.append(source.sha256)
        parts.append(rows)
    ticks = np.concatenate([rows.ticks for rows in parts])
    warnings = list(dict.fromkeys(line for rows in parts for line in rows.warnings))
    warnings += repeated
    if not log.time_unit and (doubt := check_unit(identity.path, ticks, clock, found.arrival)):
        warnings.append(doubt)
    kept = [name for name in parts[0].columns if all(name in rows.columns for rows in parts)]
    lost = {name for rows in parts for name in rows.columns} - set(kept)
    warnings += [f"{name} is left out: not every file has it" for name in sorted(lost)]
    columns = {name: np.concatenate([rows.columns[name] for rows in parts]) for name in kept}
    starts_recorded = all(rows.starts_recorded for rows in parts)
    if not starts_recorded:
        session = numbered(columns["session_id"])
        gap_s = min(START_GAP_S, MAX_SPAN_S / 2 / (int(session.max()) + 1))
        ticks = ticks + session * (gap_s * clock.ticks_per_s)
        warnings.append(NO_STARTS.format(gap_s=gap_s))
    taken_for_granted = isinstance(found, Format) and found.block_tokens and log.hash_block_tokens is None
    if builder is not None and taken_for_granted and "hash_ids" in columns:
        warnings += coverage_warning(columns["isl"], columns["hash_ids"], builder)
    turns = [rows.turns for rows in parts if rows.turns is not None]
    joined = Turns.joined(turns) if turns and len(turns) == len(parts) else None
    if turns and joined is None:
        warnings.append("which answers a request waits for is left out: not every file says it")
    if joined is not None:
        first_row = np.cumsum([0, *(len(rows.ticks) for rows in parts)])

        def place(row: int) -> str:
            file = int(np.searchsorted(first_row, row, side="right")) - 1
            source, head = files[file]
            return f"{source.path}: {found.place(source, head, row - int(first_row[file]), id_tokens)}"

        warnings += long_thinking(joined, place)
    made = _put_in_order(
        ticks,
        columns,
        clock.ticks_per_s,
        identity,
        warnings,
        found.zero_osl,
        builder,
        joined,
        starts_recorded=starts_recorded,
    )
    if clock.unit not in TIME_UNITS:
        first = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(ticks.min()) // 1000)
        made = replace(made, started_at=first.astimezone(zone))
    return replace(made, format=found.name)


def _builder(
    files: Sequence[tuple[Source, Head]],
    log: LogSpec,
    usual_block_tokens: int,
    stated_by: Callable[[Source, Head], int] = stated,
) -> PrefixBuilder:
    """Return what takes the prefix ids of files that have some."""
    # It is compiled: only whoever has ids waits for that.
    from sagescale.trace.prefix_builder import PrefixBuilder

    tokens = block_tokens(files, log.hash_block_tokens, usual_block_tokens, stated_by)
    return PrefixBuilder(tokens, files[0][0].path)


def _refuse_block_tokens(log: LogSpec, identity: _Identity, name: str) -> NoReturn:
    raise InputError(
        f"--hash-block-tokens {log.hash_block_tokens}: {identity.path} ({name}) has no prefix ids that are "
        f"read; leave it out, or name their column with --columns hash_ids=NAME"
    )


def _located(path: Path) -> Path:
    """Return the file meant: the path, or where there is none the shipped trace of that name."""
    if str(path) == STANDARD_INPUT or path.exists() or len(path.parts) != 1:
        return path
    known = shipped_traces()
    if path.name in known:
        return known[path.name]
    if not path.suffix:
        near = did_you_mean(path.name, known)
        raise InputError(
            f"{path}: no such file, nor a trace that comes with sagescale ({', '.join(known)}){near}"
        )
    return path


def _recognised(source: Source, head: Head) -> TraceFormat:
    path = source.path
    candidates = [known for known in FORMATS if known.recognise(head)]
    if len(candidates) == 1:
        return candidates[0]
    found = f"{path}: {head.container} with {','.join(head.columns)}"
    if candidates:
        shapes = " or ".join(f"{known.name} ({known.shape})" for known in candidates)
        raise InputError(f"{found}: ambiguous, could be {shapes}; say which with --format")
    # A file that has a column of a format was probably meant to be it; the others would only be noise.
    shared = {known: len({f.column for f in known.required} & set(head.columns)) for known in FORMATS}
    most = max(shared.values())
    shapes = " or ".join(f"{known.name} ({known.shape})" for known, count in shared.items() if count == most)
    others = ", ".join(format_names()[1:])
    names = column_names(source, head)
    found = one_line(f"{path}: {head.container} with {','.join(names)}", 400)
    raise UnknownFormatError(
        f"{found}: no known trace format; of a request log, name the columns: "
        f"{suggested_command(path, names)}; "
        f"else expected {shapes if most else f'{FORMATS[0].name} ({FORMATS[0].shape}) or one of {others}'}",
        path,
        "a request trace",
    )


def _check_span(
    rows: Rows, source: Source, head: Head, found: TraceFormat, clock: Clock, id_tokens: int
) -> None:
    """Refuse arrivals further apart than anything is simulated for, naming the row that is."""
    first, last = rows.ticks.argmin(), rows.ticks.argmax()
    # As floats: nanoseconds of two centuries do not fit 64 bits, nor their difference.
    earliest, latest = float(rows.ticks[first]), float(rows.ticks[last])
    span_s = (latest - earliest) / clock.ticks_per_s
    if span_s <= MAX_SPAN_S:
        return
    middle = float(np.median(rows.ticks))
    row, other = (last, "first") if latest - middle >= middle - earliest else (first, "last")
    place = found.place(source, head, int(row), id_tokens)
    raise InputError(
        f"{source.path}: {place}, column '{found.arrival}': {span_s:.6g} s from the {other} arrival; "
        f"expected a trace of at most {MAX_SPAN_S:.0f} s, a year, in {clock.unit}"
    )


def _put_in_order(
    ticks: NDArray[Any],
    columns: dict[str, NDArray[np.int32]],
    ticks_per_s: float,
    identity: _Identity,
    warnings: list[str],
    zero_osl: str = "requests that generated nothing",
    builder: PrefixBuilder | None = None,
    turns: Turns | None = None,
    *,
    starts_recorded: bool = True,
) -> Trace:
    """Drop empty requests, sort, rebase to the first arrival, and warn of coarse stamps."""
    path = identity.path
    isl, osl = columns["isl"], columns["osl"]
    asked = (isl > 0) & (osl > 0)
    if not asked.all():
        for count, what in (
            (int((osl == 0).sum()), zero_osl),
            (int(((isl == 0) & (osl > 0)).sum()), "requests with an empty prompt"),
        ):
            if count:
                warnings.append(f"dropped {count} {what} of {len(isl)} rows")
        if not asked.any():
            raise InputError(f"{path}: no request is left; {'; '.join(warnings)}")
        if turns is not None:
            turns = turns.without(~asked, np.argsort(ticks, kind="stable"))
            turns = turns.taken(np.flatnonzero(asked))
        ticks = ticks[asked]
        columns = {name: column[asked] for name, column in columns.items()}
    as_read = bool(asked.all())
    backward = int(np.count_nonzero(ticks[1:] < ticks[:-1]))
    if backward:
        as_read = False
        if starts_recorded:
            warnings.append(f"arrivals out of order: {backward} rows earlier than the row before; sorted")
        order = np.argsort(ticks, kind="stable")
        ticks = ticks[order]
        columns = {name: column[order] for name, column in columns.items()}
        turns = None if turns is None else turns.taken(order)
    # Subtract first, in the file's own ticks: seconds since 1970 have no room for 100 ns in a double.
    arrival_s = (ticks - ticks[0]) / ticks_per_s
    clocked = arrival_s if turns is None else arrival_s[~turns.waits]
    if (coarse := coarse_warning(clocked)) is not None:
        warnings.append(coarse)
    if "session_id" in columns:
        columns["session_id"] = numbered(columns["session_id"])
    leaf = columns.pop("hash_ids", None)
    prefixes = None
    if builder is not None and leaf is not None:
        prefixes = builder.finish(leaf)
        if not as_read or builder.rows != len(leaf):
            prefixes = prefixes.with_leaf(leaf)
    return Trace(
        arrival_s=arrival_s,
        prefixes=prefixes,
        turns=turns,
        **columns,  # type: ignore[arg-type]  # names of columns
        path=path,
        sha256=identity.sha256,
        warnings=tuple(warnings),
    )


_FEWEST = 5
_DOUBTED_RPS, _REFUSED_RPS = 50.0, 100.0
"""Recorded traces of one service have some dozen requests a second. Whole milliseconds are doubted above
the first rate; with fractions, as seconds have, refused above the second."""


def check_unit(path: str, ticks: NDArray[Any], clock: Clock, column: str) -> str | None:
    """Look at times that are milliseconds by their format.

    Returns:
        A warning, where they may be seconds; None where nothing speaks for it.

    Raises:
        InputError: they have fractions, and come so fast that they hardly are milliseconds.
    """
    if clock.unit != "ms" or len(ticks) < _FEWEST:
        return None
    span_s = float(ticks.max() - ticks.min()) / clock.ticks_per_s
    rate = len(ticks) / span_s if span_s > 0 else np.inf
    fractions = bool((ticks != np.floor(ticks)).any())
    readings = (
        f"{len(ticks):,} requests in {span_s:.3g} s ({rate:.3g}/s) as milliseconds, "
        f"{span_s * 1000:.3g} s ({rate / 1000:.3g}/s) as seconds"
    )
    if fractions and rate > _REFUSED_RPS:
        raise InputError(
            f"{path}: '{column}' has fractions, and its format has milliseconds: {readings}; say which with "
            "--time-unit ms or --time-unit s"
        )
    if fractions or rate > _DOUBTED_RPS:
        why = "has fractions" if fractions else "comes very fast"
        return f"'{column}' {why}, read as milliseconds: {readings}; if it is seconds, say --time-unit s"
    return None
