"""A comparison finds the baselines, ranks, splits misses exactly, and never beats the lower bound."""

from __future__ import annotations

import dataclasses
import json
import re
from itertools import pairwise

import numpy as np
import pytest
from experiment_world import PROFILE, compared, config, variants, wave, without_timing, workload, written
from hypothesis import given
from hypothesis import strategies as st
from sagescale.document import RunDocument, from_keys
from sagescale.experiment.compare import Comparison, compare
from sagescale.experiment.execute import Backend, open_backend
from sagescale.experiment.misses import split_misses
from sagescale.experiment.tasks import RunTask
from sagescale.experiment.verdict import rank, verdict
from sagescale.planner import policy_names
from sagescale.sim.config import SimulatorConfig
from sagescale.sim.result import run_document
from sagescale.sim.simulate import simulate
from sagescale.trace import Trace

PREDICTORS = ("constant", "moving_average", "kalman")


@pytest.fixture(scope="module")
def document():
    return compared(None, policies=policy_names(), predictors=PREDICTORS)


def named(document, name):
    (run,) = [run for run in document["runs"] if run["name"] == name]
    return run


def test_every_baseline_is_there(document):
    names = {run["name"] for run in document["runs"]}
    assert {"reactive", "static/peak", "static/cheapest", "classic/oracle", "clairvoyant"} <= names
    assert {f"classic/{predictor}" for predictor in PREDICTORS} <= names
    assert document["lower_bound_gpu_hours"] > 0


def test_baselines_are_there_whatever_policies_are_asked_for():
    names = {run["name"] for run in compared(None, {}, policies=("classic",))["runs"]}
    assert {"reactive", "static/peak", "static/cheapest", "clairvoyant"} <= names


def test_those_that_reach_the_attainment_come_first_by_gpu_hours(document):
    asked = document["comparison"]["attainment_asked"]
    reaching = len(document["comparison"]["reaching"])
    good, rest = document["runs"][:reaching], document["runs"][reaching:]
    assert all(run["sla"]["attainment"] >= asked for run in good)
    assert all(run["sla"]["attainment"] < asked for run in rest)
    hours = [run["gpu_hours"]["total"] for run in good]
    assert hours == sorted(hours)


def test_the_winner_is_the_cheapest_that_does_not_know_the_future():
    document = compared(None, {"load_headroom": 1.0}, {"load_headroom": 2.0}, predictors=PREDICTORS)
    winner = named(document, document["comparison"]["winner"])
    assert winner["kind"] == "candidate"
    candidates = [
        run
        for run in document["runs"]
        if run["kind"] == "candidate" and run["name"] in document["comparison"]["reaching"]
    ]
    assert winner["gpu_hours"]["total"] == min(run["gpu_hours"]["total"] for run in candidates)
    assert document["comparison"]["verdict"].startswith(winner["name"])


def test_what_is_known_in_hindsight_is_the_least_of_all_configurations():
    document = compared(wave(600), {"max_gpu_budget": 8, "min_decode_instances": 4}, {"max_gpu_budget": 8})
    found = [run["gpu_hours"]["total"] for run in document["runs"] if run["kind"] == "hindsight"]
    assert min(found) < max(found)
    assert document["comparison"]["clairvoyant_gpu_hours"] == min(
        run["gpu_hours"]["total"] - (run["regret_gpu_hours"] or 0.0)
        for run in document["runs"]
        if run["name"] in document["comparison"]["reaching"]
    )


def test_a_verdict_speaks_of_candidates_where_only_what_knows_the_future_reaches_it(document):
    runs = [from_keys(RunDocument, run) for run in document["runs"]]
    best = next(run for run in runs if run.kind == "hindsight")
    others = [run for run in runs if run.kind == "candidate"]
    for reaching, words in ((1, "No candidate reaches 99 %"), (2, "the only one of"), (3, "the cheapest of")):
        text = verdict([best, *others], reaching, 0.99)[1]
        assert words in text
        assert "candidate" in text.partition(":")[0]
    assert verdict([best], 1, 0.99) == (None, "No candidate was run.")


def test_where_nobody_reaches_it_the_verdict_says_what_is_in_the_way():
    document = compared(None, {"max_decode_instances": 1, "max_prefill_instances": 1}, attainment=1.0)
    assert document["comparison"]["winner"] is None
    assert "No candidate reaches 100 %" in document["comparison"]["verdict"]
    assert "misses come from" in document["comparison"]["verdict"]


def test_misses_add_up_and_are_those_of_the_attainment(document):
    for run in document["runs"]:
        misses = run["misses"]
        shares = [misses[cause] for cause in ("forecast", "startup", "whole_instances", "policy")]
        assert shares[-1] >= 0
        assert sum(shares) == misses["total"]
        good = round(run["sla"]["attainment"] * run["requests"]["arrived"])
        assert misses["total"] == run["requests"]["arrived"] - good


@given(st.integers(0, 10**6), *[st.none() | st.integers(0, 10**6)] * 3)
def test_a_split_adds_up_whatever_the_counterfactuals_miss(total, true_load, no_startup, one_more):
    split = split_misses(total, true_load=true_load, no_startup=no_startup, one_more=one_more)
    shares = [getattr(split, cause) for cause in ("forecast", "startup", "whole_instances", "policy")]
    assert sum(shares) == total
    steps = [total]
    for left in (true_load, no_startup, one_more):
        steps.append(steps[-1] if left is None else left)
    assert shares == [before - after for before, after in pairwise(steps)] + [steps[-1]]


def test_a_cause_that_helped_is_below_zero_and_nothing_lands_on_the_next():
    split = split_misses(100, true_load=300, no_startup=280, one_more=270)
    assert (split.forecast, split.startup, split.whole_instances, split.policy) == (-200, 20, 10, 270)


def test_what_knows_the_load_has_no_forecast_misses(document):
    for run in document["runs"]:
        if run["predictor"] in {"oracle", "none"} or run["policy"] == "static":
            assert run["misses"]["forecast"] == 0


def test_the_lower_bound_is_below_every_run(document):
    for run in document["runs"]:
        assert run["lower_bound_gpu_hours"] <= run["gpu_hours"]["total"]
    assert document["lower_bound_gpu_hours"] <= min(run["gpu_hours"]["total"] for run in document["runs"])


def test_a_comparison_says_of_a_run_what_simulate_says(document):
    trace = wave()
    keys = config(load_predictor_type="kalman")
    alone = written(
        run_document(simulate(trace, workload().profile, keys, SimulatorConfig()), "classic/kalman")
    )
    within = named(document, "classic/kalman")
    for key in alone:
        if key != "timing":
            assert within[key] == alone[key], key


def test_serial_and_parallel_documents_are_equal():
    keys = {"predictors": ("constant", "kalman"), "replicates": 2}
    serial, parallel = (compared(wave(1000), jobs=jobs, **keys) for jobs in (1, 2))
    assert json.dumps(without_timing(serial)) == json.dumps(without_timing(parallel))


def test_a_failing_run_is_reported_and_the_others_finish(monkeypatch):
    from sagescale.planner.forecast.kalman import KalmanPredictor

    def explode(self, horizon):
        raise RuntimeError("the filter\nexploded")

    monkeypatch.setattr(KalmanPredictor, "forecast", explode)
    # A trace of its own: forecasts that an earlier test made would be remembered.
    document = compared(wave(seed=7), predictors=("constant", "kalman"))
    assert document["comparison"]["failed"] == [
        {"name": "classic/kalman", "error": "RuntimeError: the filter exploded"}
    ]
    assert named(document, "classic/constant")
    assert named(document, "reactive")


def test_an_interruption_keeps_what_is_done():
    seen = []

    def interrupt(done, known):
        seen.append((done, known))
        if done == 8:
            raise KeyboardInterrupt

    document = written(
        compare(
            workload(),
            Comparison(variants(), ("classic",), ("constant",)),
            Backend("processes", 1),
            progress=interrupt,
        )
    )
    comparison = document["comparison"]
    assert comparison["interrupted"]
    assert len(seen) == 8
    assert comparison["not_run"]
    assert {run["name"] for run in document["runs"]}.isdisjoint(comparison["not_run"])
    assert any("interrupted" in warning for warning in document["warnings"])


def test_replicates_give_student_intervals():
    document = compared(wave(1500), predictors=("constant",), replicates=3)
    for run in document["runs"]:
        replicates = run["replicates"]
        assert len(replicates["gpu_hours"]) == len(replicates["attainment"]) == 3
        assert replicates["gpu_hours"][0] == run["gpu_hours"]["total"]
        assert replicates["gpu_hours_interval"]["half_width"] >= 0


def test_equal_runs_of_a_grid_are_done_once():
    document = compared(
        None, {"load_headroom": 1.0}, {"load_headroom": 1.5}, {"load_headroom": 1.0, "history_points": 50}
    )
    names = [run["name"] for run in document["runs"]]
    assert len(names) == len(set(names))
    # No fixed pair that holds and no schedule depends on the headroom of a planner.
    assert names.count("static/cheapest") == names.count("clairvoyant") == 1


def test_a_fixed_pair_is_searched_once_whatever_the_interval():
    document = compared(None, {"adjustment_interval_sec": 30}, {"adjustment_interval_sec": 60})
    names = [run["name"] for run in document["runs"]]
    assert names.count("static/cheapest") == 1
    assert len([name for name in names if name.startswith("static/cheapest")]) == 1
    cheapest = named(document, "static/cheapest")["gpu_hours"]["total"]
    for name in ("reactive adjustment_interval_sec=30", "reactive adjustment_interval_sec=60"):
        run = named(document, name)
        assert run["gpu_hours"]["total"] - run["regret_gpu_hours"] <= cheapest


def test_peaks_that_differ_have_names_that_differ():
    document = compared(None, {"load_headroom": 1.0}, {"load_headroom": 2.0})
    names = [run["name"] for run in document["runs"]]
    assert {"static/peak", "static/peak load_headroom=2"} <= set(names)
    assert len(names) == len(set(names))


def test_surges_between_ticks_are_told_and_only_ask_for_more():
    # Load that rises twentyfold in the middle of a window.
    arrivals = np.concatenate([np.arange(0.0, 320.0, 0.25), np.arange(320.0, 480.0, 0.0125)])
    trace = Trace.from_arrays(arrivals, np.full(len(arrivals), 1500), np.full(len(arrivals), 200))
    run = written(run_document(simulate(trace, PROFILE, config(policy="slo"), SimulatorConfig()), ""))
    assert run["scaling"]["surges"] == len(run["surges"]) > 0
    for surge in run["surges"]:
        assert surge["time_s"] not in run["timeline"]["time_s"]
        found, target = (
            [surge[f"{pool}_{end}"] for pool in ("prefill", "decode")] for end in ("found", "target")
        )
        assert found != target
        assert all(map(int.__le__, found, target))
        assert "scale_up" in surge["reasons"]


def test_the_verdict_names_whom_it_speaks_of(document):
    comparison = document["comparison"]
    assert not re.search(r"\bit keeps|\bits requests|the other's", comparison["verdict"])


def test_ranking_uses_the_mean_over_replicates():
    low = {"name": "a", "sla": {"attainment": 1.0}, "gpu_hours": {"total": 1.0}}
    low["replicates"] = {"gpu_hours_interval": {"mean": 3.0}, "attainment_interval": {"mean": 0.995}}
    high = {"name": "b", "sla": {"attainment": 0.992}, "gpu_hours": {"total": 2.0}}
    ranked, reaching = rank([from_keys(RunDocument, low), from_keys(RunDocument, high)], 0.99)
    assert [run.name for run in ranked] == ["b", "a"]
    assert reaching == ["b", "a"]


def test_a_backend_is_checked_before_anything_runs(monkeypatch):
    monkeypatch.setattr("sagescale.experiment.execute._CONNECT_S", 0.5)
    from sagescale.errors import InputError, SagescaleError

    for arguments in (("threads", 1, None), ("processes", 1, "tcp://x:1"), ("dask", 1, None)):
        with pytest.raises(InputError), open_backend(*arguments):
            pass
    with (
        pytest.raises(SagescaleError, match="no Dask scheduler"),
        open_backend("dask", 1, "tcp://127.0.0.1:9"),
    ):
        pass


def test_tasks_are_data():
    task = RunTask(config(), SimulatorConfig())
    assert task == dataclasses.replace(task)
    assert hash(task) == hash(dataclasses.replace(task))
