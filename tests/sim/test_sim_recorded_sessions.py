"""Hits on recorded sessions of coding agents: what the record says, and what the reference finds."""

from __future__ import annotations

from dataclasses import replace

from agg_scenarios import FINE, TICK, TINY, Numbers
from recorded_sessions import BLOCK_TOKENS, as_requests, lines, sessions
from reference import Request, simulate
from reference_examples import WORLD
from reference_records import Engine
from sagescale.trace import read_trace

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


def test_one_request_at_a_time_hits_what_the_record_says():
    chosen = list(sessions(range(0, 300, 20)))
    recorded = [one for session in chosen for one in session]
    most = 1 + max(name for one in recorded for name in one.ids)
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


def test_other_lines_of_the_file_are_read_as_a_file(tmp_path):
    some = [line for session in lines(range(1, 300, 25)) for line in session]
    (tmp_path / "some.jsonl").write_text("".join(some), encoding="utf-8")
    trace = read_trace(tmp_path / "some.jsonl")
    assert len(trace) == sum('"in"' in line for line in some)


def test_in_closed_loop_every_request_of_them_is_served_after_its_answers():
    chosen = [session[:50] for session in sessions(range(4, 8))]
    requests = as_requests(chosen, TICK, apart_s=2.0, most_think_s=2.0, shorter=64)
    assert max(len(request.after) for request in requests) > 1
    outcome = simulate(requests, TWO, (2,)).requests
    assert {one.state for one in outcome} == {"done"}
    for request, one in zip(requests, outcome, strict=True):
        if request.after:
            assert one.arrival_s == max(outcome[row].done_s for row in request.after) + request.think_s
    assert sum(one.hit_tokens for one in outcome) > 0.8 * sum(request.isl for request in requests)
