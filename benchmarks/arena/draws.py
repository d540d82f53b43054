"""Scenarios drawn at random from the judging traces, ``--draw N --seed S``: the same S, the same ones."""

from __future__ import annotations

import math
import random
from pathlib import Path

import numpy as np
from sagescale.perf import ProfileModel, load_profile
from scenarios import RULES, Scenario
from traffic import M_MID, MOONCAKE, R1, SESSIONS, TRACES, recorded

_RATES = {M_MID: (0.5, 6.0), R1: (0.2, 1.2), MOONCAKE: (4.0, 20.0), SESSIONS: (0.5, 2.0)}
"""Least and most of rate_scale; drawn evenly on a logarithmic scale."""
_DAYS = (M_MID, R1)
_DAY_SHARE = 0.8
_PROFILES = (
    "h200-llama-3.1-8b-fp8",
    "h200-llama-3.1-8b-bf16",
    "h100-llama-3.3-70b-fp8-tp2",
    "h100-llama-3.3-70b-fp8-tp4",
)
_TTFT_MS, _ITL_MS = (300, 500, 1000, 2000, 4000, 8000), (20, 25, 30, 40, 50)
_STARTUP_S, _INTERVAL_S = (30, 60, 120, 180, 300, 600), (30, 60, 120)
_TRIES = 10_000
_TTFT_SPARE, _ITL_SPARE = 0.5, 0.8
"""Targets leave half of TTFT to wait in and a fifth of ITL to share, for all but one request in 200: no
policy keeps what an idle engine breaks."""
_LONGEST = 0.995


def draw(count, seed):
    """Draw so many scenarios.

    Raises:
        ValueError: nothing that can be kept was drawn.
    """
    rng = random.Random(seed)
    made = []
    for _ in range(_TRIES):
        if len(made) == count:
            return made
        scenario = _one(rng, f"draw{seed}-{len(made) + 1}")
        if _can_be_kept(scenario):
            made.append(scenario)
    raise ValueError(f"--draw {count} --seed {seed}: {_TRIES} draws gave {len(made)} that engines can keep")


def _one(rng, name):
    others = [trace for trace in (MOONCAKE, SESSIONS) if trace in readable()]
    trace = rng.choice(_DAYS if rng.random() < _DAY_SHARE else others)
    low, high = _RATES[trace]
    rate = round(math.exp(rng.uniform(math.log(low), math.log(high))), 2)
    if trace in _DAYS:
        hours = rng.choice((12, 14, 16, 18))
        start = rng.randrange(0, 24 - hours + 1)
        trace = f"{trace}@{start}-{start + hours}"
    return Scenario(
        name,
        trace,
        rate,
        rng.choice(_PROFILES),
        rng.choice(_TTFT_MS),
        rng.choice(_ITL_MS),
        rng.choice(_STARTUP_S),
        rng.choice(_INTERVAL_S),
        **RULES,
    )


def readable():
    """The judging traces that lie in the folder of traces and that sagescale can read."""
    return [name for name in _RATES if (Path(TRACES) / name).exists() and name != SESSIONS]


def _can_be_kept(scenario):
    model = ProfileModel(load_profile(scenario.profile))
    trace = recorded(scenario.trace)
    isl, context = (
        float(np.quantile(tokens, _LONGEST)) for tokens in (trace.isl, trace.isl + trace.osl // 2)
    )
    return (
        model.ttft_ms(isl) <= _TTFT_SPARE * scenario.target_ttft_ms
        and model.itl_ms(1, context) <= _ITL_SPARE * scenario.target_itl_ms
    )
