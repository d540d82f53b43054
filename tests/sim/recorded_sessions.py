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
    """One request of a session; in the file a sub-agent's precede the marker of it."""

    isl: int
    osl: int
    hit_blocks: int  # that a cache of the session without limits had, in the order of the file
    ids: tuple[int, ...]  # of its full blocks, local to the session


def lines(every: int = 1) -> Iterator[list[str]]:
    """The lines of every ``every``-th session, its header first; skips, visibly, where there is no file."""
    if not FILE.exists():
        pytest.skip(f"{FILE} is not here")
    number, session = -1, []
    with gzip.open(FILE, "rt", encoding="utf-8") as file:
        for line in file:
            if line.startswith('{"header"'):
                if session:
                    yield session
                number, session = number + 1, []
            if number % every == 0:
                session.append(line)
    if session:
        yield session


def sessions(every: int = 1) -> Iterator[list[Recorded]]:
    """The requests of every ``every``-th session, in the order of the file."""
    for session in lines(every):
        rows: list[dict[str, Any]] = [json.loads(line) for line in session]
        yield [
            Recorded(
                row["in"],
                row["out"],
                row["hit_blocks"],
                tuple(name for first, count in row["blocks"] for name in range(first, first + count)),
            )
            for row in rows
            if "in" in row
        ]
