"""Policies are names; other packages can add to them, and the documented one runs."""

from __future__ import annotations

import sys
import types
from dataclasses import dataclass
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import numpy as np
import pytest
from planner_world import RoundNumbers
from sagescale.declare import setting
from sagescale.errors import InputError
from sagescale.live.config import configuration_classes
from sagescale.perf import load_profile
from sagescale.planner import AutoscalerConfig, make_policy, policy_names
from sagescale.planner.describe import commented_yaml
from sagescale.planner.loading import autoscaler_config, load_settings
from sagescale.planner.policy import ENTRY_POINT_GROUP, needs_twin, uses_forecast
from sagescale.sim.config import SimulatorConfig
from sagescale.sim.result import configuration
from sagescale.sim.simulate import simulate
from sagescale.trace import Trace

PAGE = (Path(__file__).parents[2] / "docs" / "howto" / "policy.md").read_text()


class NoPolicy:
    def __init__(self, config, perf_model):
        pass


class Broken:
    needs_twin = True

    def __init__(self, config, perf_model, twin):
        raise ValueError("no luck")


@pytest.fixture
def installed(monkeypatch):
    """Pretend that packages are installed: the documented one, and some that are not right."""
    module = types.ModuleType("queue_policy")
    monkeypatch.setitem(sys.modules, "queue_policy", module)
    exec(
        compile(PAGE.partition("```python\n")[2].partition("```")[0], "queue_policy.py", "exec"), vars(module)
    )
    targets = {
        "queue": "queue_policy:QueuePolicy",
        "none": f"{__name__}:NoPolicy",
        "broken": f"{__name__}:Broken",
        "missing": f"{__name__}:Missing",
        "classic": f"{__name__}:NoPolicy",
    }
    points = EntryPoints(
        [
            *(EntryPoint(name, target, ENTRY_POINT_GROUP) for name, target in targets.items()),
            EntryPoint("queue", "queue_policy:QueueKeys", "sagescale.keys"),
        ]
    )
    monkeypatch.setattr("importlib.metadata.entry_points", points.select)


def test_the_built_in_names():
    assert policy_names()[:4] == ("classic", "reactive", "static", "slo")
    assert [name for name in policy_names()[:4] if needs_twin(name)] == ["slo"]
    assert [name for name in policy_names()[:4] if not uses_forecast(name)] == ["reactive", "static"]


def test_the_documented_policy_runs_in_a_simulation(installed):
    assert set(policy_names()) == {
        "classic",
        "reactive",
        "static",
        "slo",
        "queue",
        "none",
        "broken",
        "missing",
    }
    assert not uses_forecast("queue")
    rng = np.random.default_rng(0)
    trace = Trace.from_arrays(
        np.sort(rng.uniform(0, 900, 9000)), rng.integers(500, 4000, 9000), rng.integers(10, 300, 9000)
    )
    config = AutoscalerConfig(prefill_gpus_per_instance=1, decode_gpus_per_instance=1)
    policy = make_policy(config, RoundNumbers(), "queue")
    run = simulate(trace, load_profile("h200-llama-3.1-8b-fp8"), config, SimulatorConfig(), policy=policy)
    assert len({tick.decision.targets for tick in run.ticks}) > 1
    assert len(run.completed) == 9000


def test_a_policys_own_keys_are_configured_like_all_others(installed, tmp_path):
    path = tmp_path / "queue.yaml"
    path.write_text("queue_step: 3\n")
    config = autoscaler_config(load_settings((AutoscalerConfig,), [path]), RoundNumbers())
    assert make_policy(config, RoundNumbers(), "queue").step == 3
    assert make_policy(AutoscalerConfig(), RoundNumbers(), "queue").step == 1
    assert configuration(config, SimulatorConfig())["queue_step"] == 3
    assert "queue_step: 1\n" in commented_yaml(configuration_classes())
    path.write_text("queue_step: 0\n")
    with pytest.raises(InputError, match=r"queue.yaml:1: queue_step is 0; expected an integer >= 1"):
        load_settings((AutoscalerConfig,), [path])
    with pytest.raises(InputError, match="unknown key 'queue_stepp'; did you mean 'queue_step'"):
        load_settings((AutoscalerConfig,), [], ["queue_stepp=2"])


@dataclass(frozen=True)
class Clashing:
    tolerance: float = setting(0.0, doc="What the configuration has already.")


def test_keys_that_a_package_offers_have_names_of_their_own(monkeypatch):
    points = EntryPoints([EntryPoint("odd", f"{__name__}:Clashing", "sagescale.keys")])
    monkeypatch.setattr("importlib.metadata.entry_points", points.select)
    with pytest.raises(InputError, match="tolerance is declared by AutoscalerConfig and Clashing"):
        load_settings((AutoscalerConfig,))


def test_keys_that_a_package_offers_are_a_class_of_settings(monkeypatch):
    points = EntryPoints([EntryPoint("odd", f"{__name__}:NoPolicy", "sagescale.keys")])
    monkeypatch.setattr("importlib.metadata.entry_points", points.select)
    with pytest.raises(InputError, match=r"keys 'odd' \(entry point .*\): expected a frozen dataclass"):
        load_settings((AutoscalerConfig,))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "none",
            r"policy 'none' \(entry point .*:NoPolicy\) gives a NoPolicy, expected an object with name",
        ),
        ("broken", r"policy 'broken' \(entry point .*:Broken\) cannot be made: ValueError: no luck"),
        ("missing", r"policy 'missing' \(entry point .*:Missing\) cannot be made: AttributeError"),
        ("quueue", "policy is 'quueue'; expected one of classic, .*did you mean 'queue'"),
    ],
)
def test_what_is_no_policy_is_refused_in_one_line(installed, name, words):
    with pytest.raises(InputError, match=words):
        make_policy(AutoscalerConfig(), RoundNumbers(), name, twin=object())


def test_a_built_in_name_cannot_be_replaced(installed):
    assert type(make_policy(AutoscalerConfig(), RoundNumbers(), "classic")).__name__ == "ClassicPolicy"
