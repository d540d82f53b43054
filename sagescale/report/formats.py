"""Numbers as people read them: units, sensible digits, and "–" for what is not defined.

Every function takes whatever a result document may hold, ``None`` and NaN included, and never raises.
"""

from __future__ import annotations

import math
from datetime import datetime, timedelta

MARK = "▲"
"""What stands beside whatever is bad news: its colour alone does not say so."""
NOTHING = "–"
"""What stands for a value that is not defined."""

_MINUTE_S = 60.0
_HOUR_S = 3600.0
_DAY_S = 86400.0


class Poor(str):
    """A part that is bad news, shown as such."""

    __slots__ = ()


def known(value: float | None) -> float | None:
    """Return the value as a float; ``None`` for what is missing, not a number or not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:  # an integer beyond what a float holds
        return None
    return number if math.isfinite(number) else None


def above(value: float | None, limit: float | None) -> bool:
    """Say whether both are known and the value is above the limit."""
    number, most = known(value), known(limit)
    return number is not None and most is not None and number > most


def count(value: float | None) -> str:
    """Write a whole number in full, with thousands separators: ``8,819``."""
    number = known(value)
    if number is None:
        return NOTHING
    return f"{number:,.0f}" if abs(number) < 1e15 else f"{number:.3g}"


def cost(gpu_hours: float | None, price: float | None) -> str:
    """Write what GPU-hours cost, ``12,345.60``; empty where there is no price."""
    hours, each = known(gpu_hours), known(price)
    return "" if hours is None or each is None else f"{hours * each:,.2f}"


def instant(started_at: object, after_s: float | None = 0.0) -> datetime | None:
    """Return the date and time so many seconds after a start in ISO 8601; None where there is none."""
    after = known(after_s)
    if not isinstance(started_at, str) or after is None:
        return None
    try:
        return datetime.fromisoformat(started_at) + timedelta(seconds=after)
    except (ValueError, OverflowError):
        return None


def plural(value: float | None, one: str, many: str | None = None) -> str:
    """Write a count with its noun: ``1 tick``, ``57 ticks``."""
    return f"{count(value)} {one if known(value) == 1 else many or one + 's'}"


def figure(value: float | None) -> str:
    """Write a measured value to three significant digits, and whole from 100 up: ``0.0523``, ``5,231``."""
    number = known(value)
    if number is None:
        return NOTHING
    size = abs(number)
    if size == 0:
        return "0"
    if size >= 1e15 or size < 1e-4:
        return f"{number:.3g}"
    # Rounding first, so that 9.996 is 10.0 and not 10.00.
    size = float(f"{size:.3g}")
    return f"{number:,.{max(0, 2 - math.floor(math.log10(size)))}f}"


def within(mean: float | None, half_width: float | None) -> str:
    """Write the middle of an interval and half its width to the same digit: ``1.95 ± 0.02``."""
    text, half = figure(mean), known(half_width)
    if known(mean) is None or half is None or "e" in text:
        return text
    decimals = len(text.partition(".")[2])
    least = 10.0**-decimals
    return f"{text} ± " + (f"{half:,.{decimals}f}" if half == 0 or half >= least / 2 else f"< {least:g}")


def given(value: float | None) -> str:
    """Write a value somebody chose, a target or a setting, as it was chosen: ``200``, ``0.5``."""
    number = known(value)
    return NOTHING if number is None else f"{number:,g}"


def thousands(value: float) -> str:
    """Write a value at an axis: ``500``, ``2k``."""
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"


def signed(value: float | None) -> str:
    """Write a difference with its sign: ``+5.23``; zero has none."""
    number = known(value)
    if number is None or number == 0:
        return figure(value)
    return f"{'+' if number > 0 else '−'}{figure(abs(number))}"


def share(value: float | None, digits: int = 2) -> str:
    """Write a fraction as a percentage that is 100 % or 0 % only where it is exactly that."""
    number = known(value)
    if number is None:
        return NOTHING
    step = 10.0**-digits
    if number in (0.0, 1.0):
        return f"{number:.0%}".replace("%", " %")
    if 1.0 - step / 200.0 <= number < 1.0:
        return f"> {100.0 - step:.{digits}f} %"
    if 0.0 < number <= step / 200.0:  # half a step may be rounded down
        return f"< {step:.{digits}f} %"
    return f"{100.0 * number:,.{digits}f} %" if abs(number) < 1e6 else f"{100.0 * number:.3g} %"


def share_within(mean: float | None, half_width: float | None) -> str:
    """Write the middle of an interval of fractions and half its width: ``98.12 % ± 0.31``."""
    half = known(half_width)
    return share(mean) + ("" if half is None else f" ± {100 * half:.2f}")


def duration(seconds: float | None) -> str:
    """Write a time in the two units that suit it: ``350 ms``, ``60 s``, ``57 min 12 s``, ``2 d 3 h``."""
    number = known(seconds)
    if number is None:
        return NOTHING
    if number < 0:
        return f"−{duration(-number)}"
    if 0 < number < 0.9995:
        return f"{figure(number * 1000.0)} ms"
    if number < 2 * _MINUTE_S - 0.5:
        return f"{number:.3g} s"
    for limit, unit_s, unit, part_s, part in (
        (_HOUR_S, _MINUTE_S, "min", 1.0, "s"),
        (_DAY_S, _HOUR_S, "h", _MINUTE_S, "min"),
        (math.inf, _DAY_S, "d", _HOUR_S, "h"),
    ):
        parts = round(number / part_s)
        if parts * part_s < limit:
            whole, rest = divmod(parts, round(unit_s / part_s))
            return f"{count(whole)} {unit}" + (f" {rest} {part}" if rest and whole < 100 else "")
    return NOTHING


def latency_unit(largest_ms: float | None) -> tuple[str, float]:
    """Return the unit that suits latencies of at most so many ms, and how many ms it has."""
    largest = known(largest_ms) or 0.0
    return ("ms", 1.0) if largest < 1e5 else ("s", 1e3) if largest < 1e8 else ("h", 3.6e6)


def plain(text: object) -> str:
    """Return a name or message as one printable line, whatever bytes a file name or an input held."""
    words = " ".join(str(text).split())
    return "".join(c if c.isprintable() else "?" for c in words)
