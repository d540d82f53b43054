"""Hits on recorded sessions of coding agents: what the record says, the reference finds, the kernel finds."""

from __future__ import annotations

from dataclasses import replace

from recorded_sessions import BLOCK_TOKENS, sessions
from reference import Request, simulate
from reference_examples import WORLD
from reference_records import Engine

ENGINE = Engine(
    scheduler="vllm",
    step_s=lambda n, kv, longest, chunks: 0.25,
    max_num_seqs=8,
    max_batched_tokens=2**18,
    max_kv_tokens=None,
    block_tokens=BLOCK_TOKENS,
    prefix_cache=True,
)


def test_one_request_at_a_time_hits_what_the_record_says():
    first_id, recorded, requests = 0, [], []
    for session in sessions(every=20):
        for one in session:
            ids = tuple(first_id + name for name in one.ids)
            requests.append(Request(float(len(requests)), one.isl, 1, hash_ids=ids))
        recorded += session
        first_id += 1 + max(name for one in session for name in one.ids)
    world = replace(WORLD, hash_block_tokens=BLOCK_TOKENS, engines={"aggregated": ENGINE})
    outcome = simulate(requests, world, (1,))
    assert len(requests) > 500
    assert [r.hit_tokens for r in outcome.requests] == [r.hit_blocks * BLOCK_TOKENS for r in recorded]
