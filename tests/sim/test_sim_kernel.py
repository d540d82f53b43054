"""The compiled kernel is held to the token-by-token reference, per request and exactly.

Every time in these inputs is a multiple of a power of two, so no sum rounds and equality means equality.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import reference
from driven_kernel import assert_same_gaps, assert_same_lives, assert_same_totals, drive, of_request
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference_records import Request, Snapshot
from reference_records import World as ReferenceWorld
from sagescale.sim.engine import Cluster, Pool, ServiceLoad, World, disaggregated
from sagescale.sim.run import MeasuredGaps
from sagescale.sim.state import DONE, GAPS_OF_REQUEST
from strategies import FINE, SHARED, TICK, each_of, sampled, so_many

if TYPE_CHECKING:
    from reference_records import Outcome
    from sagescale.sim.config import ItlStatistic, SchedulingPolicy

_UP_TO_FIVE = st.lists(so_many(3), max_size=5)


@dataclass(frozen=True)
class Scenario:
    requests: list[Request]
    world: World
    startup_s: list[float]
    initial: tuple[int, int]
    script: list[tuple[float, int, int]]
    until_s: float
    snapshots: list[float]
    crashes: list[tuple[float, Pool, int]]
    cold_s: float


@st.composite
def worlds(draw: st.DrawFn, policy: SchedulingPolicy) -> World:
    slots = draw(st.integers(1, 5))
    contexts = sorted({2 + byte % 59 for byte in draw(so_many(0, 2))})
    segments = len(contexts) + 1
    values = iter(draw(so_many(2 * slots * segments)))
    breaks = np.zeros((slots + 1, segments + 1))
    base = np.zeros((slots + 1, segments))
    slope = np.zeros((slots + 1, segments))
    for n in range(1, slots + 1):
        breaks[n] = [0, *(n * context for context in contexts), np.inf]
        for i in range(segments):
            base[n, i], slope[n, i] = TICK * (1 + next(values) % 4), FINE * (next(values) % 9)
    rises = [byte % 3 for byte in draw(so_many(draw(sampled(8, 64))))]
    prefill_s = np.concatenate([[0.0], TICK * np.cumsum([1, *rises])])
    prefill_slope, quadratic, prefill_floor, batch_tokens, prefill_gpus, routing = each_of(
        draw(so_many(6)),
        range(65), (0.0, 2.0**-20, 2.0**-12), (1, 2, 3), (1, 10, 40, 200), (1, 2),
        ("load_balanced", "round_robin"),
    )  # fmt: skip
    return World(
        prefill_s=prefill_s,
        prefill_slope_s=FINE * prefill_slope,
        quadratic_s=quadratic,
        prefill_floor_s=TICK * prefill_floor,
        breaks=breaks,
        base_s=base,
        slope_s=slope,
        max_batch_tokens=batch_tokens,
        max_num_seqs=slots,
        prefill_gpus=prefill_gpus,
        scheduling_policy=policy,
        routing_strategy=routing,
        **draw(SHARED),
    )


@st.composite
def scenarios(draw: st.DrawFn, most_crashes: int = 0, policy: SchedulingPolicy = "fifo") -> Scenario:
    world = draw(worlds(policy))
    arrival_s, requests = 0.0, []
    for five in draw(st.lists(so_many(5), min_size=1, max_size=25)):
        gap, isl, osl, cached, priority = each_of(
            five, (0, 0, 1, 2, 5, 40), (1, 2, 3, 7, 12, 20, 33, 100), range(1, 13), range(4), (-1, 0, 0, 2)
        )
        arrival_s += TICK * gap if requests else 0.0
        hit = (0, 0, isl - 1, isl // 2)[cached]
        requests.append(Request(arrival_s, isl, osl, hit, 0 if policy == "fifo" else priority))
    three = (range(1, 201), range(5), range(5))
    script = {time: targets for time, *targets in (each_of(one, *three) for one in draw(_UP_TO_FIVE))}
    most = world.max_gpus
    prefill = draw(st.integers(0, min(3, most // world.prefill_gpus)))
    decode = draw(st.integers(0, min(3, (most - prefill * world.prefill_gpus) // world.decode_gpus)))
    startup = [TICK * (byte % 31) for byte in draw(so_many(1, 4))]
    snapshots = sorted({TICK * (byte % 201) for byte in draw(so_many(0, 4))})
    until, cold = each_of(draw(so_many(2)), (0.0, 0.0, TICK * 300), (0, 0, 7))
    what = (range(91), ("prefill", "decode"), (0, 0, 1, 1, 2, 3))
    crashes = sorted(
        (TICK * time, pool, number)
        for time, pool, number in (
            each_of(draw(so_many(3)), *what) for _ in range(draw(st.integers(0, most_crashes)))
        )
    )
    return Scenario(
        requests, world, startup, (prefill, decode),
        [(TICK * time, *script[time]) for time in sorted(script)],
        until, snapshots, crashes, TICK * cold if most_crashes else 0.0,
    )  # fmt: skip


def reference_world(world: World, startup_s: list[float]) -> ReferenceWorld:
    def prefill_batch_s(tokens: list[int]) -> float:
        total = sum(tokens)
        top = len(world.prefill_s) - 1
        alone = world.prefill_s[min(total, top)] + world.prefill_slope_s * max(0, total - top)
        across = total * total - sum(n * n for n in tokens)
        return float(max(alone - world.quadratic_s * across, world.prefill_floor_s))

    def step_s(n: int, kv: int) -> float:
        i = 0
        while kv >= world.breaks[n, i + 1]:
            i += 1
        return float(world.base_s[n, i] + world.slope_s[n, i] * kv)

    same = ("max_batch_tokens", "max_num_seqs", "max_kv_tokens", "kv_latency_s", "kv_s_per_token",
            "kv_decode_steps", "kv_blocks_prefill", "join_s_per_token", "first_token", "request_timeout_s",
            "prefill_gpus", "decode_gpus", "max_gpus", "scheduling_policy", "routing_strategy",
            "target_ttft_s", "target_itl_s")  # fmt: skip
    return ReferenceWorld(
        prefill_batch_s=prefill_batch_s,
        step_s=step_s,
        startup_delays_s=startup_s,
        **{name: getattr(world, name) for name in same},
    )


def make_cluster(scenario: Scenario) -> Cluster:
    requests = scenario.requests
    taken = {"prefill": iter(range(10**9)), "decode": iter(range(10**9))}
    load = ServiceLoad(
        "service",
        disaggregated(scenario.world),
        scenario.initial,
        np.array([r.arrival_s for r in requests]),
        np.array([r.isl for r in requests], np.int32),
        np.array([r.isl - r.cached_tokens for r in requests], np.int32),
        np.array([r.osl for r in requests], np.int32),
        startup_s=lambda pool, count: np.array(
            [scenario.startup_s[next(taken[pool]) % len(scenario.startup_s)] for _ in range(count)], float
        ),
        priority=np.array([r.priority for r in requests], np.int32),
    )
    return Cluster.alone(load, watch_launches=True)


def assert_same_view(cluster: Cluster, expected: Snapshot) -> None:
    assert_same_totals(cluster, expected)
    assert cluster.counters().itl_sum_s == pytest.approx(expected.itl_sum)
    assert cluster.gauges().queued == (expected.queued_prefill, expected.queued_decode)
    assert cluster.gauges().running == (expected.in_prefill, expected.running_decode)
    assert cluster.kv_tokens() == expected.kv_tokens


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(scenarios())
def test_the_kernel_equals_the_reference_exactly(scenario: Scenario):
    assert_equals_the_reference(scenario)


@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(scenarios(most_crashes=6))
def test_the_kernel_equals_the_reference_exactly_through_crashes_and_cold_starts(scenario: Scenario):
    assert_equals_the_reference(scenario)


@pytest.mark.parametrize("policy", ["priority", "slo_aware", "adaptive"])
@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(data=st.data())
def test_the_kernel_equals_the_reference_exactly_under_every_policy(
    policy: SchedulingPolicy, data: st.DataObject
):
    assert_equals_the_reference(data.draw(scenarios(most_crashes=4, policy=policy)))


@pytest.mark.parametrize("statistic", ["mean", "p99", "max"])
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(data=st.data())
def test_gaps_between_tokens_equal_the_reference_exactly(statistic: ItlStatistic, data: st.DataObject):
    scenario = data.draw(scenarios(most_crashes=3))
    world = replace(scenario.world, measure_gaps=True, itl_statistic=statistic)
    cluster, expected = assert_equals_the_reference(replace(scenario, world=world))
    assert_same_gaps(cluster, world.target_itl_s, expected)
    requests, osl = cluster.requests, cluster.state.osl
    done = (requests["state"] == DONE) & (osl > 1)
    met = done & ~cluster.itl_misses()
    assert cluster.counters().itl_met == met.sum()
    if statistic == "max":
        assert met.tolist() == [
            r.state == "done" and r.max_gap_s is not None and r.max_gap_s <= world.target_itl_s
            for r in expected.requests
        ]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=350), st.floats(0, 1))
def test_the_99th_percentile_is_the_nearest_rank(gaps_s: list[float], target_s: float):
    record = np.zeros(1, GAPS_OF_REQUEST)
    record["late"] = sum(gap_s > target_s for gap_s in gaps_s)
    measured = MeasuredGaps(record, np.zeros(1, np.int64), max(gaps_s))
    rank = -(-99 * len(gaps_s) // 100)
    missed = measured.itl_misses("p99", np.array([len(gaps_s) + 1], np.int32))
    assert bool(missed[0]) == (sorted(gaps_s)[rank - 1] > target_s)


def assert_equals_the_reference(scenario: Scenario) -> tuple[Cluster, Outcome]:
    expected = reference.simulate(
        scenario.requests,
        reference_world(scenario.world, scenario.startup_s),
        scenario.initial,
        scenario.script,
        until_s=scenario.until_s,
        snapshots=scenario.snapshots,
        crashes=scenario.crashes,
        cold_s=scenario.cold_s,
    )
    cluster = make_cluster(scenario)
    drive(cluster, scenario, expected, assert_same_view)
    got = [of_request(record) for record in cluster.state.requests]
    assert got == [(r.state, r.first_token_s, r.done_s, r.restarts) for r in expected.requests]
    assert_same_lives(cluster, scenario, expected)
    return cluster, expected
