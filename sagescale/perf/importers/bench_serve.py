"""vLLM's ``bench serve`` and SGLang's ``bench_serving``: a JSON object a run.

vLLM writes one object, JSON lines (``--append-result``) or a sweep's tree; SGLang JSON lines. Times are ms
and ``duration`` is s. A sweep's ``summary.json`` repeats the ``run=N.json`` beside it, and is read where
there are none.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sagescale.errors import InputError
from sagescale.perf.importers.benchmark import BenchmarkFormat, Run, check_served, median_gap_ms
from sagescale.perf.importers.record import Record
from sagescale.perf.importers.source import json_records

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from sagescale.perf.importers.source import Look

_KEYS = frozenset({"duration", "completed", "total_input_tokens", "total_output_tokens", "median_ttft_ms"})
_VLLM_KEYS = _KEYS | {"num_prompts"}
_SGLANG_KEYS = frozenset({"total_output_tokens_retokenized", "mean_e2e_latency_ms", "median_e2e_latency_ms"})
"""Keys of which SGLang's runs have at least one, and vLLM's none (theirs is ``e2el``)."""

_SAME_COUNT = 0.1
"""Counts of tokens, and of tokens told from the text again, differ by no more."""

_SUPPORTED = 0.15
"""A count is supported where the mean end-to-end time makes it so nearly."""

_SERVER = (
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "data_parallel_size",
    "max_num_seqs",
    "max_num_batched_tokens",
)


def _vllm_files(files: Sequence[Look]) -> tuple[Path, ...]:
    found = [file.path for file in files if file.has(_VLLM_KEYS) and not file.names.keys() & _SGLANG_KEYS]
    runs = {path.parent for path in found if path.name != "summary.json"}
    return tuple(
        path
        for path in found
        if path.name != "summary.json" or not any(path.parent in (run, *run.parents) for run in runs)
    )


def _sglang_files(files: Sequence[Look]) -> tuple[Path, ...]:
    return tuple(file.path for file in files if file.has(_KEYS) and file.names.keys() & _SGLANG_KEYS)


def _records(file: Path) -> Iterator[Record]:
    return (Record(where, content) for where, content in json_records(file))


def _vllm_run(record: Record) -> Run:
    # A sweep adds what it varied of the server to every run.
    server = {key: int(value) for key in _SERVER if (value := record.number_or_none(key, above=0.0))}
    engine = "vllm" if record.text("backend", "endpoint_type") in {"", "vllm"} else ""
    return _run(record, model=record.text("model_id"), engine=engine, server=server)


def _sglang_run(record: Record) -> Run:
    # SGLang does not say which model it served.
    engine = "sglang" if record.text("backend").startswith("sglang") else ""
    return _run(record, model="", engine=engine, server={}, by_time=_tokens_by_time(record))


def _tokens_by_time(record: Record) -> tuple[float, float] | None:
    """Return output tokens a request and ms a token where SGLang's two counts contradict each other.

    A server that streams several tokens a chunk, or a P/D router, has it count chunks; what it counts anew
    from the text may be wrong as well. The mean end-to-end time, ``ttft + (n - 1) itl``, tells which is
    right.

    Raises:
        InputError: it supports neither, or both.
    """
    completed = record.number("completed")
    counts = {
        name: count / completed
        for name in ("total_output_tokens", "total_output_tokens_retokenized")
        if completed and (count := record.number_or_none(name))
    }
    if len(counts) < 2 or max(counts.values()) <= (1.0 + _SAME_COUNT) * min(counts.values()):
        return None
    e2e, ttft, itl = map(record.number_or_none, ("mean_e2e_latency_ms", "mean_ttft_ms", "mean_itl_ms"))
    decoding_ms = None if e2e is None or ttft is None else e2e - ttft
    supported = []
    if decoding_ms is not None and decoding_ms > 0.0 and itl:
        by_time = 1.0 + decoding_ms / itl
        supported = [osl for osl in counts.values() if abs(osl / by_time - 1.0) <= _SUPPORTED]
    if len(supported) != 1 or decoding_ms is None:
        named = " and ".join(f"{name} {record.number(name):g}" for name in counts)
        raise InputError(
            f"{record.where}: {named} of {completed:g} requests contradict each other, and the mean "
            "end-to-end time does not tell which is right (expected mean_e2e_latency_ms = mean_ttft_ms + "
            "(n - 1) mean_itl_ms for one of them; leave the run out, or benchmark without the router)"
        )
    (osl,) = supported
    return osl, decoding_ms / max(osl - 1.0, 1.0)


def _run(
    record: Record,
    *,
    model: str,
    engine: str,
    server: dict[str, int],
    by_time: tuple[float, float] | None = None,
) -> Run:
    """Read what both tools write.

    Lengths are totals over completed requests. ``max_concurrency`` may be null; ``request_rate`` is not
    needed, as the rate served is ``completed / duration``. ``by_time`` is output tokens a request, and ms a
    token, where the tool's own are wrong.
    """
    completed = record.number("completed")
    asked = record.number_or_none("num_prompts") or 0.0
    errors = float(sum(1 for error in record.values("errors") if error))
    failed = max(record.number_or_none("failed") or 0.0, asked - completed, errors)
    check_served(record, completed=completed, failed=failed)
    duration_s = record.number("duration", above=0.0)
    isl = record.number("total_input_tokens") / completed
    osl = record.number("total_output_tokens") / completed if by_time is None else by_time[0]
    tpot = gap = None
    if osl >= 2.0:
        tpot = record.number("mean_tpot_ms", "median_tpot_ms", above=0.0) if by_time is None else by_time[1]
        gap = median_gap_ms(
            median_itl=record.number_or_none("median_itl_ms"),
            mean_itl=record.number_or_none("mean_itl_ms"),
            median_tpot=None if by_time is not None else record.number_or_none("median_tpot_ms"),
            tpot=tpot,
        )
    ttft = record.number("median_ttft_ms", "mean_ttft_ms", above=0.0)
    if ttft > duration_s * 1000.0:
        limit = f"at most the run's duration of {duration_s * 1000.0:g} ms; wrong units?"
        record.fail("median_ttft_ms", ttft, limit)
    clients = record.number_or_none("max_concurrency", above=0.0)
    return Run(
        where=record.where,
        isl_tokens=isl,
        osl_tokens=osl,
        ttft_ms=ttft,
        tpot_ms=tpot,
        gap_ms=gap,
        requests_per_s=completed / duration_s,
        clients=clients if clients is None or math.isfinite(clients) else None,
        model=model,
        engine=engine,
        server=server,
    )


VLLM_BENCH = BenchmarkFormat(
    name="vllm_bench",
    files=_vllm_files,
    records=_records,
    run=_vllm_run,
    alone="`--max-concurrency 1`",
    model_key="model_id",
    missing=f"no vLLM run (expected {', '.join(sorted(_VLLM_KEYS))})",
)
SGLANG_BENCH = BenchmarkFormat(
    name="sglang_bench",
    files=_sglang_files,
    records=_records,
    run=_sglang_run,
    alone="`--max-concurrency 1`",
    missing=(
        f"no SGLang run (expected {', '.join(sorted(_KEYS))} and one of {', '.join(sorted(_SGLANG_KEYS))})"
    ),
)
