"""What a plot of a profile shows: panels of fitted curves with the measured points beside them.

Renderers (terminal, PNG, HTML) draw these and decide nothing but looks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sagescale.perf.model import ProfileModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sagescale.perf.profile import AggregatedProfile, Profile

__all__ = ["Curve", "Panel", "profile_panels"]

_CURVES = 5
_STEPS = 120
_NEAR = 0.08
"""A point measured this close to a curve's concurrency is drawn with it."""


@dataclass(frozen=True, slots=True)
class Curve:
    """A fitted line through (x, y), the points measured for it, and the operating point chosen on it."""

    label: str
    line: tuple[tuple[float, float], ...]
    measured: tuple[tuple[float, float], ...] = ()
    chosen: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Panel:
    """Curves over one pair of axes; ``log_x`` and ``log_y`` say which are logarithmic.

    ``target`` is a value of x to mark, with its words.
    """

    title: str
    x_label: str
    y_label: str
    curves: tuple[Curve, ...]
    log_x: bool = True
    log_y: bool = True
    target: tuple[float, str] | None = None


def profile_panels(profile: Profile, *, target_itl_ms: float) -> tuple[Panel, ...]:
    """Return TTFT over ISL, ITL over concurrency, ITL over context, and throughput against ITL.

    With an aggregated section also its steps with one prompt chunk, over tokens. Curves stop at what fits the
    KV memory. Raises ValueError unless ``target_itl_ms`` is above 0.
    """
    model = ProfileModel(profile)
    contexts = _spread(profile.decode.context_tokens)
    return (
        _ttft(profile, model),
        _itl_over_concurrency(profile, model, contexts),
        _itl_over_context(profile, model),
        _throughput(profile, model, contexts, target_itl_ms),
        *(() if profile.aggregated is None else (_steps(profile.aggregated, model),)),
    )


def _ttft(profile: Profile, model: ProfileModel) -> Panel:
    points = tuple((float(isl), ms) for isl, ms in profile.prefill.measured.alone)
    knots = profile.prefill.isl_tokens
    grid = np.geomspace(knots[0] / 2.0, knots[-1] * 1.3, _STEPS).tolist()
    line = tuple((isl, model.ttft_ms(isl)) for isl in grid)
    return Panel(
        "Prefill of one prompt alone",
        "prompt (tokens)",
        "TTFT (ms)",
        (Curve("TTFT", line, points),),
    )


def _itl_over_concurrency(profile: Profile, model: ProfileModel, contexts: Sequence[float]) -> Panel:
    curves = tuple(
        Curve(_tokens(context), _column(model, context), _measured_at(profile, model, context))
        for context in contexts
    )
    return Panel("Decode step over running requests", "running requests", "ITL (ms)", curves)


def _itl_over_context(profile: Profile, model: ProfileModel) -> Panel:
    knots, points = profile.decode.context_tokens, profile.decode.measured.points
    grid = np.geomspace(knots[0], knots[-1], _STEPS).tolist()
    powers = [4**i for i in range(8) if 4**i < 0.7 * model.max_num_seqs]
    curves = []
    for n in _spread([*powers, model.max_num_seqs]):
        line = [(c, model.itl_ms(n, c)) for c in grid if _fits(model, n, c)]
        if not line:
            continue
        near = tuple((c, ms) for load, c, ms in points if abs(load / n - 1.0) <= _NEAR)
        curves.append(Curve(f"{n:.0f} request{'s' if n > 1 else ''}", tuple(line), near))
    return Panel("Decode step over context", "context (tokens a request)", "ITL (ms)", tuple(curves))


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
        curves.append(Curve(_tokens(context), tuple(line), measured, chosen))
    return Panel(
        "Decode throughput against step time",
        "ITL (ms)",
        "tokens/s/GPU",
        tuple(curves),
        target=(target_itl_ms, f"target {target_itl_ms:g} ms"),
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
        curves.append(Curve(words, line, points))
    return Panel("Step with a prompt chunk over tokens", "tokens in the step", "step (ms)", tuple(curves))


def _column(model: ProfileModel, context: float) -> tuple[tuple[float, float], ...]:
    """Return concurrency and ITL, up to the slots and the KV memory."""
    fits = model.max_num_seqs
    if model.max_kv_tokens is not None:
        fits = max(1, min(fits, int(model.max_kv_tokens / context)))
    loads = sorted({*np.rint(np.geomspace(1, fits, _STEPS)).astype(int).tolist()})
    return tuple((float(n), model.itl_ms(n, context)) for n in loads)


def _fits(model: ProfileModel, n: float, context: float) -> bool:
    return model.max_kv_tokens is None or n <= 1 or n * context <= model.max_kv_tokens


def _measured_at(profile: Profile, model: ProfileModel, context: float) -> tuple[tuple[float, float], ...]:
    points = profile.decode.measured.points
    return tuple((n, ms) for n, c, ms in points if c == context and n <= model.max_num_seqs)


def _spread(values: Sequence[float]) -> tuple[float, ...]:
    """Return at most five of the values, the first and last among them."""
    if len(values) <= _CURVES:
        return tuple(values)
    last = len(values) - 1
    return tuple(values[round(i * last / (_CURVES - 1))] for i in range(_CURVES))


def _tokens(context: float) -> str:
    return f"context {context:,.0f}"
