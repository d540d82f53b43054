"""The load in service: it builds up as a load comes, and stays when that is gone."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sagescale.planner.policy.slo.in_service import InService

loads = st.lists(st.floats(0.0, 1e9), min_size=1, max_size=30)
times = st.floats(1.0, 1e4)


def fed(came: list[float], to_go_s: float, lasts_s: float = 60.0, counted: float | None = None) -> InService:
    made = InService()
    made.to_go_s = to_go_s
    for load in came:
        made.observe(lasts_s, load, counted)
    return made


@given(loads)
def test_where_nothing_stays_it_is_what_comes(came):
    assert fed(came, 0.0).load == came[-1]
    assert fed(came, 0.0, counted=7.0).load == came[-1], "what is counted is gone by the end of the window"
    assert fed([1.0], 0.0).after(60.0, came) == tuple(came)


@given(loads, times, st.none() | st.floats(0.0, 1e9))
def test_it_is_between_what_came_and_what_is_counted(came, to_go_s, counted):
    every = [*came, *(() if counted is None else (counted,))]
    assert min(every) * (1 - 1e-9) <= fed(came, to_go_s, counted=counted).load <= max(every) * (1 + 1e-9)


@given(loads, loads, times)
def test_what_is_to_come_is_foreseen_as_it_then_is(came, coming, to_go_s):
    foreseen = fed(came, to_go_s).after(60.0, coming)
    assert foreseen[-1] == pytest.approx(fed(came + coming, to_go_s).load)


@given(times, st.floats(1.0, 600.0), st.integers(1, 20))
def test_it_does_not_matter_how_often_one_looks(to_go_s, lasts_s, parts):
    made = fed([100.0], to_go_s)
    once, often = made.after(lasts_s, (500.0,))[-1], made.after(lasts_s / parts, (500.0,) * parts)[-1]
    assert often == pytest.approx(once)


def test_a_step_fills_a_pool_as_servers_of_exponential_times_fill():
    """dm/dt = load - m / S, of as many servers as it takes: 1 - exp(-t / S) of the new load after t."""
    rng, mean_s, rate = np.random.default_rng(0), 100.0, 200.0
    arrived = np.sort(rng.uniform(0.0, 300.0, int(300 * rate)))
    gone = arrived + rng.exponential(mean_s, len(arrived))
    made = fed([0.0], mean_s)
    for at_s in (30.0, 100.0, 300.0):
        there = ((arrived <= at_s) & (gone > at_s)).sum() / mean_s  # the rate that would keep so many there
        assert made.after(at_s, (rate,))[0] == pytest.approx(there, rel=0.03)


@given(times)
def test_a_count_is_believed_as_far_as_what_was_there_is_still_there(to_go_s):
    kept = math.exp(-60.0 / to_go_s)
    assert fed([100.0], to_go_s, counted=900.0).load == pytest.approx(100.0 + kept * 800.0)


@given(times, st.integers(1, 30))
def test_chance_in_a_window_is_averaged_as_its_load_is(to_go_s, windows):
    left = math.exp(-60.0 / to_go_s)
    weights = (1.0 - left) * left ** np.arange(windows)
    made = fed([1.0], to_go_s)
    assert made.by_chance(60.0, windows) == pytest.approx(float(np.sqrt(weights @ weights)))
    assert made.common(60.0, windows) == pytest.approx(float(weights.sum()))
    assert fed([1.0], 0.0).by_chance(60.0, windows) == fed([1.0], 0.0).common(60.0, windows) == 1.0


@given(times, st.integers(0, 30))
def test_what_was_in_service_before_an_outage_is_gone_as_if_it_had_been_seen(to_go_s, minutes):
    made = fed([100.0], to_go_s)
    for _ in range(minutes):
        made.pass_unseen(60.0)
    assert made.observe(60.0, 500.0) == pytest.approx(fed([100.0] + [500.0] * (minutes + 1), to_go_s).load)
