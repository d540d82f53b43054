"""sagescale from Python: what commands do and refuse, on data frames; and a stored document shown again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sagescale
from hypothesis import given, settings
from hypothesis import strategies as st
from sagescale.cli.app import app
from sagescale.document import read_result
from sagescale.errors import InputError
from sagescale.perf import load_profile
from sagescale.perf.build import ImportOptions
from sagescale.report.html import render_html
from sagescale.trace import read_trace
from typer.testing import CliRunner

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "arrival_s": rng.uniform(0, 300, 500),
            "isl": rng.integers(100, 2000, 500),
            "osl": rng.integers(10, 200, 500),
            "note": "columns of other names are nobody's business here",
        }
    )


def command(*words):
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exception is None, done.output
    return done.stdout


def test_a_run_is_what_the_command_makes_of_the_same_file(tmp_path):
    config = {"policy": "classic", "target_ttft_ms": 300}
    made = sagescale.simulate(
        "ramp", config=config, transforms=sagescale.trace.TransformSpec(rate_scale=4), profile=None
    )
    out, table, ticks = (tmp_path / name for name in ("run.json", "requests.parquet", "ticks.csv"))
    command(
        "simulate", "ramp", "--rate-scale", 4, "--policy", "classic", "--set", "target_ttft_ms=300",
        "--json", out, "--requests", table, "--timeline", ticks,
    )  # fmt: skip
    theirs = read_result(out).runs[0]
    assert made.attainment == theirs.sla.attainment
    assert made.gpu_hours == theirs.gpu_hours.total
    pd.testing.assert_frame_equal(made.requests, pd.read_parquet(table))
    pd.testing.assert_frame_equal(
        made.timeline[["time_s", "prefill_target", "decode_target"]],
        pd.read_csv(ticks)[["time_s", "prefill_target", "decode_target"]],
        check_dtype=False,
    )


def test_a_data_frame_is_a_trace_in_any_order(frame):
    trace = sagescale.read_trace(frame)
    again = sagescale.read_trace(frame.sample(frac=1.0, random_state=1))
    assert len(trace) == 500
    assert trace.arrival_s.tolist() == again.arrival_s.tolist()
    assert trace.isl.tolist() == again.isl.tolist()
    assert sagescale.read_trace(trace) is trace
    assert sagescale.read_trace("ramp").sha256 == read_trace("ramp").sha256


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda made: made.drop(columns="isl"), "no column isl; expected arrival_s, isl, osl"),
        (lambda made: made.assign(osl=0), "osl must be at least 1"),
        (lambda made: made.assign(arrival_s=np.nan), "arrival_s"),
        (lambda made: made.head(0), "at least one request"),
        (lambda made: made.assign(isl="many"), "isl"),
    ],
)
def test_a_data_frame_that_is_no_trace_is_refused(frame, change, words):
    with pytest.raises(sagescale.InputError, match=words):
        sagescale.read_trace(change(frame))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"polcy": "slo"}, "config.'polcy'.: unknown key 'polcy'; did you mean 'policy'"),
        ({"target_ttft_ms": -1}, "target_ttft_ms"),
        ("/nowhere/auto.yaml", "/nowhere/auto.yaml"),
    ],
)
def test_keys_are_refused_as_by_the_command(frame, config, words):
    with pytest.raises(sagescale.InputError, match=words):
        sagescale.simulate(frame, config=config)


def test_a_comparison_has_a_row_a_run(frame):
    made = sagescale.compare(
        frame, configs=[{"load_headroom": 1.0}, {"load_headroom": 1.5}], predictors=["constant"], jobs=1
    )
    assert {"classic/constant load_headroom=1", "classic/constant load_headroom=1.5"} <= set(made.runs.name)
    assert (made.runs.gpu_hours > 0).all()
    assert made.to_html().startswith("<!DOCTYPE html>")
    with pytest.raises(sagescale.InputError, match="attainment is 99"):
        sagescale.compare(frame, attainment=99)


def test_a_comparison_does_not_depend_on_what_was_done_to_the_same_trace_before():
    keys = {"predictors": ["constant"], "policies": ["static"], "jobs": 1}
    trace = sagescale.read_trace("spikes")
    columns = pd.DataFrame({name: getattr(trace, name) for name in ("arrival_s", "isl", "osl")})
    sagescale.simulate("spikes", transforms=sagescale.trace.TransformSpec(rate_scale=12))
    after = sagescale.compare("spikes", **keys).runs
    pd.testing.assert_frame_equal(after, sagescale.compare(columns, **keys).runs)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"replicates": 0}, "replicates is 0: expected a whole number, 1 or more"),
        ({"jobs": 0}, "jobs is 0: expected a whole number, 1 or more"),
        ({"policies": ["nope"]}, "'nope' is none of classic"),
        ({"predictors": ["kalmann"]}, "did you mean 'kalman'"),
        ({"configs": [{"gpu_hour_price": "b300:9"}]}, "gpu_hour_price"),
    ],
)
def test_a_comparison_refuses_what_the_command_refuses(frame, given, words):
    with pytest.raises(sagescale.InputError, match=words):
        sagescale.compare(frame, **given)


def test_a_comparison_has_one_profile(frame, shared):
    measured = {"profile_data_dir": str(shared / "profiles" / "dynamo_h200_llama-3.1-8b-fp8")}
    with pytest.raises(sagescale.InputError, match="one comparison has one profile"):
        sagescale.compare(frame, configs=[measured, {}], jobs=1)


def test_a_profile_is_imported_as_by_the_command(shared, tmp_path):
    source, out = shared / "profiles" / "dynamo_h200_llama-3.1-8b-fp8", tmp_path / "out.yaml"
    command("profile", "import", source, "--gpu", "h200", "--out", out)
    made = sagescale.import_profile(source, options=ImportOptions(gpu="h200", name="out"))
    theirs = load_profile(str(out))
    assert made.prefill == theirs.prefill
    assert made.decode == theirs.decode


def test_the_notebook_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for cell in json.loads((REPO / "examples" / "python.ipynb").read_text())["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), "python.ipynb", "exec"), names)  # ours
    assert names["result"].attainment > 0.9
    assert (tmp_path / "run.html").stat().st_size > 1e6


# --- a stored document ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stored")
    printed = command("simulate", "ramp", "--json", folder / "run.json")
    return folder / "run.json", printed


def test_a_stored_run_is_reported_as_it_was(stored, tmp_path):
    path, printed = stored
    assert command("report", path, "--html", tmp_path / "run.html") == printed
    assert (tmp_path / "run.html").read_text() == render_html(read_result(path))


def places(part, at=()):
    yield at
    entries = dict(enumerate(part[:2])) if isinstance(part, list) else part
    for key, entry in entries.items() if isinstance(entries, dict) else ():
        yield from places(entry, (*at, key))


@settings(max_examples=60)
@given(data=st.data())
def test_a_document_that_is_damaged_anywhere_is_shown_or_refused_in_one_line(stored, data, tmp_path_factory):
    made = json.loads(stored[0].read_text())
    *way, last = data.draw(st.sampled_from([at for at in places(made) if at]))
    part = made
    for key in way:
        part = part[key]
    part[last] = data.draw(st.sampled_from([None, 5, "x", [], {}, -1e308, True, [None], {"a": 1}]))
    path = tmp_path_factory.mktemp("damaged") / "run.json"
    path.write_text(json.dumps(made))
    done = CliRunner().invoke(app, ["report", str(path)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        assert isinstance(done.exception, sagescale.InputError)
        assert str(done.exception).startswith(str(path))
        assert "\n" not in str(done.exception)


def test_a_data_frame_may_say_which_answers_are_waited_for(tmp_path):
    columns = {"arrival_s": [5.0, 0.0, 9.0], "isl": [7, 8, 9], "osl": [1, 1, 1], "session_id": [3, 3, 3]}
    sessions = pd.DataFrame(columns | {"after": [[1], None, [0, 1]], "think_s": [2.0, 0.0, 1.0]})
    trace = sagescale.read_trace(sessions)
    assert trace.turns.lists(0, 3) == [[], [0], [0, 1]]
    assert trace.turns.think_s.tolist() == [0, 2, 1]
    file = sagescale.trace.write_trace(trace, tmp_path / "a.parquet")
    again = sagescale.read_trace(pd.read_parquet(file))
    assert again.turns.lists(0, 3) == trace.turns.lists(0, 3)
    for change, why in (
        ({"after": [[9], None, []]}, "after must name rows"),
        ({"after": [[2], None, []]}, "earlier ones only"),
        ({"after": ["x", None, []]}, "the data frame is no trace"),
    ):
        with pytest.raises(InputError, match=why):
            sagescale.read_trace(sessions.assign(think_s=0.0, **change))
    with pytest.raises(InputError, match="each with its session_id"):
        sagescale.read_trace(sessions.drop(columns="session_id"))
