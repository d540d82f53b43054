"""What requests of other lengths than the sample's are to a decode instance, KV memory included."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from sagescale.perf import PerfModel
    from sagescale.planner.policy.twin import Lengths

__all__ = ["DecodeWork"]

_FAR = 1.5
"""Means further from the sample's are taken to be so far: beyond it the shape of the lengths is another as
well, and the sample is drawn anew before long."""


class DecodeWork:
    """Counts requests in tokens of a sample: tokens that take an instance as long as the sample's do.

    Where memory binds, tokens/s are no measure of work: a request holds ``isl + osl`` tokens of KV memory for
    as long as ``osl`` steps take. Of answers twice as long fewer run at once, for longer, and an instance
    makes fewer tokens a second. What it makes at most within the ITL target is asked of the performance
    model, at the memory that a request in service holds in the mean (long ones are in service for longer:
    means are weighted with OSL); where slots or the target bind, there is little in it.

    Args:
        sample: the lengths that engines are tried with.
        perf: the engines they are tried on.
        target_itl_ms: within which tokens have to come.

    Attributes:
        full: requests of the sample that run on an instance at most.
    """

    def __init__(self, sample: Lengths, perf: PerfModel, target_itl_ms: float) -> None:
        self._perf = perf
        self._target_itl_ms = target_itl_ms
        osl = sample.osl.astype(np.float64)
        in_service = osl / osl.sum()
        self._mean_isl, self._mean_osl = float(sample.isl.mean()), float(osl.mean())
        self._isl, self._osl = float(in_service @ sample.isl), float(in_service @ osl)
        self.full, self._most = self._fullest(self._isl + self._osl)
        self._to_come, self._context = sample.tokens_to_come, sample.context_tokens

    def tokens(self, isl: float, osl: float) -> float:
        """Return what requests with such means are each, in tokens of the sample; both are above 0."""
        held = self._isl * _near(isl / self._mean_isl) + self._osl * _near(osl / self._mean_osl)
        return osl * self._most / self._fullest(held)[1]

    def made(self, running: float, each: float, isl: float, osl: float) -> float:
        """Return the tokens/s, of the sample's, that running requests make, so many on each instance."""
        return 1000.0 * running / self._itl_ms(each) * self.tokens(isl, osl) / osl

    def to_go_s(self, each: float) -> float:
        """Return how long a request in service has yet to go in the mean, so many on each instance."""
        return self._to_come * self._itl_ms(each) / 1000.0

    def _itl_ms(self, each: float) -> float:
        return self._perf.itl_ms(each, self._context)

    def _fullest(self, held: float) -> tuple[float, float]:
        """Requests that run at most on an instance, if each holds so many tokens, and tokens/s they make."""
        most = self._perf.decode_throughput_per_gpu(self._target_itl_ms, held)
        running = float(most.concurrency)
        memory = self._perf.max_kv_tokens
        if memory is not None and running <= memory / held < running + 1.0:
            running = memory / held  # one more does not fit; a part of one keeps the figure from jumping
        return running, running / self._perf.itl_ms(running, held)


def _near(ratio: float) -> float:
    return min(max(ratio, 1.0 / _FAR), _FAR)
