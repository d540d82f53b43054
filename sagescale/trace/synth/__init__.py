"""Made-up traces: an arrival pattern and two length distributions, reproducible by seed."""

from __future__ import annotations

from sagescale.trace.synth.arrivals import Bursty, Diurnal, Pattern, Ramp, Spikes, Steady, Step
from sagescale.trace.synth.lengths import (
    PAIRS,
    Constant,
    Empirical,
    Lengths,
    LogNormal,
    parse_correlation,
    parse_lengths,
)
from sagescale.trace.synth.make import synthesise

__all__ = [
    "PAIRS",
    "Bursty",
    "Constant",
    "Diurnal",
    "Empirical",
    "Lengths",
    "LogNormal",
    "Pattern",
    "Ramp",
    "Spikes",
    "Steady",
    "Step",
    "parse_correlation",
    "parse_lengths",
    "synthesise",
]
