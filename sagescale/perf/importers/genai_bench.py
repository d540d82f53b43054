"""genai-bench: a JSON file a run with ``aggregated_metrics``; times in ``_time_unit``, seconds by default."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sagescale.perf.importers.benchmark import BenchmarkFormat, Run, check_served, one_run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sagescale.perf.importers.record import Record
    from sagescale.perf.importers.source import Look

_METRICS = "aggregated_metrics"
_MS = {"s": 1000.0, "ms": 1.0}


def _files(files: Sequence[Look]) -> tuple[Path, ...]:
    return tuple(file.path for file in files if {"stats", "run_duration"} <= file.inner(_METRICS))


def _run(record: Record) -> Run:
    unit = record.text("_time_unit") or "s"
    if unit not in _MS:
        record.fail("_time_unit", unit, f"one of: {', '.join(_MS)}")
    metrics = record.section(_METRICS)
    stats = metrics.section("stats")
    failed = metrics.number_or_none("num_error_requests") or 0.0
    check_served(record, completed=metrics.number("num_completed_requests"), failed=failed)
    osl = stats.section("num_output_tokens").number("mean", above=0.0)
    step = stats.section("tpot") if osl >= 2.0 else None
    # Of a run at a rate, num_concurrency is the rate.
    at_rate = metrics.text("iteration_type") == "request_rate" or metrics.has("total_arrivals")
    return Run(
        where=record.where,
        isl_tokens=stats.section("num_input_tokens").number("mean", above=0.0),
        osl_tokens=osl,
        ttft_ms=_MS[unit] * stats.section("ttft").number("p50", "mean", above=0.0),
        tpot_ms=None if step is None else _MS[unit] * step.number("mean", above=0.0),
        gap_ms=None if step is None else _MS[unit] * step.number("p50", "mean", above=0.0),
        requests_per_s=metrics.number("requests_per_second", above=0.0),
        clients=None if at_rate else metrics.number_or_none("num_concurrency", above=0.0),
    )


GENAI_BENCH = BenchmarkFormat(
    name="genai_bench",
    files=_files,
    records=one_run,
    run=_run,
    alone="`--num-concurrency 1`",
    missing=f"no genai-bench run (expected {_METRICS} with stats and run_duration)",
)
