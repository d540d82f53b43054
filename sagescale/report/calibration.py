"""The terminal table of ``sagescale profile calibrate``: each percentile, before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rich.text import Text

from sagescale.report.formats import MARK
from sagescale.report.layout import DIM, GOOD, POOR, Page

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

__all__ = ["CalibrationPage", "CalibrationRow", "print_calibration"]


class CalibrationRow(NamedTuple):
    """One percentile: times in ms, errors as shares of the measured time.

    ``faster_ms`` and ``slower_ms``: predicted with all service times ``shift`` shorter and longer.
    ``verdict``: "ok", "sensitive" (outside the limit, inside what the shift changes) or "off".
    """

    name: str
    measured_ms: float
    before_ms: float
    after_ms: float
    before: float
    after: float
    faster_ms: float
    slower_ms: float
    limit: float
    verdict: str


class CalibrationPage(NamedTuple):
    """Everything the page says; ``factors`` and ``notes`` are lines ready to print."""

    title: str
    scored: str
    factors: Sequence[tuple[str, str]]
    rows: Sequence[CalibrationRow]
    shift: float
    notes: Sequence[str]
    good: bool
    conclusion: str


def print_calibration(page: CalibrationPage, console: Console) -> None:
    """Write the page to a console."""
    out = Page(console)
    out.field("calibrated", page.title)
    out.field("scored on", page.scored)
    for name, value in page.factors:
        out.field("" if name != page.factors[0][0] else "factors", f"{name} {value}")
    out.blank()
    shift = f"{page.shift:.0%}"
    header = ("measured", "before", "error", "after", "error", f"service -{shift}", f"+{shift}", "limit", "")
    out.table("ms", header, [(row.name, _cells(row)) for row in page.rows])
    out.blank()
    for note in page.notes:
        out.field("note", note)
    style = GOOD if page.good else POOR
    out.field("verdict", Text(f"{'' if page.good else MARK + ' '}{page.conclusion}", style=style))


def _cells(row: CalibrationRow) -> list[Text]:
    style = POOR if row.verdict == "off" else GOOD
    return [
        Text(f"{row.measured_ms:.1f}"),
        Text(f"{row.before_ms:.1f}"),
        Text(f"{row.before:+.1%}"),
        Text(f"{row.after_ms:.1f}"),
        Text(f"{row.after:+.1%}", style=style),
        Text(f"{row.faster_ms:.1f}", style=DIM),
        Text(f"{row.slower_ms:.1f}", style=DIM),
        Text(f"{row.limit:.0%}", style=DIM),
        Text(f"{MARK} off" if row.verdict == "off" else row.verdict, style=style),
    ]
