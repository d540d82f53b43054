"""The parts of a comparison by themselves: grid, searches, memo, true load, replicates, intervals."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
from experiment_world import config, variants, wave, workload
from hypothesis import given, settings
from hypothesis import strategies as st
from sagescale.document import Interval
from sagescale.errors import InputError
from sagescale.experiment.forecasts import ForecastMemo, MemoPredictor, PredictorSpec
from sagescale.experiment.grid import combinations, grid_entries
from sagescale.experiment.searches import Schedule, cheapest_sizes, find_schedule, schedule_sizes
from sagescale.experiment.tasks import RunTask, perform
from sagescale.experiment.verdict import mean_interval
from sagescale.experiment.workload import TruePredictor, shift_blocks, true_load
from sagescale.perf import ProfileModel
from sagescale.planner import Sizes
from sagescale.sim.config import SimulatorConfig
from sagescale.sim.simulate import simulate
from sagescale.trace import Trace

SIMPLE = ("constant", "moving_average", "exponential_smoothing", "kalman", "seasonal_naive")
values = st.lists(st.none() | st.floats(0, 1e4), min_size=1, max_size=25)


# -- the grid


def texts(*overrides):
    return [chosen for _, chosen in combinations((), overrides)]


def test_values_are_parted_at_commas_and_combined():
    assert texts("load_headroom=1,1.2", "startup_delay_s=30,60") == [
        ("load_headroom=1", "startup_delay_s=30"),
        ("load_headroom=1", "startup_delay_s=60"),
        ("load_headroom=1.2", "startup_delay_s=30"),
        ("load_headroom=1.2", "startup_delay_s=60"),
    ]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("correction_bounds=0.5,2", ["0.5,2"]),
        ("correction_bounds=[0.5,2],[0.8,1.25]", ["[0.5,2]", "[0.8,1.25]"]),
        ("startup_delay_s=uniform:low=30,high=90", ["uniform:low=30,high=90"]),
        ("startup_delay_s=uniform:low=30,high=90;60", ["uniform:low=30,high=90", "60"]),
        ("metric_outage_s=60:120,180:240", ["60:120,180:240"]),
    ],
)
def test_a_value_with_commas_of_its_own_stays_whole(override, expected):
    name = override.partition("=")[0]
    assert texts(override) == [(f"{name}={value}",) for value in expected]


@pytest.mark.parametrize("override", ["policy=classic,reactive", "load_predictor_type=kalman,arima"])
def test_lists_of_policies_and_predictors_have_options_of_their_own(override):
    with pytest.raises(InputError, match="takes a list"):
        texts(override)


def test_variants_are_named_by_what_differs():
    labels = [variant.label for variant in variants({"load_headroom": 1.0}, {"load_headroom": 1.25})]
    assert labels == ["load_headroom=1", "load_headroom=1.25"]


def test_a_policy_without_forecasts_runs_once_for_all_predictors():
    names = [
        entry.name for entry in grid_entries(variants(), ("classic", "reactive"), ("constant", "kalman"))
    ]
    assert names == ["classic/constant", "classic/kalman", "classic/oracle", "reactive"]


# -- searches


@settings(max_examples=200)
@given(st.integers(1, 9), st.integers(1, 18), st.integers(0, 12), st.integers(1, 60), st.integers(1, 4))
def test_the_static_search_finds_what_a_full_grid_finds(prefill, decode, both, budget, gpus):
    def attainment_of(pair):
        return float(pair.prefill >= prefill and pair.decode >= decode and sum(pair) >= both)

    keys = config(max_gpu_budget=max(budget, gpus + 1), prefill_gpus_per_instance=gpus)
    found = cheapest_sizes(keys, attainment_of, 1.0)
    costs = [
        gpus * p + d
        for p in range(1, keys.max_prefill_instances + 1)
        for d in range(1, keys.max_decode_instances + 1)
        if attainment_of(Sizes(p, d)) and gpus * p + d <= keys.max_gpu_budget
    ]
    if not costs:
        assert found.sizes is None
    else:
        assert gpus * found.sizes.prefill + found.sizes.decode == min(costs)
    assert found.simulations < 60


def test_the_static_pair_found_reaches_the_attainment():
    from sagescale.experiment.tasks import StaticSearchTask

    found = perform(workload(), StaticSearchTask(config(), SimulatorConfig(), 0.99))
    keys = config(policy="static", static_prefill=found.sizes.prefill, static_decode=found.sizes.decode)
    world = SimulatorConfig(initial_prefill=found.sizes.prefill, initial_decode=found.sizes.decode)
    assert perform(workload(), RunTask(keys, world)).score.attainment >= 0.99


@given(st.floats(0.55, 3.5), st.floats(0.55, 3.5))
def test_the_schedule_search_returns_what_reaches(prefill, decode):
    def reaches(schedule):
        return schedule.headrooms[0] >= prefill and schedule.headrooms[1] >= decode

    found = find_schedule(reaches, 2)
    assert reaches(found)
    assert found.headrooms[0] <= 1.2 * max(prefill, 0.5 * decode)
    assert find_schedule(lambda _: False, 2) is None


def test_a_schedule_asks_a_startup_ahead():
    # One minute of load in the fourth window; startup takes two intervals.
    at = np.concatenate([[0.0], np.linspace(181, 239, 3000), [600.0]])
    trace = Trace.from_arrays(at, np.full(len(at), 2000), np.full(len(at), 100))
    world = SimulatorConfig(startup_delay_s=120.0)
    profile = ProfileModel(workload().profile)
    sizes = schedule_sizes(trace, profile, config(), world, Schedule((1.0, 1.0)))
    busy = [tick for tick, size in enumerate(sizes) if size.prefill > 1]
    assert busy == [1, 2, 3]
    held = schedule_sizes(trace, profile, config(), world, Schedule((1.0, 1.0), hold_s=150.0))
    assert [tick for tick, size in enumerate(held) if size.prefill > 1] == [1, 2, 3, 4, 5, 6]
    assert max(held) == max(sizes)
    for_ever = schedule_sizes(trace, profile, config(), world, Schedule((1.0, 1.0), hold_s=1e6))
    assert {tuple(size) for size in for_ever[1:]} == {tuple(sizes[1])}
    fixed = schedule_sizes(trace, profile, config(), world, Schedule.fixed(Sizes(2, 3)))
    assert {tuple(size) for size in fixed} == {(2, 3)}


# -- the true load


@given(st.lists(st.floats(0, 500), min_size=1, max_size=50), st.sampled_from([7.0, 60.0]))
def test_windows_hold_every_arrival_once(at, interval_s):
    trace = Trace.from_arrays(at, [5] * len(at), [3] * len(at))
    load = true_load(trace, interval_s)
    assert load.requests.sum() == len(at)
    assert set(load.isl[load.requests > 0]) <= {5.0}
    assert np.isnan(load.isl[load.requests == 0]).all()


def test_the_oracle_is_told_what_the_simulator_then_sees():
    trace = wave(1500)
    keys = config()
    from sagescale.experiment.workload import true_predictors

    load = true_load(trace, 60.0)
    run = simulate(trace, workload().profile, keys, SimulatorConfig(), predictors=true_predictors(load))
    told = [tick.decision.forecast for tick in run.ticks]
    seen = [tick.observation for tick in run.ticks]
    for forecast, observation in zip(told[:-1], seen[1:], strict=True):
        assert forecast.requests == observation.requests
        if observation.isl_mean is not None:
            assert forecast.isl == observation.isl_mean


def test_a_true_predictor_looks_any_horizon_ahead():
    predictor = TruePredictor(np.array([1.0, 2.0, 3.0]), beyond=0.0)
    predictor.observe(None)
    assert predictor.forecast(4).mean == (2.0, 3.0, 0.0, 0.0)


# -- the memo


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(SIMPLE), values, values)
def test_remembered_forecasts_are_the_predictors_own(name, first, second):
    memo = ForecastMemo()
    spec = PredictorSpec(name, 60, 10, None, None, horizon=2)
    for history in (first, second, first):
        plain, remembered = spec.make(), MemoPredictor(spec, memo)
        for value in history:
            plain.observe(value)
            remembered.observe(value)
            for horizon in (1, 2, 3):
                assert remembered.forecast(horizon) == plain.forecast(horizon)


def test_nothing_is_computed_that_a_sibling_has(monkeypatch):
    spec = PredictorSpec("kalman", 60, 10, None, None, horizon=2)
    memo = ForecastMemo()
    first = MemoPredictor(spec, memo)
    for value in (1.0, 2.0, None, 4.0):
        first.observe(value)
        first.forecast(1)
    first.snapshot()
    shared = pickle.loads(pickle.dumps(memo))  # as another process gets it
    made = []
    monkeypatch.setattr(PredictorSpec, "make", made.append)
    second = MemoPredictor(spec, shared)
    for value in (1.0, 2.0, None, 4.0):
        second.observe(value)
        second.forecast(1)
    # Beyond what the first saw it goes on from where the first stopped.
    second.observe(5.0)
    first.observe(5.0)
    assert second.forecast(1) == first.forecast(1)
    assert made == []


# -- replicates and intervals


@given(st.integers(1, 50), st.integers(2, 400), st.floats(10, 2000))
def test_shifted_blocks_keep_their_requests(seed, n, span_s):
    rng = np.random.default_rng(n)
    trace = Trace.from_arrays(rng.uniform(0, span_s, n), rng.integers(1, 99, n), np.arange(1, n + 1))
    moved = shift_blocks(trace, seed)
    assert len(moved) == n
    assert set(moved.osl) == set(trace.osl)
    assert moved.arrival_s[0] == 0
    assert moved.duration_s <= trace.duration_s


def test_replicates_differ_and_are_reproducible():
    one, again, two = (workload().trace(number) for number in (1, 1, 2))
    assert (one.arrival_s == again.arrival_s).all()
    assert not (one.arrival_s == two.arrival_s).all()


def test_the_interval_is_students():
    # t(0.975, 3) = 3.1824; s = 1.2910 of 1..4
    found = mean_interval([1.0, 2.0, 3.0, 4.0])
    assert found.mean == 2.5
    assert math.isclose(found.half_width, 3.18244630 * 1.29099445 / 2, rel_tol=1e-6)
    assert mean_interval([7.0]) == Interval(mean=7.0, half_width=None)
