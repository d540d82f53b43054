"""The runs that no other beats in both attainment and GPU-hours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sagescale.report.formats import known

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sagescale.document import RunDocument

__all__ = ["attainment_of", "gpu_hours_of", "half_widths", "pareto_front"]


def attainment_of(run: RunDocument) -> float | None:
    """Return the attainment a run is judged by: the mean over its replicates, where there are any."""
    replicates = run.get("replicates")
    if replicates is not None:
        return known(replicates["attainment_interval"]["mean"])
    return known(run["sla"]["attainment"])


def gpu_hours_of(run: RunDocument) -> float | None:
    """Return the GPU-hours a run is judged by: the mean over its replicates, where there are any."""
    replicates = run.get("replicates")
    if replicates is not None:
        return known(replicates["gpu_hours_interval"]["mean"])
    return known(run["gpu_hours"]["total"])


def half_widths(run: RunDocument) -> tuple[float | None, float | None]:
    """Return half the widths of the confidence intervals of GPU-hours and attainment, where there are any."""
    replicates = run.get("replicates")
    if replicates is None:
        return None, None
    return (
        known(replicates["gpu_hours_interval"]["half_width"]),
        known(replicates["attainment_interval"]["half_width"]),
    )


def pareto_front(runs: Sequence[RunDocument]) -> list[int]:
    """Return the places of the candidates on the Pareto front, cheapest first.

    A run is on it where no other has at least its attainment for at most its GPU-hours and is better in one;
    of equals the first is. What knows the future is not a candidate.
    """
    candidates = sorted(
        (hours, -attainment, place)
        for place, run in enumerate(runs)
        if run.get("kind") != "hindsight"
        and (hours := gpu_hours_of(run)) is not None
        and (attainment := attainment_of(run)) is not None
    )
    front: list[int] = []
    best = float("inf")
    for _, missing, place in candidates:
        if missing < best:
            front.append(place)
            best = missing
    return front
