"""End-to-end benchmark runs turned into measurements of the two pools.

A client sees time to first token and gaps between tokens, not pools. Of each run is taken:

* **Prefill**: (mean input tokens, median TTFT) of a run whose requests met an idle server: concurrency 1, or
  at most 0.2 requests in the system on average (Little's law over the whole request), so that the
  median request waited for nobody. TTFT under load is queueing and says nothing of prefill alone.
* **Decode**: (requests decoding, input + half of output tokens, time between tokens). Requests decoding on
  average: L = requests/s * (output tokens - 1) * mean TPOT (Little's law over the decode phase). A step
  always holds the request whose token is counted, so a step sees ``L + 1 - L/c`` of c clients' requests, and
  ``L + 1`` with no limit on clients (the arrival theorem): 1 for a lone client, L for many.

Input lengths and contexts are means of runs, so those within 5 % are one length (``lengths.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sagescale.errors import InputError
from sagescale.perf.measurement import DecodePoint, Measurement, PrefillPoint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sagescale.perf.profile import SourceFile

__all__ = ["LENGTH_TOLERANCE", "MAX_FAILED", "Run", "measured", "median_gap_ms"]

LENGTH_TOLERANCE = 0.05
"""Mean lengths of runs this close are one length."""

MAX_FAILED = 0.10
"""A run with a larger share of failed requests is refused."""

_ALONE = 0.2
"""Requests in the system up to which the median request is served alone."""

_DISAGREES = 0.10
_CHUNKED = 1.2
_BUSY, _IDLE = 5.0, 50.0
"""Requests in the system above this times the clients, or below this part of them, mean wrong units."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One benchmark run in common units; ``where`` names file and run in messages.

    ``clients`` is the concurrency the client held (None: no limit), ``tpot_ms`` the mean over requests of
    (latency - TTFT) / (output tokens - 1), ``gap_ms`` the time between tokens to take for a decode step; both
    are None where a run generated one token a request.
    """

    where: str
    isl_tokens: float
    osl_tokens: float
    ttft_ms: float
    tpot_ms: float | None
    gap_ms: float | None
    requests_per_s: float
    clients: float | None
    completed: float
    failed: float = 0.0
    cancelled: bool = False

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
    """
    if median_itl and not (mean_itl and tpot and mean_itl > _CHUNKED * tpot):
        return median_itl
    return median_tpot or tpot


def measured(
    runs: Sequence[Run],
    *,
    origin: str,
    format_name: str,
    files: tuple[SourceFile, ...],
    model: str = "",
    engine: str = "",
    engine_version: str = "",
) -> Measurement:
    """Turn runs of one configuration into a measurement.

    Raises InputError for a cancelled or mostly failed run, and where times and rates contradict each other.
    """
    for run in runs:
        _check(run)
    prefill = tuple(
        PrefillPoint(max(1, round(run.isl_tokens)), 1, run.ttft_ms) for run in runs if run.is_alone
    )
    decode: list[DecodePoint] = []
    disagreements: list[tuple[float, str]] = []
    for run in runs:
        if run.gap_ms is None or run.tpot_ms is None or run.osl_tokens < 2.0:
            continue
        clients = run.clients
        load = run.decoding
        seen = load + 1.0 - (min(1.0, load / clients) if clients else 0.0)
        seen = max(1.0, float(f"{seen:.9g}"))
        decode.append(DecodePoint(seen, run.isl_tokens + run.osl_tokens / 2.0, run.gap_ms, clients))
        if clients and abs(seen / clients - 1.0) > _DISAGREES:
            off = max(seen / clients, clients / seen)
            disagreements.append((off, f"{clients:g} clients, {seen:.1f} decoding ({run.where})"))
    notes = []
    if disagreements:
        notes.append(
            f"Little's law disagrees with the stated concurrency by more than {_DISAGREES:.0%} in "
            f"{len(disagreements)} of {len(decode)} runs (requests wait or prefill meanwhile); worst: "
            f"{max(disagreements)[1]}"
        )
    loaded = sum(not run.is_alone for run in runs)
    if prefill and loaded:
        notes.append(
            f"prefill is from {len(prefill)} runs of lone requests; TTFT of {loaded} loaded runs is not used"
        )
    return Measurement(
        origin=origin,
        format=format_name,
        files=files,
        prefill=prefill,
        decode=tuple(decode),
        model=model,
        engine=engine,
        engine_version=engine_version,
        length_tolerance=LENGTH_TOLERANCE,
        notes=tuple(notes),
    )


def _check(run: Run) -> None:
    if run.cancelled:
        raise InputError(f"{run.where}: the run was cancelled (leave it out)")
    if not run.completed:
        raise InputError(f"{run.where}: no request completed (leave the run out)")
    asked = run.failed + run.completed
    if run.failed > MAX_FAILED * asked:
        raise InputError(
            f"{run.where}: {run.failed:.0f} of {asked:.0f} requests failed, were cancelled or did not finish "
            f"(expected at most {MAX_FAILED:.0%}; leave the run out)"
        )
    if run.clients and not run.clients / _IDLE < run.in_system < run.clients * _BUSY:
        raise InputError(
            f"{run.where}: {run.requests_per_s:.4g} requests/s at {run.ttft_ms:.4g} ms to first token and "
            f"{run.tpot_ms or 0.0:.4g} ms a token are {run.in_system:.3g} requests at a time, with "
            f"{run.clients:g} clients (expected about as many; are the times in the units they should be?)"
        )
