"""What may still be missed: the promise less what was missed lately."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from planner_world import BUSY, seen
from sagescale.planner.policy.slo.promise import Promise
from slo_world import minute, slo_planner

TARGET = 0.99
MINUTE_S, HOUR = 60.0, 60


def promise(
    *parts: tuple[float | None, int], start_s: float = 60.0, short: bool = False, target: float = TARGET
) -> Promise:
    """Attainments of either target, each for so many minutes of equal traffic."""
    made = Promise(target)
    for attainment, minutes in parts:
        for _ in range(minutes):
            if short:
                made.fell_short(2)
            window = seen(
                BUSY, window_s=MINUTE_S, requests=100.0, ttft_attainment=attainment, itl_attainment=attainment
            )
            made.learn(window, start_s)
    return made


def test_while_all_is_kept_all_of_the_promise_may_be_missed():
    assert promise((1.0, 8 * HOUR)).allowed == pytest.approx(1.0 - TARGET)


def test_what_was_missed_is_taken_off_and_counts_half_after_twelve_hours():
    missed = 2 * 5 / (24 * HOUR)  # of both targets, in five minutes of a day
    just, later = promise((1.0, 24 * HOUR - 5), (0.0, 5)), promise((1.0, 12 * HOUR), (0.995, 12 * HOUR))
    assert just.allowed < 0.01 - missed / 2.0
    assert later.allowed < promise((0.995, 12 * HOUR), (1.0, 12 * HOUR)).allowed


def test_no_more_can_be_missed_than_was_promised_and_never_less_than_nothing():
    assert promise((1.0, HOUR), (0.5, HOUR)).allowed == 0.0


def test_what_was_missed_before_anything_could_start_is_nobodys_choice():
    assert promise((0.0, 9)).allowed == pytest.approx(1.0 - TARGET)
    assert promise((0.0, 40), start_s=900.0).allowed == pytest.approx(1.0 - TARGET)
    assert promise((0.0, 14)).allowed == 0.0


def test_a_bad_minute_early_is_a_small_part_of_what_is_to_come():
    # Half of it missed either target: a minute, which is more than a hundredth of this hour.
    assert promise((1.0, HOUR), (0.5, 1)).allowed == pytest.approx(0.01 - 1.0 / (4 * HOUR), rel=0.01)


def test_an_instance_is_worth_no_more_for_it_unless_the_budget_was_why():
    assert promise((1.0, HOUR), (0.9, HOUR)).worth == pytest.approx(1.0 - TARGET)
    assert promise((1.0, HOUR), (0.9, HOUR), short=True).worth == 0.0


@pytest.mark.parametrize(
    ("share", "start_s", "hardly"),
    [(1.0, 60.0, True), (0.9992, 120.0, True), (0.998, 60.0, False), (1.0, 180.0, False)],
)
def test_hardly_anything_is_used_if_little_was_missed_and_starts_are_short(
    share: float, start_s: float, hardly: bool
):
    assert promise((share, 12 * HOUR)).hardly_used(start_s) is hardly


@pytest.mark.parametrize("target", [0.9, 0.99, 0.999])
def test_a_size_is_tried_where_one_that_is_too_small_misses_a_quarter_of_what_may_be_until_a_start_is_over(
    target: float,
):
    start_s = 0.25 * (1.0 - target) * 12 * 3600.0 / math.log(2.0)
    assert promise((1.0, 6 * HOUR), target=target).hardly_used(start_s * 0.99)
    assert not promise((1.0, 6 * HOUR), target=target).hardly_used(start_s * 1.01)
    # Days of calm, then a start's time of nothing kept: so much is missed of them.
    calm = promise((1.0, 10 * 24 * HOUR), (0.0, 60), target=0.5)
    assert 0.5 - calm.allowed == pytest.approx(3600.0 * math.log(2.0) / (12 * 3600.0), rel=0.05)


def test_what_is_used_is_not_known_before_hours_or_where_a_target_is_not_measured():
    assert not promise((1.0, 5 * HOUR - 1)).hardly_used(60.0)
    assert promise((1.0, 5 * HOUR)).hardly_used(60.0)
    assert not promise((None, 24 * HOUR)).hardly_used(60.0)
    unknown = promise((1.0, 12 * HOUR))
    for _ in range(36 * HOUR):  # of ITL, what an estimate may say at most
        unknown.learn(seen(BUSY, window_s=MINUTE_S, requests=100.0, ttft_attainment=1.0), 60.0)
    assert not unknown.hardly_used(60.0)


@given(st.lists(st.none() | st.floats(0.0, 1.0), max_size=30), st.integers(0, 1))
def test_it_stays_between_nothing_and_the_promise_and_what_is_unknown_changes_nothing(shares, known):
    made = promise(*((share, 3) for share in shares))
    assert 0.0 <= made.allowed <= made.worth <= 1.0 - TARGET
    before = made.allowed
    for _ in range(5):
        made.learn(seen(BUSY, window_s=MINUTE_S, requests=[None, 0.0][known]), 60.0)
    assert made.allowed == pytest.approx(before, abs=1e-4)


def test_after_hours_that_missed_more_more_is_asked_for():
    sizes, told = [], []
    for attainment in (1.0, 0.98):
        planner, there = slo_planner(), (12, 12)
        # Load that comes and goes, so that there is a choice of how much of it to keep.
        for number in range(1, 3 * HOUR):
            requests = 6000.0 if number % 7 else 9000.0
            window = minute(number, requests, *there, ttft_attainment=attainment)
            decision = planner.step(window)
            there = tuple(decision.targets)
        sizes.append(there)
        told.append(any("was missed lately" in why.text for why in decision.reasons))
    assert sizes[1][0] > sizes[0][0]
    assert told == [False, True]
