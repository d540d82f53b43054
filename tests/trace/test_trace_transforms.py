"""Transforms do what they say to counts, order and duration, and say what they did."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sagescale.errors import InputError
from sagescale.trace import (
    Trace,
    TransformSpec,
    apply_transforms,
    parse_slice,
    rate_scale,
    slice_trace,
    speed_up,
    tile,
)
from trace_strategies import same_columns, traces

factors = st.floats(0.01, 5.0)
seeds = st.integers(0, 2**32)


def requests_of(trace: Trace) -> list[tuple[int, ...]]:
    """The requests' lengths and priorities, sorted: what a permutation in time leaves alone."""
    cached = trace.isl * 0 if trace.cached_tokens is None else trace.cached_tokens
    priority = trace.isl * 0 if trace.priority is None else trace.priority
    columns = (trace.isl, trace.osl, cached, priority)
    return sorted(zip(*(column.tolist() for column in columns), strict=True))


@given(traces(), st.floats(0, 100), st.floats(0.001, 100))
def test_slice_keeps_exactly_the_arrivals_in_its_half_open_interval(
    trace: Trace, start_s: float, length_s: float
) -> None:
    end_s = start_s + length_s
    inside = (trace.arrival_s >= start_s) & (trace.arrival_s < end_s)
    if not inside.any():
        with pytest.raises(InputError, match=r"--slice .*no request arrives then"):
            slice_trace(trace, start_s, end_s)
        return
    cut = slice_trace(trace, start_s, end_s)
    kept_s = trace.arrival_s[inside]
    assert np.array_equal(cut.arrival_s, kept_s - kept_s[0])
    assert np.array_equal(cut.isl, trace.isl[inside])
    assert np.array_equal(cut.osl, trace.osl[inside])


@given(traces(min_size=2), factors, seeds, st.floats(0, 1000))
def test_rate_scale_multiplies_requests_and_keeps_the_duration(
    trace: Trace, factor: float, seed: int, jitter_s: float
) -> None:
    assume(round(factor * len(trace)) >= 2)
    scaled = rate_scale(trace, factor, seed, jitter_s)
    whole = math.floor(factor)
    assert len(scaled) == whole * len(trace) + round((factor - whole) * len(trace))
    assert scaled.arrival_s[0] == 0
    assert scaled.duration_s == trace.duration_s
    assert (np.diff(scaled.arrival_s) >= 0).all()
    assert set(requests_of(scaled)) <= set(requests_of(trace))


@given(traces(min_size=2), st.integers(2, 4), seeds)
def test_a_whole_rate_scale_copies_every_request_alike(trace: Trace, times: int, seed: int) -> None:
    assert requests_of(rate_scale(trace, times, seed)) == sorted(requests_of(trace) * times)


@given(traces(min_size=2), st.floats(1.01, 5.0), seeds)
def test_originals_stay_where_they_were(trace: Trace, factor: float, seed: int) -> None:
    times_s = rate_scale(trace, factor, seed).arrival_s.tolist()
    for original_s in trace.arrival_s.tolist():
        times_s.remove(original_s)


@given(st.integers(0, 100), st.floats(0.001, 10))
def test_copies_move_at_most_by_the_jitter(seed: int, jitter_s: float) -> None:
    # Lengths name the requests, and gaps are wider than any jitter.
    trace = Trace.from_arrays(np.arange(20) * 100.0, np.arange(1, 21), np.ones(20))
    scaled = rate_scale(trace, 3, seed, jitter_s)
    moved_s = np.abs(scaled.arrival_s - (scaled.isl - 1) * 100.0)
    assert moved_s.max() <= jitter_s * (1 + 1e-9)
    assert np.count_nonzero(moved_s) == 40


def test_reflection_leaves_no_pile_at_the_edges() -> None:
    trace = Trace.from_arrays(np.linspace(0, 100, 20_001), np.ones(20_001), np.ones(20_001))
    counts, _ = np.histogram(rate_scale(trace, 5, seed=3, jitter_s=30).arrival_s, bins=20)
    assert counts.min() > 0.9 * counts.mean()
    assert counts.max() < 1.1 * counts.mean()


@given(traces(min_size=2), st.floats(0.3, 5.0), seeds)
def test_the_same_seed_makes_the_same_trace(trace: Trace, factor: float, seed: int) -> None:
    assume(round(factor * len(trace)) >= 2)
    assert same_columns(rate_scale(trace, factor, seed), rate_scale(trace, factor, seed))


def test_another_seed_makes_another_trace() -> None:
    trace = Trace.from_arrays(np.arange(50.0), np.arange(1, 51), np.ones(50))
    for factor in (0.5, 1.5):
        assert not same_columns(rate_scale(trace, factor, 0), rate_scale(trace, factor, 1))


@given(traces(), factors)
def test_speedup_divides_arrival_times_and_nothing_else(trace: Trace, factor: float) -> None:
    faster = speed_up(trace, factor)
    assert np.array_equal(faster.arrival_s, trace.arrival_s / factor)
    assert requests_of(faster) == requests_of(trace)


@given(traces(min_size=2), st.integers(2, 5))
def test_tile_repeats_with_span_plus_one_mean_gap(trace: Trace, times: int) -> None:
    if not trace.duration_s:
        with pytest.raises(InputError, match="one instant"):
            tile(trace, times)
        return
    tiled = tile(trace, times)
    n = len(trace)
    period_s = trace.duration_s * n / (n - 1)
    assert len(tiled) == n * times
    for i in range(times):
        part = slice(i * n, (i + 1) * n)
        assert tiled.arrival_s[part] == pytest.approx(trace.arrival_s + i * period_s)
        assert np.array_equal(tiled.isl[part], trace.isl)
    # The seam is a mean gap like any other: the mean rate is unchanged.
    assert np.diff(tiled.arrival_s).mean() == pytest.approx(np.diff(trace.arrival_s).mean())


@given(traces())
def test_factors_of_one_change_nothing_and_are_not_recorded(trace: Trace) -> None:
    same = apply_transforms(trace, TransformSpec(seed=7, jitter_s=5))
    assert same is trace
    assert same.transforms == ()


def test_transforms_are_applied_in_order_and_recorded() -> None:
    trace = Trace.from_arrays(np.arange(101.0), np.ones(101), np.ones(101))
    spec = TransformSpec(slice=(10, 61), rate_scale=2.5, speedup=2, tile=3, seed=4, jitter_s=6)
    changed = apply_transforms(trace, spec)
    assert changed.transforms == (
        "slice 10:61",
        "rate-scale 2.5 (copies jittered ±6 s, seed 4)",
        "speedup 2",
        "tile 3 (period 25.1968503937 s)",
    )
    by_hand = tile(speed_up(rate_scale(slice_trace(trace, 10, 61), 2.5, 4, 6), 2), 3)
    assert same_columns(changed, by_hand)
    assert rate_scale(trace, 0.5, 9).transforms == ("rate-scale 0.5 (thinned, seed 9)",)
    assert slice_trace(trace, 50, math.inf).transforms == ("slice 50:",)


@pytest.mark.parametrize(
    ("text", "bounds"),
    [("600:1800", (600, 1800)), ("600:", (600, math.inf)), (":1800", (0, 1800)), (":", (0, math.inf))],
)
def test_a_slice_may_be_open_at_either_end(text: str, bounds: tuple[float, float]) -> None:
    assert parse_slice(text) == bounds


@pytest.mark.parametrize("text", ["", "5", "a:b", "5:5", "9:5", "-1:5", "nan:5", "0:nan", "1:2:3", "inf:"])
def test_a_slice_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"--slice .*expected A:B in seconds"):
        parse_slice(text)


@pytest.mark.parametrize("factor", [0, -1, math.nan, math.inf])
@pytest.mark.parametrize("option", ["rate_scale", "speedup"])
def test_a_factor_that_is_none_is_refused(option: str, factor: float) -> None:
    trace = Trace.from_arrays([0, 1], [1, 1], [1, 1])
    with pytest.raises(InputError, match=rf"--{option.replace('_', '-')} {factor:g}: expected a finite"):
        apply_transforms(trace, TransformSpec(**{option: factor}))


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        (TransformSpec(tile=0), "--tile 0"),
        (TransformSpec(tile=10**10), "would make 30000000000 requests"),
        (TransformSpec(rate_scale=1e12), "--rate-scale 1e\\+12: would make"),
        (TransformSpec(rate_scale=0.1), "leaves 0 of 3"),
        (TransformSpec(rate_scale=2, jitter_s=-1), "--jitter-s -1"),
        (TransformSpec(rate_scale=2, jitter_s=math.nan), "--jitter-s nan"),
        (TransformSpec(rate_scale=2, seed=-1), "--seed -1"),
        (TransformSpec(speedup=1e-320), "--speedup"),
        (TransformSpec(speedup=1e-8), "expected at most 31622400 s"),
        (TransformSpec(speedup=1e-4, tile=5000), "--tile 5000: the trace would last"),
    ],
)
def test_values_that_make_no_trace_are_refused(spec: TransformSpec, complaint: str) -> None:
    trace = Trace.from_arrays([0, 1, 2], [1, 1, 1], [1, 1, 1])
    with pytest.raises(InputError, match=complaint):
        apply_transforms(trace, spec)
