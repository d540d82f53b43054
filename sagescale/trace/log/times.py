"""Times in logs: texts with a date, and counts of seconds or less since 1970 or since some start."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, available_timezones

import numpy as np

from sagescale.errors import InputError, did_you_mean
from sagescale.trace.log.spec import TIME_UNITS

if TYPE_CHECKING:
    from numpy.typing import NDArray

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAIVE_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - of times that state no zone
_MICROSECOND = timedelta(microseconds=1)
_NUMBER = re.compile(r"-?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?")
_OFFSET = re.compile(r"(?:UTC)?([+-])(\d\d):?(\d\d)")
_COMMON_LOG = "%d/%b/%Y:%H:%M:%S %z"
_EARLIEST_S, _LATEST_S = 978_307_200, 4_102_444_800
"""2001 and 2100 in seconds since 1970: in no two units can a number be a time between them."""

_YEARS = (1679, 2260)
"""Whole years that 64 bits of nanoseconds around 1970 hold, in any zone."""

_QUARTER_NS = 15 * 60 * 1_000_000_000
"""Zones change their offset at whole quarters of an hour."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """One arrival as it stands in a log.

    Attributes:
        value: a number in the file's unit; of a text, nanoseconds since 1970.
        kind: ``number``, ``zoned``, or ``naive`` for a date and time without a zone (taken as UTC so far).
        offset: of a zoned text, seconds east of UTC.
    """

    value: float
    kind: str
    offset: int = 0


def parse_stamp(cell: object) -> Stamp | None:
    """Read one cell; None when it is no time."""
    if isinstance(cell, bool):
        return None
    if isinstance(cell, int | float):
        return Stamp(cell, "number") if math.isfinite(cell) else None
    if not isinstance(cell, str):
        return None
    text = cell.strip().strip("[]")
    if _NUMBER.fullmatch(text):
        number = int(text) if text.lstrip("-").isdigit() else float(text)
        return Stamp(number, "number") if math.isfinite(number) else None
    try:
        at = datetime.fromisoformat(text.removesuffix(" UTC") + ("Z" if text.endswith(" UTC") else ""))
    except ValueError:
        try:
            at = datetime.strptime(text, _COMMON_LOG)  # noqa: DTZ007 - %z is in it
        except ValueError:
            return None
    if not _YEARS[0] <= at.year <= _YEARS[1]:
        return None
    if at.tzinfo is None:
        return Stamp((at - _NAIVE_EPOCH) // _MICROSECOND * 1000, "naive")
    offset = at.utcoffset() or timedelta()
    return Stamp((at - _EPOCH) // _MICROSECOND * 1000, "zoned", int(offset.total_seconds()))


def parse_zone(text: str) -> tzinfo:
    """Read ``Europe/Berlin``, ``UTC`` or ``+02:00``.

    Raises:
        InputError: there is no such zone.
    """
    offset = _OFFSET.fullmatch(text)
    if offset is not None:
        east = timedelta(hours=int(offset[2]), minutes=int(offset[3]))
        return timezone(east if offset[1] == "+" else -east)
    if text.upper() in {"UTC", "Z"}:
        return UTC
    try:
        return ZoneInfo(text)
    except (ValueError, OSError, KeyError):
        near = did_you_mean(text, available_timezones())
        raise InputError(
            f"--time-zone {text}: no such zone; expected a name like Europe/Berlin, or an offset like "
            f"+02:00{near}"
        ) from None


def recognised_unit(values: NDArray[Any], column: str) -> tuple[str, bool] | None:
    """Find the unit of numeric times by their size, else by the column's name.

    Returns:
        The unit, and whether they count from 1970; None when neither tells.

    Raises:
        InputError: size and name contradict each other.
    """
    middle = float(np.median(values))
    by_size = next(
        (unit for unit, per_s in TIME_UNITS.items() if _EARLIEST_S <= middle / per_s < _LATEST_S), None
    )
    end = re.search(r"(?:_|\.|\()(s|sec|secs|seconds|ms|millis|us|micros|ns|nanos?)\)?$", column.lower())
    usual = {"s": "s", "sec": "s", "mil": "ms", "ms": "ms", "us": "us", "mic": "us", "ns": "ns", "nan": "ns"}
    by_name = None if end is None else usual.get(end[1][:3], usual.get(end[1][:1]))
    if by_size is not None:
        if by_name is not None and by_name != by_size:
            raise InputError(
                f"column '{column}': is named {by_name}, and {middle:.0f} is a time of this century "
                f"in {by_size}; "
                f"say which with --time-unit {by_name} or {by_size}"
            )
        return by_size, True
    return None if by_name is None else (by_name, False)


def to_utc_ns(naive_ns: NDArray[np.int64], zone: tzinfo) -> tuple[NDArray[np.int64], int]:
    """Turn local times into UTC.

    Returns:
        Nanoseconds since 1970, and how many lie in an hour that occurs twice (taken as its first).
    """
    quarters, where = np.unique(naive_ns // _QUARTER_NS, return_inverse=True)
    offsets, twice = np.empty(len(quarters), np.int64), np.zeros(len(quarters), bool)
    for at, quarter in enumerate(quarters.tolist()):
        local = _NAIVE_EPOCH + timedelta(seconds=quarter * 900)
        first = local.replace(tzinfo=zone).utcoffset() or timedelta()
        second = local.replace(tzinfo=zone, fold=1).utcoffset() or timedelta()
        offsets[at] = int(first.total_seconds()) * 1_000_000_000
        twice[at] = second < first
    return naive_ns - offsets[where], int(twice[where].sum())
