"""Mooncake's traces: arrival in ms, and the prefix of each prompt as hashes of blocks of 512 tokens.

Source: Qin et al., Mooncake, FAST 2025 (github.com/kvcache-ai/Mooncake). The hashes are not turned into
cache hits: what hits depends on the cache, and that is a thing to model and not to read.
"""

from __future__ import annotations

from sagescale.trace.readers.base import Layout
from sagescale.trace.readers.fields import MS
from sagescale.trace.readers.json_lines import JsonLinesFormat
from sagescale.trace.readers.qwen import QWEN_KEYS

__all__ = ["MOONCAKE"]


def _not_all_of_qwen(keys: frozenset[str]) -> bool:
    return not keys >= QWEN_KEYS


MOONCAKE = JsonLinesFormat(
    name="mooncake",
    layout=Layout("timestamp", MS, "input_length", "output_length"),
    only_if=_not_all_of_qwen,
)
