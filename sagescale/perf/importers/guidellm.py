"""guidellm's ``benchmarks.json``: ``metadata.version`` 1, which guidellm up to 0.6.1 writes, and 2."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sagescale.perf.importers.benchmark import BenchmarkFormat, Run, check_served
from sagescale.perf.importers.record import Record
from sagescale.perf.importers.source import load_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from sagescale.perf.importers.source import Look

_VERSIONS = (1.0, 2.0)
_KEYS = frozenset({"metadata", "benchmarks"})
_OLD_KEYS = ({"benchmarks"}, {"args", "benchmarks"})
"""What reports consist of before 0.5: they do not say which version they are, and are refused."""


def _files(files: Sequence[Look]) -> tuple[Path, ...]:
    """Return reports that say their version; where there are none older ones, to be refused."""
    found = tuple(file.path for file in files if file.has(_KEYS) and "version" in file.inner("metadata"))
    return found or tuple(file.path for file in files if set(file.names) in _OLD_KEYS)


def _records(file: Path) -> Iterator[Record]:
    document = Record(str(file), load_json(file))
    if not document.has("metadata"):
        document.fail(
            "metadata",
            None,
            "metadata.version 1 or 2: guidellm before 0.5 wrote none, run it again with 0.5 or later",
        )
    metadata = document.section("metadata")
    if metadata.number("version") not in _VERSIONS:
        by = f" (written by guidellm {name})" if (name := metadata.text("guidellm_version")) else ""
        metadata.fail(
            "version", metadata.number("version"), f"1 or 2{by}: run or export again with 0.5 or later"
        )
    benchmarks = document.values("benchmarks")
    if not benchmarks:
        document.fail("benchmarks", benchmarks, "at least one run")
    for index, content in enumerate(benchmarks):
        yield Record(f"{file}: benchmark {index}", content)


def _run(record: Record) -> Run:
    metrics = record.section("metrics")
    totals = metrics.section_or_none("request_totals")
    completed = totals.number("successful") if totals else _count(metrics, "successful")
    # Requests still running when the clock stopped did not fail; as many as there were clients may be.
    places = ("config", "scheduler", "args")  # 0.5 and later, versions between, 0.3
    strategy = next((found for place in places if (found := record.section_or_none(place, "strategy"))), None)
    clients = _clients(metrics, strategy)
    errored = totals.number("errored") if totals else _count(metrics, "errored")
    incomplete = totals.number("incomplete") if totals else _count(metrics, "incomplete")
    failed = errored + max(0.0, incomplete - (clients or 0.0))
    check_served(record, completed=completed, failed=failed)
    osl = _mean(metrics, "output_token_count")
    return Run(
        where=record.where,
        isl_tokens=_mean(metrics, "prompt_token_count"),
        osl_tokens=osl,
        ttft_ms=_median(metrics, "time_to_first_token_ms"),
        tpot_ms=_mean(metrics, "inter_token_latency_ms") if osl >= 2.0 else None,
        gap_ms=_median(metrics, "inter_token_latency_ms") if osl >= 2.0 else None,
        requests_per_s=_mean(metrics, "requests_per_second"),
        clients=clients,
    )


def _clients(metrics: Record, strategy: Record | None) -> float | None:
    """Return the concurrency the run kept up: 1 synchronous, the streams of a concurrent one, else no limit.

    Without a strategy, the measured concurrency decides only whether the run was of lone requests.
    """
    if strategy is not None:
        kind = strategy.text("type_", "kind")
        if kind == "synchronous":
            return 1.0
        return strategy.number_or_none("streams", above=0.0) if kind == "concurrent" else None
    return 1.0 if _mean(metrics, "request_concurrency") <= 1.0 else None


def _count(metrics: Record, status: str) -> float:
    return metrics.section("time_to_first_token_ms").section(status).number("count")


def _mean(metrics: Record, name: str) -> float:
    return metrics.section(name).section("successful").number("mean", above=0.0)


def _median(metrics: Record, name: str) -> float:
    return metrics.section(name).section("successful").number("median", above=0.0)


GUIDELLM = BenchmarkFormat(
    name="guidellm",
    files=_files,
    records=_records,
    run=_run,
    alone="`--profile synchronous`",
    missing="no guidellm report (expected metadata and benchmarks)",
)
