"""One pool's size: the fewest instances that hold, and going down waits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sagescale.fleet import PoolSpec, Role
from sagescale.planner.policy.slo.demand import Scenarios
from sagescale.planner.policy.slo.misses import MissCurves
from sagescale.planner.policy.slo.pool import Pool
from sagescale.planner.policy.slo.uses import Uses
from slo_world import share_missed

LIMIT_RPS, TOKENS, MOST = 5.0, 100.0, 60
USUAL = 2_000.0
scenarios = st.lists(st.floats(0.0, 30_000.0), min_size=1, max_size=8).map(
    lambda loads: Scenarios(np.sort(np.array(loads)), np.full(len(loads), 1.0 / len(loads)))
)
shares = st.floats(1e-4, 0.1)


def pool(least: int = 1, most: int = MOST, startup_ticks: float = 1.0, uses: Uses | None = None) -> Pool:
    made = Pool(PoolSpec("decode", Role.DECODE, 1, least, most), 60.0, 60.0 * startup_ticks, uses=uses)
    made.curves = MissCurves(
        lambda instances, rps: share_missed(instances, rps / LIMIT_RPS), LIMIT_RPS, TOKENS
    )
    made.demand.observe(USUAL, 0.0)
    return made


def gets_through(size: int, what: Scenarios) -> bool:
    return size * LIMIT_RPS * TOKENS >= what.mean


@given(scenarios, shares)
def test_it_is_the_fewest_that_miss_no_more_than_is_allowed(what, allowed):
    one = pool()
    size = one.smallest(what, allowed)
    assert size == MOST or one.missed(size, what) <= allowed
    if size > one.fewest(what):
        assert one.missed(size - 1, what) > allowed


@given(scenarios, shares, st.integers(0, 20), st.integers(20, 60))
def test_limits_hold_whatever_comes(what, allowed, least, most):
    assert least <= pool(least, most).smallest(what, allowed) <= most


@given(scenarios, shares, st.floats(1.0, 3.0))
def test_more_load_never_asks_for_fewer(what, allowed, times):
    one = pool(most=400)
    assert one.smallest(what.scaled(times), allowed) >= one.smallest(what, allowed)


@given(scenarios, shares)
def test_expected_load_always_gets_through_where_limits_allow(what, allowed):
    size = pool().smallest(what, allowed)
    assert size == MOST or gets_through(size, what)


def test_no_load_asks_for_the_least():
    assert pool(2).smallest(Scenarios(np.zeros(1), np.ones(1)), 0.01) == 2


@given(st.lists(st.integers(1, 30), min_size=1, max_size=40), st.integers(1, 9))
def test_a_size_is_kept_until_it_was_not_wanted_for_as_long_as_two_orders_take(wanted, startup_ticks):
    one = pool(startup_ticks=startup_ticks - 1.0)
    patience = max(6, 2 * startup_ticks)
    current = 10
    for number, size in enumerate(wanted):
        if number == 0:  # what is found at the first decision counts as wanted then
            wanted = [max(size, current), *wanted[1:]]
        most = max(wanted[max(0, number - patience + 1) : number + 1])
        got = one.after_idling(size, current)
        assert got == (size if size >= current else min(most, current))
        current = got


@given(st.lists(st.floats(0.0, 20_000.0), min_size=1, max_size=40), st.integers(1, MOST))
def test_what_is_kept_would_have_kept_what_came_and_a_pool_alone_may_miss_all_of_the_promise(loads, current):
    kept = []
    for uses, part in ((Uses(60.0, 0.01), 1.0), (None, 0.9), (None, 0.1)):
        made = pool(uses=uses)
        assert made.part == 1.0
        made.part = part
        for number, load in enumerate(loads, 1):
            made.looked(60.0 * number, 60.0, load)
        kept.append(made.kept(1, current, 0.01))
        missed = made.recording.missed(kept[-1], made.curves)
        assert kept[-1] == current or missed <= 0.01 * part
    assert 1 <= kept[0] <= kept[1] <= kept[2] <= current


@pytest.mark.parametrize("hours", [3, 8])
def test_what_was_taken_back_once_is_kept_up_to_what_would_have_kept_the_day_or_what_came_since(hours):
    """Two instances keep up with the load, but for a minute just before it was taken back."""
    one, sizes, enough = pool(), [], []
    there, back = 9, hours * 60
    for minute in range(back + 120):
        one.looked(60.0 * minute, 60.0, 1500.0 if minute == back - 5 else 700.0)
        one.demand.plan((700.0,), (0.0,))
        # Given up 25 minutes before, at the same load.
        wanted = 9 if minute < back - 30 or minute == back else 1
        there = one.after_idling(wanted, there)
        sizes.append(there)
        enough.append(one.enough)
    soon = back + 15
    # Of less than four hours it is not known what a day asks for.
    assert sizes[soon] == (9 if hours == 3 else enough[soon])
    assert (enough[soon] is None) is (hours == 3)
    assert (sizes[soon] < 9) is (hours == 8)
    assert 2 < sizes[-1] < enough[-1] < 9


@pytest.mark.parametrize(("before", "tried"), [(700.0, True), (300.0, False)])
def test_what_was_taken_back_may_be_tried_again_at_a_load_that_has_been_there(before: float, tried: bool):
    one, there, sizes = pool(), 3, []
    for minute in range(8 * 60):
        load = before if minute < 360 else 700.0 if minute != 392 else 600.0
        one.looked(60.0 * minute, 60.0, load)
        one.demand.plan((load,), (0.0,))
        # Given up at a quarter past six, and taken back at half past, at the same load.
        there = one.after_idling(3 if minute < 365 or minute == 390 else 1, there, try_again=minute > 390)
        sizes.append(there)
    assert sizes[388] == 1
    assert sizes[390] == 3
    assert (sizes[-1] < 3) is tried


def test_what_was_wanted_between_ticks_counts_as_wanted():
    one = pool()
    one.after_idling(5, 5)
    one.remember(20)
    sizes = [one.after_idling(5, 20) for _ in range(8)]
    assert sizes == [20] * 6 + [5] * 2


@given(scenarios, st.integers(1, MOST))
def test_no_tenth_more_that_saves_little_is_worth_it(what, size):
    one = pool()
    best = one.worth_it(size, what, 0.01)
    assert min(size, one.fewest(what)) <= best <= size
    assert one.missed(best, what) <= one.missed(size, what) + 0.01 * (size - best) / best + 1e-9


def test_a_load_that_hardly_ever_comes_is_not_sized_for():
    hardly_ever = Scenarios(np.array([10_000.0, 60_000.0]), np.array([0.999, 0.001]))
    one = pool(most=200)
    assert one.worth_it(one.smallest(hardly_ever, 0.004), hardly_ever, 0.01) < 40


def test_missing_everything_is_the_most_that_can_be_missed():
    one = pool()
    assert one.missed(1, Scenarios(np.array([USUAL * 100]), np.ones(1))) == pytest.approx(1.0)


def test_what_waits_from_minutes_before_explains_what_is_missed():
    def shares(loads: list[float], **keys: Uses) -> list[float]:
        one = pool(**keys)
        one.explained(4, 0.0)
        return [one.explained(4, load) for load in loads]

    limit = 4 * LIMIT_RPS * TOKENS
    even, over = share_missed(4, 4 * 0.7), share_missed(4, 4 * 1.05)
    assert shares([0.7 * limit] * 3) == pytest.approx([even] * 3, rel=0.02)
    # A twentieth too much for a minute makes later ones wait: all in the second minute, a third in the next.
    assert shares([1.05 * limit] * 2 + [0.7 * limit] * 2) == pytest.approx([over, 1.0, 1 / 3, even], rel=0.02)
    assert shares([1.05 * limit] * 2, uses=Uses(60.0, 0.01)) == pytest.approx([over] * 2, rel=0.02)
    # Nothing waits where steps are shared: not even where what there is gets less after hours of too much.
    one = pool(uses=Uses(60.0, 0.01))
    for _ in range(30):
        one.explained(4, 2.0 * limit)
    assert one.explained(2, 0.1 * limit) == pytest.approx(share_missed(2, 0.4))
    # After hours of too much, ten minutes' work waits: a pool of half use is done with it in twenty.
    assert shares([2.0 * limit] * 300 + [0.5 * limit] * 30)[-9] < 1.0
