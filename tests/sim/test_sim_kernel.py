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
from sagescale.sim.engine import Cluster, Pool, World
from sagescale.sim.run import MeasuredGaps
from sagescale.sim.state import DONE, GAPS_OF_REQUEST
from strategies import sampled

if TYPE_CHECKING:
    from reference_records import Outcome
    from sagescale.sim.config import ItlStatistic, SchedulingPolicy

TICK = 2.0**-6  # grain of arrivals and durations, s
FINE = 2.0**-14  # grain of what a token adds, s


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
    segments = draw(st.integers(1, 3))
    contexts = sorted(draw(st.sets(st.integers(2, 60), min_size=segments - 1, max_size=segments - 1)))
    breaks = np.zeros((slots + 1, segments + 1))
    base = np.zeros((slots + 1, segments))
    slope = np.zeros((slots + 1, segments))
    for n in range(1, slots + 1):
        breaks[n] = [0, *(n * context for context in contexts), np.inf]
        for i in range(segments):
            base[n, i] = TICK * draw(st.integers(1, 4))
            slope[n, i] = FINE * draw(st.integers(0, 8))
    longest = draw(sampled(8, 64))
    rises = draw(st.lists(st.integers(0, 2), min_size=longest, max_size=longest))
    prefill_s = np.concatenate([[0.0], TICK * np.cumsum([1, *rises])])
    return World(
        prefill_s=prefill_s,
        prefill_slope_s=FINE * draw(st.integers(0, 64)),
        quadratic_s=draw(sampled(0.0, 2.0**-20, 2.0**-12)),
        prefill_floor_s=TICK * draw(st.integers(1, 3)),
        breaks=breaks,
        base_s=base,
        slope_s=slope,
        max_batch_tokens=draw(sampled(1, 10, 40, 200)),
        max_num_seqs=slots,
        max_kv_tokens=draw(sampled(None, 30, 60, 150)),
        kv_latency_s=TICK * draw(st.integers(0, 2)),
        kv_s_per_token=FINE * draw(sampled(0, 0, 16, 100)),
        kv_decode_steps=draw(sampled(0.0, 0.0, 0.5, 1.0)),
        kv_blocks_prefill=draw(st.booleans()),
        join_s_per_token=FINE * draw(sampled(0, 0, 4)),
        first_token=draw(sampled("prefill", "decode")),
        request_timeout_s=draw(sampled(None, None, 8 * TICK, 64 * TICK)),
        prefill_gpus=draw(st.integers(1, 2)),
        decode_gpus=draw(st.integers(1, 2)),
        max_gpus=draw(st.integers(2, 10)),
        scheduling_policy=policy,
        routing_strategy=draw(sampled("load_balanced", "round_robin")),
        target_ttft_s=TICK * draw(sampled(2, 5, 20, 60)),
        target_itl_s=TICK * draw(sampled(1, 4)),
    )


@st.composite
def scenarios(draw: st.DrawFn, most_crashes: int = 0, policy: SchedulingPolicy = "fifo") -> Scenario:
    world = draw(worlds(policy))
    gaps = draw(st.lists(sampled(0, 0, 1, 2, 5, 40), min_size=1, max_size=25))
    arrivals = TICK * (np.cumsum(gaps) - gaps[0])
    requests = []
    for arrival in arrivals:
        isl = draw(sampled(1, 2, 3, 7, 12, 20, 33, 100))
        cached = draw(sampled(0, 0, isl - 1, isl // 2))
        priority = 0 if policy == "fifo" else draw(sampled(-1, 0, 0, 2))
        requests.append(Request(float(arrival), isl, draw(st.integers(1, 12)), cached, priority))
    times = sorted(draw(st.lists(st.integers(1, 200), max_size=5, unique=True)))
    script = [(TICK * t, draw(st.integers(0, 4)), draw(st.integers(0, 4))) for t in times]
    most = world.max_gpus
    prefill = draw(st.integers(0, min(3, most // world.prefill_gpus)))
    decode = draw(st.integers(0, min(3, (most - prefill * world.prefill_gpus) // world.decode_gpus)))
    startup = [TICK * t for t in draw(st.lists(st.integers(0, 30), min_size=1, max_size=4))]
    snapshots = sorted({TICK * t for t in draw(st.lists(st.integers(0, 200), max_size=4))})
    until = draw(sampled(0.0, 0.0, TICK * 300))
    crashes = sorted(
        (
            TICK * draw(st.integers(0, 90)),
            draw(sampled("prefill", "decode")),
            draw(sampled(0, 0, 1, 1, 2, 3)),
        )
        for _ in range(draw(st.integers(0, most_crashes)))
    )
    cold = TICK * draw(sampled(0, 0, 7)) if most_crashes else 0.0
    return Scenario(requests, world, startup, (prefill, decode), script, until, snapshots, crashes, cold)


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
    return Cluster.alone(
        scenario.world,
        np.array([r.arrival_s for r in requests]),
        np.array([r.isl for r in requests], np.int32),
        np.array([r.isl - r.cached_tokens for r in requests], np.int32),
        np.array([r.osl for r in requests], np.int32),
        prefill=scenario.initial[0],
        decode=scenario.initial[1],
        startup_s=lambda pool, count: np.array(
            [scenario.startup_s[next(taken[pool]) % len(scenario.startup_s)] for _ in range(count)], float
        ),
        priority=np.array([r.priority for r in requests], np.int32),
        watch_launches=True,
    )


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
