"""The factor on a pool's load: raised by what is missed, lowered by time without misses."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sagescale.planner.policy.slo.caution import Caution, Missed

shares = st.floats(0.0, 1.0)


def after(missed: list[float], **changes: object) -> float:
    caution = Caution(60.0, 0.01)
    for share in missed:
        caution.learn(Missed(share, **changes))
    return caution.factor


def test_misses_raise_it_and_none_bring_it_back():
    assert after([0.05] * 10) > 1.3
    assert after([0.05] * 10 + [0.0] * 400) == pytest.approx(0.85)


@given(st.lists(shares, max_size=60), st.floats(0.0, 1200.0))
def test_it_has_bounds_and_tries_less_below_one_where_starts_are_long(missed, start_s):
    factor = after(missed, start_s=start_s)
    assert 0.85 <= factor <= 4.0
    assert after([0.0] * 200, start_s=600.0) > 0.98


@given(st.lists(shares, max_size=60), shares)
def test_it_goes_no_further_below_one_than_the_promise_is_unused(missed, left):
    assert after(missed, left=left) >= 0.85**left - 1e-12
    assert after([0.0] * 400, left=left) == pytest.approx(0.85**left)
    caution = Caution(60.0, 0.01)
    for now_left in [1.0] * 400 + [left]:
        caution.learn(Missed(0.0, left=now_left))
    assert caution.factor == pytest.approx(0.85**left), "at once"


@given(shares, shares)
def test_the_more_is_missed_the_higher_it_is(one, other):
    assert after([0.02, max(one, other)]) >= after([0.02, min(one, other)])


@given(st.floats(0.1, 0.9), st.floats(0.0, 0.02))
def test_it_aims_at_half_of_its_part_and_of_what_the_other_pool_leaves(part, other):
    aim = 0.5 * max(min(0.01 * part, 0.01 - other), 0.005 * part)
    assert after([aim + 1e-6] * 3, part=part, other=other) > 1.0
    assert after([aim - 1e-6] * 3, part=part, other=other) < 1.0


def test_one_window_says_no_more_than_a_tenth():
    assert after([1.0]) == pytest.approx(after([0.107]))
    raised = after([1.0, 1.0])
    caution = Caution(60.0, 0.01)
    for window in (Missed(1.0), Missed(1.0), Missed(0.0, explained=1.0)):
        caution.learn(window)
    assert caution.factor == pytest.approx(raised * math.exp(-0.1)), "nor that so much less was"


def test_it_waits_for_what_was_ordered_before_it_rises_further():
    assert after([1.0] * 5, ahead=5) == pytest.approx(after([1.0] * 2, ahead=5))
    assert after([1.0] * 8, ahead=5, windows=2) == pytest.approx(after([1.0] * 2, ahead=5))
    assert after([1.0] * 9, ahead=5, windows=2) > after([1.0] * 2, ahead=5)


@given(st.lists(shares, min_size=1, max_size=40), st.integers(1, 5), st.integers(2, 6))
def test_nor_before_those_whom_it_serves_are_reported(missed, ahead, windows):
    caution, factors = Caution(60.0, 0.01), [1.0]
    for share in missed:
        caution.learn(Missed(share, ahead=ahead, windows=windows))
        factors.append(caution.factor)
    for before, now in zip(factors, factors[ahead + windows :], strict=False):
        assert now <= before * math.exp(0.4) * (1.0 + 1e-9)


def test_what_the_simulation_explains_teaches_nothing():
    assert after([0.5] * 10, explained=0.5) == 1.0


@pytest.mark.parametrize("changes", [{"full": True}, {"starting": True, "explained": 0.02}])
def test_what_no_order_can_change_does_not_raise_it(changes):
    assert after([0.5] * 10, **changes) == 1.0


def test_who_waits_beyond_the_target_counts_at_once_and_once():
    caution = Caution(60.0, 0.01)
    caution.learn(Missed(0.0, late=0.05))
    raised = caution.factor
    assert raised > 1.0
    caution.learn(Missed(0.05))
    assert caution.factor < raised


def test_what_the_other_pool_misses_leaves_less():
    assert after([0.006] * 5, other=0.01) > after([0.006] * 5)
