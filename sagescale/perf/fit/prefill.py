"""The prefill curve, its attention coefficient, and how far both are from the measurements."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sagescale.perf.fit.regression import fit_error, project_line, relative_nnls, round_digits
from sagescale.perf.profile import PrefillMeasured, PrefillProfile
from sagescale.perf.surfaces import PrefillCurve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sagescale.perf.measurement import PrefillPoint
    from sagescale.perf.profile import FitError

_OUT_OF_ORDER = 0.10
"""A point is suspect when a longer prompt took this much less, or a shorter one this much more."""

_OUTLIER = 0.25
"""A suspect point this far from the robust quadratic is left out of the knots."""

_FOOT = 1.5
"""Prompts that take less than this many times the shortest time are on the flat foot of the curve."""

_AGREES_MEDIAN, _AGREES_P90 = 0.03, 0.10
"""Measured batches that lone prompts' attention term meets so well confirm it; others are fitted."""

_MOST_ATTENTION = 0.9
"""Of the time of any prompt measured: the rest is matrix work, and batches of short prompts still take it."""

_INSIGNIFICANT = 1e-9
"""An attention term below this share of the longest prompt's time is rounding: b is 0."""


def fit_prefill(points: Sequence[PrefillPoint], gpus: int = 1) -> tuple[PrefillProfile, tuple[str, ...]]:
    """Fit lone-prompt points of an instance of ``gpus``; return the profile and what to note of the fit.

    ``points`` must hold at least two distinct lone ISLs. The attention term b is that of the lone prompts
    where measured batches of several agree with it, else the one that fits the batches. ``batch_error`` is
    that of the batch formula on them, None without any. Raises ValueError for times of no engine.
    """
    measured = PrefillMeasured(
        isl_tokens=tuple(point.isl_tokens for point in points),
        batch=tuple(point.batch for point in points),
        ttft_ms=tuple(point.ttft_ms for point in points),
    )
    lone = [point for point in points if point.batch == 1]
    isl = np.array(sorted({point.isl_tokens for point in lone}), dtype=np.float64)
    ttft = np.array([np.median([p.ttft_ms for p in lone if p.isl_tokens == tokens]) for tokens in isl])

    left_out = _outliers(isl, ttft)
    notes = [
        f"prefill at {tokens:.0f} tokens left out of the curve: {value:.4g} ms breaks the order and is "
        f"{value / expected - 1:+.0%} from a robust fit of the others"
        for tokens, value, expected in zip(
            isl[left_out], ttft[left_out], _robust_quadratic(isl, ttft)[left_out], strict=True
        )
    ]
    knots, times = isl[~left_out], ttft[~left_out]
    fitted = project_line(times, times**-2.0)
    pooled = int(np.count_nonzero(np.abs(fitted / times - 1.0) > 1e-9))
    if pooled:
        notes.append(
            f"prefill times fall with longer prompts in places: {pooled} of {len(knots)} knots pooled"
        )
    profile = PrefillProfile(
        gpus_per_instance=gpus,
        isl_tokens=tuple(knots.tolist()),
        ttft_ms=tuple(round_digits(value) for value in fitted.tolist()),
        quadratic_ms=round_digits(_attention(knots, times)),
        measured=measured,
    )
    curve = PrefillCurve(profile)
    profile = replace(profile, floor_ms=round_digits(curve.floor_ms), fit_error=_error(curve, lone))
    batches = [point for point in points if point.batch > 1]
    if not batches:
        return profile, tuple(notes)
    error = _error(curve, batches)
    if error.median > _AGREES_MEDIAN or error.p90 > _AGREES_P90:
        fitted_to = replace(profile, quadratic_ms=round_digits(_attention_of_batches(curve, knots, batches)))
        after = _error(PrefillCurve(fitted_to), batches)
        if after.median < error.median:
            notes.append(
                f"attention fitted to {len(batches)} measured batches: {fitted_to.quadratic_ms:.3g} ms per "
                f"token squared, where lone prompts say {profile.quadratic_ms:.3g} and miss the batches by "
                f"{error.median:.1%} in the median"
            )
            profile, error = fitted_to, after
    return replace(profile, batch_error=error), tuple(notes)


def _attention(isl: NDArray[np.float64], ttft: NDArray[np.float64]) -> float:
    """Return b of ``ttft = a + b1*S + b*S^2`` (all >= 0, least squares in relative error).

    Prompts too short to fill the GPU all take about the same time. That flat foot is no part of the
    parabola and, in relative error, would bend it twice as much as the measured batches show; so only
    prompts of at least 1.5 times the shortest time count, while four are left.
    """
    beyond_foot = ttft >= _FOOT * ttft.min()
    if int(beyond_foot.sum()) >= 4:
        isl, ttft = isl[beyond_foot], ttft[beyond_foot]
    quadratic = float(relative_nnls((np.ones_like(isl), isl, isl**2), ttft)[2])
    return quadratic if quadratic * isl[-1] ** 2 >= _INSIGNIFICANT * ttft[-1] else 0.0


def _attention_of_batches(
    curve: PrefillCurve, knots: NDArray[np.float64], batches: Sequence[PrefillPoint]
) -> float:
    """Return the b >= 0 that makes the mean relative error of the batches least.

    What a batch takes less than one prompt of its tokens is ``b`` times the pairs of tokens of different
    prompts, so the best b is the median of such ratios, each weighed by its pairs over the batch's time.
    """
    total = np.array([point.batch * point.isl_tokens for point in batches], dtype=np.float64)
    pairs = total**2 - np.array([point.batch * float(point.isl_tokens) ** 2 for point in batches])
    ms = np.array([point.ttft_ms for point in batches])
    ratios = (np.array([curve.ttft_ms(tokens) for tokens in total.tolist()]) - ms) / pairs
    order = np.argsort(ratios)
    weights = np.cumsum((pairs / ms)[order])
    best = float(ratios[order][np.searchsorted(weights, weights[-1] / 2.0)])
    most = min(_MOST_ATTENTION * curve.ttft_ms(tokens) / (tokens * tokens) for tokens in knots.tolist())
    return float(min(max(best, 0.0), most))


def _error(curve: PrefillCurve, points: Sequence[PrefillPoint]) -> FitError:
    fitted = np.array([curve.batch_ms([p.isl_tokens] * p.batch) for p in points])
    return fit_error(fitted, np.array([p.ttft_ms for p in points]))


def _outliers(isl: NDArray[np.float64], ttft: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Mark points that break the order badly and that a robust fit of all points singles out.

    Either test alone would be wrong: a flat foot is far from any quadratic, and of two points out of order
    only one is the culprit. At least three knots stay.
    """
    lowest_after = np.minimum.accumulate(ttft[::-1])[::-1]
    highest_before = np.maximum.accumulate(ttft)
    suspect = (ttft > (1.0 + _OUT_OF_ORDER) * lowest_after) | (ttft < (1.0 - _OUT_OF_ORDER) * highest_before)
    if not suspect.any() or len(isl) < 5:
        return np.zeros(len(isl), dtype=bool)
    expected = _robust_quadratic(isl, ttft)
    outlier = suspect & (np.abs(ttft / expected - 1.0) > _OUTLIER)
    return outlier if len(isl) - int(outlier.sum()) >= 3 else np.zeros(len(isl), dtype=bool)


def _robust_quadratic(isl: NDArray[np.float64], ttft: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the quadratic fitted with Cauchy weights, at ``isl``.

    Reweighted least squares: a residual of ten times the typical one counts a hundredth.
    """
    columns = (np.ones_like(isl), isl, isl**2)
    weight = np.ones_like(isl)
    expected = ttft
    for _ in range(30):
        coefficients = relative_nnls(columns, ttft, weight)
        expected = sum(c * column for c, column in zip(coefficients, columns, strict=True))
        residual = np.abs(expected / ttft - 1.0)
        scale = max(1.4826 * float(np.median(residual)), 1e-6)
        weight = 1.0 / (1.0 + (residual / scale) ** 2)
    return expected
