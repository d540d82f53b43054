"""Tuning: knobs are set where they should be, and what is chosen holds at the least GPU-hours tried."""

from __future__ import annotations

import dataclasses

import pytest
from experiment_world import config, wave, without_timing, workload, written
from hypothesis import given
from hypothesis import strategies as st
from sagescale.cli.options import choose
from sagescale.cli.tune_setup import load_tuning
from sagescale.experiment.execute import open_backend
from sagescale.experiment.searches import Answer, cheapest_reaching, highest_attainment, search_all
from sagescale.experiment.tune import LEVELS, Goal, tune
from sagescale.experiment.tune_trials import Space, Trials
from sagescale.planner import AutoscalerConfig
from sagescale.planner.policy import policy_names
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


@given(st.integers(0, COUNT - 1))
def test_the_highest_attainment_is_found_where_there_is_one_peak(peak):
    def answer(batch):
        return {(key, at): Answer(1.0 - abs(at - peak) / 100, float(at)) for key, at in batch}

    assert search_all({"one": highest_attainment(COUNT, 4)}, answer)["one"] == peak


def test_a_search_without_an_answer_ends_and_the_others_go_on():
    searches = {name: cheapest_reaching(COUNT, 5, 0.99, 0) for name in ("good", "broken")}

    def answer(batch):
        return {(key, at): Answer(at / COUNT, 1.0) for key, at in batch if key == "good"}

    assert set(search_all(searches, answer)) == {"good"}


def tuned(jobs=1, refinements=8, attainment=0.97, policies=("classic", "reactive", "static"), **keys):
    """The document of a small search on the wave, its first 60 % and its rest."""
    whole = workload(wave(16_000))
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
