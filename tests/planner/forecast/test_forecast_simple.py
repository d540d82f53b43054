"""The predictors that fit nothing, against what can be computed by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from forecast_world import fed
from sagescale.planner.forecast import Forecast, make_predictor


def test_constant_repeats_the_last_value_with_a_random_walks_spread():
    forecast = fed("constant", [10.0, 13.0, 10.0, 13.0]).forecast(4)
    assert forecast.mean == (13.0,) * 4
    assert forecast.std == pytest.approx([3.0, 3.0 * math.sqrt(2), 3.0 * math.sqrt(3), 6.0])


def test_constant_counts_unknown_windows_as_steps():
    """A change of 6 over four windows is worth 3 a window; two unknown windows widen what follows."""
    before = fed("constant", [10.0, None, None, None, 16.0])
    assert before.forecast(1).std == pytest.approx([3.0])
    before.observe(None)
    before.observe(None)
    assert before.forecast(1).mean == (16.0,)
    assert before.forecast(1).std == pytest.approx([3.0 * math.sqrt(3)])


def test_one_value_has_no_spread():
    for name in ("constant", "moving_average", "exponential_smoothing", "kalman"):
        forecast = fed(name, [None, 7.0]).forecast(2)
        assert forecast.mean == (7.0, 7.0)
        assert forecast.std == (0.0, 0.0)
        assert forecast.note == ""  # the method is the one named


def test_moving_average_is_the_mean_of_the_last_ten():
    forecast = fed("moving_average", [1e6, *range(1, 11)]).forecast(3)
    assert forecast.mean == pytest.approx((5.5,) * 3)
    assert forecast.std[2] == pytest.approx(np.std(range(1, 11), ddof=1) * math.sqrt(1.1))


def test_moving_average_takes_the_window_it_is_given():
    assert fed("moving_average", [100.0, 1.0, 2.0, 6.0], window_size=3).forecast(1).mean == (3.0,)


def test_moving_average_leaves_unknown_windows_out_but_lets_time_pass():
    average = fed("moving_average", [8.0, 2.0, None, 4.0], window_size=3)
    assert average.forecast(1).mean == (3.0,)
    for _ in range(3):
        average.observe(None)
    assert average.forecast(1).mean == (4.0,)
    assert "unknown" in average.forecast(1).note


def test_exponential_smoothing_follows_a_slow_trend_and_damps_it():
    ramp = [100.0 + 2.0 * i for i in range(60)]
    forecast = fed("exponential_smoothing", ramp).forecast(20)
    average = fed("moving_average", ramp).forecast(1).mean[0]
    assert average < ramp[-1] - 8.0
    assert ramp[-1] - 2.0 < forecast.mean[0] < ramp[-1] + 4.0
    steps = np.diff(forecast.mean)
    assert (steps > 0.0).all()
    assert (np.diff(steps) < 0.0).all(), "the trend fades"


def test_exponential_smoothing_forgets_what_left_its_window():
    recent = [50.0, 52.0, 49.0, 51.0, 50.0, 53.0, 50.0, 49.0, 51.0, 50.0]
    assert fed("exponential_smoothing", [1e6, *recent]).forecast(3) == fed(
        "exponential_smoothing", recent
    ).forecast(3)


def test_exponential_smoothing_falling_to_nothing_stops_at_zero():
    assert fed("exponential_smoothing", [90.0 - 10.0 * i for i in range(10)]).forecast(20).mean[-1] == 0.0


def test_kalman_follows_a_ramp():
    ramp = [100.0 + 5.0 * i for i in range(40)]
    assert fed("kalman", ramp).forecast(5).mean == pytest.approx(
        [300.0 + 5.0 * h for h in range(5)], rel=1e-3
    )


def test_kalman_averages_noise_away():
    random = np.random.default_rng(0)
    noisy = (100.0 + 10.0 * random.standard_normal(300)).tolist()
    forecast = fed("kalman", noisy).forecast(3)
    assert forecast.mean == pytest.approx([100.0] * 3, abs=3.0)
    assert forecast.std == pytest.approx([10.0] * 3, rel=0.3)


def test_kalman_takes_a_random_walk_for_one():
    random = np.random.default_rng(1)
    walk = (1_000.0 + np.cumsum(10.0 * random.standard_normal(400))).tolist()
    forecast = fed("kalman", walk).forecast(4)
    assert forecast.mean == pytest.approx([walk[-1]] * 4, abs=8.0)
    assert forecast.std[3] > 1.5 * forecast.std[0]


def test_kalman_nine_tenths_of_windows_lie_under_its_p90():
    random = np.random.default_rng(2)
    level = 500.0 + np.cumsum(5.0 * random.standard_normal(600)) + 15.0 * random.standard_normal(600)
    predictor = make_predictor("kalman", interval_s=60.0)
    under = []
    for now, then in itertools.pairwise(level):
        predictor.observe(float(now))
        under.append(then <= predictor.forecast(1).quantile(0.9))
    assert np.mean(under[50:]) == pytest.approx(0.9, abs=0.04)


def test_seasonal_naive_repeats_the_season_for_any_horizon():
    season = [5.0, 9.0, 2.0, 0.0]
    forecast = fed("seasonal_naive", season * 3, season_s=240.0).forecast(10)
    assert forecast.mean == (*season, *season, 5.0, 9.0)
    assert forecast.std == (0.0,) * 10
    assert forecast.note == ""


def test_seasonal_naive_is_a_day_by_default_and_says_what_it_lacks():
    naive = make_predictor("seasonal_naive", interval_s=3_600.0)
    for value in range(23):
        naive.observe(float(value))
    assert naive.forecast(1).mean == (22.0,)
    assert naive.forecast(1).note == "23 of the 24 windows of a season seen: last value"
    naive.observe(23.0)
    assert naive.forecast(2).mean == (0.0, 1.0)


def test_seasonal_naive_looks_one_season_further_for_an_unknown_window():
    naive = fed("seasonal_naive", [1.0, 2.0, 3.0, 4.0, None, 5.0], season_s=180.0)
    assert naive.forecast(3).mean == (4.0, 2.0, 5.0)
    twice = fed("seasonal_naive", [1.0, None, 3.0, 4.0, None, 5.0], season_s=180.0)
    assert twice.forecast(3).mean == (4.0, 5.0, 5.0)
    assert "1 windows unknown" in twice.forecast(3).note


@pytest.mark.parametrize(
    ("mean", "std"),
    [((-1.0,), (0.0,)), ((math.nan,), (0.0,)), ((1.0,), (math.inf,)), ((1.0, 2.0), (0.0,)), ((), ())],
)
def test_a_forecast_that_is_none_cannot_be_made(mean, std):
    with pytest.raises(ValueError, match="forecast"):
        Forecast(mean, std)


def test_quantiles_are_the_normal_ones_cut_at_zero():
    forecast = Forecast((100.0, 10.0), (10.0, 20.0))
    assert forecast.quantile(0.975, 0) == pytest.approx(119.6, abs=0.01)
    assert forecast.quantile(0.5) == 10.0
    assert forecast.quantile(0.01) == 0.0
    for q in (0.0, 1.0, math.nan):
        with pytest.raises(ValueError, match="strictly between"):
            forecast.quantile(q)
