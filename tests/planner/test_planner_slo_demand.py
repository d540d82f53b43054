"""The loads that policy slo sizes for: what may come, and how likely."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sagescale.planner.policy.slo.demand import Demand, Scenarios

loads = st.one_of(st.just(0.0), st.floats(1e-6, 1e9))
windows = st.lists(st.tuples(st.none() | loads, loads, loads, st.floats(0.0, 2.0)), min_size=1, max_size=40)
AHEAD = 3


def fed(history: list[tuple[float | None, float, float, float]]) -> Demand:
    demand = Demand(60.0)
    for came, expected, spread, chance in history:
        demand.observe(came, chance)
        demand.plan((expected,) * AHEAD, (spread,) * AHEAD)
    return demand


def flat(mean: float, windows: int, requests: float) -> Demand:
    """After Poisson windows that were forecast as the last one was."""
    demand = Demand(60.0)
    for count in np.random.default_rng(1).poisson(requests, windows):
        demand.observe(mean * count / requests, 1.0 / requests)
        demand.plan((mean * count / requests,) * AHEAD, (0.0,) * AHEAD)
    return demand


def deviation(scenarios: Scenarios) -> float:
    return float(np.sqrt(scenarios.weights @ (scenarios.loads - scenarios.mean) ** 2))


@given(windows, st.integers(1, AHEAD), loads)
def test_scenarios_are_a_distribution_of_possible_loads_whatever_came_before(history, ahead, surprise):
    what = fed(history).scenarios(ahead, surprise)
    assert what.weights.sum() == pytest.approx(1.0)
    assert (what.weights > 0.0).all()
    assert np.isfinite(what.loads).all()
    assert (what.loads >= 0.0).all()
    assert (np.diff(what.loads) >= -1e-9 * what.highest).all()


@given(windows)
def test_looking_changes_nothing(history):
    demand = fed(history)
    first = demand.scenarios(1)
    demand.scenarios(AHEAD, 1e6)
    assert demand.scenarios(1).loads.tolist() == first.loads.tolist()


@given(windows)
def test_a_load_seen_just_now_is_never_taken_for_less_than_the_forecast_says(history):
    demand = fed(history)
    assert demand.scenarios(1, seen=0.0).loads.tolist() == demand.scenarios(1).loads.tolist()
    if demand.expected[0] > 0.0:
        less = demand.scenarios(1, seen=demand.expected[0] / 2)
        assert less.loads.tolist() == demand.scenarios(1).loads.tolist()


@given(windows, st.floats(0.1, 10.0), st.floats(0.0, 1e6))
def test_headroom_multiplies_every_load_and_a_backlog_adds_to_it(history, factor, more):
    what = fed(history).scenarios(1)
    scaled = what.scaled(factor, more)
    assert scaled.loads == pytest.approx(what.loads * factor + more)
    assert scaled.weights.tolist() == what.weights.tolist()


def test_nothing_ever_came_and_nothing_is_expected():
    what = fed([(0.0, 0.0, 0.0, 0.0)] * 5).scenarios(1)
    assert what.loads.tolist() == [0.0]
    assert what.weights.tolist() == [1.0]


def test_the_first_load_ever_is_taken_as_it_is_seen():
    what = fed([(0.0, 0.0, 0.0, 0.0)] * 5).scenarios(1, seen=1000.0)
    assert what.mean == pytest.approx(1000.0)


def test_hours_of_silence_are_followed_by_silence_expected():
    busy = [(1000.0, 1000.0, 0.0, 1e-3)] * 60
    what = fed(busy + [(0.0, 0.0, 0.0, 1.0)] * 360).scenarios(1)
    assert what.mean < 50.0


@pytest.mark.parametrize("requests", [100.0, 3000.0])
def test_of_a_flat_load_little_remains_beside_the_mean(requests):
    """What chance does to a window is in the streams engines are tried on: here it would count twice."""
    what = flat(1000.0, 300, requests).scenarios(1)
    assert what.mean == pytest.approx(1000.0, rel=2.0 / requests**0.5)
    assert deviation(what) < 0.5 * 1000.0 / requests**0.5


def test_a_load_that_swings_by_more_than_chance_keeps_its_spread():
    swings = np.random.default_rng(2).lognormal(0.0, 0.3, 300) * 1000.0
    demand = fed([(float(load), 1000.0, 0.0, 1e-3) for load in swings])
    assert deviation(demand.scenarios(1)) > 200.0


@pytest.mark.parametrize("times", [4.0, 0.25])
def test_a_step_is_followed_at_once(times):
    demand = flat(1000.0, 100, 600.0)
    demand.observe(1000.0 * times, 1.0 / 600.0)
    demand.plan((1000.0 * times,) * AHEAD, (0.0,) * AHEAD)
    assert demand.expected == pytest.approx((1000.0 * times,) * AHEAD)


def test_a_forecast_that_moves_as_chance_does_is_averaged():
    demand, expected = Demand(60.0), []
    for count in np.random.default_rng(3).poisson(100.0, 200):
        demand.observe(float(count), 0.01)
        demand.plan((float(count),), (0.0,))
        expected.append(demand.expected[0])
    assert np.std(expected[50:]) < 0.5 * 10.0
    assert np.mean(expected[50:]) == pytest.approx(100.0, rel=0.03)


def test_forecasts_that_were_always_too_low_are_corrected_upwards():
    what = fed([(1500.0, 1000.0, 0.0, 1e-4)] * 200).scenarios(1)
    assert what.mean == pytest.approx(1500.0, rel=0.1)


def test_unknown_windows_teach_no_error():
    known = [(1000.0, 1000.0, 0.0, 1e-3)] * 30
    demand = fed(known)
    for _ in range(30):
        demand.observe(None, 0.0)
    demand.observe(1000.0, 1e-3)
    demand.plan((1000.0,) * AHEAD, (0.0,) * AHEAD)
    assert demand.scenarios(1).mean == pytest.approx(1000.0, rel=0.01)
    assert demand.usual == pytest.approx(1000.0)
