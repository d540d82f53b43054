"""How full an aggregated pool is planned to be: pools of every use are tried on what comes."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from sagescale.fleet import PoolSpec, Role
from sagescale.planner.policy.slo.misses import MissCurves
from sagescale.planner.policy.slo.uses import Uses, eased

LIMIT, MOST = 1000.0, 60
LIMITS = PoolSpec("aggregated", Role.AGGREGATED, 1, 1, MOST)
loads_of_minutes = st.lists(st.floats(0.0, 30_000.0), min_size=1, max_size=60)


def soft(instances: int, rps: float) -> float:
    """Misses grow slowly with use, then fast: no knee before all is late."""
    use = rps / (instances * LIMIT)
    return min(1.0, 0.03 * use**2 + max(0.0, use - 0.9))


def follow(loads: list[float], ahead: int = 2, careful: int = MOST) -> Uses:
    """Minutes of even load, each planned as the one before was."""
    uses, curves = Uses(60.0, 0.01), MissCurves(soft, LIMIT, 1.0)
    for number, load in enumerate(loads, 1):
        uses.look(60.0, load, load, curves)
        uses.ticked(60.0 * number, load, careful, ahead, LIMITS, curves)
    return uses


def test_nothing_is_chosen_before_enough_was_seen():
    assert follow([9000.0] * 7).chosen is None
    assert follow([9000.0] * 8).chosen is not None


def test_even_load_is_served_as_full_as_the_promise_allows_and_known_better_fuller():
    early, late = follow([9000.0] * 10).chosen, follow([9000.0] * 300).chosen
    assert early < late
    assert soft(1, late * LIMIT) <= 0.01 < soft(1, 1.3 * late * LIMIT)


def test_load_that_jumps_is_served_emptier():
    even = [9000.0] * 200
    jumps = [load * (1.5 if number % 20 < 2 else 1.0) for number, load in enumerate(even)]
    assert follow(jumps).chosen < follow(even).chosen


def test_load_that_comes_and_goes_is_not_followed():
    assert follow([0.0, 0.0, 25_000.0] * 60).chosen is None


def test_what_scenarios_do_with_no_more_is_left_to_them():
    assert follow([9000.0] * 200, careful=17).chosen is None


def test_scenarios_that_leave_a_pool_too_full_for_a_jump_are_not_left_to():
    even = follow([9000.0] * 30)
    assert even.chosen < 9000.0 / 17 / LIMIT  # as full as 17 are, which have missed no more than may be
    assert soft(17, 9000.0) < 0.009
    assert follow([9000.0] * 30, careful=17).chosen == even.chosen


def test_what_is_asked_a_little_more_strictly_is_planned_a_little_emptier():
    def chosen(allowed: float) -> float:
        uses, curves = Uses(60.0, allowed), MissCurves(soft, LIMIT, 1.0)
        for number in range(1, 201):
            uses.look(60.0, 9000.0, 9000.0, curves)
            uses.ticked(60.0 * number, 9000.0, MOST, 2, LIMITS, curves)
        assert uses.chosen is not None
        return uses.chosen

    uses = [chosen(0.008 + 0.0002 * step) for step in range(11)]
    assert all(one < other < 1.05 * one for one, other in pairwise(uses))


@given(loads_of_minutes, st.integers(1, 12), st.lists(st.floats(0.0, 60_000.0), max_size=5))
def test_pools_that_are_tried_have_what_they_asked_for_or_wait_for_it(loads, ahead, surges):
    uses, curves = Uses(60.0, 0.01), MissCurves(soft, LIMIT, 1.0)
    for number, load in enumerate(loads, 1):
        uses.look(60.0, load, load, curves)
        uses.ticked(60.0 * number, load, 1 + number % MOST, ahead, LIMITS, curves)
        if number <= len(surges):
            uses.surge(60.0 * number + 15.0, surges[number - 1], number, ahead, LIMITS, curves)
        for pool in uses.tried:
            assert 1 <= pool.asked <= MOST
            assert pool.ready + pool.ordered == pool.asked
            assert pool.ready >= 0


@given(loads_of_minutes, st.integers(1, 12))
def test_a_fuller_pool_never_misses_less(loads, ahead):
    missed = [pool.missed for pool in follow(loads, ahead).tried if pool.use > 0.0]
    assert all(one <= other + 1e-9 * (1.0 + other) for one, other in pairwise(missed))


@given(st.integers(0, 100), st.integers(1, 100))
def test_no_tick_gives_up_more_than_a_third_of_a_pool_or_one(wanted, current):
    size = eased(wanted, current)
    assert size == wanted or wanted < size < current
    assert current - size <= max(1, current / 3)
