"""The arena keeps its own rules: sides, draws, the log, and what it says of the figures."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import draws
import judge
import judged_log
import numpy as np
import pytest
import traffic
from protocol import COARSE, GRID, INSTANT, TRUE_LOAD, highest_attainment
from sagescale.experiment.searches import Answer, search_all
from scenarios import ELSEWHERE, JUDGED, MADE_UP, SCENARIOS, WARM_UP_S, quick

ARENA = Path(judge.__file__).parent


def test_scenarios_stand_on_one_side():
    assert not any(scenario.judges for scenario in (*SCENARIOS, *ELSEWHERE, *MADE_UP))
    assert all(scenario.judges for scenario in JUDGED)
    assert all(scenario.seeds >= 5 and scenario.first_seed >= 1000 for scenario in JUDGED)
    with pytest.raises(ValueError, match="joins traces that set constants and traces that judge"):
        traffic.judges(f"{traffic.CONV} then {traffic.R1} x 2")


def test_traces_are_joined_one_after_the_other():
    joined = traffic.recorded("bursts x 0.5 then bursts")
    whole = traffic.recorded("bursts")
    half = len(joined) - len(whole)
    assert half == pytest.approx(len(whole) / 2, abs=1)
    begins_s = joined.arrival_s[half]
    np.testing.assert_allclose(joined.arrival_s[half:] - begins_s, whole.arrival_s, atol=1e-6)
    assert joined.sha256 not in {"", whole.sha256}


@pytest.mark.parametrize("peak", range(len(GRID)))
def test_the_highest_attainment_is_found_where_there_is_one_peak(peak):
    def answer(batch):
        return {(key, at): Answer(1.0 - abs(at - peak) / 100, float(at)) for key, at in batch}

    assert search_all({"one": highest_attainment(len(GRID), COARSE)}, answer)["one"] == peak


def test_the_same_seed_draws_the_same_scenarios(shared):
    del shared
    first = draws.draw(4, 17)
    assert first == draws.draw(4, 17)
    assert first[:2] == draws.draw(2, 17)
    assert first != draws.draw(4, 18)
    assert all(scenario.judges and scenario.seeds >= 5 for scenario in first)


def test_knobs_are_set_after_the_warm_up(shared):
    del shared
    hours = [scenario for scenario in JUDGED if scenario.name in {"mooncake", "mid_evening"}]
    for scenario in (*hours, MADE_UP[0]):
        assert scenario.cut_s > 1.5 * WARM_UP_S


def test_quick_is_less_of_the_same(shared):
    del shared
    day = next(scenario for scenario in JUDGED if scenario.name == "r1_day")
    less = quick(day)
    assert less.recorded().duration_s < 0.4 * day.recorded().duration_s
    assert (less.seeds, less.judges) == (2, True)


def row(name, attained, hours, kind="candidate", *, ratio=1.0, relaunches=0, **more):
    return {
        "name": name,
        "policy": name.partition("/")[0].partition(" ")[0],
        "kind": kind,
        "stopped": None,
        "attainment": {"mean": attained},
        "reaches": attained >= 0.99,
        "gpu_hours": {"mean": hours},
        "launches": 100,
        "relaunches": relaunches,
        "ratio_to_clairvoyant": 1.2,
        "paired_ratio_to_champion": ratio,
        "load_headroom": 1.0,
        "seeds": 5,
    } | more


def found(name, ours, *others, budget=False, tie=0.1):
    rows = [ours, *others]
    return judge.Found(name, True, budget, tie, ours, [r for r in others if r["kind"] == "candidate"], rows)


def said(*scenarios):
    return [met for met, _ in judge.verdicts(list(scenarios))]


def test_everything_that_is_asked_is_met_or_named():
    good = found(
        "a",
        row("slo", 0.991, 10.0, "default", relaunches=10),
        row("x", 0.99, 10.5),
        row("y", 0.98, 5.0),
        row(TRUE_LOAD, 0.995, 10.1, "variant", ratio=1.01),
        row(INSTANT, 0.992, 9.0, "variant", ratio=0.9),
    )
    other = found("b", row("slo", 0.999, 20.0, "default"), row("x", 0.97, 30.0), row("y", 0.98, 30.0))
    assert said(good, other) == [True] * 8
    bad = found(
        "c",
        row("slo", 0.992, 12.0, "default", relaunches=11, ratio_to_clairvoyant=1.6),
        row("x", 0.99, 10.0),
        row("y", 0.99, 10.0),
        row(TRUE_LOAD, 0.989, 10.0, "variant", ratio=0.9),
    )
    assert said(bad) == [True, False, False, False, False, False, False, False]
    missed = found("d", row("slo", 0.9899, 1.0, "default"), row("x", 0.98, 1.0))
    assert said(missed)[0] is False
    assert said(missed)[2] is None


def test_half_an_instance_over_the_run_is_a_tie():
    close = found("a", row("slo", 0.99, 10.0, "default"), row("x", 0.99, 8.0), tie=2.5)
    assert close.ratio(close.rivals[0]) == close.over_hindsight == 1.0


def test_where_a_budget_binds_the_best_rival_less_a_fifth_of_a_point_is_enough():
    ours = row("slo", 0.52, 10.0, "default")
    assert found("a", ours, row("x", 0.5219, 10.0), budget=True).holds
    assert not found("a", ours, row("x", 0.5221, 10.0), budget=True).holds


def test_churn_may_be_twice_that_of_who_knows_the_future():
    ours = row("slo", 0.99, 10.0, "default", relaunches=30)
    assert said(found("a", ours, row("clairvoyant", 0.99, 9.0, "reference", relaunches=15)))[-1]
    assert not said(found("a", ours, row("clairvoyant", 0.99, 9.0, "reference", relaunches=14)))[-1]


def test_unfavourable_rows_come_first():
    rows = [
        found("cheap", row("slo", 0.99, 10.0, "default"), row("x", 0.99, 20.0)),
        found("dear", row("slo", 0.99, 20.0, "default"), row("x", 0.99, 10.0)),
        found("missed", row("slo", 0.98, 10.0, "default"), row("x", 0.99, 10.0)),
    ]
    page = judge.overview(rows)
    assert page.index("| missed") < page.index("| dear") < page.index("| cheap |")


def test_only_what_judges_is_logged(tmp_path, monkeypatch):
    monkeypatch.setattr(judged_log, "LOG", tmp_path / "judged.csv")
    rows = [row("slo", 0.991, 10.0, "default")]
    judged_log.log(MADE_UP[0], rows)
    assert not judged_log.LOG.exists()
    judged_log.log(JUDGED[0], rows)
    judged_log.log(JUDGED[0], rows)
    with judged_log.LOG.open() as stream:
        lines = list(csv.DictReader(stream))
    assert [(line["scenario"], line["entry"], line["attainment"]) for line in lines] == [
        (JUDGED[0].name, "slo", "0.991000")
    ] * 2


def test_the_fields_policies_are_known_where_they_are_not_installed(tmp_path):
    code = (
        "import offered; offered.offer()\n"
        "from sagescale.planner import AutoscalerConfig\n"
        "from sagescale.planner.policy import policy_names\n"
        "AutoscalerConfig(policy='dynamo'); print(*policy_names())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ARENA,
        capture_output=True,
        text=True,
        check=True,
        env={"TMPDIR": str(tmp_path)},
    )
    assert {"slo", "dynamo", "keda_queue", "llm_d"} <= set(done.stdout.split())
    assert not list(tmp_path.iterdir())
