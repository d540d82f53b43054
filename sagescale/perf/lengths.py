"""Lengths that are means of runs: those close to each other are one."""

from __future__ import annotations

import statistics
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sagescale.perf.measurement import Measurement

__all__ = ["group", "with_grouped_lengths"]


def with_grouped_lengths(source: Measurement) -> Measurement:
    """Give prompts, and contexts, within the source's ``length_tolerance`` of each other one length.

    Runs of the same nominal length differ by a few tokens in their means. Taken as they are, each would be a
    knot of its own, measured once. The order of points stays.
    """
    if not source.length_tolerance:
        return source
    isl = group((point.isl_tokens for point in source.prefill), source.length_tolerance)
    context = group((point.context_tokens for point in source.decode), source.length_tolerance)
    return replace(
        source,
        prefill=tuple(replace(p, isl_tokens=round(isl[p.isl_tokens])) for p in source.prefill),
        decode=tuple(replace(p, context_tokens=round(context[p.context_tokens], 1)) for p in source.decode),
    )


def group(values: Iterable[float], tolerance: float) -> dict[float, float]:
    """Map each value to the median of its group; a group reaches ``tolerance`` above its smallest value."""
    groups: list[list[float]] = []
    for value in sorted(values):
        if groups and value <= groups[-1][0] * (1.0 + tolerance):
            groups[-1].append(value)
        else:
            groups.append([value])
    return {value: statistics.median(members) for members in groups for value in members}
