"""inference-perf's ``stage_N_lifecycle_metrics.json``: a report a stage, times in seconds.

Its ``inter_token_latency`` counts the gaps between chunks of a stream, however many tokens are in one; the
time per output token is taken instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sagescale.perf.importers.benchmark import LENGTH_TOLERANCE, BenchmarkFormat, Run, check_served, one_run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sagescale.perf.importers.record import Record
    from sagescale.perf.importers.source import Look

_KEYS = frozenset({"load_summary", "successes", "failures"})


def _files(files: Sequence[Look]) -> tuple[Path, ...]:
    """Return the stages; the summary over all of them repeats them, and has no load of its own."""
    found = [file.path for file in files if file.has(_KEYS)]
    stages = [path for path in found if path.name.startswith("stage_")]
    return tuple(stages or found)


def _run(record: Record) -> Run:
    done = record.section("successes")
    failed = record.section("failures").number_or_none("count") or 0.0
    check_served(record, completed=done.number("count"), failed=failed)
    osl = done.section("output_len").number("mean", above=0.0)
    latency = done.section("latency")
    step = latency.section("time_per_output_token") if osl >= 2.0 else None
    load = record.section("load_summary")
    return Run(
        where=record.where,
        isl_tokens=_prompt_tokens(done),
        osl_tokens=osl,
        ttft_ms=1000.0 * latency.section("time_to_first_token").number("median", "p50", above=0.0),
        tpot_ms=None if step is None else 1000.0 * step.number("mean", above=0.0),
        gap_ms=None if step is None else 1000.0 * step.number("median", "p50", above=0.0),
        requests_per_s=done.section("throughput").number("requests_per_sec", above=0.0),
        clients=load.number_or_none("concurrency", above=0.0),
    )


def _prompt_tokens(done: Record) -> float:
    """Return mean tokens of a prompt: ``prompt_len``, later ``prompt_tokens``, which counts cached ones.

    Raises:
        InputError: many were in the prefix cache, so that times are of shorter prompts.
    """
    if done.has("prompt_len"):
        return done.section("prompt_len").number("mean", above=0.0)
    prompts = done.section("prompt_tokens")
    cached, total = prompts.number_or_none("cached") or 0.0, prompts.number("total", above=0.0)
    if cached > LENGTH_TOLERANCE * total:
        prompts.fail(
            "cached",
            cached,
            f"at most {LENGTH_TOLERANCE:.0%} of {total:g}: times are of what was computed; "
            "run with prompts that share nothing",
        )
    return prompts.number("mean", above=0.0)


INFERENCE_PERF = BenchmarkFormat(
    name="inference_perf",
    files=_files,
    records=one_run,
    run=_run,
    alone="stages at a rate that leaves each request alone",
    missing=f"no inference-perf stage (expected {', '.join(sorted(_KEYS))})",
)
