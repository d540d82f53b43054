"""Predictors that have seen a series."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sagescale.planner.forecast import make_predictor

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sagescale.planner.forecast import Predictor


def observe(predictor: Predictor, observed: Iterable[float | None]) -> Predictor:
    """Show a predictor a value a window."""
    for value in observed:
        predictor.observe(value)
    return predictor


def fed(name: str, observed: Iterable[float | None], interval_s: float = 60.0, **options: float) -> Predictor:
    """Make a predictor and show it a value a window."""
    return observe(make_predictor(name, interval_s=interval_s, **options), observed)
