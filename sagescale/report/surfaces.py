"""What was learned of the engines beside what is true: cells for the terminal and for the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from sagescale.report.formats import NOTHING, count, figure, known

if TYPE_CHECKING:
    from sagescale.document import ItlPoint, RunDocument, TtftPoint
    from sagescale.report.layout import Page

__all__ = ["SURFACE_COLUMNS", "print_surfaces", "surface_rows"]

SURFACE_COLUMNS = ("tokens", "told", "learned", "true", "learned is off")


def surface_rows(run: RunDocument) -> list[tuple[str, list[list[str]]]]:
    """Return titled rows of cells under ``SURFACE_COLUMNS``; none where the planner was told the truth."""
    found = run.get("surfaces")
    if found is None:
        return []
    return [
        ("TTFT, ms", [_cells(figure(point["isl"]), point) for point in found["ttft"]]),
        (
            "ITL, ms",
            [
                _cells(f"{count(point['requests'])} x {figure(point['context_tokens'])}", point)
                for point in found["itl"]
            ],
        ),
    ]


def print_surfaces(page: Page, run: RunDocument) -> None:
    """Print them, a line a point."""
    for title, rows in surface_rows(run):
        page.blank()
        page.table(title, SURFACE_COLUMNS, [("", [Text(cell) for cell in row]) for row in rows])


def _cells(place: str, point: TtftPoint | ItlPoint) -> list[str]:
    learned, true = known(point["learned_ms"]), known(point["true_ms"])
    off = f"{learned / true - 1.0:+.1%}" if learned is not None and true else NOTHING
    return [place, figure(point["told_ms"]), figure(learned), figure(true), off]
