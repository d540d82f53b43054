"""Formats in which a request is no flat row of numbers: nested, or with parts to add up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sagescale.declare import shown
from sagescale.errors import InputError
from sagescale.json_guard import BadJsonError, parse_json
from sagescale.trace.log.rows import rows_of
from sagescale.trace.readers.answers import GAPS, one_after_another
from sagescale.trace.readers.containers import TITLES
from sagescale.trace.readers.fields import COUNT, MAX_TOKENS, MS, US, Clock, Field
from sagescale.trace.readers.format import Rows
from sagescale.trace.sessions import session_number

if TYPE_CHECKING:
    from sagescale.trace.source import Container, Head, Source

Request = tuple[str, object, object, object, object]
"""Where it stands, its arrival in the format's unit, its prompt tokens, its generated tokens, and its session
or None."""

Walk = Callable[["Source", "Head", "list[str]"], Iterator[Request]]
"""Yields the requests of a file and adds what its reader should know to the list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembled:
    """A format whose requests are put together row by row.

    Attributes:
        name: what ``--format`` calls it.
        containers: the kinds of file it occurs in.
        keys: the columns, or top keys, that it is recognised by.
        arrival: what its arrivals are called, for messages.
        clock: the unit they are in.
        walk: yields the requests.
        zero_osl: what rows that generated nothing are in this format.
    """

    name: str
    containers: tuple[Container, ...]
    keys: tuple[str, ...]
    arrival: str
    clock: Clock
    walk: Walk
    zero_osl: str = "requests that generated nothing"

    @property
    def required(self) -> tuple[Field, ...]:
        """The columns without which it is not this format."""
        return tuple(Field(key, COUNT) for key in self.keys)

    @property
    def shape(self) -> str:
        """Container, columns and unit of time, for messages."""
        containers = " or ".join(TITLES[container] for container in self.containers)
        return f"{containers} {','.join(self.keys)}; time: {self.clock.unit}"

    def recognise(self, head: Head) -> bool:
        """Tell from container and column names alone whether this may be the format."""
        return head.container in self.containers and set(self.keys) <= set(head.columns)

    def read(self, source: Source, head: Head) -> Rows:
        """Read every request.

        Raises:
            InputError: naming file, place and value, and what was expected.
        """
        if head.container not in self.containers:
            raise InputError(f"{source.path}: is {head.container}; expected {self.shape} ({self.name})")
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
        raise InputError(f"{source.path}: {place}, {what}: found {shown(value)}, expected {expected}")
    return number


def _tokens(source: Source, place: str, what: str, value: object) -> int:
    expected = f"a whole number of tokens from 0 to {MAX_TOKENS}"
    number = _number(source, place, what, value, expected)
    if number != int(number) or number > MAX_TOKENS:
        raise InputError(f"{source.path}: {place}, {what}: found {shown(value)}, expected {expected}")
    return int(number)


def _objects(source: Source) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, text in source.lines():
        try:
            row = parse_json(text)
        except BadJsonError as error:
            raise InputError(f"{source.path}: line {line}: not valid JSON ({error})") from None
        if not isinstance(row, dict):
            raise InputError(f"{source.path}: line {line}: found {shown(row)}, expected an object")
        yield line, row


def _listed(source: Source, place: str, row: dict[str, Any]) -> list[dict[str, Any]]:
    requests = row.get("requests")
    if not isinstance(requests, list) or not all(isinstance(request, dict) for request in requests):
        raise InputError(
            f"{source.path}: {place}, 'requests': found {shown(requests)}, expected a list of objects"
        )
    return requests


def _aibrix(source: Source, head: Head, notes: list[str]) -> Iterator[Request]:  # noqa: ARG001 - a Walk
    for line, row in _objects(source):
        for number, request in enumerate(_listed(source, f"line {line}", row), 1):
            place = f"line {line}, request {number}"
            yield (
                place,
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
