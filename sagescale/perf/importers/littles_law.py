"""The concurrency a throughput and an ITL imply, beside the one the source states.

Little's law: requests in decode = tokens/s x s/token. Sources state the concurrency they *asked for*, and an
engine that ran out of slots served fewer (1573 stated where 808 decoded). The law's figure counts the
whole wall time, though, and a source that decodes for only part of it gives too little: in Dynamo's
pre-swept profiles even a request alone comes out as 0.37. A batch of one is one, so a context's lone
request tells the share of time that its runs spent decoding, and the law's figures there are divided by it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from sagescale.perf.measurement import DecodePoint

if TYPE_CHECKING:
    from numpy.typing import NDArray

_DISAGREES = 0.10
_LONE = 1.05
"""A stated concurrency up to this is a request alone."""

_DECODING = 0.95
"""Shares of time above this are one: the rest is noise."""


def decode_points(
    context: NDArray[np.float64],
    itl_ms: NDArray[np.float64],
    instance_tokens_per_s: NDArray[np.float64],
    stated: NDArray[np.float64],
) -> tuple[tuple[DecodePoint, ...], tuple[str, ...]]:
    """Return decode points with the concurrency that throughput and ITL imply, and notes on disagreements.

    All arrays are 1-D and of equal length; throughput is of a whole instance.
    """
    law = instance_tokens_per_s * itl_ms / 1000.0
    used = law.copy()
    notes: list[str] = []
    shares: dict[float, float] = {}
    for tokens in np.unique(context).tolist():
        at_context = context == tokens
        alone = at_context & (stated <= _LONE)
        share = float(np.median(law[alone])) if alone.any() else 1.0
        if share < _DECODING:
            shares[tokens] = share
            used[at_context] /= share
    used = np.maximum(used, 1.0)

    off = np.abs(law / stated - 1.0) > _DISAGREES
    if off.any():
        worst = int(np.argmax(np.abs(np.log(law / stated))))
        notes.append(
            f"Little's law disagrees with the stated concurrency by more than {_DISAGREES:.0%} at "
            f"{int(off.sum())} of {len(law)} decode points; worst at context {context[worst]:.0f}: "
            f"{stated[worst]:.1f} stated, {law[worst]:.1f} by throughput x ITL"
        )
    if shares:
        lowest = min(shares, key=lambda tokens: shares[tokens])
        notes.append(
            f"a lone request decodes for only part of the time at {len(shares)} of "
            f"{len(np.unique(context))} contexts (least: {shares[lowest]:.0%} at {lowest:.0f} tokens); "
            "throughput x ITL is divided by that share there"
        )
    points = tuple(
        DecodePoint(_rounded(n), float(tokens), float(itl), _rounded(asked))
        for n, tokens, itl, asked in zip(used, context, itl_ms, stated, strict=True)
    )
    return points, tuple(notes)


def _rounded(value: float) -> float:
    """Keep nine digits: a derived concurrency has no more, and fewer last bits differ by platform."""
    return float(f"{value:.9g}") if math.isfinite(value) else value
