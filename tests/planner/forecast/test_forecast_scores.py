"""Scores against their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sagescale.planner.forecast.scores import bias, coverage, mape, pinball, wape

NAN = math.nan


def test_mape_leaves_windows_without_traffic_out():
    assert mape([100.0, 0.0, 200.0], [110.0, 5.0, 180.0]) == pytest.approx(0.1)


def test_wape_counts_windows_without_traffic():
    assert wape([100.0, 0.0, 200.0], [110.0, 5.0, 180.0]) == pytest.approx(35.0 / 300.0)


def test_bias_is_signed():
    assert bias([10.0, 20.0], [13.0, 19.0]) == 1.0


def test_pinball_charges_misses_above_nine_times_more_at_p90():
    assert pinball([10.0], [0.0], 0.9) == pytest.approx(9.0)
    assert pinball([0.0], [10.0], 0.9) == pytest.approx(1.0)


def test_pinball_is_least_at_the_quantile():
    values = np.random.default_rng(0).normal(100.0, 10.0, 20_000)
    losses = {guess: pinball(values, np.full(20_000, guess), 0.9) for guess in (105.0, 112.8, 120.0)}
    assert min(losses, key=losses.get) == 112.8


def test_coverage_is_the_share_at_or_under():
    assert coverage([1.0, 2.0, 3.0, NAN], [1.0, 1.0, 5.0, 0.0]) == pytest.approx(2.0 / 3.0)


@pytest.mark.parametrize("score", [mape, wape, bias, coverage, lambda a, p: pinball(a, p, 0.5)])
def test_unknown_windows_are_left_out_and_nothing_known_is_unknown(score):
    assert score([10.0, NAN, 30.0], [12.0, 1.0, NAN]) == score([10.0], [12.0])
    assert score([10.0, None], [12.0, 3.0]) == score([10.0], [12.0])
    assert math.isnan(score([NAN], [1.0]))
    assert math.isnan(score([], []))


def test_nothing_but_zeros_has_no_percentage():
    assert math.isnan(mape([0.0, 0.0], [1.0, 2.0]))
    assert math.isnan(wape([0.0, 0.0], [1.0, 2.0]))


def test_arrays_of_different_length_and_impossible_quantiles_are_refused():
    with pytest.raises(ValueError, match="expected as many"):
        bias([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="strictly between"):
        pinball([1.0], [1.0], 1.0)
