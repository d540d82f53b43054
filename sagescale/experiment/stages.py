"""What a log that times the stages says directly: how long prefill batches and hand-offs took."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sagescale.perf.prefill import PrefillCurve

if TYPE_CHECKING:
    from sagescale.experiment.factors import Factors
    from sagescale.experiment.served import ServedLog
    from sagescale.perf import Profile

__all__ = ["StageTimes", "stage_times"]

_PREFILL_TOLERANCE = 0.01
_HANDOFF_TOLERANCE = 0.02


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Stage times of part of a log; None where it does not have them.

    Attributes:
        prefill_scale: Time in prefill batches over the profile's time for the same batches.
        chained_ms, parallel_ms: Mean hand-off of a request if those of a batch go one after the other,
            and if they go at once.
    """

    prefill_scale: float | None
    chained_ms: float | None
    parallel_ms: float | None

    def cost(self, factors: Factors, handoff_ms: float) -> float:
        """How badly factors, and the mean hand-off simulated with them, contradict the stage times.

        In squared tolerances.
        """
        cost = 0.0
        if self.prefill_scale is not None:
            off = math.log(factors.prefill_scale / self.prefill_scale)
            cost += (off / _PREFILL_TOLERANCE) ** 2
        seen = self.chained_ms if factors.blocks_prefill else self.parallel_ms
        if seen is not None:
            cost += (math.log(max(handoff_ms, 1e-3) / seen) / _HANDOFF_TOLERANCE) ** 2
        return cost


def stage_times(log: ServedLog, profile: Profile, part: slice) -> StageTimes:
    """Measure the stages of part of a log.

    A prefill batch is known by its requests having begun and ended together.
    """
    first = log.first_token_s[part]
    isl = log.isl[part]
    began = log.prefill_start_s
    begin = first if began is None else began[part]
    _, batch = np.unique(np.stack([begin, first]), axis=1, return_inverse=True)
    sizes = np.bincount(batch)
    scale = None
    if began is not None:
        curve = PrefillCurve(profile.prefill)
        ends = np.cumsum(sizes)[:-1]
        members = np.split(isl[np.argsort(batch, kind="stable")], ends)
        expected_ms = sum(curve.batch_ms(prompts.tolist()) for prompts in members)
        taken = np.zeros(len(sizes))
        taken[batch] = (first - begin) * 1e3
        scale = float(taken.sum() / expected_ms) or None
    chained = parallel = None
    if log.kv_ready_s is not None:
        wait_ms = (log.kv_ready_s[part] - first) * 1e3
        last = np.zeros(len(sizes))
        np.maximum.at(last, batch, wait_ms)
        handed = log.osl[part] > 1  # a single token needs no decode instance
        if handed.any():
            chained = float(last.sum() / handed.sum()) or None
            parallel = float(wait_ms[handed].mean()) or None
    return StageTimes(scale, chained, parallel)
