"""Confidence intervals of a mean over replicates."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sagescale.document import Interval

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["CONFIDENCE", "mean_interval"]

CONFIDENCE = 0.95


def mean_interval(values: Sequence[float]) -> Interval:
    """Mean and half width of Student's interval, ``t(0.975, n - 1) s / sqrt(n)``; one value has no width."""
    n = len(values)
    mean = math.fsum(values) / n
    if n < 2:
        return Interval(mean=mean, half_width=None)
    from scipy.special import stdtrit  # the t quantile, without importing scipy.stats

    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    quantile = float(stdtrit(n - 1, 0.5 + CONFIDENCE / 2.0))
    return Interval(mean=mean, half_width=quantile * deviation / math.sqrt(n))
