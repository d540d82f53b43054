"""What examples worked out by hand begin from: a prompt token takes 1 s of prefill, a decode step 1 s."""

from __future__ import annotations

from reference_records import Outcome, World

WORLD = World(
    prefill_batch_s=lambda tokens: float(sum(tokens)),
    step_s=lambda running, kv_tokens: 1.0,
    max_batch_tokens=1,
    max_num_seqs=256,
    max_kv_tokens=None,
    kv_latency_s=0.0,
    kv_s_per_token=0.0,
    kv_decode_steps=0.0,
    kv_blocks_prefill=False,
    join_s_per_token=0.0,
    first_token="prefill",
    request_timeout_s=None,
    startup_delays_s=[10.0],
    prefill_gpus=1,
    decode_gpus=1,
    max_gpus=100,
)


def times(outcome: Outcome) -> list[tuple[float | None, float | None]]:
    return [(request.first_token_s, request.done_s) for request in outcome.requests]
