"""KV-transfer cost: a latency and a rate."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sagescale.perf.fit.least_squares import relative_nnls, round_digits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sagescale.perf.measurement import KvPoint

__all__ = ["fit_kv_transfer"]


def fit_kv_transfer(points: Sequence[KvPoint]) -> tuple[float, float]:
    """Return (latency ms, ms per 1000 tokens): ``ms = latency + rate * tokens / 1000``, both >= 0.

    Least squares in relative error; a single point is taken as a pure rate.
    """
    tokens = np.array([point.tokens for point in points], dtype=np.float64) / 1000.0
    ms = np.array([point.ms for point in points])
    if len(np.unique(tokens)) == 1:
        return 0.0, round_digits(float(np.median(ms) / tokens[0]))
    latency, rate = relative_nnls((np.ones_like(tokens), tokens), ms)
    return round_digits(float(latency)), round_digits(float(rate))
