"""No more than would have kept the last day: sizes that never change, replayed on what came."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sagescale.fleet import PoolSpec, Role
from sagescale.planner.policy.slo.day import Day
from sagescale.planner.policy.slo.misses import MissCurves
from sagescale.planner.policy.slo.pool import Pool
from sagescale.planner.policy.slo.uses import Uses

EACH = 1000.0
"""Tokens/s that an instance keeps up with, whatever the size."""

MINUTE_S, HOUR = 60.0, 60
IN_TIME_S = 1.0


def curves(each: float = EACH) -> MissCurves:
    """Nothing is missed up to what an instance gets through, everything beyond."""
    return MissCurves(lambda size, rps: float(rps > size * each / 100.0 * 1.001), each / 100.0, 100.0)


def day(*hours: tuple[float, int], most: int = 60, allowed: float = 0.005) -> Day:
    """Loads, each for so many minutes."""
    made, shown = Day(most, IN_TIME_S), curves()
    for load, minutes in hours:
        for _ in range(minutes):
            made.look(MINUTE_S, load, load, shown, allowed)
    return made


def test_a_flat_day_asks_for_what_keeps_up_with_it():
    # At the level there was, so many times more are no more than enough.
    assert day((3500.0, 6 * HOUR)).enough(0.0) == math.ceil(1.25 * 3.5)


@pytest.mark.parametrize(
    ("load", "enough"), [(600.0, 1), (900.0, 2), (1500.0, 2), (1800.0, 3), (30_000.0, 38)]
)
def test_what_grows_is_what_is_needed_of_instances_not_what_is_there_of_whole_ones(load, enough):
    assert day((load, 6 * HOUR)).enough(0.0) == enough


def test_below_the_levels_there_were_it_is_what_kept_the_day():
    made = day((3500.0, 5 * HOUR), (1000.0, HOUR))
    assert made.enough(0.0) == 4


@pytest.mark.parametrize("minutes", [0, 1, 3 * HOUR])
def test_a_few_hours_say_nothing(minutes):
    assert day((3500.0, minutes)).enough(0.0) is None


def test_a_level_that_was_never_there_may_ask_for_more():
    made = day((3500.0, 10 * HOUR), (7000.0, HOUR // 2))
    assert made.enough(0.0) is None
    assert day((3500.0, 10 * HOUR), (7000.0, 4 * HOUR)).enough(0.0) is None
    # Five hours later it is a level like others.
    assert day((3500.0, 10 * HOUR), (7000.0, 6 * HOUR)).enough(0.0) == math.ceil(1.25 * 7)


def test_a_load_to_come_that_was_never_there_may_ask_for_more_at_once():
    made = day((3500.0, 6 * HOUR), (2000.0, HOUR))
    assert made.enough(2000.0) == made.enough(0.0)
    assert made.enough(3500.0) == math.ceil(1.25 * 3.5)
    assert made.enough(1.1 * 3500.0) is None


def test_a_minute_is_no_level_but_is_missed():
    few = day((3500.0, 6 * HOUR), (7000.0, 1), (3500.0, HOUR), allowed=0.05)
    assert few.enough(0.0) == day((3500.0, 7 * HOUR)).enough(0.0), (
        "what waits is gone in minutes, of seven hours"
    )
    strict = day((3500.0, 6 * HOUR), (7000.0, 1), (3500.0, HOUR), allowed=1e-4)
    assert strict.enough(0.0) is not None
    assert strict.enough(0.0) >= 7


def test_where_no_size_would_have_kept_it_there_is_no_limit():
    assert day((9000.0, 6 * HOUR), most=4).enough(0.0) is None


@given(st.lists(st.floats(0.0, 50_000.0), min_size=5, max_size=12), st.floats(0.001, 0.05))
def test_what_is_enough_would_have_kept_the_day(levels, allowed):
    hours = [(level, HOUR) for level in levels]
    most = day(*hours, allowed=allowed).enough(0.0)
    if most is None:
        return
    waiting = missed = arrived = 0.0
    for level, minutes in hours:
        for _ in range(minutes):
            waiting = max(0.0, waiting + (level - most * EACH) * MINUTE_S)
            fade = 0.5 ** (MINUTE_S / 43_200.0)
            arrived = arrived * fade + level
            missed = missed * fade + (level if waiting > IN_TIME_S * most * EACH else 0.0)
    assert missed <= allowed * arrived * (1.0 + 1e-9)


def test_what_an_instance_keeps_up_with_is_asked_of_the_engines():
    made, shown = Day(60, IN_TIME_S), curves(2.0 * EACH)
    for _ in range(5 * HOUR):
        made.look(MINUTE_S, 3500.0, 3500.0, shown, 0.005)
    for _ in range(HOUR):
        made.look(MINUTE_S, 1000.0, 1000.0, shown, 0.005)
    assert made.enough(0.0) == 2


def test_a_pool_keeps_to_its_limits_and_one_that_follows_its_load_has_no_day():
    def pool(least: int, uses: Uses | None = None) -> Pool:
        made = Pool(PoolSpec("decode", Role.DECODE, 1, least, 60), 60.0, 60.0, uses=uses)
        made.curves = curves()
        for minute in range(6 * HOUR):
            made.looked(MINUTE_S * minute, MINUTE_S, 3500.0 if minute < 5 * HOUR else 1000.0)
        return made

    assert pool(1).enough == 4
    assert pool(9).enough == 9
    assert pool(1, Uses(60.0, 0.01)).enough is None


def test_what_is_expected_counts_times_the_factor_as_what_came_did():
    made = Pool(PoolSpec("decode", Role.DECODE, 1, 1, 60), 60.0, 60.0)
    made.curves = curves()
    for minute in range(7 * HOUR):
        made.looked(MINUTE_S * minute, MINUTE_S, 3500.0)
    made.demand.observe(3500.0, 0.0)
    made.demand.plan((3500.0,) * 3, (0.0,) * 3)
    assert made.enough == math.ceil(1.25 * 3.5)
    made.caution._log = math.log(1.2)
    assert made.enough is None, "1.2 times as much was never there"
