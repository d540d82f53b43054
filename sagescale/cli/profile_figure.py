"""What a plot of a profile shows: panels of fitted curves with the measured points beside them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sagescale.perf.model import ProfileModel
from sagescale.report.figures import Axis, Figure, Level, Panel, Series
from sagescale.report.formats import thousands

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sagescale.perf.profile import AggregatedProfile, Profile

_CURVES = 5
_STEPS = 120
_NEAR = 0.08
"""A point measured this close to a curve's concurrency is drawn with it."""
_HUES = ("blue", "vermillion", "green", "purple", "muted")
_SYMBOLS = ("circle", "square", "triangle-up", "diamond", "triangle-down")
_ROOM = 0.05
"""Beside the values of an axis, in decades."""

_Points = tuple[tuple[float, float], ...]


class _Curve(NamedTuple):
    """A fitted line through (x, y), the points measured for it, and the operating point chosen on it."""

    label: str
    line: _Points
    measured: _Points = ()
    chosen: tuple[float, float] | None = None


def _panel(title: str, x: str, y: str, curves: Sequence[_Curve], target: Level | None = None) -> Panel:
    """Return a panel on logarithmic axes: lines first, so that marks cover them."""
    series = [_series(i, curve.label, curve.label, curve.line, width=2) for i, curve in enumerate(curves)]
    for i, curve in enumerate(curves):
        if curve.measured:
            mark = f"{_SYMBOLS[i % len(_SYMBOLS)]}-open"
            series.append(_series(i, "measured", curve.label, curve.measured, mark=mark, size=8, edge=2))
        if curve.chosen:
            look = {"mark": "star", "size": 15, "edge": 1, "outline": "ink"}
            series.append(_series(i, "most tokens within the target", curve.label, (curve.chosen,), **look))
    points = [point for curve in curves for point in (*curve.line, *curve.measured)]
    across = [] if target is None else [target.value]
    return Panel(
        title.lower().replace(" ", "-"),
        title,
        "",
        series,
        levels=() if target is None else (target,),
        x=_axis(x, [*(x for x, _ in points), *across]),
        y=_axis(y, [y for _, y in points]),
    )


def _series(i: int, name: str, group: str, points: _Points, **look: Any) -> Series:  # noqa: ANN401
    x, y = zip(*points, strict=True)
    return Series(name, x, y, group=group, colour=_HUES[i % len(_HUES)], **look)


def _axis(title: str, values: Sequence[float]) -> Axis:
    """Return an axis over the values with a little room, and ticks at 1, 2 and 5."""
    low, high = math.log10(min(values)) - _ROOM, math.log10(max(values)) + _ROOM
    ticks = [m * 10.0**e for e in range(math.floor(low), math.ceil(high) + 1) for m in (1, 2, 5)]
    shown = [(tick, thousands(tick)) for tick in ticks if low <= math.log10(tick) <= high]
    return Axis(title=title, log=True, range=(10**low, 10**high), ticks=shown)


def profile_figure(profile: Profile, *, target_itl_ms: float) -> Figure:
    """Return TTFT over ISL, ITL over concurrency, ITL over context, and throughput against ITL.

    With an aggregated section also its steps with one prompt chunk, over tokens. Curves stop at what fits the
    KV memory. Raises ValueError unless ``target_itl_ms`` is above 0.
    """
    model = ProfileModel(profile)
    contexts = spread(profile.decode.context_tokens, _CURVES)
    panels = [
        _ttft(profile, model),
        _itl_over_concurrency(profile, model, contexts),
        _itl_over_context(profile, model),
        _throughput(profile, model, contexts, target_itl_ms),
    ]
    if profile.aggregated is not None:
        panels.append(_steps(profile.aggregated, model))
    return Figure(panels=panels, height=440.0)


def _ttft(profile: Profile, model: ProfileModel) -> Panel:
    points = tuple((float(isl), ms) for isl, ms in profile.prefill.measured.alone)
    knots = profile.prefill.isl_tokens
    grid = np.geomspace(knots[0] / 2.0, knots[-1] * 1.3, _STEPS).tolist()
    line = tuple((isl, model.ttft_ms(isl)) for isl in grid)
    return _panel(
        "Prefill of one prompt alone",
        "prompt (tokens)",
        "TTFT (ms)",
        (_Curve("TTFT", line, points),),
    )


def _itl_over_concurrency(profile: Profile, model: ProfileModel, contexts: Sequence[float]) -> Panel:
    curves = tuple(
        _Curve(_tokens(context), _column(model, context), _measured_at(profile, model, context))
        for context in contexts
    )
    return _panel("Decode step over running requests", "running requests", "ITL (ms)", curves)


def _itl_over_context(profile: Profile, model: ProfileModel) -> Panel:
    knots, points = profile.decode.context_tokens, profile.decode.measured.points
    grid = np.geomspace(knots[0], knots[-1], _STEPS).tolist()
    powers = [4**i for i in range(8) if 4**i < 0.7 * model.max_num_seqs]
    curves = []
    for n in spread([*powers, model.max_num_seqs], _CURVES):
        line = [(c, model.itl_ms(n, c)) for c in grid if fits_kv(model, n, c)]
        if not line:
            continue
        near = tuple((c, ms) for load, c, ms in points if abs(load / n - 1.0) <= _NEAR)
        curves.append(_Curve(f"{n:.0f} request{'s' if n > 1 else ''}", tuple(line), near))
    return _panel("Decode step over context", "context (tokens a request)", "ITL (ms)", tuple(curves))


def _throughput(
    profile: Profile, model: ProfileModel, contexts: Sequence[float], target_itl_ms: float
) -> Panel:
    curves = []
    for context in contexts:
        # tokens/s/GPU = n / ITL * 1000 / GPUs
        line = [(itl, n / itl * 1000.0 / model.decode_gpus) for n, itl in _column(model, context)]
        points = _measured_at(profile, model, context)
        measured = tuple((itl, n / itl * 1000.0 / model.decode_gpus) for n, itl in points)
        best = model.decode_throughput_per_gpu(target_itl_ms, context)
        chosen = (best.itl_ms, best.tokens_per_s_per_gpu) if best.feasible else None
        curves.append(_Curve(_tokens(context), tuple(line), measured, chosen))
    return _panel(
        "Decode throughput against step time",
        "ITL (ms)",
        "tokens/s/GPU",
        tuple(curves),
        Level(target_itl_ms, f"target {target_itl_ms:g} ms", "ink", axis="x"),
    )


def _steps(section: AggregatedProfile, model: ProfileModel) -> Panel:
    """One chunk from the start of a prompt, alone and beside decodes of equal contexts, over all tokens."""
    steps, rows = model.step_model(), section.measured_steps
    most = max(section.max_batched_tokens, 2)
    seen: dict[tuple[float, float], list[tuple[float, float]]] = {}
    for n, kv, tokens, chunks, cross, ms in zip(
        rows.requests,
        rows.kv_tokens,
        rows.chunk_tokens,
        rows.chunks,
        rows.cross_tokens2,
        rows.step_ms,
        strict=True,
    ):
        if chunks == 1 and not cross:
            seen.setdefault((n, kv / n if n else 0.0), []).append((n + tokens, ms))
    # The groups measured most often, in order of requests; without any, the batches that there are.
    often = sorted(seen, key=lambda group: len(seen[group]), reverse=True)[:_CURVES]
    drawn = often or [(0.0, 0.0), (1.0, section.context_tokens[0])]
    curves = []
    for n, context in sorted({(0.0, 0.0), *drawn})[:_CURVES]:
        if n >= most:
            continue
        kv = n * context
        grid = np.unique(np.rint(np.geomspace(n + 1, most, _STEPS)))
        line = tuple(
            (x, steps.mixed_ms(n, kv, x - n, 0.0, (x - n) ** 2, max(context, x - n))) for x in grid.tolist()
        )
        points = tuple(sorted(point for point in seen.get((n, context), ()) if point[0] <= most))
        words = f"beside {n:.0f} x {context:,.0f}" if n else "alone"
        curves.append(_Curve(words, line, points))
    return _panel("Step with a prompt chunk over tokens", "tokens in the step", "step (ms)", tuple(curves))


def _column(model: ProfileModel, context: float) -> tuple[tuple[float, float], ...]:
    """Return concurrency and ITL, up to the slots and the KV memory."""
    fits = len(model.decode_steps_ms(context))
    loads = sorted({*np.rint(np.geomspace(1, fits, _STEPS)).astype(int).tolist()})
    return tuple((float(n), model.itl_ms(n, context)) for n in loads)


def fits_kv(model: ProfileModel, n: float, context: float) -> bool:
    """Whether the KV memory holds so many requests of the context; one alone always runs."""
    return model.max_kv_tokens is None or n <= 1 or n * context <= model.max_kv_tokens


def _measured_at(profile: Profile, model: ProfileModel, context: float) -> tuple[tuple[float, float], ...]:
    points = profile.decode.measured.points
    return tuple((n, ms) for n, c, ms in points if c == context and n <= model.max_num_seqs)


def spread(values: Sequence[float], most: int) -> tuple[float, ...]:
    """Return at most so many of the values, the first and last among them."""
    if len(values) <= most:
        return tuple(values)
    last = len(values) - 1
    return tuple(values[round(i * last / (most - 1))] for i in range(most))


def _tokens(context: float) -> str:
    return f"context {context:,.0f}"
