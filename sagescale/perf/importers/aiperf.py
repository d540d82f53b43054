"""AIPerf's ``profile_export_aiperf.json``, and GenAI-Perf's ``profile_export_genai_perf.json`` before it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sagescale.errors import InputError
from sagescale.perf.importers.benchmark import BenchmarkFormat, Run, check_served
from sagescale.perf.importers.record import Record
from sagescale.perf.importers.source import load_json, look_at

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from sagescale.perf.importers.source import Look

_METRICS = frozenset({"request_latency", "input_sequence_length", "output_sequence_length"})
_SUMMARIES = ("_aggregate.json", "_collated.json")

_MS = {
    "ns": 1e-6, "nanoseconds": 1e-6, "us": 1e-3, "µs": 1e-3, "microseconds": 1e-3,
    "ms": 1.0, "milliseconds": 1.0, "s": 1e3, "sec": 1e3, "seconds": 1e3,
}  # fmt: skip
_TOKENS = {"tokens": 1.0, "token": 1.0}
_PER_SECOND = {"requests/sec": 1.0, "requests/s": 1.0, "req/s": 1.0, "per sec": 1.0, "request/sec": 1.0}
_COUNT = {"requests": 1.0, "request": 1.0, "count": 1.0}

_LOADS = (("loadgen",), (), ("perf_analyzer", "stimulus"))
"""Where the versions keep the load under ``input_config``: AIPerf, GenAI-Perf, its later releases."""


def _is_export(file: Look) -> bool:
    return file.has(_METRICS) and "unit" in file.inner("request_latency")


def _is_summary(file: Look) -> bool:
    if file.path.name.endswith(_SUMMARIES) and file.names:
        return True
    return "metrics" in file.names and bool(
        {"aggregation_type", "num_profile_runs"} & {*file.inner("metadata"), *file.names}
    )


def _files(files: Sequence[Look]) -> list[Path]:
    """Return the runs' own exports; where there are none the summaries over runs, to be refused."""
    exports = [file.path for file in files if _is_export(file) and not _is_summary(file)]
    return exports or [file.path for file in files if _is_summary(file)]


def _records(file: Path) -> Iterator[Record]:
    if _is_summary(look_at(file)):
        raise InputError(
            f"{file}: a summary over runs (expected the runs' own "
            "profile_export_aiperf.json or profile_export_genai_perf.json)"
        )
    yield Record(str(file), load_json(file))


def _run(record: Record) -> Run:
    """Read a run: the unit a metric states is the unit it is read in."""
    completed = _metric(record, "request_count", _COUNT)
    failed = _metric_or_none(record, "error_request_count", _COUNT) or _summed_errors(record)
    check_served(record, completed=completed, failed=failed, cancelled=record.flag("was_cancelled"))
    if not record.has("time_to_first_token"):
        record.fail("time_to_first_token", None, "a run with --streaming, to see first tokens")
    osl = _metric(record, "output_sequence_length", _TOKENS)
    tpot = _metric_or_none(record, "inter_token_latency", _MS) if osl >= 2.0 else None
    return Run(
        where=record.where,
        isl_tokens=_metric(record, "input_sequence_length", _TOKENS),
        osl_tokens=osl,
        ttft_ms=_metric(record, "time_to_first_token", _MS, "p50"),
        tpot_ms=tpot,
        gap_ms=_metric(record, "inter_token_latency", _MS, "p50") if tpot else None,
        requests_per_s=_metric(record, "request_throughput", _PER_SECOND),
        clients=_clients(record),
        model=_model(record),
    )


def _metric(record: Record, name: str, units: dict[str, float], statistic: str = "avg") -> float:
    """Return a metric's statistic, ``avg`` where a version has no other, in the unit ``units`` maps to."""
    block = record.section(name)
    unit = block.text("unit")
    if unit.lower() not in units:
        block.fail("unit", unit or None, f"one of: {', '.join(units)}")
    # The block of a count may have nothing but avg, and 0 is a count.
    above = None if units is _COUNT else 0.0
    return block.number(statistic, "avg", above=above) * units[unit.lower()]


def _metric_or_none(record: Record, name: str, units: dict[str, float]) -> float | None:
    return _metric(record, name, units) if record.has(name) else None


def _summed_errors(record: Record) -> float:
    rows = enumerate(record.values("error_summary"))
    return sum(Record(f"{record.where}: error_summary[{i}]", row).number("count") for i, row in rows)


def _clients(record: Record) -> float | None:
    """Return the concurrency the run kept up; None for a run at a request rate.

    AIPerf 0.10 lists phases: those left out of the results, such as a warm-up, are not the run's.
    """
    config = record.section_or_none("input_config")
    phases = [Record(f"{record.where}: phases", each) for each in config.values("phases")] if config else []
    measured = [phase for phase in phases if not phase.flag("exclude_from_results")]
    if measured:
        loads = {phase.number_or_none("concurrency", above=0.0) for phase in measured}
        if len(loads) > 1:
            record.fail("input_config.phases", sorted(map(str, loads)), "one concurrency in what is measured")
        return loads.pop()
    for place in _LOADS:
        section = record.section_or_none("input_config", *place)
        if section is not None and section.has("concurrency"):
            return section.number("concurrency", above=0.0)
    return None


def _model(record: Record) -> str:
    models = record.section_or_none("input_config", "models")
    items = [Record(f"{record.where}: models", each) for each in models.values("items")] if models else []
    if len(items) == 1:
        return items[0].text("name")
    for place in (("endpoint",), ()):
        section = record.section_or_none("input_config", *place)
        for name in ("model_names", "model"):
            names = section.values(name) if section else []
            if len(names) == 1 and isinstance(names[0], str):
                return names[0]
    return ""


AIPERF = BenchmarkFormat(
    name="aiperf",
    files=_files,
    records=_records,
    run=_run,
    alone="`--concurrency 1`",
    model_key="input_config",
    missing=f"no AIPerf or GenAI-Perf run (expected {', '.join(sorted(_METRICS))})",
)
