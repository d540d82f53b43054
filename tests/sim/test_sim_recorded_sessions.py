"""Hits on recorded sessions of coding agents: what the record says, the reference finds, the kernel finds."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from agg_scenarios import TINY, Numbers, Scenario
from recorded_sessions import BLOCK_TOKENS, FILE, as_requests, lines, sessions
from reference import Request, simulate
from reference_examples import WORLD
from reference_records import Engine
from sagescale.sim.engine import EnginePool, FleetCluster, ServiceLoad
from sagescale.trace import Turns, read_trace
from strategies import FINE, TICK
from test_sim_steps import assert_equals_the_reference, engine_of

SLOTS = 16
BUDGET = 8192
NUMBERS = Numbers(
    edges=[[0]] * (SLOTS + 1),
    base_s=[[TICK + FINE * n] for n in range(SLOTS + 1)],
    slope_s=[[TINY / 64]] * (SLOTS + 1),
    spread_s=[0.0] * (SLOTS + 1),
    tokens_s=[TICK + TINY * 8 * n for n in range(BUDGET + 1)],
    running_s=FINE,
    kv_s=TINY / 64,
    cross_s=0.0,
    square_s=0.0,
    longest_s=0.0,
)
ENGINE = Engine(
    scheduler="vllm",
    step_s=NUMBERS.step_times,
    max_num_seqs=SLOTS,
    max_batched_tokens=BUDGET,
    max_kv_tokens=None,
    block_tokens=BLOCK_TOKENS,
    prefix_cache=True,
)
TWO = replace(
    WORLD,
    hash_block_tokens=BLOCK_TOKENS,
    max_num_seqs=SLOTS,
    routing_strategy="kv_aware",
    closed_loop=True,
    service="only",
    engines={"aggregated": ENGINE},
)


def scenario(requests, world) -> Scenario:
    return Scenario(requests, world, (2,), [], 0.0, [], [], 0.0, {"aggregated": NUMBERS})


def test_one_request_at_a_time_hits_what_the_record_says():
    chosen = list(sessions(range(0, 300, 20)))
    recorded = [one for session in chosen for one in session]
    most = 1 + max(max(one.ids, default=0) for one in recorded)
    ids = [
        tuple(most * number + name for name in one.ids)
        for number, session in enumerate(chosen)
        for one in session
    ]
    requests = [
        Request(100.0 * row, one.isl, 1, hash_ids=ids[row], session_id=row)
        for row, one in enumerate(recorded)
    ]
    outcome = simulate(requests, replace(TWO, closed_loop=False), (1,))
    assert len(requests) > 500
    assert [r.hit_tokens for r in outcome.requests] == [r.hit_blocks * BLOCK_TOKENS for r in recorded]


def test_the_kernel_hits_what_the_record_says_of_every_request():
    recorded = Counter(
        (one.isl, max(one.osl, 1), one.hit_blocks * BLOCK_TOKENS) for session in sessions() for one in session
    )
    trace = read_trace(FILE)
    assert trace.prefixes is not None
    n = len(trace)
    one_by_one = Turns(
        np.maximum(np.arange(-1, n), 0), np.arange(n - 1, dtype=np.int32), np.zeros(n)
    )  # each waits for the one before
    load = ServiceLoad(
        "only",
        (EnginePool("aggregated", "aggregated", engine_of(scenario([], TWO), "aggregated"), 1),),
        (1,),
        np.zeros(n),
        trace.isl,
        trace.isl,
        trace.osl,
        lambda pool, count: np.zeros(count),
        prefixes=trace.prefixes,
        session=np.zeros(n, np.int32),
        turns=one_by_one,
    )
    cluster = FleetCluster([load], {"gpu": 1}).services[0]
    cluster.advance(1e12)
    assert cluster.rows.tolist() == list(range(n))
    hits = cluster.state.stepped.requests["hit_tokens"]
    assert Counter(zip(trace.isl.tolist(), trace.osl.tolist(), hits.tolist(), strict=True)) == recorded


@pytest.mark.parametrize("max_kv_tokens", [None, 200_000])
def test_in_closed_loop_the_kernel_hits_what_the_reference_does(max_kv_tokens):
    chosen = [session[:50] for session in sessions(range(4, 8))]
    requests = as_requests(chosen, TICK, apart_s=2.0, most_think_s=2.0, shorter=64)
    world = replace(TWO, engines={"aggregated": replace(ENGINE, max_kv_tokens=max_kv_tokens)})
    assert max(len(request.after) for request in requests) > 1
    assert_equals_the_reference(scenario(requests, world))


def test_other_lines_of_the_file_are_read_as_a_file(tmp_path):
    some = [line for session in lines(range(1, 300, 25)) for line in session]
    (tmp_path / "some.jsonl").write_text("".join(some), encoding="utf-8")
    trace = read_trace(tmp_path / "some.jsonl")
    assert len(trace) == sum('"in"' in line for line in some)
