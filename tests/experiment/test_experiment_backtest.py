"""Back-tests of predictors: the table, the scores, the winner, and what the commands print and write."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from experiment_world import compared, wave, written
from sagescale.cli.app import app
from sagescale.document import ResultDocument, from_keys
from sagescale.experiment.backtest import back_test, backtest_document, long_table
from sagescale.planner.forecast import make_predictor
from sagescale.trace import Trace, write_trace
from typer.testing import CliRunner


def level(noise: float, drift: float, windows: int = 120, seed: int = 0) -> Trace:
    """A trace whose requests scatter around a level, or walk."""
    rng = np.random.default_rng(seed)
    walk = np.cumsum(rng.normal(0, drift, windows)) if drift else np.zeros(windows)
    counts = np.maximum(1, 200 + walk + rng.normal(0, noise, windows)).astype(int)
    at = np.concatenate([60.0 * k + np.linspace(0.5, 59.5, n) for k, n in enumerate(counts)])
    return Trace.from_arrays(at, np.full(len(at), 100), np.full(len(at), 20))


def test_a_forecast_in_the_table_is_the_predictors_own():
    trace = level(10, 0)
    test = back_test(trace, ["kalman"], interval_s=60.0, horizon=2)
    table = long_table(test)
    predictor = make_predictor("kalman", interval_s=60.0)
    for value in test.load.requests[:30]:
        predictor.observe(value)
    forecast = predictor.forecast(2)
    rows = [
        number
        for number in range(len(table["series"]))
        if table["series"][number] == "requests" and table["cutoff_s"][number] == 1800.0
    ]
    assert [table["step"][row] for row in rows] == [1, 2]
    assert [table["window_end_s"][row] for row in rows] == [1860.0, 1920.0]
    assert [table["forecast"][row] for row in rows] == list(forecast.mean)
    assert [table["actual"][row] for row in rows] == test.load.requests[30:32].tolist()


def test_averages_win_where_load_scatters_and_the_verdict_says_so():
    document = backtest_document(
        wave(), back_test(level(30, 0), ["constant", "moving_average"], interval_s=60.0, horizon=1)
    )
    assert document.winner == "moving_average"
    assert "scatters around a level" in document.verdict


def test_the_last_value_wins_where_load_walks():
    document = backtest_document(
        wave(), back_test(level(0, 12), ["constant", "moving_average"], interval_s=60.0, horizon=1)
    )
    assert document.winner == "constant"
    assert "hard to beat" in document.verdict


def test_scores_are_at_the_horizon():
    one, three = (
        backtest_document(
            wave(), back_test(level(0, 12), ["constant"], interval_s=60.0, horizon=horizon)
        ).scores[0]
        for horizon in (1, 3)
    )
    assert one.series == three.series == "requests"
    assert one.wape < three.wape


# -- the commands

runner = CliRunner()


@pytest.fixture(scope="module")
def trace_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("trace") / "wave.csv"
    write_trace(wave(1500, 20), path)
    return path


def test_the_forecast_command_writes_a_row_a_forecast(trace_file, tmp_path):
    out = tmp_path / "f.csv"
    result = runner.invoke(
        app,
        ["forecast", str(trace_file), "--predictors", "constant,kalman", "--horizon", "2", "--csv", str(out)],
    )
    assert result.exit_code == 0, result.output
    assert "verdict" in result.output
    with out.open() as stream:
        rows = list(csv.DictReader(stream))
    assert {row["predictor"] for row in rows} == {"constant", "kalman"}
    assert {row["series"] for row in rows} == {"requests", "isl", "osl"}
    assert all(float(row["window_end_s"]) == float(row["cutoff_s"]) + 60 * int(row["step"]) for row in rows)


def test_the_compare_command_prints_and_writes(trace_file, tmp_path):
    out, table = tmp_path / "d.json", tmp_path / "t.csv"
    arguments = ["compare-predictors", str(trace_file), "--predictors", "constant", "--jobs", "1"]
    arguments += ["--set", "load_headroom=1,1.5", "--json", str(out), "--csv", str(table)]
    result = runner.invoke(app, arguments)
    assert result.exit_code == 0, result.output
    document = json.loads(out.read_text())
    with table.open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["name"] for row in rows] == [run["name"] for run in document["runs"]]
    assert "static/cheapest" in result.output
    assert document["comparison"]["winner"].split(" ")[0] in result.output
    for row in rows:
        causes = ("forecast", "startup", "whole_instances", "policy")
        assert sum(int(row[f"misses_{cause}"]) for cause in causes) == int(row["misses"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--predictors", "kalmann"], "did you mean"),
        (["--policies", "slow"], "--policies slow"),
        (["--attainment", "99"], "expected a share"),
        (["--set", "load_headrom=1,2"], "unknown key"),
        (["--set", "load_headroom=1,x"], "load_headroom"),
        (["--seeds", "0"], "--seeds 0"),
        (["--backend", "dask"], "--address"),
    ],
)
def test_a_mistake_is_refused_in_one_line_before_the_work(trace_file, arguments, words):
    from sagescale.errors import InputError

    result = runner.invoke(app, ["compare-predictors", str(trace_file), *arguments])
    assert isinstance(result.exception, InputError)
    assert words in str(result.exception)
    assert "\n" not in str(result.exception)


@pytest.mark.parametrize("width", [80, 140])
def test_the_report_prints_at_any_width(width):
    import io

    from rich.console import Console
    from sagescale.report.comparison import print_comparison

    document = compared(None, predictors=("constant", "kalman"))
    document["comparison"]["failed"] = [{"name": "classic/x", "error": "it broke"}]
    stream = io.StringIO()
    print_comparison(from_keys(ResultDocument, document), Console(file=stream, width=width))
    text = stream.getvalue()
    assert "it broke" in text
    assert all(run["name"] in text for run in document["runs"])
    if width == 140:
        assert max(map(len, text.splitlines())) <= width


def test_predictors_on_a_real_trace(shared):
    from sagescale.trace import read_trace

    names = ("constant", "moving_average", "exponential_smoothing", "kalman", "seasonal_naive")
    trace = read_trace(shared / "traces" / "azure_llm_2023_conv.csv")
    document = written(backtest_document(trace, back_test(trace, names, interval_s=60.0, horizon=1)))
    assert set(document["ranking"]) == set(names)
    # The facts in the documentation: over a minute this load is nearly a random walk.
    assert document["winner"] == "constant"
    assert abs(document["character"]["change_autocorrelation"]) < 0.1
