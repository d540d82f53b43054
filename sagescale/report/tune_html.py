"""Tuning as one page that opens without a network: what attainment costs, and everything that was tried."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from sagescale.files import write_whole
from sagescale.report.formats import cost
from sagescale.report.html.page import render_page

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sagescale.document import TuneDocument, TuneRow

__all__ = ["write_tune_html"]

# Okabe and Ito's colours; a policy has a symbol of its own as well.
_BLUE, _ORANGE, _GREY = "#0072B2", "#D55E00", "#777777"
_SYMBOLS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "star")
_HEAD = ("", "", "attainment", "GPU-hours", "later: attainment", "GPU-hours", "configuration")


def write_tune_html(path: Path, document: TuneDocument) -> None:
    """Write the page; most of its 5 MB is plotly's script.

    Raises:
        InputError: the file cannot be written.
    """
    title = f"sagescale tune: {document.trace.path}"
    rows = [("chosen", document.chosen), ("as configured", document.configured)]
    rows += [("", other) for other in document.others]
    page = render_page(
        "plots.html",
        title=title,
        version=document.sagescale,
        data={"plots": [_plot(document)]},
        scripts=("plots.js",),
        heading=title,
        texts=(
            document.verdict,
            *([] if document.answer is None else [document.answer.text]),
            f"Later part: {document.validation}",
        ),
        head=_HEAD,
        rows=[_cells(label, row, document.gpu_hour_price) for label, row in rows if row is not None],
        plots=["Attainment against GPU-hours"],
    )
    write_whole(path, page.encode())


def _plot(document: TuneDocument) -> dict[str, object]:
    """Return what plotly draws: everything tried, the cheapest for each level, and what was chosen."""
    traces = []
    policies = list(dict.fromkeys(_policy(name) for name, _, _ in document.tried))
    for number, policy in enumerate(policies):
        tried = [point for point in document.tried if _policy(point[0]) == policy]
        symbol = _SYMBOLS[number % len(_SYMBOLS)]
        marker = {"color": _GREY, "size": 6, "opacity": 0.6, "symbol": symbol}
        traces.append(_points(f"{policy}, tried", tried, mode="markers", marker=marker))
    levels = [point.attainment for point in document.curve]
    reached = [row for point in document.curve if (row := point.reached) is not None]
    cheapest = [
        (
            f"{row.name} at load_headroom {row.config['load_headroom']:g}",
            row.earlier.attainment,
            row.earlier.gpu_hours,
        )
        for row in reached
    ]
    line = {"color": _BLUE, "shape": "hv"}
    traces.append(_points("the cheapest for each level", cheapest, mode="lines+markers", line=line))
    chosen = document.chosen
    if chosen is not None:
        point = ("", chosen.earlier.attainment, chosen.earlier.gpu_hours)
        marker = {"color": _ORANGE, "size": 14, "symbol": "star"}
        traces.append(_points(f"chosen: {chosen.name}", [point], mode="markers", marker=marker))
    asked = 100 * document.attainment_asked
    return {
        "traces": traces,
        "layout": {
            "height": 640,
            "xaxis": {"title": {"text": "GPU-hours on the earlier part"}},
            "yaxis": {
                "title": {"text": "attainment on the earlier part, %"},
                "range": [100 * min(levels, default=0.95) - 1, 100.1],
            },
            "shapes": [
                {
                    "type": "line",
                    "xref": "paper",
                    "x0": 0,
                    "x1": 1,
                    "y0": asked,
                    "y1": asked,
                    "line": {"dash": "dash"},
                }
            ],
        },
    }


def _points(name: str, points: Sequence[tuple[str, float, float]], **look: object) -> dict[str, object]:
    """Return a trace of points given as name, attainment and GPU-hours."""
    return {
        "name": _text(name),
        "x": [hours for _, _, hours in points],
        "y": [100 * attainment for _, attainment, _ in points],
        "text": [_text(each) for each, _, _ in points],
        "hovertemplate": "%{text}<br>%{y:.3f} % at %{x:.4g} GPU-hours<extra></extra>",
        **look,
    }


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


def _text(text: str) -> str:
    """Escape what plotly would read as HTML."""
    return html.escape(text, quote=False)
