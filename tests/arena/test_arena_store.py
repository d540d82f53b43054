"""Runs are found again by content and code; others' by content alone where that is asked for."""

from __future__ import annotations

import store as arena_store
from sagescale.experiment.searches import StaticSizes
from sagescale.experiment.tasks import PartTask, RunTask, StaticSearchTask
from sagescale.experiment.workload import Workload
from sagescale.fleet import Sizes
from sagescale.planner import AutoscalerConfig
from sagescale.sim.config import SimulatorConfig
from sagescale.sim.part import Part
from store import Store, key_of
from traffic import recorded
from worker import Worker


def task_of(policy):
    return PartTask(RunTask(AutoscalerConfig(policy=policy), SimulatorConfig()), Part())


def workload():
    from sagescale.perf import load_profile
    from sagescale.trace import TransformSpec

    return Workload(recorded("bursts"), TransformSpec(), load_profile("h200-llama-3.1-8b-fp8"), until_s=60.0)


def test_what_was_done_is_found_by_another_process(tmp_path):
    world, task = workload(), StaticSearchTask(AutoscalerConfig(), SimulatorConfig(), 0.99, Part())
    answer = StaticSizes(Sizes(3, 2), 7)
    Store(tmp_path / "s.jsonl").put(key_of(world, task), "about", answer)
    assert Store(tmp_path / "s.jsonl").get(key_of(world, task)) == answer


def test_others_may_be_older_than_the_code_but_the_champion_not(tmp_path, monkeypatch):
    world, runs = workload(), [task_of("classic"), task_of("slo")]
    kept = Store(tmp_path / "s.jsonl")
    for task in runs:
        kept.put(key_of(world, task), "about", 1.5)
    monkeypatch.setattr(arena_store, "_code", lambda policy: f"another day's {policy}")
    done = []

    def do(self, workload, tasks, found):
        del self, workload
        done.extend(tasks)
        for task in tasks:
            found(task, 2.5)

    monkeypatch.setattr(Worker, "_do", do)
    worker = Worker(None, Store(tmp_path / "s.jsonl"), fresh="slo")
    assert worker.answers(world, runs, "") == {runs[0]: 1.5, runs[1]: 2.5}
    assert (done, worker.old_runs) == ([runs[1]], 1)
    worker = Worker(None, Store(tmp_path / "s.jsonl"))
    assert worker.answers(world, runs, "") == {runs[0]: 2.5, runs[1]: 2.5}
