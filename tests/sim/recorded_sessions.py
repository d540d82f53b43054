"""The recorded coding-agent sessions of ``shared/traces/sessions``, read here on their own account."""

from __future__ import annotations

import gzip
import json
import os
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from reference_records import Request

if TYPE_CHECKING:
    from collections.abc import Iterator

SHARED = Path(os.environ.get("SAGESCALE_SHARED", Path(__file__).parents[3] / "shared"))
FILE = SHARED / "traces" / "sessions" / "claude_code_300.jsonl.gz"
BLOCK_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Recorded:
    """One request of a session.

    ``t_s`` is since the session began; ``after`` are places in the session, in the order of the file.
    """

    t_s: float
    isl: int
    osl: int
    hit_blocks: int  # that a cache of the session without limits had, in the order of the file
    blocks: list[tuple[int, int]]  # first id and count of each run of ids
    after: tuple[int, ...]
    think_s: float

    @property
    def ids(self) -> tuple[int, ...]:
        """Of full blocks, local to the session."""
        return tuple(chain.from_iterable(range(begin, begin + count) for begin, count in self.blocks))


ALL = range(300)


def lines(chosen: range = ALL) -> Iterator[list[str]]:
    """The lines of the chosen sessions, from 0, headers first; skips, visibly, where there is no file."""
    if not FILE.exists():
        pytest.skip(f"{FILE} is not here")
    number, session = -1, []
    with gzip.open(FILE, "rt", encoding="utf-8") as file:
        for line in file:
            if line.startswith('{"header"'):
                if session:
                    yield session
                number, session = number + 1, []
            if number in chosen:
                session.append(line)
    if session:
        yield session


def sessions(chosen: range = ALL) -> Iterator[list[Recorded]]:
    """The requests of the chosen sessions, in the order of the file."""
    for session in lines(chosen):
        yield _requests([json.loads(line) for line in session])


def _requests(rows: list[dict[str, Any]]) -> list[Recorded]:
    """A sub-agent's requests stand before the marker of its end and count from 0 when it begins."""
    made: list[dict[str, Any]] = []
    agent: dict[int, tuple[float, int]] = {}  # of a request by place: its sub-agent's start and first place
    for row in rows:
        if "in" in row:
            made.append(row)
        elif "marker" in row and row["marker"]["t"] is not None:
            first = max(place for place, one in enumerate(made) if one["t"] == 0.0)
            lasted_s = made[-1]["t"] + (made[-1]["api_time"] or 0.0)
            if row["marker"]["duration_ms"] is not None:
                lasted_s = row["marker"]["duration_ms"] / 1000
            start_s = row["marker"]["t"] - lasted_s
            agent |= dict.fromkeys(range(first, len(made)), (start_s, first))
    found, parent, ends = [], None, {}  # the parent's last request, and those of sub-agents since, by first
    for place, row in enumerate(made):
        start_s, first = agent.get(place, (0.0, None))
        if first is None:
            after = [*ends.values()] if parent is None else [parent, *ends.values()]
            parent, ends = place, {}
        else:
            after = [ends[first]] if first in ends else [] if parent is None else [parent]
            ends[first] = place
        think_s = (row["think_time"] or 0.0) if after else 0.0
        found.append(
            Recorded(
                start_s + row["t"],
                row["in"],
                row["out"],
                row["hit_blocks"],
                row["blocks"],
                tuple(after),
                think_s,
            )
        )
    return found


def as_requests(
    recorded: list[list[Recorded]], tick_s: float, apart_s: float, most_think_s: float, shorter: int
) -> list[Request]:
    """What the reference takes: in whole ticks, a session each ``apart_s``, answers so many times shorter."""
    rows = [
        (number * apart_s + one.t_s // tick_s * tick_s, number, place)
        for number, session in enumerate(recorded)
        for place, one in enumerate(session)
    ]
    # By nominal arrival, but behind those it waits for.
    nominal: dict[tuple[int, int], float] = {}
    for at_s, number, place in rows:
        waited = [nominal[number, before] for before in recorded[number][place].after]
        nominal[number, place] = max([at_s, *waited])
    order = sorted(nominal, key=lambda key: (nominal[key], key))
    new = {key: row for row, key in enumerate(order)}
    first_id = [0]
    for session in recorded:
        first_id.append(first_id[-1] + 1 + max(max(one.ids, default=0) for one in session))
    made = []
    for number, place in order:
        one = recorded[number][place]
        made.append(
            Request(
                nominal[number, place],
                one.isl,
                one.osl // shorter + 1,
                hash_ids=tuple(first_id[number] + name for name in one.ids),
                session_id=number,
                after=tuple(sorted(new[number, before] for before in one.after)),
                think_s=min(one.think_s, most_think_s) // tick_s * tick_s,
            )
        )
    return made
