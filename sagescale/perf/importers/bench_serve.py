"""What vLLM's ``bench serve`` and SGLang's ``bench_serving`` have in common: the fields of one run."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sagescale.perf.importers.benchmark import Run, median_gap_ms

if TYPE_CHECKING:
    from sagescale.perf.importers.record import Record

__all__ = ["COMMON_KEYS", "bench_serve_run"]

COMMON_KEYS = frozenset(
    {"duration", "completed", "total_input_tokens", "total_output_tokens", "median_ttft_ms"}
)
"""Keys every run of either tool has."""


def bench_serve_run(record: Record) -> Run:
    """Read a run; times are ms and ``duration`` is s. Raises InputError naming the run and the key.

    Lengths are totals over completed requests. ``max_concurrency`` may be null; ``request_rate`` is not
    needed, as the rate served is ``completed / duration``.
    """
    completed = record.number("completed")
    asked = record.number_or_none("num_prompts")
    failed = max(record.number_or_none("failed") or 0.0, (asked or 0.0) - completed, _errors(record))
    duration_s = record.number("duration", above=0.0)
    finished = max(completed, 1.0)
    isl, osl = record.number("total_input_tokens") / finished, record.number("total_output_tokens") / finished
    failed_all = completed == 0.0
    one_token = osl < 2.0 or failed_all
    tpot = None if one_token else record.number("mean_tpot_ms", "median_tpot_ms", above=0.0)
    gap = None
    if not one_token:
        gap = median_gap_ms(
            median_itl=record.number_or_none("median_itl_ms"),
            mean_itl=record.number_or_none("mean_itl_ms"),
            median_tpot=record.number_or_none("median_tpot_ms"),
            tpot=tpot,
        )
    ttft = 1.0 if failed_all else record.number("median_ttft_ms", "mean_ttft_ms", above=0.0)
    if ttft > duration_s * 1000.0:
        limit = f"at most the run's duration of {duration_s * 1000.0:g} ms; wrong units?"
        record.fail("median_ttft_ms", ttft, limit)
    return Run(
        where=record.where,
        isl_tokens=isl,
        osl_tokens=osl,
        ttft_ms=ttft,
        tpot_ms=tpot,
        gap_ms=gap,
        requests_per_s=completed / duration_s,
        clients=_clients(record),
        completed=completed,
        failed=failed,
    )


def _clients(record: Record) -> float | None:
    clients = record.number_or_none("max_concurrency", above=0.0)
    return clients if clients is None or math.isfinite(clients) else None


def _errors(record: Record) -> float:
    return float(sum(1 for error in record.values("errors") if error))
