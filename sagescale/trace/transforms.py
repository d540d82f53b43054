"""What a user may do to a trace before replaying it; each says in ``Trace.transforms`` what it did.

The order is fixed: spread-stamps, slice, rate-scale, speedup, tile. So ``--jitter-s`` is in seconds of the
recorded trace, and a tile repeats what all the others made. A factor of 1 changes nothing and is not
recorded. Sessions whose turns wait for answers stay whole: what is kept, copied or moved is a session.
Where ``--sessions`` draws their starts, that is done once there are as many sessions as there will be, and
before the slice: spread-stamps, max-think-s, rate-scale, sessions, slice, speedup, tile.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sagescale.declare import shown
from sagescale.errors import InputError
from sagescale.files import open_input
from sagescale.trace.sessions import beginnings, cap_thinking, refuse_without_turns, restarted, session_starts
from sagescale.trace.stamps import spread_stamps
from sagescale.trace.trace import MAX_SPAN_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from sagescale.trace.prefixes import Prefixes
    from sagescale.trace.starts import SessionStarts
    from sagescale.trace.trace import Trace

MAX_REQUESTS = 1_000_000_000
"""More than this is a slip of the keyboard; 16 GB of columns would follow."""


_MOST_ID_BYTES = 1 << 28


@dataclass(frozen=True, slots=True)
class TransformSpec:
    """Which transforms to apply; the defaults change nothing.

    Attributes:
        slice: keep arrivals in ``[start_s, end_s)`` of the recorded trace; the end may be infinite.
        rate_scale: multiply the requests, keeping the duration.
        speedup: divide the arrival times.
        tile: repeat the whole so many times.
        seed: of what rate-scale draws.
        jitter_s: how far rate-scale moves a copy, at most.
        spread_stamps: draw arrivals apart within coarse stamps, before all else; seeded.
        shared_ids: ranges ``[first, end)`` of prefix ids that all copies of rate-scale and tile share; each
            copy has all others for itself.
        sessions: how sessions begin, where not as recorded; seeded.
        max_think_s: the longest time to think that is kept, s.
    """

    slice: tuple[float, float] | None = None
    rate_scale: float = 1.0
    speedup: float = 1.0
    tile: int = 1
    seed: int = 0
    jitter_s: float = 30.0
    spread_stamps: bool = False
    shared_ids: tuple[tuple[int, int], ...] = ()
    sessions: SessionStarts | None = None
    max_think_s: float | None = None


def apply_transforms(trace: Trace, spec: TransformSpec) -> Trace:
    """Apply all that the spec asks for, in the fixed order.

    Raises:
        InputError: a value out of range, or no request left; names the option.
    """
    shared = _shared_there(trace, spec) if spec.shared_ids else ()
    if spec.spread_stamps:
        trace = spread_stamps(trace, spec.seed)
    if spec.max_think_s is not None:
        check_number("--max-think-s", spec.max_think_s, zero=True)
        if trace.turns is None:
            refuse_without_turns("--max-think-s", trace)
        trace = cap_thinking(trace, spec.max_think_s)
    if spec.slice is not None and spec.sessions is None:
        trace = slice_trace(trace, *spec.slice)
    trace = rate_scale(trace, spec.rate_scale, spec.seed, spec.jitter_s, shared)
    if spec.sessions is not None:
        trace = spec.sessions.started(trace, spec.seed)
        if spec.slice is not None:
            trace = slice_trace(trace, *spec.slice)
    return tile(speed_up(trace, spec.speedup), spec.tile, shared)


def parse_slice(text: str) -> tuple[float, float]:
    """Parse ``A:B`` in seconds; an end left out is the start or the end of the trace.

    Raises:
        InputError: it is no such thing, or not ``0 <= A < B``.
    """
    start_text, colon, end_text = text.partition(":")
    try:
        start_s = float(start_text) if start_text.strip() else 0.0
        end_s = float(end_text) if end_text.strip() else math.inf
    except ValueError:
        colon = ""
    if not colon:
        raise InputError(f"--slice {text}: expected A:B in seconds, for example 600:1800, 600: or :1800")
    _check_slice(start_s, end_s)
    return start_s, end_s


def parse_shared_ids(text: str) -> tuple[tuple[int, int], ...]:
    """Read ``A:B``, the prefix ids from A up to and without B, or a file of ids.

    Raises:
        InputError: it is neither, or a file that holds something else.
    """
    bounds = re.fullmatch(r"(\d{1,18}):(\d{1,18})", text)
    if bounds is not None:
        first, end = int(bounds[1]), int(bounds[2])
        if first >= end:
            raise InputError(f"--shared-ids {text}: expected A:B with A < B, the ids from A up to B - 1")
        return ((first, end),)
    if not Path(text).is_file():
        raise InputError(
            f"--shared-ids {text}: no such file; expected a file of prefix ids, or A:B, e.g. 0:12"
        )
    found: set[int] = set()
    with open_input(Path(text), "a file of prefix ids", _MOST_ID_BYTES) as stream:
        for number, line in enumerate(stream, 1):
            for word in line.decode("utf-8", "replace").replace(",", " ").split():
                if not re.fullmatch(r"-?\d{1,18}", word):
                    raise InputError(
                        f"{text}: line {number}: found {shown(word)}, expected whole numbers, the prefix ids "
                        f"that copies share"
                    )
                found.add(int(word))
    if not found:
        raise InputError(f"{text}: holds no prefix id; expected those that copies share")
    return _ranges(np.array(sorted(found), np.int64))


def _ranges(ids: NDArray[np.int64]) -> tuple[tuple[int, int], ...]:
    """Return sorted ids as ranges ``[first, end)``."""
    firsts = ids[np.diff(ids, prepend=ids[0] - 2) != 1]
    lasts = ids[np.diff(ids, append=ids[-1] + 2) != 1]
    return tuple(zip(firsts.tolist(), (lasts + 1).tolist(), strict=True))


def slice_trace(trace: Trace, start_s: float, end_s: float) -> Trace:
    """Keep arrivals with ``start_s <= t < end_s``, in seconds since the trace's first arrival.

    Times are then counted from the first arrival kept, so the first is 0 again. Of a trace with turns the
    sessions that begin then are kept, to their ends.

    Raises:
        InputError: not ``0 <= start_s < end_s``, or no request arrives in between.
    """
    _check_slice(start_s, end_s)
    begins = beginnings(trace)
    first, last = np.searchsorted(begins, [start_s, end_s], side="left").tolist()
    note = f"slice {start_s:.12g}:{'' if math.isinf(end_s) else f'{end_s:.12g}'}"
    if first == last:
        if trace.turns is not None:
            raise InputError(f"--{note}: no session begins then; the last one does at {begins[-1]:.12g} s")
        raise InputError(f"--{note}: no request arrives then; the trace lasts {trace.duration_s:.12g} s")
    rows: slice | NDArray[np.int64] = slice(first, last)
    if trace.turns is not None and trace.session_id is not None:
        rows = np.flatnonzero((trace.session_id >= first) & (trace.session_id < last))
    kept = trace.remade(trace.arrival_s[rows] - begins[first], lambda column: column[rows].copy(), note)
    return kept.begun_later(float(begins[first]))


def rate_scale(
    trace: Trace,
    factor: float,
    seed: int = 0,
    jitter_s: float = 30.0,
    shared_ids: tuple[tuple[int, int], ...] = (),
) -> Trace:
    """Multiply the number of requests by a factor and keep the duration.

    Below 1: a random subset of ``round(factor * n)`` requests in which the first and the last always are.
    Above 1: the original requests stay as they are; ``floor(factor) - 1`` full copies and a random subset of
    ``round((factor - floor(factor)) * n)`` requests join them, each copy moved by a uniform draw from
    ``[-jitter_s, jitter_s]`` and reflected at the trace's edges, so that none leaves it or piles up there.
    Sessions of a copy are its own, and so are its prefix ids, but for ``shared_ids``.
    Of a trace with turns all this is done to sessions: ``n`` are sessions, the first is kept, a copy moves
    as a whole, and ids that several sessions have stay common to all copies.

    Raises:
        InputError: the factor is not a finite number above 0, the jitter not one of at least 0, the seed is
            negative, or the result would have fewer than two or more than ``MAX_REQUESTS`` requests.
    """
    check_number("--rate-scale", factor)
    check_number("--jitter-s", jitter_s, zero=True)
    check_seed(seed)
    if factor == 1:
        return trace
    rng = np.random.default_rng(seed)
    if trace.turns is not None:
        return _scale_sessions(trace, factor, jitter_s, rng, seed, shared_ids)
    if factor < 1:
        return _thin(trace, factor, rng, f"rate-scale {factor:.12g} (thinned, seed {seed})")
    note = f"rate-scale {factor:.12g} (copies jittered ±{jitter_s:.12g} s, seed {seed})"
    return _multiply(trace, factor, jitter_s, rng, note, shared_ids)


def speed_up(trace: Trace, factor: float) -> Trace:
    """Divide arrival times, and times to think, by a factor: the same requests, closer together.

    Raises:
        InputError: the factor is not a finite number above 0.
    """
    check_number("--speedup", factor)
    if factor == 1:
        return trace
    _check_span(f"--speedup {factor:g}", trace.duration_s / factor)
    note = f"speedup {factor:.12g}"
    # Its clock runs at another speed: no date fits any more.
    notes = (*trace.transforms, note)
    turns = trace.turns
    if turns is not None:
        turns = replace(turns, think_s=turns.think_s / factor)
    return replace(trace, arrival_s=trace.arrival_s / factor, turns=turns, transforms=notes, started_at=None)


def tile(trace: Trace, times: int, shared_ids: tuple[tuple[int, int], ...] = ()) -> Trace:
    """Repeat the trace end to end; the period is its span plus one mean gap.

    Sessions of each repetition are its own, and so are its prefix ids, but for ``shared_ids``; of a trace
    with turns, but for ids that several sessions have.

    Raises:
        InputError: the count is below 1, the trace has no span, or too many requests would result.
    """
    if times < 1:
        raise InputError(f"--tile {times}: expected a whole number, 1 or more")
    if times == 1:
        return trace
    n = len(trace)
    if not trace.duration_s:
        raise InputError(f"--tile {times}: all requests arrive at one instant; expected a trace with a span")
    _check_count(f"--tile {times}", n * times)
    period_s = trace.duration_s + trace.duration_s / (n - 1)
    _check_span(f"--tile {times}", times * period_s)
    arrival_s = (np.arange(times)[:, np.newaxis] * period_s + trace.arrival_s).ravel()
    note = f"tile {times} (period {period_s:.12g} s)"
    copy = np.repeat(np.arange(times, dtype=np.int32), n)
    prefixes = _copied(f"--tile {times}", trace, lambda leaf: np.tile(leaf, times), copy, times, shared_ids)
    return trace.remade(arrival_s, lambda column: np.tile(column, times), note, prefixes, copy)


def check_number(option: str, value: float, *, zero: bool = False) -> None:
    """Refuse a number that is not finite and above 0; with ``zero`` 0 will do."""
    if not (math.isfinite(value) and (value > 0 or (zero and value == 0))):
        raise InputError(
            f"{option} {value:g}: expected a finite number{', 0 or more' if zero else ' above 0'}"
        )


def check_seed(seed: int) -> None:
    """Refuse a seed below 0."""
    if seed < 0:
        raise InputError(f"--seed {seed}: expected a whole number, 0 or more")


def _thin(trace: Trace, factor: float, rng: np.random.Generator, note: str) -> Trace:
    n, left = len(trace), round(factor * len(trace))
    if left < 2:
        raise InputError(
            f"--rate-scale {factor:g}: leaves {left} of {n} requests; at least 2 keep the duration"
        )
    inner = rng.choice(n - 2, size=left - 2, replace=False, shuffle=False)
    rows = np.concatenate(([0], np.sort(inner) + 1, [n - 1]))
    return trace.remade(trace.arrival_s[rows], lambda column: column[rows], note)


def _multiply(
    trace: Trace,
    factor: float,
    jitter_s: float,
    rng: np.random.Generator,
    note: str,
    shared_ids: tuple[tuple[int, int], ...],
) -> Trace:
    n, whole = len(trace), math.floor(factor)
    part = round((factor - whole) * n)
    _check_count(f"--rate-scale {factor:g}", n * whole + part)
    subset = np.sort(rng.choice(n, size=part, replace=False, shuffle=False))
    copied = np.concatenate((np.tile(np.arange(n), whole - 1), subset))
    moved = trace.arrival_s[copied]
    moved += rng.uniform(-jitter_s, jitter_s, len(moved))
    _reflect(moved, trace.duration_s)
    arrival_s = np.concatenate((trace.arrival_s, moved))
    # Stable, and the originals come first: a copy never overtakes the first request at 0.
    order = np.argsort(arrival_s, kind="stable")
    rows = np.concatenate((np.arange(n), copied))[order]
    copy = np.repeat(np.arange(whole + 1, dtype=np.int32), [n] * whole + [part])[order]
    prefixes = _copied(
        f"--rate-scale {factor:g}", trace, lambda leaf: leaf[rows], copy, whole + 1, shared_ids
    )
    return trace.remade(arrival_s[order], lambda column: column[rows], note, prefixes, copy)


def _scale_sessions(
    trace: Trace,
    factor: float,
    jitter_s: float,
    rng: np.random.Generator,
    seed: int,
    shared_ids: tuple[tuple[int, int], ...],
) -> Trace:
    """Thin or multiply whole sessions."""
    assert trace.session_id is not None
    begins = session_starts(trace)
    n, whole = len(begins), math.floor(factor)
    if factor < 1:
        left = round(factor * n)
        if not left:
            raise InputError(f"--rate-scale {factor:g}: leaves none of {n} sessions; expected more")
        kept = np.zeros(n, bool)
        kept[0] = True
        kept[1 + rng.choice(n - 1, size=left - 1, replace=False, shuffle=False)] = True
        rows = np.flatnonzero(kept[trace.session_id])
        note = f"rate-scale {factor:.12g} (sessions thinned, seed {seed})"
        return trace.remade(trace.arrival_s[rows], lambda column: column[rows], note)
    sizes = np.bincount(trace.session_id)
    part = np.zeros(n, bool)
    part[rng.choice(n, size=round((factor - whole) * n), replace=False, shuffle=False)] = True
    _check_count(f"--rate-scale {factor:g}", len(trace) * whole + int(sizes[part].sum()))
    rows = np.concatenate((np.tile(np.arange(len(trace)), whole), np.flatnonzero(part[trace.session_id])))
    copy = np.repeat(np.arange(whole + 1, dtype=np.int32), [len(trace)] * whole + [int(sizes[part].sum())])
    # One draw a session of each copy; the originals stay.
    moved = np.tile(begins, (whole + 1, 1))
    moved[1:] += rng.uniform(-jitter_s, jitter_s, (whole, n))
    copies = moved[1:].ravel()
    _reflect(copies, float(begins[-1]))
    moved[1:] = copies.reshape(whole, n)
    prefixes = _copied(
        f"--rate-scale {factor:g}", trace, lambda leaf: leaf[rows], copy, whole + 1, shared_ids
    )
    note = f"rate-scale {factor:.12g} (copies of sessions jittered ±{jitter_s:.12g} s, seed {seed})"
    return restarted(trace, moved[copy, trace.session_id[rows]], note, rows, copy, prefixes)


def _copied(
    option: str,
    trace: Trace,
    make: Callable[[NDArray[np.int32]], NDArray[np.int32]],
    copy: NDArray[np.int32],
    copies: int,
    shared_ids: tuple[tuple[int, int], ...],
) -> Prefixes | None:
    """Return the prefixes of the copies of a trace's requests, ``make`` applied to what each begins with."""
    if trace.prefixes is None:
        return None
    _check_count(option, len(trace.prefixes.parent) * copies, "prefix blocks")
    return trace.prefixes.with_copies(make(trace.prefixes.leaf), copy, _common(trace, shared_ids))


def _common(trace: Trace, shared_ids: tuple[tuple[int, int], ...]) -> NDArray[np.bool_]:
    """Tell which units are the same in all copies, bool[units]: those named, and those of several sessions.

    All others are each copy's own: a copied conversation is not its own cache.
    """
    assert trace.prefixes is not None
    common = _named(trace.prefixes, shared_ids)
    if trace.turns is not None and trace.session_id is not None:
        common = common | trace.prefixes.shared_units(trace.session_id)
    return common


def _named(prefixes: Prefixes, ranges: tuple[tuple[int, int], ...]) -> NDArray[np.bool_]:
    """Tell which units have an id in one of the ranges, in their order, bool[units]."""
    bounds = np.array(ranges, np.int64).ravel()
    found: NDArray[np.bool_] = np.searchsorted(bounds, prefixes.ids, side="right") % 2 == 1
    return found


def _shared_there(trace: Trace, spec: TransformSpec) -> tuple[tuple[int, int], ...]:
    """Return the ids meant that there are: none that a copy gets later is among them."""
    if trace.prefixes is None:
        raise InputError("--shared-ids: the trace has no prefix ids; leave it out")
    if spec.rate_scale <= 1 and spec.tile == 1:
        raise InputError("--shared-ids: nothing is copied; it goes with --rate-scale above 1 and --tile")
    shared = trace.prefixes.ids[_named(trace.prefixes, spec.shared_ids)]
    if not len(shared):
        first, last = trace.prefixes.ids.min(initial=0), trace.prefixes.ids.max(initial=0)
        raise InputError(
            f"--shared-ids: none of them is in the trace; expected some of its prefix ids, {first} to {last}"
        )
    return _ranges(np.sort(shared))


def _reflect(times_s: NDArray[np.float64], duration_s: float) -> None:
    """Fold times at 0 and at the duration, as often as it takes, in place."""
    if not duration_s:
        times_s[:] = 0.0
        return
    np.mod(times_s, 2 * duration_s, out=times_s)
    beyond = times_s > duration_s
    times_s[beyond] = 2 * duration_s - times_s[beyond]


def _check_slice(start_s: float, end_s: float) -> None:
    if not (math.isfinite(start_s) and 0 <= start_s < end_s):
        raise InputError(f"--slice {start_s:g}:{end_s:g}: expected A:B in seconds with 0 <= A < B")


def _check_span(option: str, span_s: float) -> None:
    if not span_s <= MAX_SPAN_S:
        raise InputError(
            f"{option}: the trace would last {span_s:.6g} s; expected at most {MAX_SPAN_S:.0f} s (a year)"
        )


def _check_count(option: str, count: int, what: str = "requests") -> None:
    if count > MAX_REQUESTS:
        raise InputError(f"{option}: would make {count} {what}; expected at most {MAX_REQUESTS}")
