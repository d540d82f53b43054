"""slo on the scenarios that its constants are set on: `python benchmarks/slo_settings.py [NAME ...]`.

Azure's hours, m-large and made-up traffic only (arena/SPLIT.md: what judges is not here). One line a scenario
and seed: attainment after the warm-up, GPU-hours of each pool, launches and those of them within ten minutes
of a release, milliseconds a tick. With ``--against FILE``, a file written by ``--json`` before, GPU-hours are
also shown over those there. The last line is how many hold and the geometric mean of those ratios.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import sys
import time
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sagescale.perf import load_profile
from sagescale.planner import AutoscalerConfig
from sagescale.planner.policy import default_predictor
from sagescale.sim.config import SimulatorConfig
from sagescale.sim.part import Part, measure_part
from sagescale.sim.simulate import simulate
from sagescale.sim.startup import StartupDelay
from sagescale.trace import Trace, TransformSpec, read_trace, slice_trace
from sagescale.trace.synth import Bursty, Diurnal, Spikes, Steady, Step, parse_lengths, synthesise
from sagescale.trace.transforms import apply_transforms

from slo_without import WITHOUT

TRACES = Path(os.environ.get("SAGESCALE_SHARED", Path(__file__).resolve().parents[2] / "shared")) / "traces"
CONV, CODE, M_LARGE = "azure_llm_2023_conv.csv", "azure_llm_2023_code.csv", "servegen_m-large_2d.parquet"
SMALL, LARGE = "h200-llama-3.1-8b-fp8", "h100-llama-3.3-70b-fp8-tp4"
HOUR_S = 3600.0
CHAT_LENGTHS = "lognormal:mean=1155,p99=4142", "lognormal:mean=211,p99=601"
FIXED_LENGTHS = "constant:900", "constant:140"


@cache
def recorded_as_is(name):
    """Return a recorded trace."""
    return read_trace(str(TRACES / name))


def recorded(name, scale, hours, seed):
    """Return a recorded trace, or hours of it, each request so many times, copies moved by up to 30 s."""
    trace = recorded_as_is(name)
    if hours is not None:
        trace = slice_trace(trace, *(hour * HOUR_S for hour in hours))
    return apply_transforms(trace, TransformSpec(rate_scale=scale, jitter_s=30.0, seed=seed))


def longer(trace, times):
    """Return a trace with answers so many times as long, of 16,000 tokens at most."""
    osl = np.minimum(trace.osl * times, 16_000).astype(trace.osl.dtype)
    return dataclasses.replace(trace, osl=osl).with_own_hash()


def long_answers(hours, scale, seed):
    """Return hours of m-large with answers eight times as long: of such, KV memory binds and few are most."""
    return longer(recorded(M_LARGE, scale, hours, seed), 8)


def then_long(seed):
    """Return nine hours as they are, then four with long answers."""
    before, after = recorded(M_LARGE, 1, (8, 17), seed), long_answers((26, 30), 0.4, seed)
    columns = [np.concatenate([getattr(before, key), getattr(after, key)]) for key in ("isl", "osl")]
    arrival_s = np.concatenate([before.arrival_s, before.duration_s + after.arrival_s])
    return Trace.from_arrays(arrival_s, *columns, path="then_long").with_own_hash()


def made(pattern, duration_s, lengths, seed):
    """Return synthetic traffic."""
    isl, osl = lengths
    return synthesise(
        pattern, duration_s, parse_lengths("--isl", isl), parse_lengths("--osl", osl), seed=seed
    )


def at_times(arrival_s):
    """Return requests at these times with a chat's lengths."""
    arrival_s = arrival_s - arrival_s[0]
    count = len(arrival_s)
    drawn = made(Steady(1.2 * count / arrival_s[-1]), arrival_s[-1], CHAT_LENGTHS, 7)
    return dataclasses.replace(
        drawn, arrival_s=arrival_s, isl=drawn.isl[:count].copy(), osl=drawn.osl[:count].copy()
    )


def clumps(low_rps, high_rps, mean_s, duration_s, seed):
    """Two rates in turns: the low one three times as long as the high one, each for an exponential time."""
    draw = np.random.default_rng(seed)
    at_s, high, parts = 0.0, False, []
    while at_s < duration_s:
        stay_s = min(draw.exponential(mean_s * (1 if high else 3)), duration_s - at_s)
        count = draw.poisson((high_rps if high else low_rps) * stay_s)
        parts.append(np.sort(at_s + draw.random(count) * stay_s))
        at_s, high = at_s + stay_s, not high
    return np.concatenate(parts)


def changing(hour, rate_rps, seed, hours=10):
    """Join hours of which every third is Poisson traffic and the others are as ``hour`` makes them."""
    draw = np.random.default_rng(seed)
    parts = []
    for number in range(hours):
        level = rate_rps * (1 + 0.4 * math.sin(number / hours * 2 * math.pi))
        if number % 3 == 0:
            one = np.sort(draw.random(draw.poisson(level * HOUR_S)) * HOUR_S)
        else:
            one = hour(level, int(draw.integers(1 << 30)))
        parts.append(number * HOUR_S + one)
    return at_times(np.concatenate(parts))


def _clumped_hour(level, seed):
    return clumps(level / 2, level * 2.5, 20.0, HOUR_S, seed)


def _bursty_hour(level, seed, cv=5.0):
    gaps = np.random.default_rng(seed).gamma(1 / cv**2, cv**2 / level, int(level * HOUR_S * 1.3))
    at_s = np.cumsum(gaps)
    return at_s[at_s < HOUR_S]


class Setting(NamedTuple):
    """One scenario; ``trace`` makes its traffic from a seed."""

    trace: object
    profile: str
    target_ttft_ms: float
    target_itl_ms: float
    startup_s: float
    interval_s: int
    from_s: float
    budget: int = 512


def _of(make, *given):
    return lambda seed: make(*given, seed)


def _clumped(low_rps, high_rps, mean_s):
    return lambda seed: at_times(clumps(low_rps, high_rps, mean_s, 4 * HOUR_S, seed))


SETTINGS = {
    "chat": Setting(_of(recorded, CONV, 20, None), SMALL, 300, 30, 60, 60, 1416),
    "chat5": Setting(_of(recorded, CONV, 5, None), SMALL, 300, 30, 60, 60, 1416),
    "code": Setting(_of(recorded, CODE, 20, None), SMALL, 500, 30, 60, 30, 1416),
    "code5": Setting(_of(recorded, CODE, 5, None), SMALL, 500, 30, 60, 30, 1416),
    "large": Setting(_of(recorded, CONV, 10, None), LARGE, 1000, 50, 300, 60, 1416),
    "chat_slow": Setting(_of(recorded, CONV, 20, None), SMALL, 300, 30, 120, 60, 1416),
    "code_large": Setting(_of(recorded, CODE, 20, None), LARGE, 1500, 50, 120, 60, 1416),
    "ml_small": Setting(_of(recorded, M_LARGE, 6, (0, 12)), SMALL, 500, 30, 60, 60, 7200),
    "ml_sm30": Setting(_of(recorded, M_LARGE, 6, (24, 36)), SMALL, 300, 30, 60, 30, 7200),
    "ml10": Setting(_of(recorded, M_LARGE, 10, (20, 26)), LARGE, 1000, 50, 180, 60, 3600),
    "ml1s": Setting(_of(recorded, M_LARGE, 1, (0, 24)), LARGE, 800, 45, 60, 30, 7200),
    "ml3": Setting(_of(recorded, M_LARGE, 3, (8, 18)), LARGE, 1000, 50, 180, 60, 7200),
    "ml1": Setting(_of(recorded, M_LARGE, 1, (24, 48)), LARGE, 1000, 50, 180, 60, 7200),
    "bursts": Setting(_of(made, Bursty(12, 3.3), 7200, FIXED_LENGTHS), LARGE, 1000, 30, 60, 60, 1800),
    "burst4": Setting(_of(made, Bursty(40, 4), 14400, CHAT_LENGTHS), SMALL, 300, 30, 60, 60, 1800),
    "burst8": Setting(_of(made, Bursty(60, 8), 14400, CHAT_LENGTHS), SMALL, 500, 30, 60, 60, 1800),
    "burstL": Setting(_of(made, Bursty(10, 4), 14400, CHAT_LENGTHS), LARGE, 1000, 50, 180, 60, 1800),
    "clumps": Setting(_clumped(20, 60, 20.0), SMALL, 300, 30, 60, 60, 1800),
    "clumpsL": Setting(_clumped(6, 18, 45.0), LARGE, 1000, 50, 180, 60, 1800),
    "clumpday": Setting(partial(changing, _clumped_hour, 30.0), SMALL, 300, 30, 60, 60, 3600),
    "clumpdayL": Setting(partial(changing, _clumped_hour, 8.0), LARGE, 1000, 50, 180, 60, 3600),
    "burstday": Setting(partial(changing, _bursty_hour, 30.0), SMALL, 300, 30, 60, 60, 3600),
    "burstdayL": Setting(partial(changing, _bursty_hour, 8.0), LARGE, 1000, 50, 180, 60, 3600),
    "spikes": Setting(_of(made, Spikes(20, 100, 900, 90), 14400, CHAT_LENGTHS), SMALL, 300, 30, 60, 60, 3600),
    "diurnal": Setting(_of(made, Diurnal(50, 0.7), 86400, CHAT_LENGTHS), SMALL, 300, 30, 120, 60, 7200),
    "step": Setting(_of(made, Step(15, 75, 7200), 14400, CHAT_LENGTHS), SMALL, 300, 30, 60, 60, 1800),
    "long_day": Setting(_of(long_answers, (0, 24), 0.7), LARGE, 2000, 50, 180, 60, 9.6 * HOUR_S),
    "long_slow": Setting(_of(long_answers, (24, 38), 0.6), LARGE, 2000, 50, 600, 60, 5.6 * HOUR_S),
    "long_slow2": Setting(_of(long_answers, (6, 20), 0.7), LARGE, 2000, 50, 600, 60, 5.6 * HOUR_S),
    "long_small": Setting(_of(long_answers, (8, 22), 0.15), LARGE, 2000, 50, 120, 60, 5.6 * HOUR_S),
    "then_long": Setting(then_long, LARGE, 1500, 50, 90, 60, 5.2 * HOUR_S),
    "chat_few": Setting(_of(recorded, CONV, 20, None), SMALL, 300, 30, 60, 60, 1416, 8),
    "ml10_few": Setting(_of(recorded, M_LARGE, 10, (20, 26)), LARGE, 1000, 50, 180, 60, 3600, 80),
    "long_few": Setting(_of(long_answers, (6, 20), 0.7), LARGE, 2000, 50, 180, 60, 5.6 * HOUR_S, 36),
    "flat": Setting(_of(made, Steady(76), 14400, CHAT_LENGTHS), SMALL, 300, 30, 60, 60, 3600),
}


def run(name, seed, **keys):
    """Run one and return what is printed of it, as a dict."""
    one = SETTINGS[name]
    profile = load_profile(one.profile)
    config = AutoscalerConfig(
        **{
            "policy": "slo",
            "load_predictor_type": default_predictor("slo"),
            "target_ttft_ms": one.target_ttft_ms,
            "target_itl_ms": one.target_itl_ms,
            "adjustment_interval_sec": one.interval_s,
            "min_prefill_instances": 1,
            "max_prefill_instances": 128,
            "min_decode_instances": 1,
            "max_decode_instances": 128,
            "max_gpu_budget": one.budget,
            "prefill_gpus_per_instance": profile.prefill.gpus_per_instance,
            "decode_gpus_per_instance": profile.decode.gpus_per_instance,
        }
        | keys
    )
    delay = StartupDelay("uniform", (0.8 * one.startup_s, 1.2 * one.startup_s))
    simulator = SimulatorConfig(startup_delay_s=delay, simulation_seed=seed)
    began = time.perf_counter()
    done = simulate(one.trace(seed), profile, config, simulator)
    part = measure_part(done, Part(one.from_s))
    prefill, decode = (math.fsum(pool) / 3600.0 for pool in part.gpu_s)
    return {
        "attainment": part.attainment,
        "gpu_hours": part.gpu_hours,
        "prefill": prefill,
        "decode": decode,
        "launches": part.launches,
        "relaunches": part.relaunches,
        "tick_ms": 1e3 * done.timing.planner_s / len(done.ticks),
        "wall_s": time.perf_counter() - began,
    }


def figures(path):
    """Read what ``--json`` wrote before, for ``--against``."""
    try:
        return json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{path}: {error}") from None


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SETTINGS)}")
    parser.add_argument("--seeds", default="0,1", type=lambda text: [int(part) for part in text.split(",")])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="keys")
    parser.add_argument("--against", type=figures, default={}, metavar="FILE")
    parser.add_argument("--without", choices=tuple(WITHOUT), help="take a mechanism out (slo_without.py)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args()
    if given.without:
        WITHOUT[given.without]()
    if unknown := set(given.names) - set(SETTINGS):
        parser.error(f"{', '.join(sorted(unknown))}: no such scenario; there are {', '.join(SETTINGS)}")
    keys = dict(pair.split("=", 1) for pair in given.keys)
    before = given.against
    found, ratios, held = {}, [], 0
    for name in given.names or SETTINGS:
        each = []
        for seed in given.seeds:
            now = found[f"{name}/{seed}"] = run(name, seed, **keys)
            each.append(now["attainment"])
            line = (
                f"{name:10} {seed} {now['attainment']:8.3%} {now['gpu_hours']:8.2f} = {now['prefill']:.2f} + "
                f"{now['decode']:.2f} GPU-h, {now['relaunches']} of {now['launches']} launches soon after a "
                f"release, {now['tick_ms']:.1f} ms a tick"
            )
            was = before.get(f"{name}/{seed}")
            if was:
                ratios.append(math.log(now["gpu_hours"] / was["gpu_hours"]))
                line += f"; {math.exp(ratios[-1]):.3f} times, was {was['attainment']:.3%}"
            print(line, flush=True)
        held += sum(each) / len(each) >= 0.99
    launches, again = (sum(now[key] for now in found.values()) for key in ("launches", "relaunches"))
    print(
        f"{held} of {len(given.names or SETTINGS)} hold 99 %; {again} of {launches} launches soon after",
        end="",
    )
    print(f"; {math.exp(sum(ratios) / len(ratios)):.3f} times the GPU-hours" if ratios else "")
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
