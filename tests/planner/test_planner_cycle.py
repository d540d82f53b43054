"""The cycle as a whole: determinism, unknowns, lies, the hands of others, and cost."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from planner_world import BUSY, NOTHING_KNOWN, ONE_GPU, RoundNumbers, make_planner, seen
from sagescale.errors import InputError
from sagescale.planner import (
    AutoscalerConfig,
    LoadPredictors,
    Observation,
    Planner,
    PoolCounts,
    Pools,
    ReasonCode,
    Sizes,
    make_load_predictors,
)

if TYPE_CHECKING:
    from sagescale.planner.forecast import Forecast

METRICS = [field.name for field in dataclasses.fields(Observation) if "None" in str(field.type)]

maybe = st.none() | st.floats(allow_nan=True, allow_infinity=True) | st.integers(-5, 10**7).map(float)
counts = st.builds(PoolCounts, *[st.integers(0, 12)] * 4)


@st.composite
def observations(draw: st.DrawFn) -> Observation:
    metrics = {name: draw(maybe) for name in METRICS}
    return Observation(
        time_s=draw(st.floats(0, 1e7)),
        window_s=draw(st.sampled_from([30.0, 60.0, 61.5])),
        pools=Pools(draw(counts), draw(counts)),
        **metrics,
    )


@given(st.lists(observations(), max_size=6), st.integers(9, 40))
def test_any_observations_at_all_give_sizes_within_limits_and_budget(windows, budget):
    planner = make_planner(max_gpu_budget=budget, prefill_gpus_per_instance=4)
    for window in windows:
        decision = planner.step(window)
        prefill, decode = decision.targets
        assert 1 <= prefill <= 10
        assert 1 <= decode <= 20
        assert 4 * prefill + decode <= budget
        assert decision.reasons
        json.dumps(decision.to_dict(), allow_nan=False)


@given(st.lists(observations(), min_size=1, max_size=5))
def test_equal_planners_decide_equally(windows):
    first, second = make_planner(), make_planner()
    assert [first.step(window) for window in windows] == [second.step(window) for window in windows]


@pytest.mark.parametrize("missing", METRICS)
def test_a_missing_metric_never_scales_down(missing):
    planner, blind = make_planner(), make_planner()
    for tick in range(1, 6):
        busy = seen(BUSY, time_s=60.0 * tick, requests=600.0 * tick, decode=PoolCounts(ready=2 * tick))
        whole = planner.step(busy)
        part = blind.step(seen(busy, **{missing: None} if tick > 2 else {}))
        assert part.targets.prefill >= min(whole.targets.prefill, part.current.prefill)
        assert part.targets.decode >= min(whole.targets.decode, part.current.decode)


@pytest.mark.parametrize("lie", [math.nan, math.inf, -1.0])
@pytest.mark.parametrize("name", ["requests", "isl_mean", "osl_mean", "ttft_ms_mean", "itl_ms_mean"])
def test_an_impossible_value_is_unknown_and_said(name, lie):
    lied, unknown = make_planner(), make_planner()
    lied.step(BUSY)
    unknown.step(BUSY)
    told = lied.step(seen(BUSY, **{name: lie}))
    assert told.has(ReasonCode.INVALID_METRIC)
    assert told.targets == unknown.step(seen(BUSY, **{name: None})).targets


@pytest.mark.parametrize("name", ["isl_mean", "osl_mean", "ttft_ms_mean", "itl_ms_mean", "duration_s_mean"])
def test_an_average_over_nothing_reported_as_zero_is_unknown(name):
    zero, unknown = make_planner(), make_planner()
    zero.step(BUSY)
    unknown.step(BUSY)
    assert zero.step(seen(BUSY, **{name: 0.0})) == unknown.step(seen(BUSY, **{name: None}))


def test_demand_is_what_arrives_not_what_completes():
    overloaded = seen(BUSY, requests=2400.0, completed=100.0)
    assert make_planner().step(overloaded) == make_planner().step(seen(overloaded, completed=2400.0))


def test_an_idle_pool_is_given_back_though_every_average_is_unknown():
    planner = make_planner(load_predictor_type="moving_average", prediction_window_size=3)
    planner.step(seen(BUSY, requests=3000.0))
    for tick in range(2, 6):
        decision = planner.step(
            seen(NOTHING_KNOWN, time_s=60.0 * tick, requests=0.0, decode=PoolCounts(ready=8))
        )
    assert decision.targets == Sizes(1, 1)


def test_a_moving_average_is_fed_the_windows_without_traffic():
    planner = make_planner(load_predictor_type="moving_average", prediction_window_size=2)
    planner.step(seen(BUSY, requests=1200.0))
    half = planner.step(seen(NOTHING_KNOWN, requests=0.0))
    assert half.forecast.requests == pytest.approx(600.0)
    assert half.targets == Sizes(1, 2)


@dataclass
class Recorder:
    """A predictor that remembers what it was told."""

    name: str = "recorder"
    refits: int = 0
    cadence: str = "never"
    told: list[float | None] = field(default_factory=list)

    def observe(self, value: float | None) -> None:
        self.told.append(value)

    def forecast(self, horizon: int) -> Forecast | None:
        return None


def test_predictors_are_told_zero_unknown_and_the_last_known_lengths():
    told = LoadPredictors(Recorder(), Recorder(), Recorder())
    planner = Planner(AutoscalerConfig(**ONE_GPU), RoundNumbers(), predictors=told)
    for window in (NOTHING_KNOWN, BUSY, seen(NOTHING_KNOWN, requests=0.0), NOTHING_KNOWN):
        planner.step(window)
    assert told.requests.told == [None, 600.0, 0.0, None]
    assert told.isl.told == [None, 1000.0, 1000.0, 1000.0]
    assert told.osl.told == [None, 200.0, 200.0, 200.0]


def test_a_longer_window_is_scaled_to_the_interval():
    decision = make_planner().step(seen(BUSY, window_s=120.0, requests=1200.0))
    assert decision.forecast.requests == pytest.approx(600.0)


@pytest.mark.parametrize("start", [1, 2, 5, 20])
def test_constant_load_comes_to_rest_and_does_not_flap(start):
    """A flat threshold flapped 2 <-> 1; demand over capacity, in a world as profiled, has one answer."""
    perf, planner, ready, seen_sizes = RoundNumbers(), make_planner(), start, []
    for tick in range(1, 12):
        # The world obeys the profile: concurrency c an instance solves c = rate * osl * itl(c).
        per_instance_s = 10.0 * 200.0 / ready  # tokens/s an instance
        step_s = perf.step_floor_ms / 1e3 / max(1 - per_instance_s * perf.step_ms_per_request / 1e3, 0.1)
        window = seen(
            BUSY,
            time_s=60.0 * tick,
            itl_ms_mean=step_s * 1e3,
            duration_s_mean=0.1 + 199 * step_s,
            decode=PoolCounts(ready=ready),
        )
        ready = planner.step(window).targets.decode
        seen_sizes.append(ready)
    assert len(set(seen_sizes[2:])) == 1


def test_a_scale_up_that_never_finishes_freezes_nothing():
    planner = make_planner()
    stuck = PoolCounts(ready=1, starting=3)
    up = planner.step(seen(BUSY, requests=2400.0, prefill=stuck, decode=stuck))
    later = planner.step(seen(BUSY, requests=60.0, prefill=stuck, decode=stuck))
    assert up.targets.prefill == 4
    assert later.targets.prefill == 1


def test_replicas_changed_by_hand_are_noticed_adopted_and_said():
    planner = make_planner()
    decided = planner.step(BUSY).targets
    same = planner.step(seen(BUSY, prefill=PoolCounts(decided.prefill), decode=PoolCounts(decided.decode)))
    assert not same.has(ReasonCode.REPLICAS_CHANGED)
    by_hand = planner.step(seen(NOTHING_KNOWN, prefill=PoolCounts(5), decode=PoolCounts(7)))
    assert by_hand.has(ReasonCode.REPLICAS_CHANGED)
    assert by_hand.targets == Sizes(5, 7)


def test_whoever_acts_tells_what_was_really_set():
    planner = make_planner()
    planner.step(BUSY)
    planner.applied(Sizes(3, 4))  # a step cap, say
    found = seen(BUSY, prefill=PoolCounts(3), decode=PoolCounts(4))
    assert not planner.changed_by_others(Sizes(3, 4))
    assert planner.changed_by_others(Sizes(5, 5))
    assert not planner.step(found).has(ReasonCode.REPLICAS_CHANGED)
    planner.applied(None)
    assert not planner.step(seen(found, prefill=PoolCounts(9))).has(ReasonCode.REPLICAS_CHANGED)


def test_a_launch_that_waits_for_gpus_is_still_asked_for():
    held = make_planner().step(seen(NOTHING_KNOWN, decode=PoolCounts(ready=4, waiting=2)))
    assert held.targets.decode == 6


def test_holding_still_obeys_limits_and_budget():
    held = make_planner(max_gpu_budget=6).step(
        seen(NOTHING_KNOWN, prefill=PoolCounts(ready=0), decode=PoolCounts(ready=9))
    )
    assert held.targets == Sizes(1, 5)
    assert {ReasonCode.AT_MIN_PREFILL, ReasonCode.GPU_BUDGET} <= {reason.code for reason in held.reasons}


def test_a_dry_run_decides_the_same_and_says_it_is_one():
    acting, dry = make_planner(), make_planner(no_operation=True)
    for tick in range(1, 4):
        window = seen(BUSY, time_s=60.0 * tick, requests=1000.0 * tick)
        act, look = acting.step(window), dry.step(window)
        assert look.targets == act.targets
        assert look.no_operation
        assert look.has(ReasonCode.DRY_RUN)
        assert not look.has(ReasonCode.REPLICAS_CHANGED)
        assert not act.no_operation


def test_a_decision_shows_what_each_constraint_changed():
    decision = make_planner(max_gpu_budget=8).step(seen(BUSY, requests=60_000.0))
    assert decision.raw == Sizes(100, 125)
    assert [(change.constraint, change.after) for change in decision.adjustments] == [
        ("instance_limits", (10, 20)),
        ("gpu_budget", decision.targets),
    ]
    assert sum(decision.targets) == 8


def test_a_decision_is_plain_json():
    decision = make_planner(max_gpu_budget=8).step(seen(BUSY, requests=6000.0))
    document = json.loads(json.dumps(decision.to_dict()))
    assert document["targets"] == {"prefill": 4, "decode": 4}
    assert document["reasons"][0] == {"code": "scale_up", "text": "prefill 1 -> 4, decode 2 -> 4"}
    assert document["adjustments"][-1]["constraint"] == "gpu_budget"
    assert list(document) == [
        "time_s", "targets", "current", "forecast", "corrections", "raw", "adjustments", "reasons",
        "no_operation",
    ]  # fmt: skip


def test_a_rebalance_names_both_directions():
    decision = make_planner().step(
        seen(BUSY, requests=2400.0, osl_mean=1.0, prefill=PoolCounts(1), decode=PoolCounts(9))
    )
    assert [reason.text for reason in decision.reasons[:2]] == ["prefill 1 -> 4", "decode 9 -> 1"]


@pytest.mark.parametrize(
    ("keys", "window"),
    [
        ({}, None),
        ({"prediction_window_size": 20}, 20),
        ({"history_points": 500}, 500),
        ({"history_points": 500, "prediction_window_size": 20}, 500),
    ],
)
def test_the_window_bounds_fitted_predictors_only_where_it_was_set(monkeypatch, keys, window):
    from sagescale.planner import forecast

    given_to = {}

    def record(name, **options):
        given_to[name] = options["window_size"]
        return Recorder()

    monkeypatch.setattr(forecast, "make_predictor", record)
    for name in ("kalman", "moving_average"):
        make_load_predictors(AutoscalerConfig(load_predictor_type=name, **keys))
    assert given_to == {"kalman": window, "moving_average": keys.get("prediction_window_size", 10)}


def test_a_misspelt_predictor_is_refused_not_taken_for_constant():
    with pytest.raises(InputError, match="did you mean 'moving_average'"):
        AutoscalerConfig(load_predictor_type="moving_avrage")


@pytest.mark.parametrize("policy", ["static", "reactive"])
def test_what_explains_a_decision_is_the_same_whenever_somebody_looks(policy):
    windows = [
        seen(BUSY, time_s=60.0 * number, requests=60.0 * number, ttft_ms_mean=900.0 / number)
        for number in range(1, 9)
    ]
    early, late = make_planner(policy=policy), make_planner(policy=policy)
    at_once = [early.step(window).to_dict() for window in windows]
    decisions = [late.step(window) for window in windows]
    assert decisions[3].to_dict() == at_once[3], "in the middle first"
    assert [decision.to_dict() for decision in decisions] == at_once
    assert late.get_status() == early.get_status()
