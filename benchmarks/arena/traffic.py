"""What arrives: recorded traces, slices of them, two joined, and made-up ones; and on which side each stands.

SPLIT.md has the sides and the rules. A trace is named by a string, so that scenarios are plain data:

    servegen_r1_1d.parquet            a file in the folder of traces
    servegen_r1_1d.parquet@6-18       from hour 6 to hour 18 of it
    A x 4 then B x 0.5                one after the other, each with its requests multiplied
    bursts                            made up, see MADE
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import numpy as np
from sagescale.trace import Trace, rate_scale, read_trace, slice_trace
from sagescale.trace.synth import Bursty, Constant, Diurnal, LogNormal, Step, synthesise

TRACES = Path(os.environ.get("SAGESCALE_SHARED", Path(__file__).resolve().parents[3] / "shared")) / "traces"

CONV, CODE = "azure_llm_2023_conv.csv", "azure_llm_2023_code.csv"
M_LARGE, M_MID, R1 = "servegen_m-large_2d.parquet", "servegen_m-mid_1d.parquet", "servegen_r1_1d.parquet"
MOONCAKE, SESSIONS = "mooncake_synthetic.jsonl", "sessions/claude_code_300.jsonl.gz"
JUDGING = (M_MID, R1, MOONCAKE, SESSIONS)
HOUR_S = 3600.0


def judges(name):
    """Whether a trace is on the judging side: every trace it is made of is, or none."""
    sides = {part.partition("@")[0].partition(" x ")[0] in JUDGING for part in name.split(" then ")}
    if len(sides) > 1:
        raise ValueError(f"{name}: joins traces that set constants and traces that judge (SPLIT.md)")
    return sides.pop()


@cache
def recorded(name):
    """The trace of a name; it begins with its first request, at 0."""
    if name in MADE:
        return MADE[name]()
    if " then " in name:
        return _joined([_multiplied(part) for part in name.split(" then ")])
    file, _, hours = name.partition("@")
    if not hours:
        return read_trace(str(TRACES / file))
    start, end = (float(hour) * HOUR_S for hour in hours.split("-"))
    return slice_trace(recorded(file), start, end).with_own_hash()


def _multiplied(text):
    name, _, factor = text.partition(" x ")
    return rate_scale(recorded(name), float(factor or 1.0))


def _joined(traces):
    """One trace after the other, each when the one before it ends."""
    begins_s = np.concatenate([[0.0], np.cumsum([trace.duration_s for trace in traces])])
    columns = [
        np.concatenate([getattr(trace, column) for trace in traces]) for column in ("arrival_s", "isl", "osl")
    ]
    columns[0] = columns[0] + np.repeat(begins_s[:-1], [len(trace) for trace in traces])
    return Trace.from_arrays(*columns, path=" then ".join(trace.path for trace in traces)).with_own_hash()


def _bursts():
    """Clumps within the second: gaps of ten times the variance of a Poisson stream's."""
    return synthesise(Bursty(12.0, 3.3), 4 * HOUR_S, Constant(900), Constant(140), seed=1)


def _lengths(isl_median, osl_median):
    return LogNormal(np.log(isl_median), 0.8, 1, 16_000), LogNormal(np.log(osl_median), 0.7, 1, 4_000)


def _change():
    """At the sixth of nine hours the rate doubles, prompts grow and answers become three times as long."""
    before = synthesise(Step(20.0, 20.0, HOUR_S), 6 * HOUR_S, *_lengths(900, 120), seed=2)
    after = synthesise(Step(40.0, 40.0, HOUR_S), 3 * HOUR_S, *_lengths(1500, 360), seed=3)
    return _joined([before, after])


def _waves():
    """A day of Poisson arrivals that follow the hour."""
    pattern = Diurnal(8.0, amplitude=0.7)
    return synthesise(pattern, 24 * HOUR_S, *_lengths(1200, 250), seed=4)


MADE = {"bursts": _bursts, "change": _change, "waves": _waves}
