"""Scheduling policies and routing strategies on more traffic than the reference takes, and by command."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from sagescale.cli.app import app
from sagescale.errors import InputError
from sagescale.perf import ProfileModel, load_profile
from sagescale.planner import AutoscalerConfig
from sagescale.planner.policy import make_policy
from sagescale.sim.config import SimulatorConfig
from sagescale.sim.faults import Crash, Faults, Outage
from sagescale.sim.measures import Served
from sagescale.sim.simulate import simulate
from sagescale.sim.state import DONE
from sagescale.sim.world import build_world
from sagescale.trace import Trace, write_trace

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from sagescale.sim.run import Run

PROFILE = load_profile("h200-llama-3.1-8b-fp8")
POLICIES = ("fifo", "priority", "slo_aware", "adaptive")


def make_trace(requests_per_s: float, priority: NDArray[np.int32] | None = None) -> Trace:
    """A minute and a half of traffic; one prefill instance does some 60 of these requests/s."""
    rng = np.random.default_rng(0)
    count = round(90 * requests_per_s)
    arrival_s = np.sort(rng.uniform(0.0, 90.0, count))
    isl = np.clip(rng.lognormal(6.3, 0.9, count), 1, 16000).astype(np.int32)
    osl = np.clip(rng.lognormal(5.1, 0.7, count), 1, 4000).astype(np.int32)
    return Trace.from_arrays(arrival_s, isl, osl, priority=None if priority is None else priority[:count])


TIERS = np.array([0, 1, 1, 1] * 5000, np.int32)
OVERLOAD, CALM = make_trace(80.0, TIERS), make_trace(20.0, TIERS)


def run(
    trace: Trace, policy: str = "fifo", routing: str = "load_balanced", faults: Faults | None = None
) -> Run:
    """One prefill instance (two to choose from), six decode instances, 500 ms to a first token."""
    prefill = 1 if routing == "load_balanced" else 2
    config = AutoscalerConfig(
        target_ttft_ms=500.0,
        prefill_gpus_per_instance=1,
        decode_gpus_per_instance=1,
        min_prefill_instances=prefill,
        max_prefill_instances=prefill,
        min_decode_instances=6,
        max_decode_instances=6,
    )
    simulator = SimulatorConfig(scheduling_policy=policy, routing_strategy=routing)
    return simulate(trace, PROFILE, config, simulator, faults=faults)


def attainment(result: Run, priority: int | None = None) -> float:
    ttft, itl = Served(result).good
    chosen = slice(None) if priority is None else result.trace.priority == priority
    return float((ttft & itl)[chosen].mean())


def same(one: Run, other: Run) -> bool:
    return all(
        np.array_equal(one.requests[n], other.requests[n], equal_nan=True)
        for n in ("first_token_s", "done_s")
    )


@pytest.mark.parametrize("policy", POLICIES)
def test_every_request_is_served_once_under_every_policy_even_in_overload(policy: str):
    result = run(OVERLOAD, policy)
    assert (result.requests["state"] == DONE).all()
    assert np.array_equal(np.sort(result.completed), np.arange(len(OVERLOAD)))


def test_without_priorities_priority_is_fifo_to_the_last_bit_through_crashes_too():
    crashes = Faults(crashes=(Crash(at_s=30.0, pool="prefill"), Crash(at_s=50.0, pool="decode")))
    trace = make_trace(80.0)
    assert same(run(trace, "priority", faults=crashes), run(trace, "fifo", faults=crashes))
    assert not same(run(OVERLOAD, "priority"), run(OVERLOAD))


def test_priorities_that_differ_by_a_constant_are_one_order():
    assert same(run(make_trace(80.0, TIERS * 7 - 3), "priority"), run(OVERLOAD, "priority"))


def test_the_urgent_are_served_in_time_in_overload_and_the_others_pay():
    fifo, priority = run(OVERLOAD), run(OVERLOAD, "priority")
    assert attainment(fifo, 0) < 0.1
    assert attainment(priority, 0) > 0.99
    assert attainment(priority, 1) < 0.1


def test_in_overload_slo_aware_serves_most_in_time_where_fifo_serves_none():
    assert attainment(run(OVERLOAD)) < 0.1
    assert attainment(run(OVERLOAD, "slo_aware")) > 0.6


def test_adaptive_serves_as_many_in_overload_and_keeps_the_urgent():
    adaptive = run(OVERLOAD, "adaptive")
    assert attainment(adaptive) > 0.6
    assert attainment(adaptive, 0) > 0.99


def test_with_little_to_do_the_order_hardly_matters():
    assert [attainment(run(CALM, policy)) for policy in POLICIES] == pytest.approx([1.0] * 4, abs=0.01)


def test_round_robin_gives_every_instance_as_many_requests_and_costs_attainment():
    trace = make_trace(110.0)
    turns = run(trace, routing="round_robin")
    assert (turns.requests["state"] == DONE).all()
    decoded = np.bincount(turns.requests["bound"][trace.osl > 1], minlength=6)[:6]
    assert decoded.max() - decoded.min() <= 1


def test_a_policy_that_needs_targets_is_refused_where_there_are_none():
    with pytest.raises(InputError, match=r"scheduling_policy is 'adaptive'; expected fifo or priority"):
        build_world(ProfileModel(PROFILE), SimulatorConfig(scheduling_policy="adaptive"))


def test_comparisons_take_a_grid_of_policies_and_the_trace_its_priorities(tmp_path: Path):
    write_trace(CALM, tmp_path / "tiers.csv")
    words = ["compare-predictors", str(tmp_path / "tiers.csv"), "--predictors", "constant", "--jobs", "1"]
    words += [
        "--set",
        "scheduling_policy=fifo,priority",
        "--set",
        "routing_strategy=load_balanced,round_robin",
    ]
    with pytest.raises(SystemExit, match="0"):
        app([*words, "--json", str(tmp_path / "out.json")])
    document = json.loads((tmp_path / "out.json").read_text())
    policies = {(r["config"]["scheduling_policy"], r["config"]["routing_strategy"]) for r in document["runs"]}
    assert len(policies) == 4


@pytest.mark.parametrize("policy", ["static", "reactive"])
def test_decisions_are_explained_when_somebody_looks_as_if_they_had_been_at_once(policy):
    """These policies go by no model: a run decides without one, and works it out afterwards."""
    config = AutoscalerConfig(
        policy=policy, prefill_gpus_per_instance=1, decode_gpus_per_instance=1, load_predictor_type="kalman"
    )
    outages = Faults(outages=(Outage("metrics_vanish", 20.0, 45.0),), seed=1)
    later, at_once = (
        simulate(CALM, PROFILE, replace(config, adjustment_interval_sec=10), SimulatorConfig(), **given)
        for given in (
            {"faults": outages},
            {"faults": outages, "policy": make_policy(config, ProfileModel(PROFILE))},
        )
    )
    assert later.learned.prefill.factors.tolist() == at_once.learned.prefill.factors.tolist()
    assert list(later.ticks) == list(at_once.ticks)
    assert len({tick.decision.corrections for tick in later.ticks}) > 1
