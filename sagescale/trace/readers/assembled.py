"""Formats in which a request is no flat row of numbers: nested, or with parts to add up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sagescale.errors import InputError
from sagescale.trace.log.rows import rows_of
from sagescale.trace.readers.answers import GAPS, one_after_another
from sagescale.trace.readers.fields import MAX_TOKENS, MS, US
from sagescale.trace.readers.format import NestedFormat, Rows
from sagescale.trace.readers.json_rows import objects, refuse, requests_of
from sagescale.trace.sessions import session_number

if TYPE_CHECKING:
    from sagescale.trace.prefix_builder import PrefixBuilder
    from sagescale.trace.source import Head, Source

Request = tuple[str, object, object, object, object]
"""Where it stands, its arrival in the format's unit, its prompt tokens, its generated tokens, and its session
or None."""

Walk = Callable[["Source", "Head", "list[str]"], Iterator[Request]]
"""Yields the requests of a file and adds what its reader should know to the list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembled(NestedFormat):
    """A format whose requests are put together row by row.

    Attributes:
        walk: yields the requests.
    """

    walk: Walk

    def _rows(self, source: Source, head: Head, builder: PrefixBuilder | None) -> Rows:
        del builder
        notes: list[str] = []
        ticks: list[float] = []
        isl: list[int] = []
        osl: list[int] = []
        names: list[object] = []
        for place, at, prompt, generated, session in self.walk(source, head, notes):
            names.append(session)
            ticks.append(_number(source, place, self.arrival, at, self.clock.expected))
            isl.append(_tokens(source, place, "prompt tokens", prompt))
            osl.append(_tokens(source, place, "generated tokens", generated))
        columns = {"isl": np.array(isl, np.int32), "osl": np.array(osl, np.int32)}
        arrival = np.array(ticks, np.float64)
        if all(name is None for name in names):
            return Rows(arrival, columns, tuple(notes))
        # Without a name it is a session by itself.
        texts = (f"{source.sha256} {row}" if name is None else str(name) for row, name in enumerate(names))
        session_id = np.array([session_number(text) for text in texts])
        took_s = np.full(len(arrival), np.nan)
        turns = one_after_another(arrival / self.clock.ticks_per_s, session_id, took_s, columns["osl"])
        return Rows(arrival, {**columns, "session_id": session_id}, (*notes, GAPS), turns)


def _number(source: Source, place: str, what: str, value: object, expected: str) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]  # what is no number raises
    except (TypeError, ValueError):
        number = -1.0
    if isinstance(value, bool) or not 0 <= number < np.inf:
        refuse(source, f"{place}, {what}", value, expected)
    return number


def _tokens(source: Source, place: str, what: str, value: object) -> int:
    expected = f"a whole number of tokens from 0 to {MAX_TOKENS}"
    number = _number(source, place, what, value, expected)
    if number != int(number) or number > MAX_TOKENS:
        refuse(source, f"{place}, {what}", value, expected)
    return int(number)


def _aibrix(source: Source, head: Head, notes: list[str]) -> Iterator[Request]:  # noqa: ARG001 - a Walk
    for line, row in objects(source):
        for number, request in enumerate(requests_of(source, line, row), 1):
            yield (
                f"{line}, request {number}",
                row.get("timestamp"),
                request.get("Prompt Length", request.get("prompt_length")),
                request.get("Output Length", request.get("output_length")),
                request.get("session_id", request.get("Session ID")),
            )


_BLIS_CELLS = (
    "arrival_time_us",
    "input_tokens",
    "output_tokens",
    "server_input_tokens",
    "prefix_group",
    "prefix_length",
    "status",
)


def _blis(source: Source, head: Head, notes: list[str]) -> Iterator[Request]:
    there = [name for name in _BLIS_CELLS if name in head.columns]
    failed = 0
    for line, cells in rows_of(source, head, there):
        if isinstance(cells, str):
            raise InputError(f"{source.path}: line {line}: {cells}; expected {','.join(head.columns)}")
        row = dict(zip(there, cells, strict=True))
        if row.get("status", "ok") not in ("ok", ""):
            failed += 1
            continue
        place, prompt = f"line {line}", row["input_tokens"]
        served = _tokens(source, place, "server_input_tokens", row.get("server_input_tokens") or 0)
        if row.get("prefix_group"):
            # The prefix that a group shares comes before input_tokens; a server's count holds both.
            prefix = _tokens(source, place, "prefix_length", row.get("prefix_length") or 0)
            prompt = served or prefix + _tokens(source, place, "input_tokens", prompt)
        elif served:
            prompt = served
        yield place, row["arrival_time_us"], prompt, row["output_tokens"], None
    if failed:
        notes.append(f"left out {failed:,} requests whose status is not ok")


# github.com/vllm-project/aibrix, benchmarks/generator: a line an arrival time, with all its requests.
AIBRIX = Assembled(
    name="aibrix",
    containers=("jsonl",),
    keys=("timestamp", "requests"),
    arrival="timestamp",
    clock=MS,
    walk=_aibrix,
)

# github.com/inference-sim/inference-sim, sim/workload/tracev2.go, versions 2 and 3: the CSV, beside its YAML.
BLIS = Assembled(
    name="blis",
    containers=("csv",),
    keys=("arrival_time_us", "input_tokens", "output_tokens", "request_id"),
    arrival="arrival_time_us",
    clock=US,
    walk=_blis,
)
