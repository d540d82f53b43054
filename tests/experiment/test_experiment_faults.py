"""Comparisons in which things go wrong: the runs are simulate's, and what faults cost is said."""

from __future__ import annotations

import json

import pytest
from experiment_world import config, variants, wave, without_timing, workload, written
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console
from sagescale.document import ResultDocument, from_keys
from sagescale.experiment.compare import Comparison, compare
from sagescale.experiment.execute import Backend, open_backend
from sagescale.experiment.forecasts import ForecastMemo, PredictorSpec
from sagescale.experiment.tasks import ForecastTask, RunTask, perform
from sagescale.experiment.workload import arrivals_seen
from sagescale.report.comparison import print_comparison
from sagescale.report.comparison_csv import comparison_csv
from sagescale.report.html import render_html
from sagescale.sim.config import SimulatorConfig
from sagescale.sim.faults import Crash, Faults, Outage, Rates
from sagescale.sim.result import run_document
from sagescale.sim.scrapes import Visibility
from sagescale.sim.simulate import simulate

FAULTS = Faults(
    seed=5,
    rates=Rates(failing_start_probability=0.2, crash_per_instance_hour=2.0, metrics_vanish_per_hour=6.0),
    crashes=(Crash(at_s=200.0, pool="decode"),),
    outages=(
        Outage("metrics_freeze", 180.0, 300.0),
        Outage("metrics_lag", 400.0, 500.0, lag_s=90.0),
        Outage("no_gpus", 240.0, 330.0),
    ),
    file="faults.yaml",
)
WORLD = SimulatorConfig(scrape_delay_s=20.0, simulation_seed=3)
CAUSES = ("faults", "forecast", "startup", "whole_instances", "policy")


def compared(faults=FAULTS, jobs=1, **keys):
    comparison = Comparison(
        variants(simulator=WORLD), ("classic",), ("constant", "kalman"), 0.9, faults=faults, **keys
    )
    with open_backend("processes", jobs, None) as backend:
        return written(compare(workload(), comparison, backend))


@pytest.fixture(scope="module")
def document():
    return compared()


@pytest.mark.parametrize("predictor", ["constant", "kalman"])
def test_a_comparison_says_of_a_faulty_run_what_simulate_says(document, predictor):
    keys = config(load_predictor_type=predictor)
    trace, profile = wave(), workload().profile
    run, calm = (simulate(trace, profile, keys, WORLD, faults=faults) for faults in (FAULTS, None))
    alone = written(run_document(run, f"classic/{predictor}", without_faults=calm))
    (within,) = [run for run in document["runs"] if run["name"] == f"classic/{predictor}"]
    assert alone["faults"]["events"]
    for key in alone:
        if key != "timing":
            assert within[key] == alone[key], key


def test_yardsticks_have_the_same_faults(document):
    names = {run["name"] for run in document["runs"]}
    assert {"reactive", "classic/oracle", "static/peak", "static/cheapest", "clairvoyant"} <= names
    for run in document["runs"]:
        assert run["faults"]["counts"]["crash"] >= 1, run["name"]
        assert run["faults"]["without"] is not None, run["name"]


def test_misses_are_split_by_cause_faults_first(document):
    for run in document["runs"]:
        misses = run["misses"]
        assert sum(misses[cause] for cause in CAUSES) == misses["total"]
        calm = round((1.0 - run["faults"]["without"]["attainment"]) * run["requests"]["arrived"])
        assert misses["without"]["faults"] == calm
        assert misses["faults"] == misses["total"] - calm
    assert any(run["misses"]["faults"] for run in document["runs"])


def test_where_nothing_can_go_wrong_nothing_is_said_of_faults():
    document = compared(faults=None)
    for run in document["runs"]:
        assert run["faults"] is None
        assert run["misses"]["faults"] == 0
        assert run["misses"]["without"]["faults"] is None
    assert "w/o" not in printed(document)
    assert "w/o" not in "".join(
        render_html(from_keys(ResultDocument, document)).partition("</main>")[0].split("<main>")[1:]
    )


def test_serial_and_parallel_are_equal_with_faults():
    serial, parallel = (compared(jobs=jobs, replicates=2) for jobs in (1, 2))
    assert json.dumps(without_timing(serial)) == json.dumps(without_timing(parallel))


def test_replicates_have_luck_of_their_own():
    rates = Faults(rates=Rates(crash_per_instance_hour=20.0))
    crashes = []
    for replicate in (0, 1):
        task = RunTask(config(), WORLD, replicate=replicate, document=True, faults=rates)
        outcome = perform(workload(), task)
        crashes.append([event.time_s for event in outcome.document.faults.events])
    assert crashes[0] != crashes[1]


spans = st.tuples(st.integers(0, 70), st.integers(1, 30)).map(lambda pair: (10.0 * pair[0], 10.0 * sum(pair)))
outages = st.builds(
    lambda kind, span, lag: Outage(kind, *span, lag_s=lag),
    st.sampled_from(["metrics_vanish", "metrics_freeze", "metrics_lag"]),
    spans,
    st.sampled_from([10.0, 60.0, 100.0]),
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(outages, max_size=4),
    st.sampled_from([0.0, 10.0, 90.0]),
    st.sampled_from([0.0, 12.0]),
    st.integers(0, 5),
)
def test_arrivals_are_forecast_as_planners_see_them(scripted, delay_s, vanish_per_hour, seed):
    trace = wave(400, minutes=10)
    rates = Rates(metrics_vanish_per_hour=vanish_per_hour, metrics_vanish_s=90.0)
    faults = Faults(seed=seed, rates=rates, outages=tuple(scripted))
    world = SimulatorConfig(scrape_delay_s=delay_s)
    run = simulate(trace, workload().profile, config(), world, faults=faults)
    foretold = list(arrivals_seen(trace, 60.0, Visibility(60.0, world, faults)))
    seen = [(tick.observation.requests, tick.observation.isl_mean) for tick in run.ticks]
    assert len(foretold) >= 10
    assert seen[: len(foretold)] == foretold[: len(seen)]


@pytest.mark.parametrize(
    ("simulator", "faults", "seed"), [(SimulatorConfig(scrape_delay_s=90.0), None, 11), (WORLD, FAULTS, 12)]
)
def test_arrivals_are_forecast_once_however_metrics_fail(monkeypatch, simulator, faults, seed):
    """A run whose requests and ISL forecasts are given makes a predictor of OSL alone."""
    from sagescale.experiment import tasks

    task = RunTask(config(load_predictor_type="kalman"), simulator, faults=faults)
    load = workload(wave(900, seed=seed))
    memos = [perform(load, ForecastTask.of(task, series)).memo for series in ("requests", "isl")]
    monkeypatch.setattr(tasks, "_own", ForecastMemo())
    made = []
    real = PredictorSpec.make
    monkeypatch.setattr(PredictorSpec, "make", lambda self: made.append(self) or real(self))
    perform(load, task, memos)
    assert len(made) == 1


def test_faults_of_instances_change_no_forecast_of_arrivals():
    crash = Faults(seed=9, crashes=FAULTS.crashes, rates=Rates(crash_per_instance_hour=1.0), file="a.yaml")
    calm, crashing, blind = (RunTask(config(), WORLD, faults=faults) for faults in (None, crash, FAULTS))
    assert ForecastTask.of(calm, "isl") == ForecastTask.of(crashing, "isl")
    assert ForecastTask.of(calm, "isl") != ForecastTask.of(blind, "isl")


def test_a_comparison_that_is_interrupted_early_has_no_run_without_faults():
    def interrupt(done, known):
        del known
        if done == 12:
            raise KeyboardInterrupt

    comparison = Comparison(variants(), ("classic",), ("constant",), faults=FAULTS)
    document = written(compare(workload(), comparison, Backend("processes", 1), progress=interrupt))
    assert document["comparison"]["interrupted"]
    assert "interrupted" in printed(document)


# What is shown


def printed(document, width=80):
    console = Console(width=width, record=True, force_terminal=False)
    with console.capture() as capture:
        print_comparison(from_keys(ResultDocument, document), console)
    return capture.get()


def test_the_terminal_shows_each_run_without_its_faults(document):
    narrow, wide = printed(document), printed(document, 140)
    for text in (narrow, wide):
        assert "faults      faults.yaml" in text
        assert "metrics frozen for 2 min" in " ".join(text.split())
        assert "restarted" in text
        assert "attained w/o" in text
    assert max(map(len, narrow.splitlines())) <= 80
    assert "of them missed" in wide
    assert "fault  forec  start" in wide


def test_the_page_and_the_csv_show_it_too(document, tmp_path):
    page = render_html(from_keys(ResultDocument, document))
    assert 'data-key="calmhours"' in page
    assert "w/o faults" in page
    out = tmp_path / "table.csv"
    comparison_csv(out, from_keys(ResultDocument, document))
    header, first, *_ = out.read_text().splitlines()
    column = header.split(",").index("attainment_without_faults")
    assert float(first.split(",")[column]) == document["runs"][0]["faults"]["without"]["attainment"]
