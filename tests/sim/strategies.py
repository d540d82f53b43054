"""What strategies of several files share."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

TICK = 2.0**-6  # grain of arrivals and durations, s
FINE = 2.0**-14  # grain of what a token adds, s


@lru_cache(maxsize=None, typed=True)  # 1 and 1.0 are other options
def sampled(*options: Hashable) -> st.SearchStrategy:
    """Draw one of these; made once: Hypothesis takes longer to make a strategy anew than to draw from it."""
    return st.sampled_from(options)


@lru_cache
def so_many(least: int, most: int | None = None) -> st.SearchStrategy[bytes]:
    """Draw so many bytes, for ``each_of``."""
    return st.binary(min_size=least, max_size=least if most is None else most)


def each_of(drawn: bytes, *options: Sequence[Any]) -> list[Any]:
    """Choose one of each of these, by a byte each; the first ones are the simplest.

    Bytes are drawn at once: where an example is of hundreds of choices, Hypothesis takes longer to make them
    one by one than the simulator takes to run it.
    """
    return [choices[byte % len(choices)] for byte, choices in zip(drawn, options, strict=True)]


def _shared(drawn: bytes) -> dict[str, Any]:
    (
        kv_tokens, latency, token, steps, blocks, join, first_token, timeout, decode_gpus, max_gpus, ttft, itl
    ) = each_of(
        drawn,
        (None, 30, 60, 150), range(3), (0, 0, 16, 100), (0.0, 0.0, 0.5, 1.0), (False, True), (0, 0, 4),
        ("prefill", "decode"), (None, None, 8 * TICK, 64 * TICK), (1, 2), range(2, 11), (2, 5, 20, 60),
        (1, 4),
    )  # fmt: skip
    return {
        "max_kv_tokens": kv_tokens,
        "kv_latency_s": TICK * latency,
        "kv_s_per_token": FINE * token,
        "kv_decode_steps": steps,
        "kv_blocks_prefill": blocks,
        "join_s_per_token": FINE * join,
        "first_token": first_token,
        "request_timeout_s": timeout,
        "decode_gpus": decode_gpus,
        "max_gpus": max_gpus,
        "target_ttft_s": TICK * ttft,
        "target_itl_s": TICK * itl,
    }


SHARED = so_many(12).map(_shared)
"""What the kernel's worlds and the reference's have alike: KV memory, hand-offs, GPUs, targets."""
