"""`auto` answers as whoever has lately been best at the horizon asked for, and says who that is."""

from __future__ import annotations

import functools
import time
from itertools import pairwise

import numpy as np
import pytest
from forecast_world import fed
from sagescale.planner.forecast import make_predictor
from sagescale.planner.forecast.scores import pinball
from sagescale.trace import read_trace

MEMBERS = ("constant", "kalman", "arima", "seasonal_naive")
MINUTE_S = 60.0
AHEADS = (1, 4)


def losses(name, observed, aheads, begin):
    """Score the 95th percentile that was forecast, so many windows before, of each from ``begin`` on."""
    return followed(name, tuple(observed), aheads, begin)[1]


@functools.cache
def followed(name, observed, aheads, begin):
    """A predictor that has seen a series, and its losses: fitting takes a while, and tests share series."""
    predictor = make_predictor(name, interval_s=MINUTE_S)
    found = {ahead: np.full(len(observed) + ahead, np.nan) for ahead in aheads}
    for now, value in enumerate(observed):
        predictor.observe(value)
        for ahead, percentiles in found.items():
            percentiles[now + ahead] = predictor.forecast(ahead).quantile(0.95)
    known = np.array(observed)[begin:]
    return predictor, [pinball(known, one[begin : len(observed)], 0.95) for one in found.values()]


def scattered(windows, level=100.0):
    return (level + np.random.default_rng(1).normal(0.0, 10.0, windows)).tolist()


def random_walk(windows):
    return np.maximum(1_000.0 + np.random.default_rng(2).normal(0.0, 20.0, windows).cumsum(), 0.0).tolist()


def test_until_five_windows_are_scored_it_is_the_last_value_and_says_so():
    forecast = fed("auto", [10.0, 20.0, 30.0]).forecast(2)
    assert forecast.mean == (30.0, 30.0)
    assert forecast.chosen == "last value: 2 of the 5 windows scored that choosing needs"
    assert "last value" not in fed("auto", [10.0, 20.0] * 5).forecast(2).chosen


def test_it_says_who_answers_for_which_windows():
    forecast = fed("auto", scattered(60)).forecast(20)
    names, firsts, lasts = [], [], []
    for part in forecast.chosen.split(", "):
        name, _, windows = part.partition(" for window")
        first, _, last = windows.removeprefix("s").strip().partition(" to ")
        names.append(name)
        firsts.append(int(first))
        lasts.append(int(last or first))
    assert set(names) <= set(MEMBERS)
    assert (firsts[0], lasts[-1]) == (1, 20)
    assert all(after == before + 1 for before, after in zip(lasts, firsts[1:], strict=False))
    assert all(one != other for one, other in pairwise(names))


@pytest.mark.parametrize(
    ("series", "best"),
    [(scattered(400), {"kalman", "arima"}), ([100.0 + 50.0 * (i % 24 == 9) for i in range(200)], None)],
    ids=["scatter", "a peak a day"],
)
def test_it_answers_as_one_that_has_lost_least(series, best):
    def after(name):
        if best is None:
            return fed(name, series, 3_600.0)
        return followed(name, tuple(series), AHEADS, 30)[0]

    auto = after("auto").forecast(1)
    chosen = auto.chosen.partition(" for ")[0]
    assert chosen in (best or {"seasonal_naive"})
    alike = after(chosen).forecast(1)
    assert auto.mean == pytest.approx(alike.mean, rel=0.05), "arima is fitted at other windows than alone"


def test_a_longer_forecast_begins_with_the_shorter_one():
    predictor = fed("auto", random_walk(90))
    longest = predictor.forecast(30)
    for horizon in (1, 3, 16, 17):
        shorter = predictor.forecast(horizon)
        assert (shorter.mean, shorter.std) == (longest.mean[:horizon], longest.std[:horizon])


def test_unknown_windows_are_not_scored():
    known = fed("auto", [10.0, 20.0, 30.0, 40.0])
    holed = fed("auto", [10.0, 20.0, None, None, None, None, 30.0])
    assert known.forecast(1).chosen.startswith("last value: 3 of")
    assert holed.forecast(1).chosen.startswith("last value: 2 of")


def test_one_burst_does_not_settle_two_hours():
    """The last value was right about one huge window; it is not therefore right about all others."""
    calm = scattered(120)
    before, after = (fed("auto", series).forecast(3) for series in (calm, [*calm, 5_000.0, 5_000.0]))
    assert before.chosen == after.chosen == "kalman for windows 1 to 3"


@pytest.mark.parametrize("series", [scattered(400), random_walk(400)], ids=["scatter", "walk"])
def test_it_loses_little_more_than_the_best_one(series):
    members = np.array([losses(name, series, AHEADS, 30) for name in MEMBERS])
    assert (losses("auto", series, AHEADS, 30) <= 1.06 * members.min(axis=0)).all()


def test_ticks_are_quick_and_nothing_is_fitted_in_the_first_half_hour():
    predictor = make_predictor("auto", interval_s=MINUTE_S)
    slowest_s = 0.0
    for value in random_walk(29):
        began = time.process_time()
        predictor.observe(value)
        predictor.forecast(6)
        slowest_s = max(slowest_s, time.process_time() - began)
    assert predictor.refits == 0
    assert slowest_s < 0.1
    for value in random_walk(6):
        predictor.observe(value)
    assert predictor.refits == 1


def test_on_two_days_of_a_service_it_is_as_good_as_the_best_in_hindsight(shared):
    trace = read_trace(shared / "traces" / "servegen_m-large_2d.parquet")
    counts = np.bincount((trace.arrival_s // MINUTE_S).astype(int)).astype(float)[:-1]
    loss = {name: losses(name, counts.tolist(), (6,), 12)[0] for name in ("auto", *MEMBERS)}
    assert loss["auto"] <= 1.05 * min(loss[name] for name in MEMBERS)
    assert loss["auto"] <= 0.9 * loss["constant"]
