"""A profile whose surfaces follow what is observed; to a policy it is a performance model like any other."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from sagescale.perf.learn.factors import ESTIMATED, GOOD_NOISE, MEASURED, Belief
from sagescale.perf.learn.waiting import Waiting, mean_ttft
from sagescale.perf.model import best_point

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from sagescale.perf.model import DecodeCapacity, ProfileModel

    _Ms = NDArray[np.float64] | float

_CONTEXTS = (128.0, 512.0, 2048.0, 8192.0, 32768.0)

_WAITING_NOISE = 0.25
"""Relative deviation of waiting time from its formula."""

_GREW = 1.02

_FULL = 1.0
"""The use at which a pool is full."""


class LearnedModel:
    """A profile with a factor on each physical part of its times; implements ``PerfModel``.

    Prefill: the fixed part, and what grows with tokens. Decode: the fixed part, what each request and what
    each KV token adds, as ``a + b*n + c*n*context`` fitted to the profile. Where the profile's step is longer
    than that line, the rest goes with the smallest of the three factors; where it is shorter, the larger
    factors take their parts first. So factors of 1 give the profile exactly, equal ones a multiple of it, no
    time moves by a larger ratio than some factor does, and whatever they are the surfaces stay positive and
    never fall with tokens, requests or context.

    Limits (slots, KV memory) are the profile's: they are configuration, not performance.
    """

    def __init__(self, base: ProfileModel) -> None:
        self.base = base
        self.prefill_gpus = base.prefill_gpus
        self.decode_gpus = base.decode_gpus
        self.max_num_seqs = base.max_num_seqs
        self.max_kv_tokens = base.max_kv_tokens
        trust = ESTIMATED if base.profile.is_estimate else MEASURED
        self.prefill = Belief(trust.prefill, trust.dead_band, trust.caution)
        self.decode = Belief(trust.decode, trust.dead_band, trust.caution)
        self._most_each = trust.most_each
        self._fixed_ms = base.ttft_ms(1.0)
        self._line = _line(base)

    def ttft_ms(self, isl: float) -> float:
        """Prefill time in ms of one prompt of ``isl`` tokens, alone. Raises ValueError unless isl > 0."""
        return self._with_factors(self.base.ttft_ms(isl), *self.prefill.factors.tolist())

    def prefill_throughput_per_gpu(self, isl: float) -> float:
        """Prompt tokens a second and GPU when prompts run one at a time. Raises ValueError unless isl > 0."""
        return isl / self.ttft_ms(isl) * 1000.0 / self.prefill_gpus

    def itl_ms(self, concurrency: float, context_tokens: float) -> float:
        """Time in ms of one decode step; see :meth:`ProfileModel.itl_ms`."""
        n = min(max(concurrency, 1.0), float(self.max_num_seqs))
        return float(self._step_ms(self.base.itl_ms(concurrency, context_tokens), n, context_tokens))

    def decode_throughput_per_gpu(self, itl_ms: float, context_tokens: float) -> DecodeCapacity:
        """Return the largest throughput among whole batches whose ITL is at most ``itl_ms``.

        Raises ValueError unless both arguments are > 0.
        """
        if not itl_ms > 0:
            raise ValueError(f"itl_ms must be a number above 0, not {itl_ms}")
        base = self.base.decode_steps_ms(context_tokens)
        n = np.arange(1.0, len(base) + 1.0)
        return best_point(self._step_ms(base, n, context_tokens), itl_ms, self.decode_gpus)

    def learn_itl(
        self, concurrency: float, context_tokens: float, observed_ms: float, spread: float = 0.0
    ) -> None:
        """Take in the mean step time of a window.

        Args:
            concurrency: Requests in the batch that a token met in the mean.
            context_tokens: Their mean context.
            observed_ms: The mean step time, over tokens.
            spread: How far off the concurrency may be, in requests.
        """
        n = min(max(concurrency, 1.0), float(self.max_num_seqs))
        base = self.base.itl_ms(concurrency, context_tokens)
        learned = self.decode.learned
        small, middle, large = order = np.argsort(learned, kind="stable")
        two, one = self._nested(order, base, n, context_tokens)
        parts = np.zeros(3)
        parts[large], parts[middle], parts[small] = one, two - one, base - two
        expected = float(parts @ learned)
        a, b, c = self._line
        each = b + c * context_tokens
        noise = GOOD_NOISE + spread * each / (a + n * each)
        self.decode.update((parts / expected).tolist(), observed_ms / expected - 1.0, noise)

    def learn_ttft(
        self,
        isl: float,
        requests_per_s: float,
        instances: int,
        observed_ms: float,
        dispersion: float = 1.0,
    ) -> None:
        """Take in the mean TTFT of a window with this traffic, waiting included.

        It is compared with the whole that the formula expects, and so is how that whole changes with each
        factor: where much is waiting, TTFT grows faster than prefill times do. The more is waiting, the
        less it counts. Where the pool is full by what was learned already, a longer wait proves nothing more.

        Requests that come in clumps wait up to as much longer as their counts are more dispersed than a
        Poisson stream's, or not at all where clumps are long and an instance is to spare: of what lies
        between both, nothing is learned.
        """
        learned = self.prefill.learned
        base_ms = cache(self.base.ttft_ms)  # factors change what is made of it, not the profile
        expected = self._mean_ttft(isl, requests_per_s, instances, learned, base_ms, 1.0)
        if dispersion > 1.0 and observed_ms > expected.ttft_ms:
            expected = self._mean_ttft(isl, requests_per_s, instances, learned, base_ms, dispersion)
            if observed_ms < expected.ttft_ms:
                return
        else:
            dispersion = 1.0
        if expected.use > _FULL and observed_ms > expected.ttft_ms:
            return
        slopes = []
        for part in range(len(learned)):
            grown = learned.copy()
            grown[part] *= _GREW
            slower = self._mean_ttft(isl, requests_per_s, instances, grown, base_ms, dispersion)
            change = (slower.ttft_ms - expected.ttft_ms) / (grown[part] - learned[part])
            slopes.append(max(0.0, change / expected.ttft_ms))
        if any(slopes):
            miss = observed_ms / expected.ttft_ms - 1.0
            self.prefill.update(slopes, miss, GOOD_NOISE + _WAITING_NOISE * expected.share)

    def _mean_ttft(
        self,
        isl: float,
        requests_per_s: float,
        instances: int,
        factors: NDArray[np.float64],
        base_ms: Callable[[float], float],
        dispersion: float,
    ) -> Waiting:
        fixed, growing = factors.tolist()
        return mean_ttft(
            lambda tokens: self._with_factors(base_ms(tokens), fixed, growing),
            isl,
            requests_per_s,
            instances,
            self._most_each,
            dispersion,
        )

    def _with_factors(self, base_ms: float, fixed: float, growing: float) -> float:
        if base_ms <= self._fixed_ms:
            return base_ms * fixed
        return fixed * self._fixed_ms + growing * (base_ms - self._fixed_ms)

    def _step_ms(self, base: _Ms, n: _Ms, context: float) -> NDArray[np.float64]:
        """The step that the profile has as ``base``, with the factors in use."""
        if self.decode.factors.tolist() == [1.0, 1.0, 1.0]:  # as long as the profile is plainly right
            return np.asarray(base)
        order = np.argsort(self.decode.factors, kind="stable")
        two, one = self._nested(order, base, n, context)
        small, middle, large = self.decode.factors[order].tolist()
        return np.asarray(small * base + (middle - small) * two + (large - middle) * one)

    def _nested(self, order: NDArray[np.intp], base: _Ms, n: _Ms, context: float) -> tuple[_Ms, _Ms]:
        """What of a step the two larger factors act on, and what the largest does: no more than all of it.

        ``order`` has the three factors from smallest to largest.
        """
        a, b, c = self._line
        parts = (a, b * n, c * n * context)
        one = parts[order[2]]
        return np.minimum(one + parts[order[1]], base), np.minimum(one, base)


def _line(base: ProfileModel) -> tuple[float, float, float]:
    """Fit ``a + b*n + c*n*context`` to the profile, relative errors, no part below 0."""
    rows, times = [], []
    sizes = np.unique(np.rint(np.geomspace(1, base.max_num_seqs, 9)))
    for context in _CONTEXTS:
        fits = len(base.decode_steps_ms(context))
        for n in sizes[sizes <= fits].tolist():
            rows.append((1.0, n, n * context))
            times.append(base.itl_ms(n, context))
    design = np.array(rows) / np.array(times)[:, None]
    scale = design.max(axis=0)
    free = np.ones(3, dtype=bool)
    parts: NDArray[np.float64] = np.zeros(3)
    while free.any():
        solution = np.linalg.lstsq((design / scale)[:, free], np.ones(len(design)), rcond=None)[0]
        parts[:] = 0.0
        parts[free] = solution / scale[free]
        if (solution >= 0.0).all():
            break
        free &= parts > 0.0
    a, b, c = parts.tolist()
    return a, b, c
