"""The simulator's speed and memory: requests a second over the whole simulate call, metrics included.

    python benchmarks/throughput.py [--requests N] [--week | --against CHECKOUT [--cold] | --gaps] [--pairs N]

Prints one line a configuration: simulated requests a second of wall and of CPU time on one core, bytes of
memory a request beyond the trace, and how the cost grows with requests and with instances. Nothing is
asserted. Pairs with another checkout also say whether every request came out alike, bit for bit; on a machine
that is shared look at their CPU time. ``--cold`` compares what the first run costs, which compiles;
``--gaps`` runs that measure the gaps between tokens with runs that do not.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

import numpy as np

_WEEK_REQUESTS, _WEEK_S = 27_000_000, 604_800


def measure(requests: int, prefill: int, decode: int, rate_per_s: float, *, gaps: bool) -> dict[str, float]:
    from sagescale.perf import load_profile
    from sagescale.planner import AutoscalerConfig
    from sagescale.sim.config import SimulatorConfig
    from sagescale.sim.result import run_document
    from sagescale.sim.simulate import simulate
    from sagescale.trace import Trace

    rng = np.random.default_rng(0)
    arrival_s = np.cumsum(rng.exponential(1.0 / rate_per_s, requests))
    arrival_s -= arrival_s[0]
    isl = np.clip(rng.lognormal(6.3, 0.9, requests), 1, 16000).astype(np.int32)
    osl = np.clip(rng.lognormal(5.1, 0.7, requests), 1, 4000).astype(np.int32)
    trace = Trace.from_arrays(arrival_s, isl, osl)
    del arrival_s, isl, osl
    profile = load_profile("h200-llama-3.1-8b-fp8")
    config = AutoscalerConfig(
        prefill_gpus_per_instance=1,
        decode_gpus_per_instance=1,
        min_prefill_instances=prefill,
        max_prefill_instances=prefill,
        min_decode_instances=decode,
        max_decode_instances=decode,
        max_gpu_budget=prefill + decode,
    )
    # Compile and import outside the measurement: a cache that is warm.
    warm = Trace.from_arrays(np.arange(100.0), np.full(100, 100, np.int32), np.full(100, 10, np.int32))
    simulator = SimulatorConfig(**({"measure_gaps": True} if gaps else {}))  # older versions have no such key
    run_document(simulate(warm, profile, config, simulator), "warm")
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    run = simulate(trace, profile, config, simulator)
    simulated_s = time.process_time()
    run_document(run, "benchmark")
    ended_s, ended_cpu_s = time.perf_counter(), time.process_time()
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib
    return {
        "ticks": len(run.ticks),
        "batch": float(np.mean([tick.observation.running_decode for tick in run.ticks])) / decode,
        "wall_s": ended_s - began_s,
        "cpu_s": ended_cpu_s - began_cpu_s,
        "document_cpu_s": ended_cpu_s - simulated_s,
        "planner_s": run.timing.planner_s,
        "bytes_per_request": grown_kib * 1024 / requests,
        "crc": _crc(run.requests),
    }


def _crc(requests: np.ndarray) -> int:
    """Of when every request had its first and its last token; column by column, without what is between."""
    times = (requests["first_token_s"], requests["done_s"])
    return zlib.crc32(np.stack(times).tobytes())


def run(row: tuple[float, ...], checkout: str = ".") -> dict[str, float]:
    """Measure one configuration in a process of its own, since peak memory is a process's."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "PYTHONPATH": checkout}
    command = [sys.executable, str(Path(__file__).resolve()), "--one", *(str(value) for value in row)]
    printed = subprocess.run(
        command, check=True, env=environment, cwd=checkout, capture_output=True, text=True
    ).stdout
    found: dict[str, float] = json.loads(printed)
    requests, prefill, decode, *_ = row
    wall_s, cpu_s = found["wall_s"], found["cpu_s"]
    print(
        f"{requests:>10,} requests  {prefill:>4} prefill {decode:>4} decode  {found['ticks']:>5} ticks  "
        f"batch {found['batch']:5.1f}  {wall_s:7.2f} s  {requests / wall_s:>10,.0f} requests/s  "
        f"CPU {cpu_s:6.2f} s ({requests / cpu_s:>10,.0f} requests/s; planner {found['planner_s']:5.2f} s, "
        f"document {found['document_cpu_s']:5.2f} s)  {found['bytes_per_request']:5.0f} bytes/request",
        flush=True,
    )
    return found


def cold_s(checkout: str) -> float:
    """Return the user CPU seconds of a process that finds no compiled code."""
    with tempfile.TemporaryDirectory() as empty:
        environment = {**os.environ, "NUMBA_CACHE_DIR": empty, "PYTHONPATH": checkout}
        command = [sys.executable, str(Path(__file__).resolve()), "--one", "1000", "3", "8", "1"]
        before_s = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        subprocess.run(command, check=True, env=environment, cwd=checkout, capture_output=True)
        return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before_s


def compare_cold(checkout: str, pairs: int) -> None:
    """Measure a first start in pairs with another checkout."""
    here = str(Path(__file__).resolve().parents[1])
    for _ in range(pairs):
        print(f"first start: {checkout} {cold_s(checkout):.1f} s, {here} {cold_s(here):.1f} s", flush=True)


def compare(pairs: int, base: tuple[tuple[float, ...], str], other: tuple[tuple[float, ...], str]) -> None:
    """Measure two configurations, each in its checkout, in pairs."""
    ratios: dict[str, list[float]] = {"wall_s": [], "cpu_s": []}
    alike = True
    for _ in range(pairs):
        print(*base)
        before = run(*base)
        print(*other)
        now = run(*other)
        alike &= before["crc"] == now["crc"]
        for clock, found in ratios.items():
            found.append(before[clock] / now[clock])
    for clock, found in ratios.items():
        name = {"wall_s": "wall", "cpu_s": "CPU"}[clock]
        print(
            f"speed of the second over the first, {name} time: median {np.median(found):.2f}, "
            f"{min(found):.2f} to {max(found):.2f}"
        )
    print("every request alike, bit for bit" if alike else "requests DIFFER")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, help="default 5 million; of a week 27 million")
    parser.add_argument("--week", action="store_true", help="a week of 27 million requests, and nothing else")
    parser.add_argument(
        "--against", metavar="CHECKOUT", help="two pools, in pairs with another checkout, and the ratio"
    )
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--cold", action="store_true", help="compare first starts, which compile")
    parser.add_argument("--gaps", action="store_true", help="two pools, with gaps measured and without")
    parser.add_argument("--one", nargs="+", metavar="N", help=argparse.SUPPRESS)
    given = parser.parse_args()
    requests = given.requests or 5_000_000
    if given.one:
        n, prefill, decode, rate, *gaps = given.one
        print(json.dumps(measure(int(n), int(prefill), int(decode), float(rate), gaps=bool(gaps))))
    elif given.week:
        run((given.requests or _WEEK_REQUESTS, 2, 4, _WEEK_REQUESTS / _WEEK_S))
    elif given.against and given.cold:
        compare_cold(given.against, given.pairs)
    elif given.against:
        row = (requests, 3, 8, 125.0)
        compare(given.pairs, (row, given.against), (row, str(Path(__file__).resolve().parents[1])))
    elif given.gaps:
        row = (requests, 3, 8, 125.0)
        compare(given.pairs, (row, "."), ((*row, 1), "."))
    else:
        rows = [(requests, 3, 8, 125.0), (requests // 2, 3, 8, 125.0), (requests // 4, 3, 8, 125.0)]
        rows += [(requests // 2, 3 * k, 8 * k, 125.0 * k) for k in (1, 10, 100)]
        for row in rows:
            run(row)


if __name__ == "__main__":
    main()
