"""How far engines are from their profile: the guide's two correction factors, and online learning."""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import mul
from statistics import fmean, variance
from typing import TYPE_CHECKING

from sagescale.planner.decision import Corrections, Reason, ReasonCode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sagescale.fleet import PoolCounts
    from sagescale.perf import PerfModel
    from sagescale.perf.learn import Belief, LearnedModel
    from sagescale.planner.config import AutoscalerConfig
    from sagescale.planner.observation import Observation, Window

_FEWEST_REQUESTS = 20.0
"""A mean over fewer is too much chance."""

_QUEUE = 0.05
"""A queue for decode that is more than this share of what runs is seen in the ITL."""

_BACKLOG = 0.1
"""A queue for prefill that takes more than this share of the window to work off says nothing of this
window's load."""

_SETTLED = 0.1
"""Slots are full where what runs changed by no more than this share over the window."""

_DISPERSION_GAIN = 0.1
"""Variance over mean of the requests counted at looks within a window: averaged over so many windows."""

_SHAPE_GAIN = 0.1
"""A token's context over that of the mean request half way: averaged over so many windows."""

_GAUGE_GAIN = 0.1
_MOST_PEAKED = 100.0
"""Variance over mean of the requests in decode, 1 for a Poisson stream: learned from what the gauge says at
the end of a window beside that window's mean, no sample counting for more than the second."""


@dataclass(slots=True)
class CorrectionTracker:
    """Keeps both factors: 1 at first, held while an input is unknown, bounded always."""

    perf: PerfModel
    bounds: tuple[float, float]
    factors: Corrections = field(default_factory=Corrections)

    def update(self, window: Window, decode_ready: int, reasons: list[Reason]) -> Corrections:
        """Take in one window and return the factors to use.

        Prefill is observed TTFT over the profile's at the window's ISL; decode is observed ITL over
        the profile's at the concurrency that Little's law gives, requests / instances * duration / T.
        Only instances that are ready count: one still starting serves nobody.
        """
        prefill, decode = self.factors
        isl = window.isl
        if window.ttft_ms is not None and isl is not None:
            prefill = self._bounded("prefill", window.ttft_ms, self.perf.ttft_ms(isl), prefill, reasons)
        if window.itl_ms is not None and isl is not None and window.osl is not None:
            if decode_ready < 1:
                reasons.append(
                    Reason(
                        ReasonCode.NO_DECODE_READY,
                        f"no decode instance is ready: the decode correction stays {decode:.3f}",
                    )
                )
            elif window.reached and window.duration_s is not None:
                concurrency = window.reached / decode_ready * window.duration_s / window.interval_s
                expected = self.perf.itl_ms(concurrency, isl + window.osl / 2)
                decode = self._bounded("decode", window.itl_ms, expected, decode, reasons)
        self.factors = Corrections(prefill, decode)
        return self.factors

    def _bounded(
        self, pool: str, observed_ms: float, expected_ms: float, before: float, reasons: list[Reason]
    ) -> float:
        if not expected_ms > 0:
            return before
        low, high = self.bounds
        factor = observed_ms / expected_ms
        if low <= factor <= high:
            return factor
        bounded = low if factor < low else high
        reasons.append(
            Reason(
                ReasonCode.CORRECTION_BOUNDED,
                f"{pool} correction {factor:.3f} ({observed_ms:.1f} ms observed, {expected_ms:.1f} ms "
                f"expected) bounded to {bounded:g}",
            )
        )
        return bounded


def make_learner(config: AutoscalerConfig, perf_model: PerfModel) -> OnlineLearner | None:
    """Return a learner where the configuration asks for one and the model is a profile.

    Of aggregated instances nothing is learned: their latencies are of steps that do both, and what is read
    here are those of one.
    """
    if not config.enable_online_learning or config.serving == "aggregated":
        return None
    # Imported here: whoever only wants a predictor or a policy's name should not wait for numpy.
    from sagescale.perf.learn import LearnedModel
    from sagescale.perf.model import ProfileModel

    return OnlineLearner(LearnedModel(perf_model)) if isinstance(perf_model, ProfileModel) else None


class OnlineLearner:
    """Reads windows, and shows the model those that are about instances in a steady state.

    Used are windows over which a pool had the same ready instances, the window before included, and none
    was draining: what has just started serves fewer requests than its share, some of them cold. A window
    whose metrics are unknown teaches nothing.
    """

    def __init__(self, model: LearnedModel) -> None:
        self.model = model
        self._seen: tuple[Observation, ...] = ()
        self._peakedness = 1.0
        self._counts: list[float] = []
        self._dispersion = 1.0
        self._context_shape: float | None = None

    def look(self, seen: Observation) -> None:
        """Take in the short window of a burst check: how unevenly requests come within a window."""
        if seen.requests is not None:
            self._counts.append(seen.requests)

    def observe(self, observation: Observation, window: Window, reasons: list[Reason]) -> None:
        """Take in the next window; say so where from now on a measured profile is, or is no longer, left."""
        counts, self._counts = self._counts, []
        if len(counts) > 1 and sum(counts) > 0.0:
            self._dispersion += _DISPERSION_GAIN * (variance(counts) / fmean(counts) - self._dispersion)
        if observation.lengths:
            shape = _context_shape(observation.lengths)
            usual = shape if self._context_shape is None else self._context_shape
            self._context_shape = usual + _SHAPE_GAIN * (shape - usual)
        before = self.model.prefill.used, self.model.decode.used
        seen = (*self._seen, observation)
        if len(seen) > 1 and window.reached is not None and window.reached >= _FEWEST_REQUESTS:
            if _steady([one.pools.decode for one in seen]):
                self._learn_decode(observation, seen[-2], window)
            if _steady([one.pools.prefill for one in seen]):
                self._learn_prefill(observation, seen[-2], window)
        self._seen = seen[-2:]
        for pool, belief, was in zip(
            ("prefill", "decode"), (self.model.prefill, self.model.decode), before, strict=True
        ):
            if belief.used != was:
                reasons.append(_switched(pool, belief))

    def _learn_decode(self, now: Observation, before: Observation, window: Window) -> None:
        """Decode time over tokens, at the concurrency of Little's law as the requests themselves see it."""
        completed = now.completed
        if (
            completed is None
            or completed < _FEWEST_REQUESTS
            or window.osl is None
            or window.osl < 2.0
            or window.isl is None
        ):
            return
        if _queued(now) or _queued(before):
            if _queued(now) and _queued(before):
                tokens = completed * (window.osl - 1.0)
                self._learn_full_decode(now, before, tokens, self._context_tokens(window.isl, window.osl))
            return
        if window.duration_s is None or window.ttft_ms is None:
            return
        decode_ms = window.duration_s * 1000.0 - window.ttft_ms
        if decode_ms <= 0.0:
            return
        instances = now.pools.decode.ready
        running = completed * decode_ms / 1000.0 / now.window_s
        if now.running_decode is not None and running >= 1.0:
            sample = (now.running_decode - running) ** 2 / running
            self._peakedness += _GAUGE_GAIN * (min(sample, _MOST_PEAKED) - self._peakedness)
        # A token meets more than the mean number: a share of the pool's swings, and its own request.
        more = self._peakedness / instances + 1.0 - 1.0 / instances
        # Beside its steps a request waits for the one under way when it joins, half a step in the mean.
        self.model.learn_itl(
            running / instances + more,
            self._context_tokens(window.isl, window.osl),
            decode_ms / (window.osl - 0.5),
            more / 2.0,
        )

    def _context_tokens(self, isl: float, osl: float) -> float:
        """The context that a token of requests with such means meets in its own request, in the mean."""
        return (isl + osl / 2.0) * (self._context_shape or 1.0)

    def _learn_full_decode(
        self, now: Observation, before: Observation, tokens: float, context_tokens: float
    ) -> None:
        """Requests wait for a slot all the window: what runs is what fits, and tokens tell the step.

        ITL would tell nothing, as it contains the wait.
        """
        running, earlier = now.running_decode, before.running_decode
        if running is None or earlier is None:
            return
        mean, change = (running + earlier) / 2.0, abs(running - earlier)
        if change > _SETTLED * mean:  # still filling: its tokens are not yet its completions'
            return
        instances = now.pools.decode.ready
        step_ms = mean * now.window_s * 1000.0 / tokens
        self.model.learn_itl(mean / instances, context_tokens, step_ms, change / instances)

    def _learn_prefill(self, now: Observation, before: Observation, window: Window) -> None:
        """TTFT less the waiting that the load explains."""
        computed = window.computed_isl
        if window.ttft_ms is None or computed is None or window.reached is None:
            return
        rate = window.reached / window.interval_s
        instances = now.pools.prefill.ready
        if before.queued_prefill is not None:
            backlog_ms = before.queued_prefill / instances * self.model.ttft_ms(computed)
            if backlog_ms > _BACKLOG * now.window_s * 1000.0:
                return
        self.model.learn_ttft(computed, rate, instances, window.ttft_ms, max(self._dispersion, 1.0))


def _switched(pool: str, belief: Belief) -> Reason:
    factors = ", ".join(f"{factor:.2f}" for factor in belief.learned.tolist())
    words = (
        f"{pool} times differ plainly from the profile: the learned ones are used (factors {factors})"
        if belief.used
        else f"{pool} times agree with the profile again: it is used as it is"
    )
    return Reason(ReasonCode.LEARNED_TIMES, words)


def _steady(counts: list[PoolCounts]) -> bool:
    ready = counts[-1].ready
    return ready > 0 and all(count.ready == ready and not count.draining for count in counts)


def _context_shape(lengths: Sequence[tuple[int, int]]) -> float:
    """The mean context of the tokens produced over that of the mean request half way.

    A request is met as often as it has tokens to make: long answers, and what goes with them, count most.
    """
    isl, osl = zip(*lengths, strict=True)
    tokens = sum(osl)
    met = sum(map(mul, osl, isl)) + sum(map(mul, osl, osl)) / 2.0
    return met * len(lengths) / (tokens * (sum(isl) + tokens / 2.0)) if tokens > 0 else 1.0


def _queued(at: Observation) -> bool:
    if at.queued_decode is None or at.running_decode is None:
        return False
    return at.queued_decode > max(1.0, _QUEUE * at.running_decode)
