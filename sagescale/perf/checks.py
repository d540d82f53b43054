"""What every part of a profile must hold; each check raises ValueError naming value and expectation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sagescale.declare import Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

SMALLEST, LARGEST = 1e-18, 1e19
"""No source has numbers beyond these, nanoseconds since 1970 included; products of a few stay finite."""

MAX_TOKENS = 2**31 - 1
"""Of one prompt or context."""

MAX_REQUESTS = 32_768
"""In one batch, or decoding at a time on an instance: tables of step times are as long."""

MAX_TABLE = 2_000_000
"""Slots times contexts of one profile: a step time for each is kept, four times over."""

MAX_KV_TOKENS = 10**12
MAX_GPUS = 10_000
MAX_MS = 1e9
"""Of one prompt or step: eleven days."""


def is_sane(value: float) -> bool:
    """Whether a number of either sign is finite and, unless 0, of a size that anything measured has."""
    return value == 0 or SMALLEST <= abs(value) <= LARGEST


def _amount(value: object) -> float | None:
    """Read a finite number >= 0."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    return float(value) if value >= 0 and is_sane(value) else None


COUNT = Kind(
    "a whole number >= 1",
    lambda value: value if type(value) is int and 1 <= value < 2**53 else None,
    many="whole numbers >= 1",
)
AMOUNT = Kind("a number >= 0", _amount, many="numbers >= 0")
POSITIVE = Kind("a number > 0", lambda value: _amount(value) or None, many="numbers > 0")


def at_least(name: str, value: int, least: int, most: int) -> None:
    """Refuse an integer below ``least`` or above ``most``."""
    if not least <= value <= most:
        raise ValueError(f"{name}: {value} (expected an integer >= {least}, at most {most})")


def not_negative(name: str, value: float) -> None:
    """Refuse milliseconds (or a factor of them) that are no number from 0 to ``MAX_MS``."""
    if not 0 <= value <= MAX_MS:
        raise ValueError(f"{name}: {value} (expected a number >= 0, at most {MAX_MS:g})")


def same_length(**columns: Sequence[float]) -> None:
    """Refuse columns of unequal length."""
    (first, reference), *others = columns.items()
    for name, column in others:
        if len(column) != len(reference):
            raise ValueError(f"{name}: {len(column)} values (expected {len(reference)}, as many as {first})")


def all_positive(name: str, values: Sequence[float], most: float) -> None:
    """Refuse a value that is not a number above 0 (as small as anything measured) and at most ``most``."""
    for i, value in enumerate(values):
        if not SMALLEST <= value <= most:
            raise ValueError(f"{name}[{i}]: {value} (expected a number > 0, at most {most:g})")


def knots(name: str, values: Sequence[float], most: float) -> None:
    """Refuse fewer than two values, or values that do not increase or go beyond ``most``."""
    if len(values) < 2:
        raise ValueError(f"{name}: {len(values)} values (expected at least 2)")
    increasing(name, values, most)


def increasing(name: str, values: Sequence[float], most: float) -> None:
    """Refuse values that do not increase, or go beyond ``most``."""
    all_positive(name, values, most)
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
