"""Speed and memory of simulated sessions whose turns wait for answers.

    python benchmarks/sessions.py [--requests N] [--agents TRACE] [--copies N]

Prints requests a second of the whole simulate call, compilation excluded, in wall and in CPU time of one
core: short prompts in closed and in open loop, by the clock and with a closed population; then recorded
coding agents with prompts of 100,000 tokens and prefix caches, with memory without end and with little,
routed by what is cached. With the peak memory of the process and bytes a request beyond the trace. Nothing is
asserted.
"""

from __future__ import annotations

import argparse
import resource
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from aggregated import timed

_AGENTS = Path(__file__).resolve().parents[2] / "shared" / "traces" / "sessions" / "claude_code_300.jsonl.gz"
_TURNS, _RATE_PER_S, _THINK_S = 10, 10.0, 20.0


def conversations(requests: int) -> Any:
    """Sessions of ten turns, ten a second, with short prompts and answers."""
    from sagescale.trace import Trace, Turns

    rng = np.random.default_rng(0)
    sessions = requests // _TURNS
    start_s = np.cumsum(rng.exponential(1.0 / _RATE_PER_S, sessions))
    think_s = rng.exponential(_THINK_S, (sessions, _TURNS))
    think_s[:, 0] = 0.0
    nominal_s = (start_s[:, None] + np.cumsum(think_s + 2.0, axis=1) - 2.0).ravel()
    order = np.argsort(nominal_s, kind="stable")
    row = np.empty(len(order), np.int32)
    row[order] = np.arange(len(order), dtype=np.int32)
    first = order % _TURNS == 0
    before = row[order[~first] - 1]
    isl = np.clip(rng.lognormal(5.5, 0.8, len(order)), 1, 8000).astype(np.int32)
    osl = np.clip(rng.lognormal(4.5, 0.7, len(order)), 1, 2000).astype(np.int32)
    trace = Trace.from_arrays(nominal_s[order], isl, osl, session_id=order // _TURNS)
    turns = Turns(np.concatenate([[0], np.cumsum(~first)]), before, think_s.ravel()[order])
    return replace(trace, turns=turns)


def measure(name: str, trace: Any, config: dict[str, object], **keys: object) -> None:
    """Simulate once to compile and once to measure, and print what that took."""
    result, wall_s, cpu_s, grown = timed(trace, {**config, **keys})
    document = result.document.runs[0]
    prefix = None if document.engines is None else document.engines.prefix
    print(
        f"{name}: {len(trace):,} requests in {wall_s:.1f} s, {len(trace) / wall_s:,.0f} requests/s "
        f"(CPU {len(trace) / cpu_s:,.0f}), {grown:.0f} bytes/request, "
        f"peak {_peak_gib():.2f} GiB; never arrived {document.requests.never_arrived or 0:,}, attainment "
        f"{document.sla.attainment:.2%}" + (f", hits {prefix.hit_rate:.2%}" if prefix is not None else ""),
        flush=True,
    )


def _peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--agents", default=str(_AGENTS))
    parser.add_argument("--sessions", default="poisson:60/h", help="when the agents' sessions begin")
    parser.add_argument("--copies", type=float, default=2.53, help="of the agents' sessions: 49,000 requests")
    given = parser.parse_args()
    from sagescale.trace import TransformSpec, apply_transforms, parse_sessions, read_trace

    pools = {
        f"{end}_{pool}_instances": count
        for end in ("min", "max")
        for pool, count in (("prefill", 3), ("decode", 8))
    }
    two = {**pools, "max_gpu_budget": 11}
    one = {"serving": "aggregated", "min_instances": 8, "max_instances": 8, "max_gpu_budget": 8}
    if given.requests:
        short = conversations(given.requests)
        measure("two pools, open loop", short, two, open_loop=True)
        measure("two pools, closed loop", short, two)
        measure("two pools, 1,000 sessions at a time", short, two, concurrent_sessions=1000)
        measure("aggregated, open loop", short, one, open_loop=True)
        measure("aggregated, closed loop", short, one)
    began = time.perf_counter()
    agents = apply_transforms(
        read_trace(given.agents),
        TransformSpec(rate_scale=given.copies, sessions=parse_sessions(given.sessions)),
    )
    ids = int(agents.prefixes.counts.sum(dtype=np.int64))
    print(
        f"agents: {len(agents):,} requests of {agents.isl.mean():,.0f} tokens, {ids:,} ids, read in "
        f"{time.perf_counter() - began:.1f} s, peak {_peak_gib():.2f} GiB",
        flush=True,
    )
    cached = {**one, "prefix_cache": True, "routing_strategy": "kv_aware"}
    measure("agents, memory without end", agents, cached, max_kv_tokens=10**11)
    measure("agents, memory of the profile", agents, cached)


if __name__ == "__main__":
    main()
