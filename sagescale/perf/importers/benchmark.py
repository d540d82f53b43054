"""End-to-end benchmark runs turned into measurements of the two pools; a tool's format is a declaration.

A client sees time to first token and gaps between tokens, not pools. Of each run is taken:

* **Prefill**: (mean input tokens, median TTFT) of a run whose requests met an idle server: concurrency 1, or
  at most 0.2 requests in the system on average (Little's law over the whole request), so that the
  median request did not wait. TTFT under load is queueing and says nothing of prefill alone.
* **Decode**: (requests decoding, input + half of output tokens, time between tokens). Requests decoding on
  average: L = requests/s * (output tokens - 1) * mean TPOT (Little's law over the decode phase). A step
  always holds the request whose token is counted, so a step sees ``L + 1 - L/c`` of c clients' requests, and
  ``L + 1`` with no limit on clients (the arrival theorem): 1 for a lone client, L for many.

Input lengths and contexts are means of runs, so those within 5 % are one length (``lengths.py``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sagescale.errors import InputError
from sagescale.perf.importers.record import Record
from sagescale.perf.importers.source import load_json, looks, source_file
from sagescale.perf.measurement import DecodePoint, Measurement, PrefillPoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from sagescale.perf.importers.source import Look

LENGTH_TOLERANCE = 0.05
"""Mean lengths of runs this close are one length."""

MAX_FAILED = 0.10
"""A run with a larger share of failed requests is refused."""

_ALONE = 0.2
"""Requests in the system up to which the median request is served alone."""

_DISAGREES = 0.10
_CHUNKED = 1.2
_TOGETHER = 0.4
"""Of the mean gap: a smaller median is not from prefill that comes between steps now and then."""
_BUSY, _IDLE = 5.0, 50.0
"""Requests in the system above this times the clients, or below this part of them, mean wrong units."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One benchmark run in common units; ``where`` names file and run in messages.

    ``clients`` is the concurrency the client kept up (None: no limit), ``tpot_ms`` the mean over requests of
    (latency - TTFT) / (output tokens - 1), ``gap_ms`` the time between tokens to take for a decode step; both
    are None where a run generated one token a request. ``server`` is what a sweep varied of the server:
    runs that differ in it are of different configurations.
    """

    where: str
    isl_tokens: float
    osl_tokens: float
    ttft_ms: float
    tpot_ms: float | None
    gap_ms: float | None
    requests_per_s: float
    clients: float | None
    model: str = ""
    engine: str = ""
    server: dict[str, int] = field(default_factory=dict)

    @property
    def decoding(self) -> float:
        """Requests in the decode phase on average, by Little's law."""
        return self.requests_per_s * (self.osl_tokens - 1.0) * (self.tpot_ms or 0.0) / 1000.0

    @property
    def in_system(self) -> float:
        """Requests between arrival and last token on average, with the median request's TTFT."""
        return self.decoding + self.requests_per_s * self.ttft_ms / 1000.0

    @property
    def is_alone(self) -> bool:
        """Whether the median request was prefilled on an idle server."""
        return self.in_system <= _ALONE if self.clients is None else self.clients <= 1.0


def median_gap_ms(
    *, median_itl: float | None, mean_itl: float | None, median_tpot: float | None, tpot: float | None
) -> float | None:
    """Choose the time of a decode step among what a run reports, all in ms.

    The median gap between tokens is a step with no prefill in it, also on an engine that prefills between
    steps. Where gaps are longer than time per token, tokens arrive several at a time, and the latter counts.
    So it does where the median gap is far below a mean gap that agrees with the time per token: tokens then
    arrive together, with next to nothing between most of them (a proxy or a client that buffers).
    """
    if not median_itl or not mean_itl or not tpot:
        return median_itl or median_tpot or tpot
    chunked = mean_itl > _CHUNKED * tpot
    together = median_itl < _TOGETHER * mean_itl and mean_itl > tpot / _CHUNKED
    return (median_tpot or tpot) if chunked or together else median_itl


def one_run(file: Path) -> Iterator[Record]:
    """Yield the run of a file that is one JSON document."""
    yield Record(str(file), load_json(file))


def check_served(record: Record, *, completed: float, failed: float, cancelled: bool = False) -> None:
    """Refuse a run that was cancelled, or completed nothing, or failed for more than ``MAX_FAILED``."""
    if cancelled:
        raise InputError(f"{record.where}: the run was cancelled (leave it out)")
    if not completed:
        raise InputError(f"{record.where}: no request completed (leave the run out)")
    asked = failed + completed
    if failed > MAX_FAILED * asked:
        raise InputError(
            f"{record.where}: {failed:.0f} of {asked:.0f} requests failed, were cancelled or did not finish "
            f"(expected at most {MAX_FAILED:.0%}; leave the run out)"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkFormat:
    """How one tool writes its runs.

    Attributes:
        name: the word for ``--format``.
        files: the tool's files among those of a file or folder; none means it is of another format.
        records: the runs of one file, each with the words that say where it stands.
        run: reads a run; raises InputError naming run, key and value.
        model_key: the key that says the model, for messages.
        missing: what to say of a source without any of its files.
        alone: how the tool is told to send one request at a time, for messages.
    """

    name: str
    files: Callable[[Sequence[Look]], Sequence[Path]]
    records: Callable[[Path], Iterable[Record]]
    run: Callable[[Record], Run]
    model_key: str = "model"
    missing: str
    alone: str

    def recognise(self, path: Path, files: Sequence[Look]) -> bool:  # noqa: ARG002 - as in Importer
        """Whether there is a file of the tool's."""
        return bool(self.files(files))

    def read(self, path: Path) -> tuple[Measurement, ...]:
        """Read all runs: one configuration for each server that a sweep varied. They are of one model."""
        files = self.files(looks(path))
        if not files:
            raise InputError(f"{path}: {self.missing}")
        servers: dict[tuple[tuple[str, int], ...], list[tuple[Path, Run]]] = {}
        first = None
        for file in files:
            for record in self.records(file):
                run = self.run(record)
                first = first or run
                if run.model != first.model:
                    record.fail(self.model_key, run.model, f"{first.model}, as in {first.where}")
                servers.setdefault(tuple(run.server.items()), []).append((file, run))
        return tuple(self._measurement(path, runs) for _, runs in sorted(servers.items()))

    def _measurement(self, root: Path, found: list[tuple[Path, Run]]) -> Measurement:
        """Turn runs of one configuration into a measurement; refuse those that contradict themselves."""
        runs = [run for _, run in found]
        for run in runs:
            _check_units(run)
        alone = [run for run in runs if run.is_alone]
        decode, notes = _decode_points(runs)
        if 0 < len(alone) < len(runs):
            notes.append(
                f"prefill is from {len(alone)} runs of lone requests; "
                f"TTFT of {len(runs) - len(alone)} loaded runs is not used"
            )
        engines = {run.engine for run in runs}
        return Measurement(
            origin=str(root),
            format=self.name,
            files=tuple(source_file(file, root) for file in dict.fromkeys(file for file, _ in found)),
            prefill=tuple(PrefillPoint(max(1, round(run.isl_tokens)), 1, run.ttft_ms) for run in alone),
            decode=tuple(decode),
            tensor_parallel=runs[0].server.get("tensor_parallel_size"),
            max_num_seqs=runs[0].server.get("max_num_seqs"),
            model=runs[0].model,
            engine=engines.pop() if len(engines) == 1 else "",
            variant=", ".join(f"{key} {value}" for key, value in runs[0].server.items()),
            length_tolerance=LENGTH_TOLERANCE,
            notes=tuple(notes),
        )


def _decode_points(runs: Sequence[Run]) -> tuple[list[DecodePoint], list[str]]:
    """Return the point of every run that saw steps, and a note where clients and Little's law disagree."""
    points: list[DecodePoint] = []
    disagreements: list[tuple[float, str]] = []
    for run in runs:
        if run.gap_ms is None or run.tpot_ms is None or run.osl_tokens < 2.0:
            continue
        clients, load = run.clients, run.decoding
        seen = load + 1.0 - (min(1.0, load / clients) if clients else 0.0)
        seen = max(1.0, float(f"{seen:.9g}"))
        points.append(DecodePoint(seen, run.isl_tokens + run.osl_tokens / 2.0, run.gap_ms, clients))
        if clients and abs(seen / clients - 1.0) > _DISAGREES:
            off = max(seen / clients, clients / seen)
            disagreements.append((off, f"{clients:g} clients, {seen:.1f} decoding ({run.where})"))
    notes = []
    if disagreements:
        notes.append(
            f"Little's law disagrees with the stated concurrency by more than {_DISAGREES:.0%} in "
            f"{len(disagreements)} of {len(points)} runs (requests wait or prefill meanwhile); worst: "
            f"{max(disagreements)[1]}"
        )
    return points, notes


def _check_units(run: Run) -> None:
    if run.clients and not run.clients / _IDLE < run.in_system < run.clients * _BUSY:
        raise InputError(
            f"{run.where}: {run.requests_per_s:.4g} requests/s at {run.ttft_ms:.4g} ms to first token and "
            f"{run.tpot_ms or 0.0:.4g} ms a token are {run.in_system:.3g} requests at a time, with "
            f"{run.clients:g} clients (expected about as many; are the times in the units they should be?)"
        )
