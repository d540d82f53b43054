"""Where requests are not counted an estimate of who met the ITL target makes slo more careful, never less."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planner_world import BUSY
from slo_world import minute, poisson, slo_planner

UNKNOWN = dataclasses.replace(BUSY, itl_attainment=None)


@pytest.mark.parametrize(
    ("measured", "estimate", "counts"),
    [
        (0.97, 0.5, 0.97),
        (1.0, 0.5, 1.0),
        (None, None, None),
        (None, 0.98, 0.98),
        (None, 0.99, None),
        (None, 1.0, None),
        (None, float("nan"), None),
    ],
)
def test_what_is_measured_counts_and_an_estimate_only_below_the_target(measured, estimate, counts):
    seen = dataclasses.replace(UNKNOWN, itl_attainment=measured, itl_attainment_estimate=estimate)
    assert seen.itl_attained(0.99) == counts


def sizes(estimates, **changes):
    planner = slo_planner()
    targets = [(1, 1)]
    loads = poisson(6000.0, len(estimates))
    for number, (load, estimate) in enumerate(zip(loads, estimates, strict=True), 1):
        seen = minute(number, load, *targets[-1], itl_attainment_estimate=estimate, **changes)
        targets.append(tuple(planner.step(seen).targets))
    return targets[1:]


@settings(max_examples=10, deadline=None)
@given(st.lists(st.floats(0.99, 1.0), min_size=30, max_size=30))
def test_an_estimate_that_all_is_well_changes_nothing(estimates):
    for ttft in (None, 1.0, 0.9):
        assert sizes(estimates, ttft_attainment=ttft) == sizes([None] * 30, ttft_attainment=ttft)


def test_an_estimate_that_many_miss_counts_as_if_it_were_measured():
    estimated = sizes([0.6] * 60, ttft_attainment=0.99)
    assert estimated == sizes([None] * 60, ttft_attainment=0.99, itl_attainment=0.6)
