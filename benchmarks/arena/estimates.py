"""Means with their 95 % intervals, over paired seeds or over resampled hours of the judged part.

``Series`` are the judged parts of one combination, a PartResult for each seed. Every difference is paired:
the same seeds, and the same hours where hours are resampled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from sagescale.experiment.verdict import mean_interval

_RESAMPLES = 2000
_HOUR_S = 3600.0


@dataclass(frozen=True)
class Estimate:
    """A mean and its interval; the ends are None where one seed is all there is."""

    mean: float
    low: float | None
    high: float | None

    def text(self, form):
        if self.low is None:
            return format(self.mean, form)
        return f"{self.mean:{form}} [{self.low:{form}}, {self.high:{form}}]"


def attainment(series, *, resampled):
    if resampled:
        return _by_hours([series], lambda hours: hours[0][1] / hours[0][0])
    found = _by_seeds([part.attainment for part in series])
    arrived = sum(sum(part.arrived) for part in series)
    pooled = sum(sum(part.good) for part in series) / arrived if arrived else 1.0
    found = Estimate(pooled, found.low, found.high)
    # Student's interval does not know that there is nothing above 1.
    return found if found.low is None else Estimate(found.mean, max(found.low, 0.0), min(found.high, 1.0))


def gpu_hours(series, *, resampled):
    if resampled:
        return _by_hours([series], lambda hours: hours[0][2])
    return _by_seeds([part.gpu_hours for part in series])


def gpu_hours_difference(ours, theirs, *, resampled):
    """What ours costs less than theirs, in GPU-hours, on the seeds that both have."""
    if resampled:
        both = min(len(ours), len(theirs))
        return _by_hours([ours[:both], theirs[:both]], lambda hours: hours[1][2] - hours[0][2])
    return _by_seeds([b.gpu_hours - a.gpu_hours for a, b in zip(ours, theirs, strict=False)])


def attainment_difference(ours, theirs, *, resampled):
    """How much higher the attainment of ours is, on the seeds that both have."""
    if resampled:
        both = min(len(ours), len(theirs))
        return _by_hours(
            [ours[:both], theirs[:both]],
            lambda hours: hours[0][1] / hours[0][0] - hours[1][1] / hours[1][0],
        )
    return _by_seeds([a.attainment - b.attainment for a, b in zip(ours, theirs, strict=False)])


def worst(series):
    """The worst five minutes: the mean over seeds of each one's worst block."""
    return math.fsum(part.worst_attainment for part in series) / len(series)


def _by_seeds(values):
    interval = mean_interval(values)
    width = interval.half_width
    if width is None:
        return Estimate(interval.mean, None, None)
    return Estimate(interval.mean, interval.mean - width, interval.mean + width)


def _by_hours(each_series, measure):
    """Resample whole hours with replacement, the same for every series and seed; percentiles of 2000.

    ``measure`` is given (arrived, good, GPU-hours) of each series: the sums over the hours drawn, by seed.
    """
    tables = [_hours(series) for series in each_series]
    count = len(tables[0])
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, count, (_RESAMPLES, count))
    values = [measure([table[hours].sum(axis=0) for table in tables]) for hours in drawn]
    low, high = np.percentile(values, [2.5, 97.5]).tolist()
    return Estimate(float(measure([table.sum(axis=0) for table in tables])), low, high)


def _hours(series):
    """(arrived, good, GPU-hours) of each hour, the mean over seeds. float64[hours, 3]."""
    blocks = int(_HOUR_S / series[0].block_s)
    total = 0.0
    for part in series:
        gpu_hours = np.array(part.gpu_s).sum(axis=0) / 3600.0
        table = np.column_stack([part.arrived, part.good, gpu_hours])
        edges = np.arange(0, max(len(table) - blocks + 1, 1), blocks)  # what is left belongs to the last hour
        total = total + np.add.reduceat(table, edges)
    return total / len(series)
