"""What every predictor promises, whatever it is fed."""

from __future__ import annotations

import copy
import math
import pickle
from functools import partial

import forecast_world
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sagescale.planner.forecast import Forecast, make_predictor, predictor_names

LIGHT = ("constant", "moving_average", "exponential_smoothing", "kalman", "seasonal_naive")
EXAMPLES = dict.fromkeys(LIGHT, 60) | {"arima": 8, "prophet": 4, "auto": 8}
HOUR_S = 3_600.0

values = st.one_of(
    st.none(),
    st.just(0.0),
    st.floats(0.0, 1_000.0),
    st.floats(0.0, 1e9),  # a spike
    st.integers(0, 500).map(float),
)


def series(least: int) -> st.SearchStrategy[list[float | None]]:
    """Anything, and constants; `least` windows make the fitted predictors fit."""
    constant = st.builds(lambda value, size: [value] * size, st.floats(0.0, 1e6), st.integers(least, 45))
    return st.one_of(st.lists(values, min_size=least, max_size=45), constant)


horizons = st.integers(1, 20)


fed = partial(forecast_world.fed, interval_s=HOUR_S)


def promised(name: str, observed: list[float | None], horizon: int) -> None:
    predictor = fed(name, observed, season_s=12 * HOUR_S)
    forecast = predictor.forecast(horizon)
    assert forecast == predictor.forecast(horizon), "two calls agree"
    assert forecast == fed(name, observed, season_s=12 * HOUR_S).forecast(horizon), (
        "same inputs, same outputs"
    )
    if all(value is None for value in observed):
        assert forecast is None, "nothing known is no forecast"
        return
    assert isinstance(forecast, Forecast)
    assert forecast.horizon == horizon
    for step in range(horizon):
        quantiles = [forecast.quantile(q, step) for q in (0.001, 0.1, 0.5, 0.9, 0.999)]
        assert quantiles == sorted(quantiles)
        assert all(0.0 <= value < math.inf for value in (*quantiles, forecast.mean[step], forecast.std[step]))


@pytest.mark.parametrize("name", predictor_names())
def test_forecasts_are_finite_ordered_and_repeatable(name):
    @settings(max_examples=EXAMPLES[name], deadline=None, suppress_health_check=list(HealthCheck))
    @given(observed=series(1 if name in LIGHT else 30), horizon=horizons)
    def check(observed, horizon):
        promised(name, observed, horizon)

    check()


@pytest.mark.parametrize("name", predictor_names())
@pytest.mark.parametrize("value", [0.0, 3.0, 1e9])
def test_the_forecast_of_a_constant_series_is_that_constant(name, value):
    forecast = fed(name, [value] * 40).forecast(5)
    assert forecast is not None
    assert forecast.mean == pytest.approx([value] * 5, rel=1e-6, abs=1e-6)
    assert forecast.quantile(0.95) == pytest.approx(value, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("name", predictor_names())
def test_unknown_windows_are_not_zero(name):
    """A level of 100, then an outage: the forecast stays there; with zeros observed it would fall."""
    wobble = [100.0 + (i * 7 % 5) for i in range(40)]
    unknown = fed(name, [*wobble, *[None] * 8]).forecast(1)
    idle = fed(name, [*wobble, *[0.0] * 8]).forecast(1)
    assert unknown is not None
    assert idle is not None
    assert unknown.mean[0] == pytest.approx(102.0, abs=6.0)
    if name != "seasonal_naive":  # a day has 24 windows: it repeats yesterday
        assert idle.mean[0] < 60.0


@pytest.mark.parametrize("name", predictor_names())
def test_scattered_unknown_windows_keep_the_level(name):
    holed = [None if i % 3 == 1 else 100.0 + (i * 7 % 5) for i in range(60)]
    forecast = fed(name, holed).forecast(3)
    assert forecast is not None
    assert forecast.mean == pytest.approx([102.0] * 3, abs=8.0)


@pytest.mark.parametrize("name", predictor_names())
@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf])
def test_a_value_that_is_no_load_is_refused(name, bad):
    with pytest.raises(ValueError, match="observation"):
        make_predictor(name, interval_s=60.0).observe(bad)


@pytest.mark.parametrize("name", predictor_names())
def test_a_horizon_under_one_window_is_refused(name):
    with pytest.raises(ValueError, match="horizon"):
        fed(name, [1.0, 2.0, 3.0]).forecast(0)


@pytest.mark.parametrize("name", predictor_names())
def test_forecasting_changes_no_later_forecast(name):
    observed = [100.0 + 10.0 * math.sin(i) for i in range(30)]
    asked = make_predictor(name, interval_s=60.0)
    silent = make_predictor(name, interval_s=60.0)
    for value in observed:
        asked.observe(value)
        asked.forecast(3)
        silent.observe(value)
    assert asked.forecast(4) == silent.forecast(4)


@pytest.mark.parametrize("name", predictor_names())
def test_copies_and_pickles_go_on_where_the_original_was(name):
    original = fed(name, [100.0 + 10.0 * math.sin(i) for i in range(30)])
    others = [copy.deepcopy(original), pickle.loads(pickle.dumps(original))]
    for predictor in (original, *others):
        predictor.observe(120.0)
    assert [other.forecast(3) for other in others] == [original.forecast(3)] * 2


@pytest.mark.parametrize("name", predictor_names())
def test_everyone_says_how_often_it_refits(name):
    predictor = fed(name, [float(50 + i % 7) for i in range(45)])
    assert predictor.name == name
    assert predictor.cadence
    assert (predictor.refits > 0) == (name in {"arima", "prophet", "auto"})
