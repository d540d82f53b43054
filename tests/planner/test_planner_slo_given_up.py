"""A size that was too small lately is not tried again at the same load."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from sagescale.planner.policy.slo.given_up import GivenUp

HOUR = 60
REPLAYED = 45


def given_up(fewest=lambda most: most) -> GivenUp:
    return GivenUp(60.0, 60.0 * REPLAYED, fewest)


def after(*steps: tuple[int, int, float], fewest=lambda most: most) -> GivenUp:
    """Ticks of a minute: what was to be ordered, what there is, the load."""
    made = given_up(fewest)
    for size, current, load in steps:
        made.kept(size, current, load)
    return made


TAKEN_BACK = ((3, 3, 100.0), (2, 3, 100.0), (3, 2, 104.0))


def test_what_was_taken_back_at_the_same_load_is_kept():
    assert after(*TAKEN_BACK).kept(2, 3, 98.0) == 3


def test_what_was_taken_back_is_tried_again_where_it_may_be_and_remembered_for_when_it_may_not():
    made = after(*TAKEN_BACK, (3, 3, 90.0))
    assert made.kept(2, 3, 98.0, try_again=True) == 2
    assert made.kept(2, 3, 98.0) == 3


@given(st.lists(st.floats(94.0, 107.0), max_size=30))
def test_at_an_unchanged_load_it_is_not_tried_again(loads):
    made = after(*TAKEN_BACK)
    assert all(made.kept(2, 3, load, try_again=True) == 3 for load in loads)


def test_what_was_taken_back_between_ticks_is_kept_too():
    assert after((3, 3, 100.0), (2, 3, 100.0), (2, 2, 100.0), (3, 3, 104.0)).kept(2, 3, 98.0) == 3


def test_what_was_planned_but_not_done_says_nothing():
    assert after((3, 3, 100.0), (2, 3, 100.0), (4, 3, 100.0)).kept(2, 4, 100.0) == 2


def test_less_load_is_another_matter():
    assert after(*TAKEN_BACK).kept(2, 3, 90.0) == 2


def test_what_a_higher_load_took_back_says_nothing():
    assert after((3, 3, 100.0), (2, 3, 100.0), (3, 2, 120.0)).kept(2, 3, 100.0) == 2


def test_only_the_size_that_was_too_small_is_not_tried():
    assert (
        after((5, 5, 100.0), *((size, size + 1, 100.0) for size in (4, 3, 2)), (3, 2, 100.0)).kept(
            2, 5, 100.0
        )
        == 3
    )


def test_what_was_enough_for_hours_was_not_given_up_wrongly():
    quiet = [(2, 2, 50.0)] * (4 * HOUR)
    assert after(*TAKEN_BACK[:2], *quiet, (3, 2, 100.0)).kept(2, 3, 100.0) == 2


def test_what_was_too_small_after_an_hour_at_the_same_load_is_not_tried_either():
    served = [(2, 2, 100.0)] * HOUR
    assert after(*served, (3, 2, 102.0)).kept(2, 3, 100.0) == 3
    assert after(*served, (3, 2, 120.0)).kept(2, 3, 100.0) == 2
    assert after(*served[1:-1], (3, 2, 102.0)).kept(2, 3, 100.0) == 2


def test_a_day_later_it_is_tried_again():
    made = after(*TAKEN_BACK, *[(2, 3, 100.0)] * (24 * HOUR - 1))
    assert made.kept(2, 3, 100.0) == 3
    assert made.kept(2, 3, 100.0) == 2


@given(st.integers(1, 9), st.integers(1, 9))
def test_of_what_was_wanted_back_so_much_is_kept_as_what_came_before_or_since_took(before, since):
    took = [before]
    made = after((9, 9, 100.0), (1, 9, 100.0), (9, 1, 100.0), fewest=lambda most: min(took[-1], most))
    took.append(since)
    kept = [made.kept(0, 9, 100.0) for _ in range(REPLAYED + 60)]
    assert set(kept[: REPLAYED - 1]) == {9}
    assert set(kept[REPLAYED - 1 :]) == {max(before, since)}


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(-3, 3), st.floats(0.0, 1e6)), max_size=40))
def test_it_keeps_between_what_is_to_be_ordered_and_what_there_is(steps):
    made, there = given_up(), 1
    for size, launched, load in steps:
        there = max(0, there + launched)
        found = made.kept(size, there, load)
        assert size <= found <= max(size, there)
        there = found
