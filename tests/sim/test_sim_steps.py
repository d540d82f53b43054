"""The kernel's engines that step are held to the reference that goes step by step, per request and exactly.

Every time in these inputs is a multiple of a power of two, so no sum rounds and equality means equality.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import reference
from agg_scenarios import Numbers, Scenario, scenarios
from driven_kernel import assert_same_gaps, assert_same_lives, assert_same_totals, drive, of_request, rows_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference_records import Engine as ReferenceEngine
from reference_records import Request
from reference_records import World as ReferenceWorld
from sagescale.sim.engine import Cluster, EnginePool, FleetCluster, ServiceLoad, Stepping, World
from sagescale.sim.state import AGES_UNTIL_S, HITS, STEPPED_REQUEST
from sagescale.trace import Prefixes, Turns
from strategies import TICK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reference_records import Outcome, Snapshot

_MANY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def engine_of(scenario: Scenario, pool: str) -> World:
    """The kernel's engine for a pool of the reference's."""
    world, numbers = scenario.world, scenario.numbers[pool]
    slots = world.max_num_seqs
    edges = np.array(numbers.edges, float)[: slots + 1]
    stepping = None
    if pool in world.engines:
        engine = world.engines[pool]
        table = np.array(numbers.tokens_s)
        if len(table) == 1:
            table = np.array([table[0], table[0]])
        tokens = engine.max_kv_tokens
        stepping = Stepping(
            engine.scheduler, engine.block_tokens, None if tokens is None else tokens // engine.block_tokens,
            engine.max_batched_tokens, table,
            running_s=numbers.running_s, kv_s=numbers.kv_s, cross_s=numbers.cross_s,
            square_s=numbers.square_s, longest_s=numbers.longest_s,
            long_prefill_token_threshold=(
                engine.long_prefill_token_threshold if engine.scheduler == "vllm" else 0
            ),
            chunked_prefill=engine.chunked_prefill, mixed_chunk=engine.mixed_chunk,
            reserve_full_isl=engine.reserve_full_isl,
            prefix_cache=engine.prefix_cache,
        )  # fmt: skip
    return World(
        prefill_s=np.array([0.0, 0.0]),
        prefill_slope_s=scenario.prefill_token_s,
        quadratic_s=0.0,
        prefill_floor_s=0.0,
        breaks=np.hstack([edges, np.full((slots + 1, 1), np.inf)]),
        base_s=np.array(numbers.base_s)[: slots + 1],
        slope_s=np.array(numbers.slope_s)[: slots + 1],
        max_batch_tokens=world.max_batch_tokens,
        max_num_seqs=slots,
        max_kv_tokens=world.max_kv_tokens,
        kv_latency_s=world.kv_latency_s,
        kv_s_per_token=world.kv_s_per_token,
        kv_decode_steps=world.kv_decode_steps,
        kv_blocks_prefill=world.kv_blocks_prefill,
        join_s_per_token=world.join_s_per_token if pool == "decode" else 0.0,
        first_token=world.first_token,
        request_timeout_s=world.request_timeout_s,
        prefill_gpus=world.prefill_gpus,
        decode_gpus=world.decode_gpus,
        max_gpus=world.max_gpus,
        scheduling_policy=world.scheduling_policy,
        routing_strategy=world.routing_strategy,
        target_ttft_s=world.target_ttft_s,
        target_itl_s=world.target_itl_s,
        overlap_credit=world.overlap_credit,
        prefill_load_scale=world.prefill_load_scale,
        router_temperature=world.router_temperature,
        scale_down_choice=world.scale_down_choice,
        router_staleness_s=world.router_staleness_s,
        affinity_max_load=world.affinity_max_load,
        spread_s=np.array(numbers.spread_s)[: slots + 1],
        stepping=stepping,
    )


def cluster_of(scenario: Scenario) -> Cluster:
    requests, world = scenario.requests, scenario.world
    delays = world.startup_delays_s
    taken = {name: iter(range(10**9)) for name in world.pool_names}
    engines = {name: engine_of(scenario, name) for name in world.pool_names}
    if "prefill" in engines:
        floor = scenario.prefill_floor_s
        engines["prefill"] = replace(
            engines["prefill"], prefill_s=np.array([floor, floor + scenario.prefill_token_s])
        )
    gpus = {"prefill": world.prefill_gpus, "decode": world.decode_gpus, "aggregated": world.aggregated_gpus}
    ids = [request.hash_ids for request in requests]
    numbered = {}
    sessions = [
        None if request.session_id is None else numbered.setdefault(request.session_id, len(numbered))
        for request in requests
    ]
    after, think_s = [request.after for request in requests], [request.think_s for request in requests]
    load = ServiceLoad(
        "only",
        tuple(EnginePool(name, name, engines[name], gpus[name]) for name in world.pool_names),
        scenario.initial,
        np.array([r.arrival_s for r in requests]),
        np.array([r.isl for r in requests], np.int32),
        np.array([r.isl - r.cached_tokens for r in requests], np.int32),
        np.array([r.osl for r in requests], np.int32),
        lambda pool, count: np.array([delays[next(taken[pool]) % len(delays)] for _ in range(count)], float),
        np.array([r.priority for r in requests], np.int32),
        Prefixes.of(ids, world.hash_block_tokens) if any(ids) else None,
        np.array(sessions, np.int32) if sessions[0] is not None else None,
        Turns.of(after, think_s) if world.closed_loop else None,
        world.concurrent_sessions,
        seed=world.seed,
    )
    return Cluster.alone(load, watch_launches=True)


def assert_same_view(cluster: Cluster, expected: Snapshot) -> None:
    assert_same_totals(cluster, expected)
    assert sum(cluster.gauges().queued) == sum(expected.queued)
    assert sum(cluster.gauges().running) == sum(expected.running)


def assert_same_hits_by_age(cluster: Cluster, expected: Outcome) -> None:
    found = np.zeros(len(AGES_UNTIL_S), HITS)
    for life in expected.lifetimes:
        for age_s, asked, hit in life.hits_by_age:
            age = int(np.searchsorted(AGES_UNTIL_S, age_s, side="right"))
            found["asked_tokens"][age] += asked
            found["hit_tokens"][age] += hit
    np.testing.assert_array_equal(cluster.stepped().hits_by_age, found)


def assert_equals_the_reference(scenario: Scenario) -> None:
    expected = reference.simulate(
        scenario.requests, scenario.world, scenario.initial, scenario.script, until_s=scenario.until_s,
        snapshots=scenario.snapshots, crashes=scenario.crashes, cold_s=scenario.cold_s,
    )  # fmt: skip
    cluster = cluster_of(scenario)
    drive(cluster, scenario, expected, assert_same_view)
    rows = rows_of(cluster)
    assert len(set(rows)) == len(rows)
    assert len(rows) + sum(r.state == "never_arrived" for r in expected.requests) == len(scenario.requests)
    stepped = cluster.state.stepped
    more = np.zeros(len(rows), STEPPED_REQUEST) if stepped is None else stepped.requests[: len(rows)]
    got = {
        row: (
            float(arrival_s),
            *of_request(r),
            int(x["preemptions"]),
            int(x["recomputed"]),
            int(x["hit_tokens"]),
        )
        for row, arrival_s, r, x in zip(rows, cluster.arrival_s, cluster.requests, more, strict=True)
    }
    assert got == {
        row: (r.arrival_s, r.state, r.first_token_s, r.done_s, r.restarts, r.preemptions, r.recomputed_tokens,
              r.hit_tokens)
        for row, r in enumerate(expected.requests) if r.state != "never_arrived"
    }  # fmt: skip
    if stepped is not None:  # two pools in batches measure gaps only where asked
        assert_same_gaps(cluster, scenario.world.target_itl_s, expected)
    assert_same_lives(cluster, scenario, expected)
    # Where some are left, they go on past the horizon.
    is_over = all(r.state in ("done", "rejected") for r in expected.requests)
    if is_over and stepped is not None:
        assert_same_hits_by_age(cluster, expected)
    if all(r.state != "unfinished" for r in expected.requests):
        assert cluster.state.pools["short_s"].sum() == sum(life.full_memory_s for life in expected.lifetimes)


def constant(step_s: float) -> Numbers:
    """Every step takes as long."""
    return Numbers(
        edges=[[0]] * 6, base_s=[[step_s]] * 6, slope_s=[[0.0]] * 6, spread_s=[0.0] * 6,
        tokens_s=[step_s] * 41, running_s=0.0, kv_s=0.0, cross_s=0.0, square_s=0.0, longest_s=0.0,
    )  # fmt: skip


def two_pools(
    requests: list[Request], initial: tuple[int, int], stepping: tuple[str, ...], decode_s: float,
    crashes: Sequence[tuple[float, str, int]] = (), **settings: object,
) -> Scenario:  # fmt: skip
    """A prefill step takes a tick, a hand-off by default no time; nobody gives up."""
    numbers = {"prefill": constant(TICK), "decode": constant(decode_s)}
    plain = ReferenceWorld(
        prefill_batch_s=lambda tokens: TICK, step_s=numbers["decode"].decode_s, max_batch_tokens=1,
        max_num_seqs=5, max_kv_tokens=None, kv_latency_s=0.0, kv_s_per_token=0.0, kv_decode_steps=0.0,
        kv_blocks_prefill=False, join_s_per_token=0.0, first_token="prefill", request_timeout_s=None,
        startup_delays_s=[0.0], prefill_gpus=1, decode_gpus=1, max_gpus=sum(initial),
        engines={
            pool: ReferenceEngine("vllm", numbers[pool].step_times, 5, 40, None, block_tokens=4)
            for pool in stepping
        },
    )  # fmt: skip
    return Scenario(
        requests=requests, world=replace(plain, **settings), initial=initial, script=[], until_s=0.0,
        snapshots=[], crashes=list(crashes), cold_s=0.0, numbers=numbers, prefill_floor_s=TICK,
    )  # fmt: skip


def test_who_waits_behind_the_handoffs_of_a_crash_is_not_lost():
    """Three are handed over one after the other; the first and the last were under way to what crashes."""
    scenario = two_pools(
        [Request(0.0, 12, 8)] * 3, (1, 2), ("prefill", "decode"), TICK, [(TICK, "decode", 0)],
        kv_s_per_token=TICK, kv_blocks_prefill=True,
    )  # fmt: skip
    assert_equals_the_reference(scenario)


@pytest.mark.parametrize("stepping", [("prefill",), ("decode",), ("prefill", "decode")])
@pytest.mark.parametrize(
    ("strategy", "first", "second"),
    [
        ("least_tokens", (4, 8), (4, 7)),  # without the step that ends they have as much to do
        ("load_balanced", (4, 4), (8, 2)),  # the second is done, and was the larger
    ],
)
def test_decode_steps_of_an_instant_have_ended_when_prefill_hands_over(stepping, strategy, first, second):
    """The second decode instance ends a step as the third request leaves prefill; the first one does not."""
    lengths = [(0.0, *first), (TICK, *second), (3 * TICK, 4, 8)]
    scenario = two_pools(
        [Request(*each) for each in lengths], (1, 2), stepping, 2 * TICK, routing_strategy=strategy
    )
    found = reference.simulate(scenario.requests, scenario.world, scenario.initial, [])
    assert [request.decode_id for request in found.requests] == [0, 1, 1]
    assert_equals_the_reference(scenario)


@pytest.mark.parametrize("serving", ["aggregated", "disaggregated"])
@given(data=st.data())
@settings(_MANY, max_examples=500)
def test_engines_that_step_equal_the_reference(serving, data):
    assert_equals_the_reference(data.draw(scenarios(serving)))


@pytest.mark.parametrize("serving", ["aggregated", "disaggregated"])
@given(data=st.data())
@settings(_MANY, max_examples=300)
def test_routers_that_know_late_equal_the_reference(serving, data):
    assert_equals_the_reference(data.draw(scenarios(serving, stale=True)))


@pytest.mark.parametrize("serving", ["aggregated", "disaggregated"])
@given(data=st.data())
@settings(_MANY, max_examples=500)
def test_sessions_equal_the_reference(serving, data):
    assert_equals_the_reference(data.draw(scenarios(serving, sessions=True, stale=True)))


@given(scenarios("aggregated", policies=("fifo",), strategies=("session_affinity",), most_crashes=0))
@settings(_MANY, max_examples=20)
def test_sessions_are_kept_together_behind_a_service_without_any(scenario):
    alone = cluster_of(scenario)
    alone.advance(1e6)
    plain = replace(alone.load.pools[0].engine, routing_strategy="load_balanced")
    pool = replace(alone.load.pools[0], engine=plain)
    others = replace(alone.load, name="others", pools=(pool,), session=None)
    stock = {"gpu": 2 * scenario.world.max_gpus}
    second = FleetCluster([others, cluster_of(scenario).load], stock, watch_launches=True).services[1]
    second.advance(1e6)
    for name in ("first_token_s", "done_s", "state"):
        np.testing.assert_array_equal(second.requests[name], alone.requests[name])
