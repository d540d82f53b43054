"""Steps of an aggregated engine: coefficients of those with prompt chunks, and what unequal contexts cost."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from sagescale.perf.fit.regression import fit_error, relative_nnls, round_digits
from sagescale.perf.profile import AggregatedMeasured, AggregatedProfile, DecodeProfile, StepError
from sagescale.perf.steps import compile_steps
from sagescale.perf.surfaces import compile_decode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sagescale.perf.measurement import StepPoint
    from sagescale.perf.steps import StepModel
    from sagescale.perf.surfaces import DecodeTable

ALL_WITH_CHUNKS, UNEQUAL = "all with chunks", "decodes of unequal contexts"
"""Kinds of steps whose errors tell whether a section is fit."""

LEAST_STEPS = 20
"""Steps with chunks that a fit needs: fewer say nothing of what is left out."""

_KNOT_POINTS = 8
"""A knot of ``tokens_ms`` ends a piece with at least so many measured steps."""

_NONE = 1e-6
"""A share of the fastest step that is as good as nothing, where times must be above 0."""

_ROUNDING_MS = 1e-14
"""No token, pair or request costs so little."""

_LEFT_OUT = 4
"""Every fourth point, in the order of the source, is once left out of a fit and compared with it."""


def fit_aggregated(
    decode: DecodeProfile, points: Sequence[StepPoint], max_batched_tokens: int, *, assumed: bool
) -> AggregatedProfile:
    """Fit an instance's steps with chunks; ``decode`` is its surface of steps without, ``fit_spread`` in it.

    Non-negative least squares in relative error over every step with chunks; ``tokens_ms`` is a sum of rises
    between knots half an octave apart, so it never falls.
    Errors of a fit without every fourth point, at those points, stand beside those of the fit. Raises
    ValueError for times of no engine or fewer than ``LEAST_STEPS`` steps with chunks.
    """
    mixed = [point for point in points if point.chunks]
    if len(mixed) < LEAST_STEPS:
        raise ValueError(f"{len(mixed)} steps with prompt chunks (expected at least {LEAST_STEPS})")
    measured = _features(mixed)
    out = np.arange(len(mixed)) % _LEFT_OUT == 0
    names = (*decode.assumed, *(("max_batched_tokens",) if assumed else ()))

    def section(chosen: NDArray[np.bool_]) -> AggregatedProfile:
        return AggregatedProfile(
            **decode.but_assumed(),
            assumed=names,
            max_batched_tokens=max_batched_tokens,
            measured_steps=measured,
            **_coefficients(measured, chosen),
        )

    whole = section(np.ones(len(mixed), dtype=bool))
    step_ms = np.array(measured.step_ms)
    fitted, guessed = (mixed_steps_ms(compile_steps(each), measured) for each in (whole, section(~out)))
    errors = []
    decoding, several = np.array(measured.requests) > 0, np.array(measured.chunks) > 1
    for kind, chosen in (
        ("one chunk alone", ~decoding & ~several),
        ("several chunks alone", ~decoding & several),
        ("one chunk and decodes", decoding & ~several),
        ("several chunks and decodes", decoding & several),
        (ALL_WITH_CHUNKS, np.ones(len(mixed), dtype=bool)),
    ):
        if chosen.any():
            errors.append(_error(kind, step_ms, chosen, fitted, (out & chosen, guessed)))
    return replace(whole, step_errors=(*errors, *_spread_errors(decode, points)))


def fit_spread(decode: DecodeProfile, points: Sequence[StepPoint]) -> DecodeProfile:
    """Return the surface with ``spread_ms``, a knot at each number of requests measured so.

    What a step of unequal contexts takes longer than one of equal ones (``decode``'s) is set against the
    longest context less the mean, in relative error; no knot is below 0. Without such steps it is empty.
    """
    unequal = _unequal(points, decode)
    table = compile_decode(decode)
    knots: dict[int, float] = {}
    for n in sorted({point.decode for point in unequal}):
        excess, above = _against_equal(table, [point for point in unequal if point.decode == n])
        knots[n] = max(0.0, float(excess @ above / (above @ above)))
    return replace(
        decode,
        spread_requests=tuple(map(float, knots)),
        spread_ms=tuple(_significant(value) for value in knots.values()),
    )


def _unequal(points: Sequence[StepPoint], decode: DecodeProfile) -> list[StepPoint]:
    return [
        point
        for point in points
        if not point.chunks and not point.is_equal and point.decode <= decode.max_num_seqs
    ]


def _against_equal(
    table: DecodeTable, points: Sequence[StepPoint]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What each step takes longer than one of equal contexts, and its longest context less the mean.

    Both over the time measured, so that squares are of relative errors.
    """
    ms = np.array([point.ms for point in points])
    excess = np.array([point.ms - table.step_ms(point.decode, point.kv_tokens) for point in points])
    above = np.array([point.longest - point.kv_tokens / point.decode for point in points])
    return excess / ms, above / ms


def _spread_errors(decode: DecodeProfile, points: Sequence[StepPoint]) -> list[StepError]:
    unequal = _unequal(points, decode)
    if not unequal:
        return []
    out = np.arange(len(unequal)) % _LEFT_OUT == 0
    ms = np.array([point.ms for point in unequal])
    everything = np.ones(len(unequal), dtype=bool)

    def step_ms(chosen: Sequence[StepPoint]) -> NDArray[np.float64]:
        table = compile_decode(fit_spread(decode, chosen))
        return np.array([table.unequal_step_ms(p.decode, p.kv_tokens, p.longest) for p in unequal])

    kept = [point for point, left in zip(unequal, out.tolist(), strict=True) if not left]
    fitted, guessed, as_equal = step_ms(unequal), step_ms(kept), step_ms(())
    return [
        _error(UNEQUAL, ms, everything, fitted, (out, guessed) if kept else None),
        _error("the same, taken as equal", ms, everything, as_equal, None),
    ]


def _error(
    kind: str,
    ms: NDArray[np.float64],
    chosen: NDArray[np.bool_],
    fitted: NDArray[np.float64],
    left_out: tuple[NDArray[np.bool_], NDArray[np.float64]] | None,
) -> StepError:
    """Return the errors at the chosen points, and those at points that another fit left out."""
    out, guessed = left_out or (np.zeros(0, dtype=bool), fitted)
    return StepError(
        kind=kind,
        fitted=fit_error(fitted[chosen], ms[chosen]),
        left_out=fit_error(guessed[out], ms[out]) if out.any() else None,
    )


def _features(points: Sequence[StepPoint]) -> AggregatedMeasured:
    return AggregatedMeasured(
        requests=tuple(float(point.decode) for point in points),
        kv_tokens=tuple(float(point.kv_tokens) for point in points),
        chunks=tuple(float(len(point.chunks)) for point in points),
        chunk_tokens=tuple(float(sum(c for c, _ in point.chunks)) for point in points),
        cross_tokens2=tuple(float(sum(c * p for c, p in point.chunks)) for point in points),
        square_tokens2=tuple(float(sum(c * c for c, _ in point.chunks)) for point in points),
        longest_tokens=tuple(
            float(max(point.longest, *(c + p for c, p in point.chunks))) for point in points
        ),
        step_ms=tuple(point.ms for point in points),
    )


def mixed_steps_ms(steps: StepModel, measured: AggregatedMeasured) -> NDArray[np.float64]:
    """Return what a model says of each measured step with chunks, float64[rows], ms."""
    rows = zip(
        measured.requests,
        measured.kv_tokens,
        measured.chunk_tokens,
        measured.cross_tokens2,
        measured.square_tokens2,
        measured.longest_tokens,
        strict=True,
    )
    return np.array([steps.mixed_ms(*row) for row in rows])


def _coefficients(measured: AggregatedMeasured, chosen: NDArray[np.bool_]) -> dict[str, Any]:
    """Fit the fields of a section from ``tokens`` to ``longest_ms`` to the chosen steps."""
    n, kv, chunk, cross, square, longest, ms = (
        np.array(column, dtype=np.float64)[chosen]
        for column in (
            measured.requests,
            measured.kv_tokens,
            measured.chunk_tokens,
            measured.cross_tokens2,
            measured.square_tokens2,
            measured.longest_tokens,
            measured.step_ms,
        )
    )
    tokens = n + chunk
    knots = _knots(tokens)
    last = len(knots) - 1
    # Each piece between two knots rises by its own amount; the last goes on beyond.
    rises = [
        np.clip((tokens - low) / (high - low), 0.0, None if i + 1 == last else 1.0)
        for i, (low, high) in enumerate(pairwise(knots))
    ]
    columns = (np.ones_like(ms), *rises, n, kv, cross, square / 2.0, longest)
    found = relative_nnls(columns, ms)
    of_tokens, others = np.maximum(np.cumsum(found[: len(knots)]), _NONE * ms.min()), found[len(knots) :]
    names = ("running_ms", "kv_ms", "cross_ms", "square_ms", "longest_ms")
    return {
        "tokens": tuple(knots),
        "tokens_ms": tuple(round_digits(value) for value in of_tokens.tolist()),
        **{name: _significant(value) for name, value in zip(names, others.tolist(), strict=True)},
    }


def _significant(value: float) -> float:
    """Round a coefficient; one that is rounding itself is 0."""
    return round_digits(value) if value > _ROUNDING_MS else 0.0


def _knots(tokens: NDArray[np.float64]) -> list[float]:
    """The least and most measured, and between them half octaves with steps enough before each."""
    low, high = float(tokens.min()), float(tokens.max())
    if low == high:
        return [low, low + 1.0]
    knots = [low]
    halves = (float(round(2.0 ** (i / 2))) for i in range(2, 63))
    for knot in halves:
        if knots[-1] < knot < high and int(((tokens > knots[-1]) & (tokens <= knot)).sum()) >= _KNOT_POINTS:
            knots.append(knot)
    if len(knots) > 1 and int((tokens > knots[-1]).sum()) < _KNOT_POINTS:
        knots.pop()
    return [*knots, high]
