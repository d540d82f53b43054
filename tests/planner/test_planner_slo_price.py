"""The price of a GPU: what it has to save so that no more is missed than may be over the last hours."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sagescale.planner.policy.slo.price import Price, Savings

ALLOWED = 0.01
curves = st.lists(st.floats(1e-3, 1.0), min_size=2, max_size=4).map(
    lambda falls: Savings.of(range(1, len(falls) + 1), np.cumprod(falls).tolist(), 1)
)
windows = st.lists(st.tuples(st.floats(0.5, 20.0), curves), min_size=1, max_size=4)


def settled(given_windows) -> Price:
    price = Price(1e-6, ALLOWED)  # nothing fades
    for rate, savings in given_windows:
        price.observe(rate, (savings,))
    return price


@given(windows)
def test_at_the_price_no_more_is_missed_than_may_be_where_that_can_be(given_windows):
    price = settled(given_windows)
    total = sum(rate for rate, _ in given_windows)
    best = sum(rate * savings.missed[-1] for rate, savings in given_windows)
    missed = 0.0
    for rate, savings in given_windows:
        size = savings.size(price.per_gpu(rate))
        missed += rate * savings.missed[savings.sizes.tolist().index(size)]
    assert missed <= max(ALLOWED * total, best) * (1 + 1e-9)


@given(windows)
def test_no_choice_of_sizes_keeps_the_same_promise_with_fewer_gpus(given_windows):
    price = settled(given_windows)
    chosen = [savings.size(price.per_gpu(rate)) for rate, savings in given_windows]

    def missed(sizes):
        return sum(
            rate * savings.missed[savings.sizes.tolist().index(size)]
            for size, (rate, savings) in zip(sizes, given_windows, strict=True)
        )

    for other in itertools.product(*(savings.sizes.tolist() for _, savings in given_windows)):
        if missed(other) <= missed(chosen) * (1 - 1e-9):
            assert sum(other) >= sum(chosen)


def test_a_quiet_window_is_not_sized_as_dearly_as_a_busy_one():
    savings = Savings.of([1, 2, 3, 4], [0.04, 0.02, 0.012, 0.008], 1)
    price = settled([(1.0, savings), (10.0, savings)])
    assert savings.size(price.per_gpu(1.0)) < savings.size(price.per_gpu(10.0))


def test_where_misses_fall_steeply_all_windows_take_the_size_from_which_nothing_is_missed():
    savings = Savings.of([1, 2, 3, 4], [0.9, 0.5, 0.0001, 0.00001], 2)
    price = settled([(1.0, savings), (3.0, savings)])
    assert [savings.size(price.per_gpu(rate)) for rate in (1.0, 3.0)] == [3, 3]


def test_only_the_lower_hull_can_be_chosen():
    savings = Savings.of([1, 2, 3, 4], [0.5, 0.45, 0.1, 0.1], 1)
    assert savings.sizes.tolist() == [1, 3]
    assert savings.per_gpu == pytest.approx([0.2])


def test_where_the_smallest_sizes_miss_little_enough_nothing_more_is_bought():
    savings = Savings.of([1, 2], [0.001, 0.0], 1)
    assert savings.size(settled([(5.0, savings)]).per_gpu(5.0)) == 1


def test_no_traffic_buys_nothing():
    price = settled([(0.0, Savings.of([1], [0.0], 1))])
    assert price.per_gpu(0.0) == np.inf
