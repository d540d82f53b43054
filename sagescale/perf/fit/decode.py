"""The decode surface: scattered (concurrency, context, ITL) points onto one grid, monotone both ways."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sagescale.perf.checks import MAX_REQUESTS, at_least
from sagescale.perf.fit.regression import fit_error, project_grid, project_line, relative_nnls, round_digits
from sagescale.perf.profile import DecodeMeasured, DecodeProfile
from sagescale.perf.surfaces import compile_decode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sagescale.perf.measurement import DecodePoint
    from sagescale.perf.profile import FitError

_KNOT_SPACING = 1.05
"""Concurrency knots of scattered data are at least this factor (and one request) from each other."""

# How firmly a grid cell holds against the monotone projection: a cell at a measurement, one interpolated
# between measurements of its context, one extrapolated by the surrogate.
_MEASURED, _BETWEEN, _BEYOND = 1.0, 0.1, 0.01


def fit_decode(
    points: Sequence[DecodePoint],
    max_num_seqs: int,
    gpus: int = 1,
    *,
    max_kv_tokens: int | None = None,
    assumed: tuple[str, ...] = (),
) -> tuple[DecodeProfile, tuple[str, ...]]:
    """Fit points of at least two contexts and two concurrencies; return the profile and notes on the fit.

    A full rectangle of (concurrency, context) keeps its own grid. Otherwise contexts are the measured ones
    and concurrency knots are near the measured ones, from 1 to at least ``max_num_seqs``. The error is that
    at the measured points within the slots. GPUs and limits are the instance's. Raises ValueError for times
    of no engine.
    """
    try:
        measured = DecodeMeasured(
            concurrency=tuple(point.concurrency for point in points),
            context_tokens=tuple(point.context_tokens for point in points),
            itl_ms=tuple(point.itl_ms for point in points),
        )
    except ValueError as error:
        raise ValueError(f"decode {error}") from error
    at_least("max_num_seqs", max_num_seqs, 1, MAX_REQUESTS)
    cells = _medians(points)
    contexts = np.array(sorted({context for _, context in cells}))
    loads = np.array(sorted({load for load, _ in cells}))
    if len(cells) == len(contexts) * len(loads):
        knots = loads
        raw = np.array([[cells[load, context] for context in contexts.tolist()] for load in loads.tolist()])
        weight = raw**-2.0
        beyond = 0
    else:
        knots = _knots(loads, max_num_seqs)
        raw, firmness = _fill(cells, knots, contexts)
        weight = firmness * raw**-2.0
        beyond = int(np.count_nonzero(firmness == _BEYOND))
    grid = project_grid(raw, weight)

    notes = []
    moved = np.abs(grid / raw - 1.0)
    if float(moved.max()) > 1e-9:
        share = int(np.count_nonzero(moved > 1e-9))
        notes.append(
            f"decode times fall with more load in places: {share} of {grid.size} grid cells moved, "
            f"by {float(np.median(moved[moved > 1e-9])):.1%} in the median, {float(moved.max()):.1%} at most"
        )
    if beyond:
        notes.append(
            f"decode: {beyond} of {grid.size} grid cells lie outside their context's measured concurrency "
            "and are extrapolated with itl = a + b*n + c*n*context"
        )
    profile = DecodeProfile(
        gpus_per_instance=gpus,
        concurrency=tuple(knots.tolist()),
        context_tokens=tuple(contexts.tolist()),
        itl_ms=tuple(tuple(round_digits(value) for value in row) for row in grid.tolist()),
        max_num_seqs=max_num_seqs,
        max_kv_tokens=max_kv_tokens,
        assumed=assumed,
        measured=measured,
    )
    return replace(profile, fit_error=_error(profile, points)), tuple(notes)


def _medians(points: Sequence[DecodePoint]) -> dict[tuple[float, float], float]:
    groups: dict[tuple[float, float], list[float]] = {}
    for point in points:
        groups.setdefault((point.concurrency, point.context_tokens), []).append(point.itl_ms)
    return {key: float(np.median(values)) for key, values in groups.items()}


def _knots(loads: NDArray[np.float64], slots: int) -> NDArray[np.float64]:
    """Whole numbers at or near the measured loads, from 1 to at least the slots."""
    whole = np.unique(np.maximum(1.0, np.rint(loads)))
    if not (np.array_equal(whole, loads) and len(whole) <= 64):
        spaced = [1.0]
        for value in whole.tolist():
            if value >= max(spaced[-1] + 1.0, spaced[-1] * _KNOT_SPACING):
                spaced.append(value)
        whole = np.array(spaced)
    return np.array(sorted({1.0, *whole.tolist(), max(float(slots), whole[-1])}))


def _fill(
    cells: dict[tuple[float, float], float], knots: NDArray[np.float64], contexts: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return every context's column at the knots, and how firmly each cell is known."""
    load, context = (np.array(axis) for axis in zip(*cells, strict=True))
    itl = np.array(list(cells.values()))
    fixed, per_request, per_token = relative_nnls((np.ones_like(load), load, load * context), itl)

    raw = np.empty((len(knots), len(contexts)))
    firmness = np.full_like(raw, _BETWEEN)
    for j, tokens in enumerate(contexts.tolist()):
        at_context = np.flatnonzero(context == tokens)
        at_context = at_context[np.argsort(load[at_context])]
        x = load[at_context]
        y = project_line(itl[at_context], itl[at_context] ** -2.0)
        slope = per_request + per_token * tokens
        # Between points the ratio to the surrogate is interpolated, not the time itself: a cubic through two
        # noisy neighbours would bend the long gap beside them, the ratio cannot.
        column = (fixed + slope * knots) * np.interp(knots, x, y / (fixed + slope * x))
        above, below = knots > x[-1], knots < x[0]
        column[above] = y[-1] + slope * (knots[above] - x[-1])
        # Fewer requests never give more tokens a second than the first measured point.
        column[below] = np.maximum(y[0] - slope * (x[0] - knots[below]), y[0] * knots[below] / x[0])
        raw[:, j] = column
        firmness[above | below, j] = _BEYOND
        nearest = np.abs(knots[:, None] - x[None, :]).argmin(axis=0)
        near = np.abs(knots[nearest] - x) <= np.maximum(0.5, (_KNOT_SPACING - 1.0) * x)
        firmness[nearest[near], j] = _MEASURED
    return raw, firmness


def _error(profile: DecodeProfile, points: Sequence[DecodePoint]) -> FitError:
    inside = [p for p in points if p.concurrency <= profile.max_num_seqs] or list(points)
    slots = max(profile.max_num_seqs, math.ceil(max(p.concurrency for p in inside)))
    table = compile_decode(replace(profile, max_num_seqs=slots))
    fitted = []
    for point in inside:
        n = int(point.concurrency)
        low = table.step_ms(n, n * point.context_tokens)
        high = table.step_ms(min(n + 1, table.slots), min(n + 1, table.slots) * point.context_tokens)
        fitted.append(low + (high - low) * (point.concurrency - n))
    return fit_error(np.array(fitted), np.array([p.itl_ms for p in inside]))
