"""Qwen-Bailian usage traces: arrival in s, chats and turns, prefix hashes of blocks of 16 tokens.

Source: Wang et al., KVCache Cache in the Wild, ATC 2025 (alibaba-edu/qwen-bailian-usagetraces-anon).
Same keys as Mooncake for what matters but another unit of time, so only the chat keys tell them apart: a file
with some of them, or with no prefix hashes at all, could be either and is refused as ambiguous.
"""

from __future__ import annotations

from sagescale.trace.readers.base import Layout
from sagescale.trace.readers.fields import SECONDS
from sagescale.trace.readers.json_lines import JsonLinesFormat

__all__ = ["QWEN", "QWEN_KEYS"]

QWEN_KEYS = frozenset({"chat_id", "parent_chat_id", "type", "turn"})


def _may_be_qwen(keys: frozenset[str]) -> bool:
    return bool(keys & QWEN_KEYS) or "hash_ids" not in keys


QWEN = JsonLinesFormat(
    name="qwen",
    layout=Layout("timestamp", SECONDS, "input_length", "output_length"),
    only_if=_may_be_qwen,
)
