"""The predictors that fit: what they track, when they refit, and what happens when a fit is no good."""

from __future__ import annotations

import logging
import math
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from forecast_world import observe
from sagescale.planner.forecast import make_predictor
from sagescale.planner.forecast.arima import ArimaPredictor
from sagescale.planner.forecast.fitted import FitError, FittedPredictor
from sagescale.planner.forecast.protocol import PredictorOptions
from sagescale.planner.forecast.season import find_period

HOUR_S = 3_600.0


def daily(days: int, seed: int = 0) -> list[float]:
    """Hourly windows of a daily wave with noise."""
    hours = np.arange(24 * days)
    noise = 10.0 * np.random.default_rng(seed).standard_normal(len(hours))
    return (300.0 + 200.0 * np.sin(2.0 * np.pi * hours / 24.0) + noise).tolist()


def mean_error(name: str, observed: list[float], begin: int, horizon: int, **options: float) -> float:
    predictor = make_predictor(name, interval_s=HOUR_S, **options)
    errors = []
    for at, value in enumerate(observed[:-horizon]):
        predictor.observe(value)
        if at >= begin:
            forecast = predictor.forecast(horizon)
            errors.append(abs(forecast.mean[-1] - observed[at + horizon]))
    return float(np.mean(errors))


@pytest.mark.parametrize("options", [{}, {"season_s": 24 * HOUR_S}])
def test_arima_tracks_a_daily_wave(options):
    """With the period found, or given."""
    observed = daily(5)
    assert mean_error("arima", observed, 85, 3, **options) < 0.3 * mean_error("constant", observed, 85, 3)


def test_prophet_tracks_a_daily_wave():
    observed = daily(5)
    assert mean_error("prophet", observed, 85, 3) < 0.3 * mean_error("constant", observed, 85, 3)


def test_arima_does_not_lose_to_the_last_value_on_a_random_walk():
    """Orders chosen once on a few points collapse to the mean: here they are chosen anew."""
    walk = (1_000.0 + np.cumsum(10.0 * np.random.default_rng(3).standard_normal(150))).tolist()
    assert mean_error("arima", walk, 12, 2) < 1.1 * mean_error("constant", walk, 12, 2)


def test_arima_orders_are_chosen_anew():
    """White noise first, then a random walk: a mean, then none."""
    random = np.random.default_rng(4)
    predictor = ArimaPredictor(PredictorOptions(60.0))
    noise = 500.0 + 10.0 * random.standard_normal(80)
    for value in noise:
        predictor.observe(float(value))
    first = predictor.order
    for value in 500.0 + np.abs(np.cumsum(30.0 * random.standard_normal(250))):
        predictor.observe(float(value))
    assert first == (1, 0, 0)
    assert predictor.order[1] == 1


def test_the_carried_state_is_the_librarys_own_filter():
    """Parameters fitted on 120 windows, carried over 80 more, one unknown: as statsmodels filters all 200."""
    from statsmodels.tsa.statespace.sarimax import SARIMAX

    random = np.random.default_rng(5)
    values = 100.0 + np.cumsum(random.standard_normal(200)) + random.standard_normal(200)
    values[150] = np.nan
    for order, trend in (((0, 1, 1), "n"), ((1, 0, 0), "c"), ((2, 1, 2), "n")):
        fit = fit_of(values[:120], order)
        carried = carry(fit, values[120:])
        model = SARIMAX(values, order=order, trend=trend, concentrate_scale=True)
        model.initialize_approximate_diffuse()
        theirs = model.filter(fit.params, cov_type="none").get_forecast(5)
        ours = carried.predict(5)
        assert [mean for mean, _ in ours] == pytest.approx(theirs.predicted_mean, rel=1e-6)
        growth = np.array([variance for _, variance in ours])
        assert growth / growth[0] == pytest.approx(theirs.var_pred_mean / theirs.var_pred_mean[0], rel=1e-5)


def fit_of(values, order):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ArimaPredictor(PredictorOptions(60.0))._search(values, order, 0)


def carry(fit, values):
    from sagescale.planner.forecast.arima import _state_space

    model = _state_space(fit, 120, 1.0, None, "")
    for value in values:
        model.update(None if math.isnan(value) else float(value))
    return model


def test_a_period_is_found_in_a_wave_and_not_in_a_drift():
    hours = np.arange(24 * 6)
    random = np.random.default_rng(6)
    wave = 100.0 + 50.0 * np.sin(2.0 * np.pi * hours / 24.0) + 10.0 * random.standard_normal(len(hours))
    holed = np.where(hours % 5 == 2, np.nan, wave)
    drift = 100.0 + np.cumsum(random.standard_normal(len(hours)))
    for found, expected in ((wave, 24), (holed, 24), (wave[:40], None), (drift, None), (np.ones(144), None)):
        assert find_period(found, HOUR_S, (86_400.0, HOUR_S)) == expected


def test_prophet_says_that_a_short_window_is_a_trend_line():
    predictor = make_predictor("prophet", interval_s=60.0, window_size=30)
    for value in range(40):
        predictor.observe(100.0 + value)
    assert "no seasonality, a trend line" in predictor.forecast(1).note


def test_prophet_leaves_no_files_no_warnings_and_no_logger_changed(caplog, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # others may write to the machine's own
    logger = logging.getLogger("cmdstanpy")
    disabled, filters = logger.disabled, list(warnings.filters)
    predictor = make_predictor("prophet", interval_s=60.0)
    for value in range(25):
        predictor.observe(100.0 + value % 4)
    import cmdstanpy

    assert predictor.refits == 1
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("sagescale")]
    assert not [path for path in Path(cmdstanpy._TMPDIR).rglob("*") if path.is_file()]
    assert not caplog.records
    assert (logger.disabled, list(warnings.filters)) == (disabled, filters)


@pytest.mark.parametrize("name", ["arima", "prophet"])
def test_too_little_history_is_the_last_value_and_says_so(name):
    predictor = make_predictor(name, interval_s=60.0)
    for value in (5.0, None, 9.0):
        predictor.observe(value)
    forecast = predictor.forecast(2)
    assert forecast.mean == (9.0, 9.0)
    assert forecast.note.startswith("2 of the ")
    assert forecast.note.endswith("last value")


@pytest.mark.parametrize("name", ["arima", "prophet"])
def test_a_window_too_small_to_fit_says_so(name):
    predictor = make_predictor(name, interval_s=60.0, window_size=10)
    for value in range(50):
        predictor.observe(float(value))
    assert predictor.refits == 0
    assert predictor.forecast(1).mean == (49.0,)
    assert "a window size of 10 is under" in predictor.forecast(1).note


class Fixed:
    """A model that always forecasts one value."""

    note = ""

    def __init__(self, mean: float, variance: float = 1.0) -> None:
        self.ahead = mean, variance

    def update(self, value: float | None) -> None: ...

    def predict(self, horizon: int) -> list[tuple[float, float]]:
        return [self.ahead] * horizon


class Scripted(FittedPredictor):
    """Fits what it is told, or fails."""

    name = "scripted"
    least_windows = 12

    def __init__(self, *script: Fixed | Exception) -> None:
        super().__init__(100)
        self.script = list(script)
        self.lengths: list[int] = []

    def _fit(self, values, start):
        self.lengths.append(start + len(values))
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(step, Exception):
            raise step
        return step


def test_refits_are_counted_in_windows_and_grow_apart():
    predictor = observe(Scripted(Fixed(5.0)), [5.0] * 3_000)
    gaps = np.diff(predictor.lengths)
    assert predictor.lengths[:4] == [12, 22, 32, 42]
    assert (gaps >= 10).all()
    assert gaps.max() <= 720
    assert predictor.refits == len(predictor.lengths) < 25


def test_a_failed_first_fit_is_the_last_value_and_says_why():
    forecast = observe(Scripted(np.linalg.LinAlgError("singular\nmatrix")), range(15)).forecast(1)
    assert forecast.mean == (14.0,)
    assert "fit at window 12 failed (LinAlgError: singular matrix): last value" in forecast.note


def test_a_failed_refit_keeps_the_last_good_one_and_says_why():
    forecast = observe(Scripted(Fixed(20.0), FitError("no luck")), [20.0, 21.0] * 12).forecast(2)
    assert forecast.mean == (20.0, 20.0)
    assert forecast.note == "scripted fit at window 22 failed (no luck): the fit of window 12 is kept"


def test_a_fit_with_a_broken_variance_is_a_failed_fit():
    forecast = observe(Scripted(Fixed(20.0, math.nan)), [5.0] * 15).forecast(1)
    assert forecast.mean == (5.0,)
    assert "variance" in forecast.note


def test_a_model_that_turns_to_nan_falls_back_to_the_last_value():
    forecast = observe(Scripted(Fixed(math.nan, 1.0)), [5.0] * 15).forecast(2)
    assert forecast.mean == (5.0, 5.0)
    assert forecast.note == "scripted forecast no finite number: last value"


def test_a_model_worse_than_the_last_value_is_not_used():
    steady = [100.0 + i % 2 for i in range(60)]
    forecast = observe(Scripted(Fixed(150.0)), steady).forecast(1)
    assert forecast.mean == (101.0,)
    assert "over 1.25 times as wrong" in forecast.note


def test_no_mean_is_negative_or_beyond_twice_the_largest_value():
    assert observe(Scripted(Fixed(-50.0)), [10.0] * 14).forecast(1).mean == (0.0,)
    assert observe(Scripted(Fixed(1e30)), [10.0] * 14).forecast(1).mean == (20.0,)
