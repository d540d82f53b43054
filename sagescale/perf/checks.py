"""What every part of a profile must hold; each check raises ValueError naming value and expectation."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["all_positive", "at_least", "knots", "never_falls", "same_length"]


def at_least(name: str, value: int, least: int) -> None:
    """Refuse an integer below ``least``."""
    if value < least:
        raise ValueError(f"{name}: {value} (expected an integer >= {least})")


def same_length(**columns: Sequence[float]) -> None:
    """Refuse columns of unequal length."""
    (first, reference), *others = columns.items()
    for name, column in others:
        if len(column) != len(reference):
            raise ValueError(f"{name}: {len(column)} values (expected {len(reference)}, as many as {first})")


def all_positive(name: str, values: Sequence[float]) -> None:
    """Refuse a value that is not a finite number above 0."""
    for i, value in enumerate(values):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name}[{i}]: {value} (expected a number > 0)")


def knots(name: str, values: Sequence[float]) -> None:
    """Refuse fewer than two values, or values that do not increase."""
    if len(values) < 2:
        raise ValueError(f"{name}: {len(values)} values (expected at least 2)")
    all_positive(name, values)
    for i in range(1, len(values)):
        if values[i] <= values[i - 1]:
            raise ValueError(f"{name}[{i}]: {values[i]} after {values[i - 1]} (expected increasing values)")


def never_falls(name: str, values: Sequence[float], axis: str, marks: Sequence[float]) -> None:
    """Refuse times that fall while ``marks``, the load, rises."""
    for i in range(1, len(values)):
        if values[i] < values[i - 1]:
            raise ValueError(
                f"{name}: falls from {values[i - 1]} to {values[i]} at {axis} {marks[i]:g} "
                "(expected times that never fall with more load)"
            )
