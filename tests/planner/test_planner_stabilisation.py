"""Stabilisation has the Kubernetes HPA's semantics."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from planner_world import BUSY, make_planner, seen
from sagescale.planner import PoolCounts, ReasonCode
from sagescale.planner.stabilisation import PoolStabiliser, within_tolerance

recommendations = st.lists(st.integers(0, 20), min_size=1, max_size=30)


def follow(up_s: float, down_s: float, asked: list[int], start: int, interval_s: float = 60.0) -> list[int]:
    """The sizes a pool takes when it does as the stabiliser says."""
    stabiliser, size, sizes = PoolStabiliser(up_s, down_s), start, []
    for tick, recommended in enumerate(asked, 1):
        size = stabiliser.stabilise(tick * interval_s, size, recommended)
        sizes.append(size)
    return sizes


@given(recommendations, st.integers(0, 20))
def test_without_windows_every_recommendation_passes(asked, start):
    assert follow(0, 0, asked, start) == asked


@given(recommendations, st.integers(0, 20), st.sampled_from([0, 60, 90, 300, 1000]))
def test_a_pool_shrinks_only_to_the_highest_recommendation_of_the_window(asked, start, down_s):
    sizes = follow(0, down_s, asked, start)
    for tick, size in enumerate(sizes):
        before = start if tick == 0 else sizes[tick - 1]
        recent = [start] if tick * 60.0 < down_s else []
        recent += [asked[t] for t in range(tick + 1) if t == tick or (tick - t) * 60.0 < down_s]
        if size < before:
            assert size == max(asked[t] for t in range(tick + 1) if t == tick or (tick - t) * 60.0 < down_s)
        assert size >= asked[tick]


@given(recommendations, st.integers(0, 20), st.sampled_from([60, 90, 300, 1000]))
def test_a_pool_grows_only_to_the_lowest_recommendation_of_the_window(asked, start, up_s):
    sizes = follow(up_s, 0, asked, start)
    for tick, size in enumerate(sizes):
        before = start if tick == 0 else sizes[tick - 1]
        if size > before:
            assert size == min(asked[t] for t in range(tick + 1) if t == tick or (tick - t) * 60.0 < up_s)
        assert size <= asked[tick] or size <= before


@given(recommendations, st.integers(0, 20), st.sampled_from([0, 120, 300]), st.sampled_from([0, 120, 300]))
def test_the_size_stays_between_what_it_was_and_what_is_recommended(asked, start, up_s, down_s):
    size = start
    for recommended, after in zip(asked, follow(up_s, down_s, asked, start), strict=True):
        assert min(size, recommended) <= after <= max(size, recommended)
        size = after


def test_a_dip_shorter_than_the_down_window_changes_nothing():
    assert follow(0, 300, [8, 3, 3, 8, 8], start=8) == [8, 8, 8, 8, 8]


def test_a_lasting_fall_is_followed_once_the_window_has_passed():
    assert follow(0, 180, [8, 3, 3, 3, 3], start=8) == [8, 8, 8, 3, 3]


def test_the_size_found_at_the_start_counts_as_a_recommendation():
    assert follow(0, 120, [1, 1, 1], start=6) == [6, 6, 1]


@given(st.floats(0.01, 50), st.integers(1, 50), st.floats(0, 0.5))
def test_tolerance_is_a_share_of_the_size(demand, current, tolerance):
    assert within_tolerance(demand, current, tolerance) == (abs(demand / current - 1) <= tolerance)


def test_an_empty_pool_is_never_within_tolerance():
    assert not within_tolerance(0.0, 0, 0.5)


def test_a_fall_in_traffic_waits_for_the_down_window_and_says_so():
    planner = make_planner(scale_down_stabilization_window_sec=150)
    big = PoolCounts(ready=4)
    targets = []
    for tick in range(1, 5):
        decision = planner.step(
            seen(time_s=60.0 * tick, requests=0.0, isl_mean=None, osl_mean=None, prefill=big, decode=big)
        )
        targets.append(decision.targets.decode)
        assert decision.has(ReasonCode.STABILISED) == (decision.targets.decode == 4)
    assert targets == [4, 4, 4, 1]


def test_demand_within_tolerance_leaves_the_pool_alone():
    # 2000 output tokens/s over 1600 an instance: 1.25 instances, rounded up to 2.
    counts = {"prefill": PoolCounts(ready=1), "decode": PoolCounts(ready=1)}
    exact = make_planner(tolerance=0.0, enable_correction=False).step(seen(BUSY, **counts))
    lax = make_planner(tolerance=0.3, enable_correction=False).step(seen(BUSY, **counts))
    assert exact.targets.decode == 2
    assert lax.targets.decode == 1
    assert lax.has(ReasonCode.WITHIN_TOLERANCE)
