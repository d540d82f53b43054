"""Does a policy keep up while answers grow longer? `python benchmarks/growing_answers.py`.

Three hours of Poisson traffic, prompts of 1,000 tokens in the mean, answers from 300 to 1,500: in a line
within the second hour, or there and back within every hour. KV memory is 60,000 tokens an instance, so that
it binds. Printed are attainment, instance-hours, the longest decode queue at a tick, and seconds.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from sagescale.perf import ProfileModel, load_profile
from sagescale.planner import AutoscalerConfig
from sagescale.planner.loading import autoscaler_config, load_settings
from sagescale.sim.config import SimulatorConfig, with_overrides
from sagescale.sim.measures import Served
from sagescale.sim.simulate import simulate
from sagescale.trace import read_trace

HOURS = 3.0
SHORT, LONG, PROMPT = 300.0, 1_500.0, 1_000.0
SIGMA = 0.8
CASES = (
    ("grow", 6.0, 0),
    ("grow", 6.0, 1),
    ("swing", 6.0, 0),
    ("swing", 6.0, 1),
    ("grow", 40.0, 3),
    ("swing", 40.0, 3),
)
KEYS = (
    "policy=slo", "target_ttft_ms=500", "target_itl_ms=30", "startup_delay_s=120", "max_kv_tokens=60000",
    "max_gpu_budget=512", "max_prefill_instances=128", "max_decode_instances=128",
)  # fmt: skip


def make(kind: str, rps: float, seed: int):
    """Draw a trace."""
    random = np.random.default_rng(seed)
    count = int(rps * 3600 * HOURS)
    at = np.sort(random.uniform(0.0, 3600.0 * HOURS, count))
    hour = at / 3600.0
    share = np.clip(hour - 1.0, 0.0, 1.0) if kind == "grow" else 0.5 - 0.5 * np.cos(2.0 * np.pi * hour)
    spread = random.lognormal(-0.5 * SIGMA**2, SIGMA, (2, count))
    osl = np.maximum(1, np.rint((SHORT + (LONG - SHORT) * share) * spread[0])).astype(int)
    isl = np.maximum(1, np.rint(PROMPT * spread[1])).astype(int)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.csv"
        rows = zip((at - at[0]).tolist(), isl.tolist(), osl.tolist(), strict=True)
        path.write_text("arrival_s,isl,osl\n" + "".join(f"{a:.6f},{i},{o}\n" for a, i, o in rows))
        return read_trace(path)


def main() -> None:
    settings = load_settings((AutoscalerConfig, SimulatorConfig), (), (*KEYS, *sys.argv[1:]))
    simulator = settings.build(SimulatorConfig)
    profile = with_overrides(load_profile("h200-llama-3.1-8b-fp8"), simulator)
    config = autoscaler_config(settings, ProfileModel(profile))
    for kind, rps, seed in CASES:
        trace = make(kind, rps, seed)
        began = time.perf_counter()
        run = simulate(trace, profile, config, simulator)
        took_s = time.perf_counter() - began
        ttft, itl = Served(run).good
        hours = float((run.lifetimes["stop_s"] - run.lifetimes["launch_s"]).sum()) / 3600.0
        queued = max(tick.observation.queued_decode or 0.0 for tick in run.ticks)
        print(
            f"{kind:5} {rps:3.0f} requests/s, seed {seed}: {100 * np.mean(ttft & itl):6.2f} %  "
            f"{hours:6.2f} instance-hours  {queued:6.0f} queued at most  {took_s:4.1f} s"
        )


if __name__ == "__main__":
    main()
