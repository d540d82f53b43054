"""Finished runs on disk, found again by their content: an arena that was stopped goes on where it was.

A key is made of the trace, what is done to it, the engines, the task with its whole configuration, and the
source code that can have an influence; the files of a policy count only for runs under that policy, those of
simulated engines for policies only for policies that try sizes on them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from functools import cache
from pathlib import Path

import sagescale
from offered import PACKAGE
from sagescale.experiment.searches import Schedule, StaticSizes
from sagescale.experiment.tasks import PartOutcome
from sagescale.planner import Sizes
from sagescale.planner.plugins import POLICIES
from sagescale.planner.policy import needs_twin, policy_names
from sagescale.sim.part import PartResult

_SOURCES = ("experiment", "sim", "planner", "perf", "trace")
_TWIN = {("planner", "policy", "twin.py"), ("sim", "twin.py")}
_SHARED_POLICIES = ("classic",)
"""Initial sizes and the schedules found in hindsight are made by its formulas."""


class Store:
    """Answers by key, in a file of JSON lines that only ever grows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = {}
        self._latest = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            for line in path.read_text().splitlines():
                try:
                    entry = json.loads(line)
                except json.JSONDecodeError:  # the line that was being written when it was stopped
                    continue
                self._remember(entry)

    def _remember(self, entry):
        self._known[entry["key"]] = entry
        if "task" in entry:
            self._latest[entry["task"]] = entry["key"]

    def of_any_code(self, key):
        """The key under which the same task was done last, by whatever code; None where it never was."""
        return self._latest.get(key.task)

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def get(self, key):
        entry = self._known[key]
        return _READ[entry["kind"]](entry["value"])

    def put(self, key, about, answer):
        kind = "none" if answer is None else type(answer).__name__
        value = _plain(answer)
        entry = {"key": key, "task": key.task, "about": about, "kind": kind, "value": value}
        self._remember(entry)
        with self._path.open("a") as stream:
            stream.write(json.dumps(entry) + "\n")


def _plain(answer):
    if isinstance(
        answer, StaticSizes
    ):  # sizes by pool are no tuple that could be made again from its entries
        sizes = None if answer.sizes is None else list(answer.sizes)
        return {"sizes": sizes, "simulations": answer.simulations}
    return dataclasses.asdict(answer) if dataclasses.is_dataclass(answer) else answer


class Key(str):
    """A key; ``task`` is the same without the code."""

    __slots__ = ("task",)


def key_of(workload, task):
    parts = (
        workload.recorded.sha256,
        workload.transforms,
        workload.block_s,
        workload.until_s,
        workload.profile,
        task,
    )
    digest = hashlib.sha256("\n".join(map(repr, parts)).encode())
    alone = digest.hexdigest()
    digest.update(_code(policy_of(task)).encode())
    key = Key(digest.hexdigest())
    key.task = alone
    return key


def policy_of(task):
    run = getattr(task, "run", task)
    return run.config.policy


@cache
def _code(policy):
    root = Path(sagescale.__file__).parent
    others = [name for name in policy_names() if name != policy and name not in _SHARED_POLICIES]
    digest = hashlib.sha256()
    for folder in _SOURCES:
        for path in sorted((root / folder).rglob("*.py")):
            place = path.relative_to(root).parts
            if place in _TWIN and not needs_twin(policy):
                continue
            if place[:2] == ("planner", "policy") and any(place[2].startswith(name) for name in others):
                continue
            digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    if policy not in POLICIES.built_in:
        for path in sorted(PACKAGE.rglob("*.py")):
            digest.update(path.relative_to(PACKAGE).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def _part_outcome(value):
    result = {name: tuple(item) if isinstance(item, list) else item for name, item in value["result"].items()}
    return PartOutcome(PartResult(**result), value["max_gpus"], value["simulate_s"], value["planner_s"])


_READ = {
    "PartOutcome": _part_outcome,
    "StaticSizes": lambda value: StaticSizes(
        None if value["sizes"] is None else Sizes(*value["sizes"]), value["simulations"]
    ),
    "Schedule": lambda value: Schedule(
        tuple(value["headrooms"]), value.get("hold_s", 0.0), tuple(value.get("floors", ()))
    ),
    "float": float,
    "none": lambda _: None,
}
