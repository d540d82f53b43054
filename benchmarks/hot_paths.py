"""What runs often, and how long it takes here.

    python benchmarks/hot_paths.py [--ticks [--against CHECKOUT]]

A predictor's step, a planner's step, a tick of policy slo at a hundred instances on the kernel, and reading a
million rows of Azure CSV: the best of a few, and the ratio to a loop in plain Python on the same core, which
is what to compare between machines. Nothing is asserted: on a busy machine everything is slow. `--ticks` is a
simulated tick under each policy and nothing else; `--against` has another checkout's beside it, in turns.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from sagescale.perf import ProfileModel, load_profile
from sagescale.planner import AutoscalerConfig, Observation, Planner
from sagescale.planner.forecast import make_predictor
from sagescale.sim.config import SimulatorConfig
from sagescale.sim.simulate import simulate
from sagescale.sim.twin import KernelTwin
from sagescale.trace import Trace, read_trace

if TYPE_CHECKING:
    from collections.abc import Callable

PERF = ProfileModel(load_profile("h200-llama-3.1-8b-fp8"))


def best(run: Callable[[], object], times: int = 5) -> float:
    """Return the seconds of the fastest of a few runs."""
    shortest = math.inf
    for _ in range(times):
        began_s = time.perf_counter()
        run()
        shortest = min(shortest, time.perf_counter() - began_s)
    return shortest


def plain_loop() -> None:
    """Add ten thousand numbers: what to compare machines by."""
    total = 0
    for value in range(10_000):
        total += value


PLAIN_LOOP_S = best(plain_loop, 20)


def show(what: str, seconds: float, unit: str) -> None:
    """Print a figure, and how many plain loops it takes."""
    scale = {"us": 1e6, "ms": 1e3, "s": 1.0}[unit]
    print(f"{what:<44}{seconds * scale:10.2f} {unit:<3}{seconds / PLAIN_LOOP_S:12.4f} plain loops")


def window(number: int, requests: float, prefill: int = 1, decode: int = 2) -> Observation:
    """Make a minute of requests of 1000 + 200 tokens."""
    from sagescale.fleet import PoolCounts, Pools  # an older checkout has ticks, but no such package

    return Observation(
        time_s=60.0 * number,
        window_s=60.0,
        pools=Pools(PoolCounts(ready=prefill), PoolCounts(ready=decode)),
        requests=requests,
        completed=requests,
        isl_mean=1000.0,
        osl_mean=200.0,
        ttft_ms_mean=100.0,
        itl_ms_mean=20.0,
        duration_s_mean=5.0,
    )


def predictor(name: str, windows: int = 2_000) -> None:
    def run() -> None:
        made = make_predictor(name, interval_s=60.0)
        for value in range(windows):
            made.observe(float(value))
            made.forecast(1)

    show(f"{name}: observe and forecast", best(run) / windows, "us")


def planner_step() -> None:
    config = AutoscalerConfig(prefill_gpus_per_instance=1, decode_gpus_per_instance=1)
    planner = Planner(config, PERF)
    windows = [window(tick, 600.0 + tick % 7) for tick in range(1000)]

    def run() -> None:
        for seen in windows:
            planner.step(seen)

    show("planner, policy classic: a step", best(run) / len(windows), "us")


def simulated_ticks(policy: str, ticks: int = 5_000) -> None:
    """A tick of a run with 40 requests in each: advancing, observing, deciding, acting, all of it."""
    rng = np.random.default_rng(0)
    count = 40 * ticks
    arrival_s = np.sort(rng.uniform(0.0, 60.0 * ticks, count))
    trace = Trace.from_arrays(arrival_s, rng.integers(500, 1500, count), rng.integers(50, 300, count))
    config = AutoscalerConfig(policy=policy, prefill_gpus_per_instance=1, decode_gpus_per_instance=1)

    def run() -> None:
        simulate(trace, PERF.profile, config, SimulatorConfig())

    show(f"a simulated tick, policy {policy}", best(run, 3) / ticks, "us")


def slo_tick() -> None:
    config = AutoscalerConfig(
        policy="slo",
        prefill_gpus_per_instance=1,
        decode_gpus_per_instance=1,
        max_prefill_instances=128,
        max_decode_instances=128,
        max_gpu_budget=512,
        target_ttft_ms=300.0,
        target_itl_ms=30.0,
    )
    planner = Planner(config, PERF, twin=KernelTwin(PERF, SimulatorConfig(), config))
    spent_s, sizes = [], (40, 40)
    for number, load in enumerate(np.random.default_rng(0).poisson(400_000.0, 40).tolist(), 1):
        began_s = time.perf_counter()
        sizes = tuple(planner.step(window(number, float(load), *sizes)).targets)
        spent_s.append(time.perf_counter() - began_s)
    for name, q in (("median", 0.5), ("longest", 1.0)):
        show(f"slo at {sum(sizes)} instances: {name} tick", float(np.quantile(spent_s[1:], q)), "ms")


def azure_rows(rows: int = 1_000_000) -> None:
    ticks = np.sort(np.random.default_rng(0).integers(0, 36_000_000_000, rows)) + 17_001_000_000_000_000
    stamps = np.datetime_as_string((ticks * 100).astype("datetime64[ns]"))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "azure.csv")
        with file.open("w") as stream:
            stream.write("TIMESTAMP,ContextTokens,GeneratedTokens\r\n")
            stream.writelines(f"{stamp[:10]} {stamp[11:27]},1024,128\r\n" for stamp in stamps)
        show("a million rows of Azure CSV", best(lambda: read_trace(file), 2), "s")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ticks", action="store_true", help="a simulated tick under each policy only")
    parser.add_argument("--against", metavar="CHECKOUT", help="with --ticks: and those of another checkout")
    given = parser.parse_args()
    if given.ticks and given.against:
        here = Path(__file__).resolve()
        for checkout in (given.against, str(here.parents[1])) * 2:
            print(checkout, flush=True)
            environment = {**os.environ, "PYTHONPATH": checkout}
            subprocess.run([sys.executable, str(here), "--ticks"], check=True, cwd=checkout, env=environment)
        return
    show("a plain loop of 10,000", PLAIN_LOOP_S, "us")
    if not given.ticks:
        predictor("constant")
        predictor("moving_average")
        planner_step()
    for policy in ("static", "reactive", "classic"):
        simulated_ticks(policy)
    if not given.ticks:
        slo_tick()
        azure_rows()


if __name__ == "__main__":
    main()
