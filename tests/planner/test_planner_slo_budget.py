"""The price of misses: it follows the error budget."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sagescale.planner.policy.slo.misses import ErrorBudget

targets = st.floats(0.5, 0.9999)
shares = st.floats(0.0, 1.0)


@given(targets, st.integers(0, 30))
def test_an_instance_costs_less_after_more_misses_are_planned_than_may_be(target, before):
    budget = ErrorBudget(target)
    for _ in range(before):
        budget.plan(0.0)
    price = budget.price
    budget.plan(2.0 * (1.0 - target))
    assert budget.price < price


@given(targets, st.integers(0, 30))
def test_an_instance_costs_more_after_fewer_are(target, before):
    budget = ErrorBudget(target)
    for _ in range(before):
        budget.plan(3.0 * (1.0 - target))
    price = budget.price
    budget.plan(0.0)
    assert budget.price > price


@given(targets, st.lists(st.tuples(shares, shares, st.floats(0.0, 3.0)), max_size=60))
def test_the_price_stays_within_bounds_whatever_happens(target, history):
    budget = ErrorBudget(target)
    for missed, planned, sized in history:
        budget.compare(missed, planned)
        budget.plan(sized)
        assert (1.0 - target) / 20.0 <= budget.price <= 20.0 * (1.0 - target)


@pytest.mark.parametrize("planned", [0.0, 5.0])
def test_it_comes_to_rest_at_a_bound_and_comes_back(planned):
    budget = ErrorBudget(0.99)
    for _ in range(500):
        budget.plan(planned)
    bound = budget.price
    budget.plan(planned)
    assert budget.price == bound
    budget.plan(5.0 - planned)
    assert budget.price != bound


def test_one_window_moves_it_little_however_bad():
    budget = ErrorBudget(0.999)
    price = budget.price
    budget.plan(3.0)
    assert price / 2.0 < budget.price < price


def test_misses_that_happen_beyond_the_plan_for_hours_make_instances_cheaper():
    kept, broken = ErrorBudget(0.99), ErrorBudget(0.99)
    for _ in range(300):
        kept.compare(0.004, 0.004)
        broken.compare(0.03, 0.004)
        kept.plan(0.004)
        broken.plan(0.004)
    assert broken.price < kept.price


@given(st.floats(0.5, 0.99), st.floats(0.001, 0.4))
def test_at_a_looser_target_an_instance_has_to_save_more(target, looser):
    assert ErrorBudget(max(0.5, target - looser)).price >= ErrorBudget(target).price
