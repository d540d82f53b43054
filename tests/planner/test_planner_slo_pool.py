"""One pool's size: instances at a price and misses together are least, and going down waits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sagescale.fleet import PoolSpec, Role
from sagescale.planner.policy.slo.demand import Scenarios
from sagescale.planner.policy.slo.misses import MissCurves
from sagescale.planner.policy.slo.pool import Pool
from slo_world import share_missed

LIMIT_RPS, TOKENS, MOST = 5.0, 100.0, 60
USUAL = 2_000.0
scenarios = st.lists(st.floats(0.0, 30_000.0), min_size=1, max_size=8).map(
    lambda loads: Scenarios(np.sort(np.array(loads)), np.full(len(loads), 1.0 / len(loads)))
)
prices = st.floats(1e-4, 0.1)


def pool(least: int = 1, most: int = MOST, startup_ticks: float = 1.0) -> Pool:
    made = Pool(PoolSpec("decode", Role.DECODE, 1, least, most), 60.0, 60.0 * startup_ticks)
    made.curves = MissCurves(
        lambda instances, rps: share_missed(instances, rps / LIMIT_RPS), LIMIT_RPS, TOKENS
    )
    made.demand.observe(USUAL, 0.0)
    return made


def gets_through(size: int, what: Scenarios) -> bool:
    return size * LIMIT_RPS * TOKENS >= what.mean


@given(scenarios, prices)
def test_no_size_that_gets_through_the_load_is_cheaper(what, price):
    one = pool()
    best = one.best(what, price)
    cost = best * price + one.missed(best, what)
    for size in range(1, MOST + 1):
        if gets_through(size * 0.95, what):
            assert cost <= size * price + one.missed(size, what) + 0.01


@given(scenarios, prices, st.integers(0, 20), st.integers(20, 60))
def test_limits_hold_whatever_comes(what, price, least, most):
    assert least <= pool(least, most).best(what, price) <= most


@given(st.floats(0.0, 30_000.0), prices, st.floats(1.0, 3.0))
def test_more_load_never_asks_for_fewer(load, price, times):
    """Where the load is sure: one that only may come, and is too dear to be ready for, is given up."""
    one, sure = pool(most=400), Scenarios(np.array([load]), np.ones(1))
    assert one.best(sure.scaled(times), price) >= one.best(sure, price)


@given(scenarios, prices, st.floats(1.0, 10.0))
def test_dearer_instances_are_never_more(what, price, times):
    one = pool()
    assert one.best(what, price * times) <= one.best(what, price)


@given(scenarios, prices)
def test_expected_load_always_gets_through_where_limits_allow(what, price):
    best = pool().best(what, price)
    assert best == MOST or gets_through(best, what)


def test_no_load_asks_for_the_least():
    assert pool(2).best(Scenarios(np.zeros(1), np.ones(1)), 0.01) == 2


@given(scenarios, st.integers(1, MOST), st.integers(1, MOST), st.floats(0.0, 0.1))
def test_a_smaller_pool_is_taken_only_if_it_would_hold(what, wanted, current, allowed):
    one = pool()
    size = one.enough(wanted, current, what, allowed)
    assert size >= wanted
    assert size <= max(wanted, current)
    if size < current:
        assert one.curves.share(size, what.mean) <= allowed


@given(st.lists(st.integers(1, 30), min_size=1, max_size=30), st.integers(1, 5))
def test_the_last_idle_instance_goes_when_not_wanted_for_as_long_as_a_launch_takes(wanted, startup_ticks):
    one = pool(startup_ticks=float(startup_ticks))
    current = 10
    for number, size in enumerate(wanted):
        if number == 0:  # what is found at the first decision counts as wanted then
            wanted = [max(size, current), *wanted[1:]]
        most = min(current, max(wanted[max(0, number - startup_ticks) : number + 1]))
        got = one.after_idling(size, current)
        if size >= current:
            assert got == size
        else:
            assert size <= got <= most
            assert got == most or most > size + 1
        current = got


def test_of_several_idle_instances_a_part_goes_before():
    one = pool(startup_ticks=9.0)
    held = [one.after_idling(20, 20)]
    for _ in range(10):
        held.append(one.after_idling(10, held[-1]))
    # 10 (exp(n / 10) - 1) / (e - 1) of them after n tenths of the time
    assert held == [20, 20, 19, 18, 18, 17, 16, 15, 13, 12, 10]


def test_missing_everything_is_the_most_that_can_be_missed():
    one = pool()
    assert one.missed(1, Scenarios(np.array([USUAL * 100]), np.ones(1))) == pytest.approx(100.0)
