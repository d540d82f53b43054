"""Trace formats: container, columns and units of each. A new one is an entry in ``FORMATS``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sagescale.errors import one_line
from sagescale.trace.readers.agent_sessions import KV_CACHE_TESTER
from sagescale.trace.readers.aiperf import AIPERF
from sagescale.trace.readers.assembled import AIBRIX, BLIS
from sagescale.trace.readers.fields import BATCH_OF_ONE, COUNT, MS, NS, SECONDS, TOKEN_IDS, WALL_CLOCK, Field
from sagescale.trace.readers.format import Format, TraceFormat
from sagescale.trace.readers.prefix_ids import BLOCK_TOKENS
from sagescale.trace.trace import REBUILT, REBUILT_ARRIVAL, REBUILT_UNDATED, REBUILT_WARNING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from sagescale.trace.source import Head

__all__ = ["FORMATS"]

_QWEN_KEYS = frozenset({"chat_id", "parent_chat_id", "type", "turn"})


def _unused_columns(columns: Mapping[str, NDArray[Any]], head: Head) -> tuple[str, ...]:
    """Name the columns not used: one of them may be a misspelt ``cached_tokens``."""
    return tuple(
        f"column '{one_line(name, 60)}' is not used"
        for name in head.columns
        if name not in columns and not (name == BLOCK_TOKENS and "hash_ids" in columns)
    )


def _images_left_out(columns: Mapping[str, NDArray[Any]], head: Head) -> tuple[str, ...]:  # noqa: ARG001 - Warn
    """Count the images: encoding them is neither prefill nor decode, and nothing models it."""
    images = columns["NumImages"]
    carriers = int((images > 0).sum())
    if not carriers:
        return ()
    return (f"{carriers} requests carry {int(images.sum())} images: encoding them is not modelled",)


FORMATS: tuple[TraceFormat, ...] = (
    # What trace convert, synth and transform write.
    Format(
        name="sagescale",
        containers=("csv", "parquet"),
        arrival="arrival_s",
        clock=SECONDS,
        isl="isl",
        osl="osl",
        cached="cached_tokens",
        priority="priority",
        session="session_id",
        after="after",
        think_s="think_s",
        ids="hash_ids",
        warn=_unused_columns,
    ),
    # What trace from-prometheus writes: no request was seen by itself, and the column's name says so.
    Format(
        name=REBUILT,
        containers=("csv", "parquet"),
        arrival=REBUILT_ARRIVAL,
        clock=WALL_CLOCK,
        isl="isl",
        osl="osl",
        warn=lambda columns, head: (REBUILT_WARNING,),  # noqa: ARG005 - a Warn
    ),
    Format(
        name=REBUILT_UNDATED,
        containers=("csv", "parquet"),
        arrival=f"{REBUILT_ARRIVAL}_s",
        clock=SECONDS,
        isl="isl",
        osl="osl",
        warn=lambda columns, head: (REBUILT_WARNING,),  # noqa: ARG005 - a Warn
    ),
    # Azure LLM inference traces of 2023 and 2024, conversation and coding services: Azure Public Dataset;
    # Patel et al., Splitwise, ISCA 2024; Stojkovic et al., DynamoLLM, HPCA 2025. The 2023 files have seven
    # decimals and CRLF; those of 2024 carry +00:00 and leave the decimals out when 0.
    Format(
        name="azure",
        arrival="TIMESTAMP",
        clock=WALL_CLOCK,
        isl="ContextTokens",
        osl="GeneratedTokens",
        only_if=lambda columns: "NumImages" not in columns,
    ),
    # Azure multimodal (LMM) inference traces of 2025: Azure Public Dataset; Qiu et al., ModServe, SoCC 2025.
    Format(
        name="azure-lmm",
        arrival="TIMESTAMP",
        clock=WALL_CLOCK,
        isl="ContextTokens",
        osl="GeneratedTokens",
        also=(Field("NumImages", COUNT),),
        warn=_images_left_out,
    ),
    # Requests to ChatGPT and GPT-4 on a campus over months: Wang et al., BurstGPT, KDD 2025. Its first
    # release has no "Session ID" and "Elapsed time".
    Format(
        name="burstgpt",
        arrival="Timestamp",
        clock=SECONDS,
        isl="Request tokens",
        osl="Response tokens",
        zero_osl="failed requests (0 response tokens)",
    ),
    # Qin et al., Mooncake, FAST 2025 (github.com/kvcache-ai/Mooncake). Each prompt's prefix is there as
    # ids of blocks of 512 tokens. They are not turned into cache hits: what hits depends on the cache, and
    # that is a thing to model and not to read.
    Format(
        name="mooncake",
        containers=("jsonl",),
        arrival="timestamp",
        clock=MS,
        isl="input_length",
        osl="output_length",
        ids="hash_ids",
        block_tokens=512,
        chat="chat_id",
        parent_chat="parent_chat_id",
        only_if=lambda keys: not keys >= _QWEN_KEYS and "session_id" not in keys,
    ),
    # Wang et al., KVCache Cache in the Wild, ATC 2025 (alibaba-edu/qwen-bailian-usagetraces-anon). The same
    # keys as Mooncake for what matters but another unit of time, so only the chat keys tell them apart: a
    # file with some of them, or with no prefix hashes at all, could be either and is refused as ambiguous.
    Format(
        name="qwen",
        containers=("jsonl",),
        arrival="timestamp",
        clock=SECONDS,
        isl="input_length",
        osl="output_length",
        ids="hash_ids",
        block_tokens=16,
        chat="chat_id",
        parent_chat="parent_chat_id",
        only_if=lambda keys: (bool(keys & _QWEN_KEYS) or "hash_ids" not in keys) and "session_id" not in keys,
    ),
    # The CSV that Vidur replays, also used for Splitwise's traces: Agrawal et al., Vidur, MLSys 2024
    # (data/processed_traces).
    Format(
        name="vidur",
        arrival="arrived_at",
        clock=SECONDS,
        isl="num_prefill_tokens",
        osl="num_decode_tokens",
    ),
    # Patel et al., Splitwise, ISCA 2024 (github.com/Mutinifni/splitwise-sim).
    Format(
        name="splitwise-sim",
        arrival="arrival_timestamp",
        clock=SECONDS,
        isl="prompt_size",
        osl="token_size",
        also=(Field("batch_size", BATCH_OF_ONE),),
    ),
    # Lin et al., APEX (a simulator of LLM serving), arXiv 2411.17651. Offsets from the start.
    Format(
        name="apex",
        containers=("jsonl",),
        arrival="StartTimeOffset",
        clock=NS,
        isl="ContextTokens",
        osl="GeneratedTokens",
    ),
    # Cho et al., LLMServingSim, IISWC 2024; version 2.0 writes JSON lines with the token ids beside,
    # and caches blocks of 16.
    Format(
        name="llmservingsim",
        containers=("jsonl",),
        arrival="arrival_time_ns",
        clock=NS,
        isl="input_toks",
        osl="output_toks",
        ids="input_tok_ids",
        ids_kind=TOKEN_IDS,
        block_tokens=16,
    ),
    AIBRIX,
    AIPERF,
    KV_CACHE_TESTER,
    BLIS,
)
