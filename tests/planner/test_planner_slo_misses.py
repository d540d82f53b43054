"""What sizes would miss: looked up where tried, tried where not, and never against reason."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sagescale.planner.policy.slo.demand import Scenarios
from sagescale.planner.policy.slo.misses import MissCurves
from slo_world import share_missed

TOKENS, LIMIT_RPS = 100.0, 5.0
sizes = st.integers(0, 80)
loads = st.floats(0.0, 40_000.0)


def curves(tried: list[tuple[int, float]] | None = None) -> MissCurves:
    def misses(instances: int, requests_per_s: float) -> float:
        if tried is not None:
            tried.append((instances, requests_per_s))
        return share_missed(instances, requests_per_s / LIMIT_RPS)

    return MissCurves(misses, LIMIT_RPS, TOKENS)


@given(st.lists(st.tuples(sizes, loads), max_size=20), sizes, loads)
def test_a_share_is_one_whatever_was_asked_before(asked, instances, load):
    found = curves()
    for one in asked:
        found.share(*one)
    assert 0.0 <= found.share(instances, load) <= 1.0


@given(st.lists(st.tuples(sizes, loads), max_size=20), sizes, loads, st.floats(0.0, 10_000.0))
def test_more_load_never_misses_less(asked, instances, load, more):
    found = curves()
    for one in asked:
        found.share(*one)
    assert found.share(instances, load) <= found.share(instances, load + more) + 1e-9


@given(st.lists(st.tuples(sizes, loads), max_size=20), sizes, loads, st.integers(1, 20))
def test_more_instances_never_miss_more(asked, instances, load, more):
    found = curves()
    for one in asked:
        found.share(*one)
    assert found.share(instances + more, load) <= found.share(instances, load) + 0.021


@given(st.integers(1, 80), loads)
def test_what_is_looked_up_is_near_what_a_trial_says(instances, load):
    true = share_missed(instances, load / TOKENS / LIMIT_RPS)
    assert curves().share(instances, load) == pytest.approx(true, abs=0.1)


@given(st.lists(st.tuples(sizes, loads), max_size=30))
def test_nothing_is_tried_twice(asked):
    tried: list[tuple[int, float]] = []
    found = curves(tried)
    first = [found.share(*one) for one in asked]
    assert len(tried) == len(set(tried))
    count = len(tried)
    again = [found.share(*one) for one in asked]
    assert len(tried) == count
    assert all(new == pytest.approx(old, abs=0.021) for new, old in zip(again, first, strict=True))


def test_what_a_smaller_pool_bears_a_larger_one_is_not_tried_for():
    tried: list[tuple[int, float]] = []
    found = curves(tried)
    assert found.share(10, 10 * 0.3 * found.limit) == 0.0
    count = len(tried)
    assert found.share(20, 20 * 0.3 * found.limit) == 0.0
    assert len(tried) == count


def test_no_load_misses_nothing_and_no_instance_everything():
    tried: list[tuple[int, float]] = []
    found = curves(tried)
    assert found.share(0, 0.0) == 0.0
    assert found.share(3, 0.0) == 0.0
    assert found.share(0, 1.0) == 1.0
    assert found.share(2, 100.0 * found.limit) == 1.0
    assert not tried


@given(st.integers(1, 40), st.lists(st.floats(1.0, 30_000.0), min_size=1, max_size=8))
def test_misses_to_expect_are_the_scenarios_own_weighed_by_their_requests(instances, values):
    found = curves()
    what = Scenarios(np.sort(np.array(values)), np.full(len(values), 1.0 / len(values)))
    each = sum(
        weight * load * found.share(instances, load)
        for load, weight in zip(what.loads.tolist(), what.weights.tolist(), strict=True)
    )
    assert found.expected(instances, what) == pytest.approx(each / what.mean, abs=1e-9)


@given(st.integers(1, 60), st.floats(1.0, 500.0), st.floats(0.0, 0.02), st.floats(0.001, 0.2))
def test_enough_instances_miss_no_more_than_requests_alone_even_if_two_at_a_time_miss(size, load, alone, met):
    def two_are_one_too_many(_: int, requests_per_s: float) -> float:
        return alone + met if requests_per_s else alone

    found = MissCurves(two_are_one_too_many, LIMIT_RPS, TOKENS, alone)
    assert found.share(1000 * size, load) - alone <= 0.03 * met
    assert found.share(2 * size, load) <= found.share(size, load)
