"""The gaps between tokens: a histogram of all, and each request's largest (ENGINES.md 7)."""

from __future__ import annotations

import math

import numpy as np

from sagescale.sim.kernel.compiled import compiled, inlined
from sagescale.sim.kernel.step_times import segment_at
from sagescale.sim.state import GAP_BINS, GAP_BINS_AN_OCTAVE, GAP_LEAST_OCTAVE, State

__all__ = ["gap", "run_gaps"]


@inlined
def _bin(seconds: float) -> int:
    """Octaves of equal bins, so that no logarithm is taken (as HdrHistogram's)."""
    if seconds <= 0.0:
        return 0
    mantissa, octave = math.frexp(seconds)
    found = (octave - GAP_LEAST_OCTAVE) * GAP_BINS_AN_OCTAVE + int(
        (mantissa - 0.5) * (2 * GAP_BINS_AN_OCTAVE)
    )
    return min(max(found, 0), GAP_BINS - 1)


@inlined
def _edge_s(bin_: int) -> float:
    """Where a bin ends."""
    octave = (bin_ + 1) // GAP_BINS_AN_OCTAVE
    within = (bin_ + 1) - octave * GAP_BINS_AN_OCTAVE
    return math.ldexp(0.5 + within / (2.0 * GAP_BINS_AN_OCTAVE), octave + GAP_LEAST_OCTAVE)


@inlined
def gap(s: State, service: int, seconds: float, count: int) -> None:
    """Note gaps of one length."""
    x = s.stepped
    x.gaps[service * GAP_BINS + _bin(seconds)] += count
    s.services[service].gap_most_s = max(s.services[service].gap_most_s, seconds)


@compiled
def run_gaps(s: State, slot: int, first: int, end: int) -> float:
    """Note the gaps of steps ``first`` to ``end`` - 1 of the run, each of all that decode; the largest."""
    d = s.instances[slot]
    service = s.pools[d.pool].service
    n = d.running
    most = 0.0
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
            most = max(most, seconds)
            j += 1
            continue
        # Steps of this segment, which grow by c * n.
        inside = end - j
        left = np.ceil((s.steps[segment].edge - held) / n)
        if left < inside:
            inside = max(int(left), 1)
        last = a + c * (held + float(n) * (inside - 1))
        most = max(most, last)
        bin_ = _bin(seconds)
        if _bin(last) != bin_:  # to the end of the bin
            guess = np.int64(min((_edge_s(bin_) - seconds) / (c * n), float(inside)))
            inside = min(max(guess, 1), inside)
            while inside > 1 and _bin(a + c * (held + float(n) * (inside - 1))) != bin_:
                inside -= 1
            last = a + c * (held + float(n) * (inside - 1))
        gap(s, service, last, n * inside)
        j += inside
    return float(most)
