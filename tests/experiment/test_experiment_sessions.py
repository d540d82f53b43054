"""Comparisons and parts of runs whose turns wait for answers."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from experiment_world import MODEL, PROFILE, compared, config
from sagescale.experiment.searches import Schedule
from sagescale.experiment.tasks import ClairvoyantTask, RunTask, StaticSearchTask, foreseen, perform
from sagescale.experiment.workload import Workload
from sagescale.perf import load_profile
from sagescale.sim.bound import lower_bound
from sagescale.sim.config import SimulatorConfig
from sagescale.sim.part import Part, lower_bound_of_part, measure_part
from sagescale.sim.simulate import simulate
from sagescale.sim.turns import clock_s, least_end_s
from sagescale.trace import Trace, TransformSpec, Turns
from sagescale.trace.synth import Conversations, LogNormal, Quantity, Steady, synthesise

FEW = {"max_prefill_instances": 1, "max_decode_instances": 1}


def conversations(sessions: int = 150, turns: int = 6) -> Trace:
    """Sessions of six turns, far more than one prefill instance can take."""
    rng = np.random.default_rng(0)
    start_s = 1.0 * np.arange(sessions)
    think_s = np.where(np.arange(turns) == 0, 0.0, rng.uniform(1.0, 5.0, (sessions, turns)))
    at_s = (start_s[:, None] + np.cumsum(think_s, axis=1)).ravel()
    order = np.argsort(at_s, kind="stable")
    row = np.argsort(order)
    after = [[] if one % turns == 0 else [int(row[one - 1])] for one in order]
    isl = rng.integers(12_000, 15_000, len(order))
    trace = Trace.from_arrays(at_s[order], isl, np.full(len(order), 20), session_id=order // turns)
    return dataclasses.replace(trace, turns=Turns.of(after, think_s.ravel()[order]))


def test_open_loop_is_beside_the_closed_and_cannot_win():
    ways = ({"open_loop": open_loop, "target_ttft_ms": 5000.0} for open_loop in (False, True))
    document = compared(conversations(40), *ways, attainment=0.5)
    found = document["comparison"]
    assert found["winner"].endswith(" closed-loop")
    assert "With turns replayed at their recorded times" in found["verdict"]
    assert "points of attainment" in found["verdict"]
    assert {run["config"]["open_loop"] for run in document["runs"]} == {True, False}
    assert all("sessions" in run for run in document["runs"])
    assert document["answer"]["autoscaled"]["name"].endswith(" closed-loop")


def test_those_who_know_the_future_know_what_comes_where_nobody_waits():
    trace = conversations()
    workload, mine = Workload(trace, TransformSpec(), PROFILE), config(**FEW)
    ample = foreseen(workload, mine, SimulatorConfig())
    run = simulate(trace, PROFILE, mine, SimulatorConfig())
    assert len(ample) == len(trace)
    assert ample.duration_s < run.trace.duration_s / 1.5  # the queue slows its users down
    alone_s = (MODEL.ttft_ms(13_500) + 19 * MODEL.itl_ms(1, 13_500)) / 1000.0
    assert ample.duration_s == pytest.approx(trace.duration_s + 5 * alone_s, abs=4.0)
    assert foreseen(workload, mine, SimulatorConfig(open_loop=True)) is workload.trace()


def test_parts_add_up_and_their_bounds_hold_where_a_run_falls_behind():
    trace = conversations()
    run = simulate(trace, PROFILE, config(**FEW), SimulatorConfig(request_timeout_s=20.0))
    assert run.never_arrived > 0
    cut_s = 0.5 * clock_s(trace, run.simulator)
    parts = [measure_part(run, part) for part in (Part(0.0, cut_s), Part(cut_s))]
    assert sum(sum(part.arrived) for part in parts) == len(trace)
    whole = measure_part(run, Part())
    assert sum(part.misses for part in parts) == whole.misses
    assert lower_bound_of_part(run, Part(cut_s)) <= parts[1].gpu_hours


def test_a_bound_counts_the_least_pools_until_the_last_answered_turn_can_come():
    trace = conversations(20)
    run = simulate(trace, PROFILE, config(**FEW), SimulatorConfig())
    assert len(run.completed) == len(trace)
    starts_s = np.array([trace.arrival_s[trace.session_id == one].min() for one in range(20)])
    assert run.least_s == pytest.approx((starts_s + np.bincount(trace.session_id, trace.turns.think_s)).max())
    pools = sum(pool.least * pool.gpus for pool in run.config.pools)
    assert pools * run.least_s / 3600.0 <= lower_bound(run).gpu_hours * (1 + 1e-6)
    assert lower_bound(run).gpu_hours <= measure_part(run, Part()).gpu_hours
    population = simulate(trace, PROFILE, config(**FEW), SimulatorConfig(concurrent_sessions=4))
    assert population.least_s == pytest.approx(np.bincount(trace.session_id, trace.turns.think_s).max())
    late = simulate(conversations(), PROFILE, config(**FEW), SimulatorConfig(request_timeout_s=20.0))
    assert lower_bound(late).gpu_hours <= measure_part(late, Part()).gpu_hours


@pytest.mark.parametrize(
    ("answered", "least_s"), [([0, 1, 2, 3], 17.0), ([0, 1, 2], 13.0), ([0], 5.0), ([], 0.0)]
)
def test_a_turn_that_waits_for_several_answers_comes_after_the_longest_of_their_ways(answered, least_s):
    columns = [np.array([5.0, 6.0, 7.0, 9.0]), *np.full((2, 4), 9)]
    trace = Trace.from_arrays(*columns, session_id=np.zeros(4, np.int64))
    turns = Turns.of([[], [0], [0], [1, 2]], np.array([0.0, 8.0, 2.0, 4.0]))
    trace = dataclasses.replace(trace, turns=turns)
    shift_s = trace.arrival_s[0] - 5.0
    rows = np.array(answered, np.int32)
    assert least_end_s(trace, rows, by_clock=True) == pytest.approx(
        max(0.0, least_s + shift_s) if answered else 0.0
    )
    assert least_end_s(trace, rows, by_clock=False) == pytest.approx(max(0.0, least_s - 5.0))


def test_who_knows_the_future_never_takes_more_than_fixed_sizes_where_caches_are_lost():
    turns = Conversations(Quantity("geometric", 12.0), Quantity("exponential", 20.0), LogNormal(7.5, 0.5))
    trace = synthesise(
        Steady(0.01), 5400.0, isl=LogNormal(10.0, 0.3), osl=LogNormal(4.0, 0.5), conversations=turns, seed=2
    )
    engines = load_profile("h100-llama-3.1-8b-bf16-agg")
    mine = config(serving="aggregated", target_ttft_ms=1500.0, target_itl_ms=100.0, max_instances=8)
    world = SimulatorConfig(prefix_cache=True, routing_strategy="kv_aware", max_kv_tokens=400_000)
    workload = Workload(trace, TransformSpec(), engines)
    sizes = perform(workload, StaticSearchTask(mine, world, 0.95)).sizes
    found = perform(workload, ClairvoyantTask(mine, world, 0.95))
    plain, throughout = (
        perform(workload, RunTask(mine, world, load="true", schedule=schedule)).score
        for schedule in (found, Schedule.fixed(sizes))
    )
    assert plain.attainment >= 0.95
    assert plain.gpu_hours <= throughout.gpu_hours
