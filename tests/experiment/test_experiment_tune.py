"""Tuning: knobs are set where they should be, and what is chosen holds at the least GPU-hours tried."""

from __future__ import annotations

import dataclasses
import json
import sys

import numpy as np
import pytest
import yaml
from experiment_world import config, wave, without_timing, workload, written
from hypothesis import given
from hypothesis import strategies as st
from sagescale.cli.app import main
from sagescale.cli.tune_setup import load_tuning
from sagescale.experiment.execute import open_backend
from sagescale.experiment.searches import Answer, cheapest_reaching, search_all
from sagescale.experiment.tune import LEVELS, Goal, ranked, tune
from sagescale.experiment.tune_trials import (
    HEADROOMS,
    NEUTRAL,
    Space,
    Trial,
    Trials,
    candidate_of,
    least_headroom,
)
from sagescale.planner import AutoscalerConfig
from sagescale.planner.policy import policy_names
from sagescale.setup import choose
from sagescale.sim.config import SimulatorConfig
from sagescale.sim.part import Part
from sagescale.trace import GivenTrace, TransformSpec

COUNT = 40


@given(st.integers(0, COUNT), st.integers(0, COUNT - 1))
def test_the_first_position_that_reaches_it_is_found(first, start):
    """Where attainment and cost grow, the cheapest is the first that reaches it."""
    asked = []

    def answer(batch):
        asked.extend(batch)
        return {(key, at): Answer(0.995 if at >= first else 0.5 + at / 100, float(at)) for key, at in batch}

    found = search_all({"one": cheapest_reaching(COUNT, start, 0.99, 1)}, answer)
    assert found["one"] == (first if first < COUNT else COUNT - 1)
    assert len(asked) == len(set(asked)) <= 16


def test_a_search_without_an_answer_ends_and_the_others_go_on():
    searches = {name: cheapest_reaching(COUNT, 5, 0.99, 0) for name in ("good", "broken")}

    def answer(batch):
        return {(key, at): Answer(at / COUNT, 1.0) for key, at in batch if key == "good"}

    assert set(search_all(searches, answer)) == {"good"}


def tuned(
    jobs=1, refinements=8, attainment=0.97, policies=("classic", "reactive", "static"), count=16_000, **keys
):
    """The document of a small search on the wave, its first 60 % and its rest."""
    whole = workload(wave(count))
    cut_s = 0.6 * whole.trace().duration_s
    first = dataclasses.replace(whole, until_s=cut_s)
    base = config(target_itl_ms=20.0, **keys)
    space = Space(policies, ("constant", "kalman"), (60, 30), (0, 120), (1, 1))
    goal = Goal(attainment, 2, refinements)
    with open_backend("processes", jobs, None) as backend:
        earlier = Trials(first, Part(), base, SimulatorConfig(), backend)
        later = Trials(whole, Part(cut_s), base, SimulatorConfig(), backend)
        return written(tune(earlier, later, space, goal, "the rest"))


@pytest.fixture(scope="module")
def document():
    return tuned()


def test_nothing_tried_holds_for_less(document):
    chosen = document["chosen"]
    assert chosen["earlier"]["attainment"] >= 0.97
    holding = [hours for _, attainment, hours in document["tried"] if attainment >= 0.97]
    assert chosen["earlier"]["gpu_hours"] == min(holding)
    assert chosen["earlier"]["gpu_hours"] < max(holding)


def test_it_is_judged_on_the_later_part(document):
    later = document["chosen"]["later"]
    assert document["holds"] is (later["attainment"] >= 0.97)
    assert document["verdict"].startswith(document["chosen"]["name"])


def test_the_curve_rises(document):
    hours = [point["reached"]["earlier"]["gpu_hours"] for point in document["curve"] if point["reached"]]
    assert [point["attainment"] for point in document["curve"]] == list(LEVELS)
    assert len(hours) >= 3
    assert hours == sorted(hours)
    for point in document["curve"]:
        assert point["reached"] is None or point["reached"]["earlier"]["attainment"] >= point["attainment"]


def test_processes_make_no_difference(document):
    assert without_timing(tuned(jobs=2)) == without_timing(document)


def test_nothing_that_holds_is_said(document):
    del document
    none = tuned(attainment=1.0, policies=("classic",), refinements=0, max_decode_instances=1)
    assert none["chosen"]["earlier"]["attainment"] < 1.0
    assert "Nothing tried reaches 100.00 %" in none["verdict"]


def test_an_interruption_keeps_the_best(monkeypatch):
    from sagescale.experiment import tune_trials

    real, done = tune_trials.run_tasks, []

    def some(*arguments):
        done.append(1)
        return len(done) <= 12 and real(*arguments)

    monkeypatch.setattr(tune_trials, "run_tasks", some)
    stopped = tuned()
    assert stopped["interrupted"]
    assert stopped["chosen"] is not None
    assert stopped["chosen"]["later"] is None
    assert stopped["holds"] is None


@pytest.mark.parametrize(
    ("attainment", "words", "sized_for"),
    [(0.95, [], 0.95), (0.95, ["target_attainment=0.9"], 0.9), (1.0, [], 0.99), (0.3, [], 0.99)],
)
def test_what_is_to_be_kept_is_what_slo_sizes_for(attainment, words, sized_for):
    setup = load_tuning(GivenTrace(("steady",)), "0.4", None, [], words, TransformSpec(), attainment)
    assert setup.config.target_attainment == sized_for


def test_slo_is_written_with_what_it_sizes_for(document):
    row = next(one for one in (document["chosen"], *document["others"]) if one is not None)
    assert row["config"]["target_attainment"] == AutoscalerConfig().target_attainment


def test_every_policy_is_tried_unless_told_otherwise():
    assert "slo" in choose("--policies", "all", policy_names())


def two_parts(folder, later_rps):
    """A log whose later 40 % is as loud as asked, the earlier one a request a second."""
    rng = np.random.default_rng(0)
    calm, loud = rng.uniform(0.0, 900.0, 900), rng.uniform(900.0, 1500.0, 600 * later_rps)
    rows = "".join(f"{at:.4f},1000,200\n" for at in np.sort(np.concatenate([calm, loud])))
    (folder / "log.csv").write_text("arrival_s,isl,osl\n" + rows)
    return folder / "log.csv"


def run_tune(folder, monkeypatch, capsys, *words, later_rps=120):
    monkeypatch.setenv("COLUMNS", "80")
    small = ("--seeds", "1", "--refinements", "0", "--jobs", "1", "--predictors", "constant")
    out, json_out = folder / "tuned.yaml", folder / "tuned.json"
    files = ("--out", str(out), "--json", str(json_out))
    code = 0
    try:
        monkeypatch.setattr(
            sys, "argv", ["sagescale", "tune", str(two_parts(folder, later_rps)), *files, *small, *words]
        )
        main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    said = capsys.readouterr()
    return code, out, json.loads(json_out.read_text()), said


def test_what_was_seen_to_fail_is_not_handed_over(tmp_path, monkeypatch, capsys):
    code, out, document, said = run_tune(tmp_path, monkeypatch, capsys, "--policies", "classic")
    assert document["holds"] is False
    assert code == 1
    assert not out.exists()
    assert "not written" in said.err
    assert "on the later part: --force writes it" in said.err
    nearest = document["nearest_holding"]
    assert min(nearest["earlier"]["attainment"], nearest["later"]["attainment"]) >= 0.99
    assert f"The cheapest that holds on both parts is {nearest['name']}" in document["verdict"]


def test_force_writes_what_was_seen_to_fail(tmp_path, monkeypatch, capsys):
    code, out, document, said = run_tune(tmp_path, monkeypatch, capsys, "--policies", "classic", "--force")
    assert document["holds"] is False
    assert code == 0
    assert "does NOT hold" in out.read_text()
    assert "all the same" in said.err


def test_what_holds_is_written_with_numbers_as_numbers(tmp_path, monkeypatch, capsys):
    words = ("--policies", "classic", "--set", "startup_delay_s=45")
    code, out, document, _ = run_tune(tmp_path, monkeypatch, capsys, *words, later_rps=1)
    assert code == 0
    assert document["holds"] is True
    assert "nearest_holding" not in document
    assert yaml.safe_load(out.read_text())["startup_delay_s"] == 45


def test_the_header_counts_what_was_tried_and_tables_fit(tmp_path, monkeypatch, capsys):
    words = ("--policies", "slo,classic", "--rate-scale", "3")
    _, _, document, said = run_tune(tmp_path, monkeypatch, capsys, *words, later_rps=1)
    assert document["trace"]["requests"] == 3 * 1500
    # Lines that name a file are as long as its path.
    assert max(len(line) for line in said.out.splitlines() if str(tmp_path) not in line) <= 80


def test_slo_is_not_tried_with_headroom_below_one():
    document = tuned(policies=("slo",), refinements=8, count=4000, policy="slo")
    rows = [document["chosen"], *document["others"], *(point["reached"] for point in document["curve"])]
    assert min(row["config"]["load_headroom"] for row in rows if row and "slo" in row["name"]) >= 1.0
    assert HEADROOMS[least_headroom(config(load_headroom=2.0), "slo")] == pytest.approx(0.5, abs=0.03)
    assert least_headroom(config(), "classic") == 0


def test_of_equal_cost_the_one_further_from_failing_is_chosen():
    base = candidate_of(config(), "classic", "constant")
    trials = [
        Trial(dataclasses.replace(base, headroom=NEUTRAL - 5), 0.995, 2.0, 0.9, 2),
        Trial(dataclasses.replace(base, headroom=NEUTRAL), 0.995, 2.0, 0.9, 2),
        Trial(dataclasses.replace(base, policy="slo"), 0.995, 2.0, 0.9, 2),
        Trial(dataclasses.replace(base, interval_s=30), 0.999, 2.0, 0.95, 2),
        Trial(dataclasses.replace(base, interval_s=10), 1.0, 2.1, 1.0, 2),
    ]
    assert ranked(trials, 0.99) == [trials[3], trials[2], trials[1], trials[0], trials[4]]
