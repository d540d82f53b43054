"""slo on scenarios drawn on the setting side: `python benchmarks/slo_draws.py [--draw 40] [--seed 2]`.

Half are hours of m-large with longer answers, at times two or four times as fast; half are Poisson arrivals
at a rate that wanders (the logarithm is an Ornstein-Uhlenbeck process), with widely varying answers, where
loads double within minutes again and again. Engines, targets, startup time, interval and load are drawn too;
nothing of arena/SPLIT.md's right side is in them. The same seed draws the same scenarios. With ``--against
FILE``, a file written by ``--json`` before, the last lines set both beside each other. With ``--without
MECHANISM`` one of those in slo_without.py is taken out.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import random
import sys
from pathlib import Path

import numpy as np
from sagescale.perf import ProfileModel, load_profile
from sagescale.trace import TransformSpec, slice_trace
from sagescale.trace.synth import Steady
from sagescale.trace.transforms import apply_transforms

import slo_settings
from slo_settings import HOUR_S, M_LARGE, Setting
from slo_without import WITHOUT

_PROFILES = ("h100-llama-3.3-70b-fp8-tp2", "h100-llama-3.3-70b-fp8-tp4", "h200-llama-3.1-8b-fp8")
_TTFT_MS, _ITL_MS = (1000, 2000, 4000), (30, 40, 50)
_STARTUP_S, _INTERVAL_S = (60, 120, 180, 300, 600), (30, 60, 60, 120)
_TRACE_HOURS = 48
_STEP_S = 10.0
_FEWEST, _MOST = 1_500, 600_000
"""Requests of a scenario: fewer show nothing, more take minutes."""
_TTFT_SPARE, _ITL_SPARE = 0.5, 0.8


def _drawn(rng):
    """Draw what is served, by what."""
    if rng.random() < 0.5:
        kind = {
            "memory_s": rng.choice((300, 900, 2400)),
            "deviation": rng.choice((0.3, 0.45, 0.6)),
            "osl": rng.choice((300, 1000, 2500)),
            "hours": rng.choice((8, 10, 12)),
            "of": rng.randrange(10**6),
        }
    else:
        speed, hours = rng.choice((1, 1, 2, 4)), rng.choice((10, 12, 14))
        span = min(hours * speed, _TRACE_HOURS)
        kind = {
            "speed": speed,
            "longer": rng.choice((1, 3, 8, 16)),
            "start": rng.randrange(0, max(1, _TRACE_HOURS - span)),
            "hours": span / speed,
        }
    return kind | {
        "profile": rng.choice(_PROFILES),
        "ttft": rng.choice(_TTFT_MS),
        "itl": rng.choice(_ITL_MS),
        "startup": rng.choice(_STARTUP_S),
        "interval": rng.choice(_INTERVAL_S),
        "instances": math.exp(rng.uniform(math.log(1.2), math.log(12.0))),
    }


def _rate(drawn, isl, osl, context_tokens):
    """Requests/s that so many decode instances get through, and half as many prefill instances more."""
    profile = load_profile(drawn["profile"])
    model = ProfileModel(profile)
    running = 1
    while running < model.max_num_seqs and model.itl_ms(running + 1, context_tokens) <= drawn["itl"]:
        running += 1
    if memory := profile.decode.max_kv_tokens:
        running = max(1, min(running, int(memory / context_tokens)))
    decode = 1000.0 * running / model.itl_ms(running, context_tokens) / osl
    return drawn["instances"] * min(decode, 1.5 * 1000.0 / model.ttft_ms(isl))


def _wandering(drawn, seed):
    rng = np.random.default_rng((drawn["of"], seed))
    duration_s, isl, osl = drawn["hours"] * HOUR_S, 1500.0, float(drawn["osl"])
    kept = math.exp(-_STEP_S / drawn["memory_s"])
    moves = rng.normal(size=int(duration_s / _STEP_S)) * math.sqrt(1.0 - kept * kept)
    levels = np.empty(len(moves))
    level = rng.normal()
    for at, move in enumerate(moves):
        levels[at] = level = kept * level + move
    rate_rps = _rate(drawn, isl, osl, isl + osl)
    deviation = drawn["deviation"]
    counts = rng.poisson(rate_rps * _STEP_S * np.exp(deviation * levels - deviation**2 / 2.0))
    starts_s = np.repeat(np.arange(len(counts)) * _STEP_S, counts)
    at_s = np.sort(starts_s + rng.random(len(starts_s)) * _STEP_S)
    lengths = f"lognormal:mean={isl:.0f},p99={3 * isl:.0f}", f"lognormal:mean={osl:.0f},p99={6 * osl:.0f}"
    made = slo_settings.made(Steady(max(1.3 * len(at_s) / duration_s, 0.05)), duration_s, lengths, 7 + seed)
    at_s = at_s[: len(made.arrival_s)]
    isl, osl = made.isl[: len(at_s)].copy(), made.osl[: len(at_s)].copy()
    return dataclasses.replace(made, arrival_s=at_s - at_s[0], isl=isl, osl=osl)


def _longer(drawn, seed):
    start_s, lasts_s = drawn["start"] * HOUR_S, drawn["hours"] * drawn["speed"] * HOUR_S
    trace = slice_trace(slo_settings.recorded_as_is(M_LARGE), start_s, start_s + lasts_s)
    trace = slo_settings.longer(trace, drawn["longer"])
    osl = trace.osl
    context_tokens = float(((trace.isl + osl / 2.0) * osl).sum() / osl.sum())
    rate_rps = _rate(drawn, float(trace.isl.mean()), float(osl.mean()), context_tokens)
    now_rps = len(osl) / (drawn["hours"] * HOUR_S)
    return apply_transforms(
        trace,
        TransformSpec(rate_scale=rate_rps / now_rps, jitter_s=30.0, seed=seed, speedup=float(drawn["speed"])),
    )


def _setting(drawn):
    trace = _longer if "speed" in drawn else _wandering
    return Setting(
        lambda seed: trace(drawn, seed),
        drawn["profile"],
        drawn["ttft"],
        drawn["itl"],
        drawn["startup"],
        drawn["interval"],
        0.4 * drawn["hours"] * HOUR_S,
    )


def _can_be_kept(drawn, trace):
    model = ProfileModel(load_profile(drawn["profile"]))
    isl = float(np.quantile(trace.isl, 0.995))
    alone_ms = model.itl_ms(1, isl + float(trace.osl.mean()))
    return (
        _FEWEST <= len(trace.osl) <= _MOST
        and model.ttft_ms(isl) <= _TTFT_SPARE * drawn["ttft"]
        and alone_ms <= _ITL_SPARE * drawn["itl"]
    )


def draws(count, seed):
    """Draw so many scenarios that engines can keep, each a dict of what was drawn."""
    rng, made = random.Random(seed), []
    while len(made) < count:
        drawn = _drawn(rng)
        if _can_be_kept(drawn, _setting(drawn).trace(0)):
            made.append(drawn)
    return made


def _summary(kind, now, before):
    missed = [1.0 - run["attainment"] for run in now]
    line = f"{kind}: {sum(each <= 0.01 for each in missed)} of {len(now)} hold, {np.mean(missed):.3%} missed"
    if before:
        was = [1.0 - run["attainment"] for run in before]
        times = np.mean([math.log(a["gpu_hours"] / b["gpu_hours"]) for a, b in zip(now, before, strict=True)])
        line += f" (before {sum(each <= 0.01 for each in was)} and {np.mean(was):.3%}), "
        line += f"{math.exp(times):.3f} times the GPU-hours"
    print(line)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draw", type=int, default=40, metavar="N")
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--part", default="0/1", metavar="K/N", help="every N-th, from K on")
    parser.add_argument("--against", type=slo_settings.figures, default={}, metavar="FILE")
    parser.add_argument("--without", choices=tuple(WITHOUT), help="take a mechanism out (slo_without.py)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args()
    before = given.against
    if given.without:
        WITHOUT[given.without]()
    first, every = (int(part) for part in given.part.split("/"))
    found = {}
    for number, drawn in list(enumerate(draws(given.draw, given.seed)))[first::every]:
        name = f"{given.seed}-{number}"
        slo_settings.SETTINGS[name] = _setting(drawn)
        now = found[name] = slo_settings.run(name, 0) | {"drawn": drawn}
        what = " ".join(f"{key}={value:.4g}" for key, value in drawn.items() if key != "profile")
        print(
            f"{name:6} {now['attainment']:8.3%} {now['gpu_hours']:8.2f} = {now['prefill']:.2f} + "
            f"{now['decode']:.2f} GPU-h; {drawn['profile']} {what}",
            flush=True,
        )
        if given.json:
            given.json.write_text(json.dumps(found, indent=1) + "\n")
    for kind, key in (("m-large", "speed"), ("wandering", "of")):
        names = [name for name, run in found.items() if key in run["drawn"]]
        if names:
            known = before and all(name in before for name in names)
            _summary(kind, [found[name] for name in names], [before[name] for name in names] if known else [])
    return 0


if __name__ == "__main__":
    sys.exit(main())
