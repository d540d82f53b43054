"""The gaps between tokens: a histogram of all; each request's largest, and how many are late (ENGINES.md 7).

Late is a gap longer than the ITL target: all meet it where none is late, and by nearest rank the 99th
percentile does where at most one in a hundred is. Steps are counted by instance, once for all that decode; a
request takes off what was counted before it came.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sagescale.sim.kernel.compiled import compiled, inlined, optional
from sagescale.sim.kernel.step_times import segment_at, step_now_s
from sagescale.sim.state import (
    GAP_BINS,
    GAP_BINS_AN_OCTAVE,
    GAP_LEAST_OCTAVE,
    MEAN,
    P99,
    REQUEST_BITS,
    State,
)

_REQUEST_MASK = (1 << REQUEST_BITS) - 1

# Of a double's bits: those below a bin's, and what is above them where the first bin begins.
_BITS_BELOW = 52 - (GAP_BINS_AN_OCTAVE.bit_length() - 1)
_FIRST_BIN = (1022 + GAP_LEAST_OCTAVE) * GAP_BINS_AN_OCTAVE


@inlined
def _bin(seconds: float) -> int:
    """Octaves of equal bins (as HdrHistogram's): a number's exponent and the first bits behind it."""
    return min(max((np.float64(seconds).view(np.int64) >> _BITS_BELOW) - _FIRST_BIN, 0), GAP_BINS - 1)


@inlined
def _edge_s(bin_: int) -> float:
    """Where a bin ends."""
    return float(np.int64((bin_ + 1 + _FIRST_BIN) << _BITS_BELOW).view(np.float64))


@inlined
def gap(s: State, service: int, seconds: float, count: int) -> None:
    """Note gaps of one length."""
    s.gaps.histogram[service * GAP_BINS + _bin(seconds)] += count
    s.services[service].gap_most_s = max(s.services[service].gap_most_s, seconds)


@inlined
def is_late(s: State, service: int, seconds: float) -> bool:
    """Whether a gap is longer than the ITL target."""
    return bool(seconds > s.services[service].target_itl_s)


@inlined
def note_gap(s: State, service: int, seconds: float, count: int, whose: Any) -> None:
    """Note gaps of one length, also in the record of an instance, a request or a member."""
    gap(s, service, seconds, count)
    whose.gap_s = max(whose.gap_s, seconds)
    whose.late += is_late(s, service, seconds)


@inlined
def _step_s(a: float, c: float, held: float, n: int, j: int) -> float:
    return a + c * (held + float(n) * j)


@inlined
def _late_steps(a: float, c: float, held: float, n: int, steps: int, target_s: float) -> int:
    """How many of these steps, which do not get shorter, are longer than the target."""
    if _step_s(a, c, held, n, steps - 1) <= target_s:
        return 0
    if _step_s(a, c, held, n, 0) > target_s:
        return steps
    in_time = np.int64(max(1.0, min((target_s - _step_s(a, c, held, n, 0)) / (c * n), float(steps - 1))))
    while in_time > 1 and _step_s(a, c, held, n, in_time - 1) > target_s:
        in_time -= 1
    while _step_s(a, c, held, n, in_time) <= target_s:
        in_time += 1
    return steps - in_time


@compiled
def run_gaps(s: State, slot: int, first: int, end: int) -> None:
    """Note the gaps of steps ``first`` to ``end`` - 1 of the run, each of all that decode."""
    d = s.instances[slot]
    g = s.gaps.instances[slot]
    service = s.pools[d.pool].service
    target_s = s.services[service].target_itl_s
    n = d.running
    most = g.gap_s
    j = first
    segment = np.int64(d.segment)
    while j < end:
        held = float(d.kv + n * j)
        segment = segment_at(s.steps, segment, held)
        a = s.steps[segment].base_s + d.run_spread_s
        c = s.steps[segment].slope_s
        seconds = a + c * held
        if j == 0 and d.run_join_s > 0.0:
            seconds += d.run_join_s
            gap(s, service, seconds, n)
            g.late += seconds > target_s
            most = max(most, seconds)
            j += 1
            continue
        # Steps of this segment, which grow by c * n.
        inside = end - j
        left = np.ceil((s.steps[segment].edge - held) / n)
        if left < inside:
            inside = max(int(left), 1)
        last = _step_s(a, c, held, n, inside - 1)
        most = max(most, last)
        bin_ = _bin(seconds)
        if _bin(last) != bin_:  # to the end of the bin
            guess = np.int64(min((_edge_s(bin_) - seconds) / (c * n), float(inside)))
            inside = min(max(guess, 1), inside)
            while inside > 1 and _bin(_step_s(a, c, held, n, inside - 1)) != bin_:
                inside -= 1
            last = _step_s(a, c, held, n, inside - 1)
        gap(s, service, last, n * inside)
        g.late += _late_steps(a, c, held, n, inside, target_s)
        j += inside
    g.gap_s = most


@inlined
def note_token(s: State, service: int, request: int, t: float) -> None:
    """A prompt is computed and makes a token: note how long it took since the last one, if there is any."""
    r = s.gaps.requests[request]
    if not np.isnan(s.requests[request].first_token_s):
        note_gap(s, service, t - r.last_s, 1, r)
    r.last_s = t


@inlined
def leave_steps(s: State, slot: int, m: Any) -> None:
    """A member of an engine that steps, which has been decoding, does so no longer."""
    r = s.gaps.requests[m.request]
    g = s.gaps.instances[slot]
    r.gap_s = max(r.gap_s, m.gap_s, g.gap_s)
    r.late += m.late + g.late


# Only where gaps are asked for.


@inlined
def _mean_is_met(s: State, service: int, request: int, mean_s: float) -> bool:  # noqa: ARG001 - as of the next
    return bool(mean_s <= s.services[service].target_itl_s)


@optional("gaps", _mean_is_met)
@inlined
def itl_is_met(s: State, service: int, request: int, mean_s: float) -> bool:
    """Whether a request that is done, with two tokens and more, has met the ITL target."""
    w = s.services[service]
    if w.itl_statistic == MEAN:
        return bool(_mean_is_met(s, service, request, mean_s))
    spared = (np.int64(s.osl[request]) - 1) // 100 if w.itl_statistic == P99 else np.int64(0)
    return bool(s.gaps.requests[request].late <= spared)


@optional("gaps")
@inlined
def token_made(s: State, request: int, t: float) -> None:
    """See ``note_token``: a batch of prefill has made a request's token."""
    note_token(s, s.pools[s.instances[s.requests[request].bound].pool].service, request, t)


@optional("gaps")
@inlined
def clear_gaps(s: State, slot: int) -> None:
    """An instance is launched."""
    g = s.gaps.instances[slot]
    g.gap_s = 0.0
    g.least_s = np.inf
    g.late = 0
    g.joining = 0
    g.joined = -1


@optional("gaps")
@inlined
def join_batch(s: State, slot: int, request: int) -> None:
    """A request joins the steps of a decode batch."""
    g = s.gaps.instances[slot]
    s.gaps.requests[request].joins = True
    s.requests[request].chain = g.joined  # handed over it is in no other
    g.joined = request
    g.joining += 1


@inlined
def _tell_batch(s: State, slot: int) -> None:
    """Tell those in a batch, but for who joins it, of the largest gap since the last time.

    Seldom: to most a longer gap has happened, as they came.
    """
    d = s.instances[slot]
    g = s.gaps.instances[slot]
    if g.gap_s > g.least_s:
        g.least_s = np.inf
        for i in range(d.finish, d.finish + d.running):
            r = s.gaps.requests[s.finish[i] & _REQUEST_MASK]
            if not r.joins:
                r.gap_s = max(r.gap_s, g.gap_s)
                g.least_s = min(g.least_s, r.gap_s)
    g.gap_s = 0.0


@compiled
def _first_step_ended(s: State, slot: int) -> None:
    """The first step of a run has ended that some have joined: these have gaps of their own."""
    d = s.instances[slot]
    g = s.gaps.instances[slot]
    service = s.pools[d.pool].service
    seconds = step_now_s(s, slot, np.int64(1))
    others = d.running - g.joining
    if others > 0:
        note_gap(s, service, seconds, others, g)
        _tell_batch(s, slot)
    else:
        g.gap_s = 0.0
        g.least_s = np.inf
    request = np.int64(g.joined)
    while request >= 0:
        r = s.gaps.requests[request]
        r.joins = False
        if not np.isnan(s.requests[request].first_token_s):
            note_gap(s, service, d.run_start_s + seconds - r.last_s, 1, r)
        r.late -= g.late
        g.least_s = min(g.least_s, r.gap_s)
        request = np.int64(s.requests[request].chain)
    g.joining = 0
    g.joined = -1


@optional("gaps")
@inlined
def run_of_batch_ended(s: State, slot: int, k: int) -> None:
    """The first k steps of a batch's run have ended."""
    first = np.int64(0)
    if k > 0 and s.gaps.instances[slot].joining > 0:
        first = np.int64(1)
        _first_step_ended(s, slot)
    if k > first:
        run_gaps(s, slot, first, k)


@optional("gaps")
@inlined
def leave_batch(s: State, slot: int, request: int) -> None:
    """A request has made its last token in a decode batch."""
    r = s.gaps.requests[request]
    g = s.gaps.instances[slot]
    r.gap_s = max(r.gap_s, g.gap_s)
    r.late += g.late


@optional("gaps")
@inlined
def lost_from_batch(s: State, slot: int, request: int, last_s: float) -> None:
    """A decode batch crashes, whose last step ended then."""
    r = s.gaps.requests[request]
    if r.joins:  # and has made nothing here
        r.joins = False
    else:
        leave_batch(s, slot, request)
        r.last_s = last_s
