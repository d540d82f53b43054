"""Tuning as one page that opens without a network: what attainment costs, and everything that was tried."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sagescale.files import write_whole
from sagescale.report.figures import SYMBOLS, Axis, Figure, Level, Panel, Series
from sagescale.report.formats import cost, share
from sagescale.report.html.page import render_plots

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sagescale.document import TuneDocument, TuneRow

_HEAD = ("", "", "attainment", "GPU-hours", "later: attainment", "GPU-hours", "configuration")


def write_tune_html(path: Path, document: TuneDocument) -> None:
    """Write the page; most of its 5 MB is plotly's script.

    Raises:
        InputError: the file cannot be written.
    """
    title = f"sagescale tune: {document.trace.path}"
    rows = [("chosen", document.chosen), ("as configured", document.configured)]
    rows += [("", other) for other in document.others]
    texts = [document.verdict, *([] if document.answer is None else [f"What to do: {document.answer.text}"])]
    page = render_plots(
        _figure(document),
        title=title,
        version=document.sagescale,
        texts=[*texts, f"Later part: {document.validation}"],
        head=_HEAD,
        rows=[_cells(label, row, document.gpu_hour_price) for label, row in rows if row is not None],
    )
    write_whole(path, page.encode())


def _figure(document: TuneDocument) -> Figure:
    """Return everything tried, the cheapest for each level, and what was chosen."""
    series = []
    policies = list(dict.fromkeys(_policy(name) for name, _, _ in document.tried))
    for number, policy in enumerate(policies):
        tried = [point for point in document.tried if _policy(point[0]) == policy]
        mark = SYMBOLS[number % len(SYMBOLS)]
        series.append(_points(f"{policy}, tried", tried, mark=mark, size=6, colour="grey", opacity=0.6))
    reached = [row for point in document.curve if (row := point.reached) is not None]
    cheapest = [
        (
            f"{row.name} at load_headroom {row.config['load_headroom']:g}",
            row.earlier.attainment,
            row.earlier.gpu_hours,
        )
        for row in reached
    ]
    group = "the cheapest for each level"
    line = {"group": group, "colour": "blue"}
    series.append(_points(group, cheapest, width=2, steps=True, **line))
    series.append(_points(group, cheapest, mark="circle", size=6, **line))
    chosen = document.chosen
    if chosen is not None:
        point = (chosen.name, chosen.earlier.attainment, chosen.earlier.gpu_hours)
        series.append(_points(f"chosen: {chosen.name}", [point], mark="star", size=14, colour="vermillion"))
    asked = document.attainment_asked
    least = min((point.attainment for point in document.curve), default=0.95)
    panel = Panel(
        "tuning",
        "Attainment against GPU-hours",
        "",
        series,
        levels=[Level(100 * asked, f"asked {share(asked)}", below=True)],
        x=Axis(title="GPU-hours on the earlier part"),
        y=Axis(title="attainment on the earlier part, %", range=(100 * least - 1, 100.1)),
    )
    return Figure(panels=[panel], height=640.0)


def _points(name: str, points: Sequence[tuple[str, float, float]], **look: Any) -> Series:  # noqa: ANN401
    """Return a series of points given as name, attainment and GPU-hours."""
    return Series(
        name,
        [hours for _, _, hours in points],
        [100 * attainment for _, attainment, _ in points],
        texts=[
            (each, f"{100 * attainment:.3f} % at {hours:.4g} GPU-hours") for each, attainment, hours in points
        ],
        **look,
    )


def _hours(gpu_hours: float, price: float | None) -> str:
    money = cost(gpu_hours, price)
    return f"{gpu_hours:.3f}, costing {money}" if money else f"{gpu_hours:.3f}"


def _cells(label: str, row: TuneRow, price: float | None) -> tuple[str, ...]:
    later = row.later
    return (
        label,
        row.name,
        f"{100 * row.earlier.attainment:.2f} %",
        _hours(row.earlier.gpu_hours, price),
        "" if later is None else f"{100 * later.attainment:.2f} %",
        "" if later is None else _hours(later.gpu_hours, price),
        ", ".join(f"{key} {value}" for key, value in row.config.items()),
    )


def _policy(name: str) -> str:
    return name.replace("/", " ").split()[0]
