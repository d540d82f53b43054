"""Made-up traces: an arrival pattern and two length distributions make one, reproducible by seed."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from sagescale.errors import InputError
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
from sagescale.trace.synth.sessions import Conversations, Quantity, converse, parse_quantity
from sagescale.trace.synth.shared import check_beginnings, shared_prefixes
from sagescale.trace.trace import MAX_SPAN_S, Trace
from sagescale.trace.transforms import MAX_REQUESTS, check_seed

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "PAIRS",
    "Bursty",
    "Constant",
    "Conversations",
    "Diurnal",
    "Empirical",
    "Lengths",
    "LogNormal",
    "Pattern",
    "Quantity",
    "Ramp",
    "Spikes",
    "Steady",
    "Step",
    "parse_correlation",
    "parse_lengths",
    "parse_quantity",
    "synthesise",
]

_DECIMALS = 6


def synthesise(
    pattern: Pattern,
    duration_s: float,
    isl: Lengths,
    osl: Lengths,
    *,
    correlation: float | Literal["pairs"] = 0.0,
    seed: int = 0,
    prefixes: tuple[int, int] | None = None,
    conversations: Conversations | None = None,
) -> Trace:
    """Draw a trace; the same arguments make the same one.

    Arrivals, lengths and prefixes have random streams of their own: others of one leave the rest as it is.
    Times are rounded to the microsecond, and the first arrival becomes 0 as in every trace.

    Args:
        pattern: how requests arrive.
        duration_s: for how long.
        isl: prompt lengths.
        osl: generated lengths.
        correlation: of the normals behind ISL and OSL (a Gaussian copula), or ``"pairs"``: both are empirical
            columns of one trace, and its rows are drawn whole.
        seed: of all randomness.
        prefixes: of how many beginnings, of how many tokens, each prompt has one (``shared_prefixes``).
        conversations: what happens in sessions, where that is what arrives; ``isl`` is of first prompts.

    Raises:
        InputError: a value out of range; a correlation the distributions cannot have; no request drawn.
    """
    if not 0 < duration_s <= MAX_SPAN_S:
        raise InputError(
            f"--duration-s {duration_s:g}: expected a number above 0, at most {MAX_SPAN_S:.0f}, a year"
        )
    check_seed(seed)
    if pattern.peak_rps * duration_s > MAX_REQUESTS:
        raise InputError(
            f"--duration-s {duration_s:g}: at {pattern.peak_rps:g} requests/s makes more than {MAX_REQUESTS}"
        )
    arrival_rng, length_rng, prefix_rng, session_rng = (
        np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(4)
    )
    arrival_s = np.round(pattern.arrivals(duration_s, arrival_rng), _DECIMALS)
    if not len(arrival_s):
        raise InputError(
            f"--duration-s {duration_s:g}: no request was drawn; expected a longer or busier trace"
        )
    arrival_s = np.round(arrival_s - arrival_s[0], _DECIMALS)
    if conversations is not None:
        if correlation:
            raise InputError(f"--correlation {correlation}: has no effect on --sessions; leave it out")
        first = isl.from_normal(length_rng.standard_normal(len(arrival_s)))
        groups, tokens = check_beginnings(*prefixes) if prefixes else (1, 0)
        beginning = prefix_rng.integers(groups, size=len(arrival_s))
        made = converse(arrival_s, first, osl, conversations, session_rng, (beginning, tokens))
        return replace(made.with_own_hash(), format="synth")
    prompt, output = _lengths(len(arrival_s), isl, osl, correlation, length_rng)
    shared = None if prefixes is None else shared_prefixes(prompt, *prefixes, prefix_rng)
    trace = Trace(arrival_s, prompt, output, path="<synth>", prefixes=shared)
    return replace(trace.with_own_hash(), format="synth")


def _lengths(
    n: int, isl: Lengths, osl: Lengths, correlation: float | Literal["pairs"], rng: np.random.Generator
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    if correlation == PAIRS:
        if not (isinstance(isl, Empirical) and isinstance(osl, Empirical) and isl.path == osl.path):
            raise InputError("--correlation pairs: expected --isl and --osl empirical, from the same file")
        rows = rng.integers(len(isl.rows), size=n)
        return isl.rows[rows], osl.rows[rows]
    if correlation and (isinstance(isl, Constant) or isinstance(osl, Constant)):
        raise InputError(f"--correlation {correlation:g}: a constant length is correlated with nothing")
    first = rng.standard_normal(n)
    second = correlation * first + math.sqrt(1 - correlation**2) * rng.standard_normal(n)
    return isl.from_normal(first), osl.from_normal(second)
