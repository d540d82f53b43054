"""Compile every kernel that the tests run, each once: ``python tests/sim/compile_kernels.py``.

A kernel is compiled for what a run has (engines that step, gaps between tokens, turns that wait for
answers). It takes a minute or two, and workers that meet one at the same time
would each compile it.
"""

from __future__ import annotations

import os
import warnings
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
from sagescale.perf import load_profile
from sagescale.planner import AutoscalerConfig
from sagescale.sim.config import SimulatorConfig
from sagescale.sim.faults import Crash, Faults
from sagescale.sim.simulate import simulate
from sagescale.trace import Trace, Turns

if TYPE_CHECKING:
    from collections.abc import Mapping

STEPPED = {"serving": "aggregated"}
KERNELS: tuple[tuple[Mapping[str, object], bool], ...] = (
    (STEPPED, True),
    (STEPPED, False),
    ({}, True),
    ({"measure_gaps": True}, False),
    ({}, False),
)
"""Keys, and whether turns wait for answers; those that take longest first."""


def compile_one(kernel: tuple[Mapping[str, object], bool]) -> None:
    """Run what calls all of a kernel's functions: ticks, a crash, a launch that waits for GPUs."""
    keys, waits = kernel
    count = 200
    after = [[row - 2] if row % 4 > 1 else [] for row in range(count)]
    trace = Trace.from_arrays(
        np.arange(count) * 0.5,
        np.full(count, 500),
        np.full(count, 50),
        session_id=[row // 4 * 2 + row % 2 for row in range(count)],
        turns=Turns.of(after, np.zeros(count)) if waits else None,
    )
    aggregated = "serving" in keys
    gpus = {f"{name}gpus_per_instance": 1 for name in (("",) if aggregated else ("prefill_", "decode_"))}
    config = AutoscalerConfig(
        adjustment_interval_sec=20,
        max_gpu_budget=4,
        serving="aggregated" if aggregated else "disaggregated",
        **gpus,
    )
    started = {"initial_instances": 1} if aggregated else {"initial_prefill": 1, "initial_decode": 1}
    simulator = SimulatorConfig(**started, **{key: keys[key] for key in keys if key != "serving"})
    crash = Crash(at_s=30.0, pool="aggregated" if aggregated else "decode")
    profile = load_profile("h200-llama-3.1-8b-fp8-agg" if aggregated else "h200-llama-3.1-8b-fp8")
    simulate(trace, profile, config, simulator, faults=Faults(crashes=(crash,)))


def main() -> None:
    """Compile them, as many at a time as there are processors; a warning fails here, as it does in the tests.

    What is kept warns no more.
    """
    with ProcessPoolExecutor(os.cpu_count(), initializer=warnings.simplefilter, initargs=("error",)) as pool:
        list(pool.map(compile_one, KERNELS))


if __name__ == "__main__":
    main()
