"""The recorded coding-agent sessions of ``shared/traces/sessions``, read here on their own account."""

from __future__ import annotations

import gzip
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

SHARED = Path(os.environ.get("SAGESCALE_SHARED", Path(__file__).parents[3] / "shared"))
FILE = SHARED / "traces" / "sessions" / "claude_code_300.jsonl.gz"
BLOCK_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Recorded:
    """One request of a session, in the order of the file, which a sub-agent's follow their marker in."""

    t_s: float
    isl: int
    osl: int
    hit_blocks: int
    ids: tuple[int, ...]  # of its full blocks, local to the session
    agent: int | None  # which of the session's markers it follows


def sessions(every: int = 1) -> Iterator[list[Recorded]]:
    """Every ``every``-th session of the file; skips, visibly, where that is missing."""
    if not FILE.exists():
        pytest.skip(f"{FILE} is not here")
    session: list[Recorded] = []
    number = -1
    with gzip.open(FILE, "rt", encoding="utf-8") as lines:
        for line in lines:
            row: dict[str, Any] = json.loads(line)
            if "header" in row:
                if session:
                    yield session
                number += 1
                session, agents = [], 0
            elif "marker" in row:
                agents += 1
            elif number % every == 0:
                ids = tuple(i for first, count in row["blocks"] for i in range(first, first + count))
                one = Recorded(row["t"], row["in"], row["out"], row["hit_blocks"], ids, agents or None)
                session.append(one)
    if session:
        yield session
