"""The simulator's speed and memory: requests a second over the whole simulate call, metrics included.

    python benchmarks/throughput.py [--requests N] [--week | --against CHECKOUT]

Prints one line a configuration: simulated requests a second of wall time on one core, bytes of memory a
request beyond the trace, and how the cost grows with requests and with instances. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np


def measure(requests: int, prefill: int, decode: int, rate_per_s: float) -> None:
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
    run_document(simulate(warm, profile, config, SimulatorConfig()), "warm")
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run = simulate(trace, profile, config, SimulatorConfig())
    document = run_document(run, "benchmark")
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib
    batch = np.mean([tick.observation.running_decode for tick in run.ticks]) / decode
    timing = document.timing
    print(
        f"{requests:>10,} requests  {prefill:>4} prefill {decode:>4} decode  {len(run.ticks):>5} ticks  "
        f"batch {batch:5.1f}  {timing.simulate_s:7.2f} s  {timing.requests_per_s:>10,.0f} requests/s  "
        f"planner {timing.planner_s:5.2f} s  {grown_kib * 1024 / requests:5.0f} bytes/request  "
        f"attainment {document.sla.attainment:.3f}"
    )


def run(row: tuple[float, ...], checkout: str = ".") -> float:
    """Measure one configuration in a process of its own, since peak memory is a process's; return seconds."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "PYTHONPATH": checkout}
    command = [sys.executable, str(Path(__file__).resolve()), "--one", *(str(value) for value in row)]
    printed = subprocess.run(
        command, check=True, env=environment, cwd=checkout, capture_output=True, text=True
    ).stdout
    print(printed, end="", flush=True)
    return float(printed.split("attainment")[0].split(" s  ")[0].split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=5_000_000)
    parser.add_argument("--week", action="store_true", help="a week of 27 million requests, and nothing else")
    parser.add_argument(
        "--against", metavar="CHECKOUT", help="two pools, in pairs with another checkout, and the ratio"
    )
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--one", nargs=4, metavar=("N", "P", "D", "RATE"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    requests = given.requests
    if given.one:
        measure(int(given.one[0]), int(given.one[1]), int(given.one[2]), float(given.one[3]))
    elif given.week:
        run((27_000_000, 2, 4, 27_000_000 / 604_800))
    elif given.against:
        here = str(Path(__file__).resolve().parents[1])
        row = (requests, 3, 8, 125.0)
        ratios = []
        for _ in range(given.pairs):
            print(given.against)
            before_s = run(row, given.against)
            print(here)
            ratios.append(before_s / run(row, here))
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        print(f"speed over {given.against}: median {np.median(ratios):.2f}, {spread}")
    else:
        rows = [(requests, 3, 8, 125.0), (requests // 2, 3, 8, 125.0), (requests // 4, 3, 8, 125.0)]
        rows += [(requests // 2, 3 * k, 8 * k, 125.0 * k) for k in (1, 10, 100)]
        for row in rows:
            run(row)


if __name__ == "__main__":
    main()
