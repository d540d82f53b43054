"""Tuning as one page that opens without a network: what attainment costs, and everything that was tried."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from sagescale.files import write_whole

if TYPE_CHECKING:
    from pathlib import Path

    from sagescale.document import TuneDocument

__all__ = ["write_tune_html"]

# Okabe and Ito's colours; a policy has a symbol of its own as well.
_BLUE, _ORANGE, _GREY = "#0072B2", "#D55E00", "#777777"
_SYMBOLS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "star")


def write_tune_html(path: Path, document: TuneDocument) -> None:
    """Write the page; most of its 5 MB is plotly's script.

    Raises:
        InputError: the file cannot be written.
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    policies = list(dict.fromkeys(_policy(name) for name, _, _ in document["tried"]))
    for number, policy in enumerate(policies):
        mine = [point for point in document["tried"] if _policy(point[0]) == policy]
        figure.add_trace(
            go.Scatter(
                x=[hours for _, _, hours in mine],
                y=[100 * attainment for _, attainment, _ in mine],
                text=[name for name, _, _ in mine],
                mode="markers",
                name=f"{policy}, tried",
                marker={
                    "color": _GREY,
                    "size": 6,
                    "opacity": 0.6,
                    "symbol": _SYMBOLS[number % len(_SYMBOLS)],
                },
                hovertemplate="%{text}<br>%{y:.3f} % at %{x:.4g} GPU-hours<extra></extra>",
            )
        )
    curve = [(point["attainment"], point["reached"]) for point in document["curve"]]
    known = [(level, row) for level, row in curve if row is not None]
    figure.add_trace(
        go.Scatter(
            x=[row["earlier"]["gpu_hours"] for _, row in known],
            y=[100 * row["earlier"]["attainment"] for _, row in known],
            text=[f"{row['name']} at load_headroom {row['config']['load_headroom']:g}" for _, row in known],
            mode="lines+markers",
            name="the cheapest for each level",
            line={"color": _BLUE, "shape": "hv"},
            hovertemplate="%{text}<br>%{y:.3f} % at %{x:.4g} GPU-hours<extra></extra>",
        )
    )
    chosen = document["chosen"]
    if chosen is not None:
        figure.add_trace(
            go.Scatter(
                x=[chosen["earlier"]["gpu_hours"]],
                y=[100 * chosen["earlier"]["attainment"]],
                mode="markers",
                name=f"chosen: {html.escape(chosen['name'])}",
                marker={"color": _ORANGE, "size": 14, "symbol": "star"},
                hovertemplate="%{y:.3f} % at %{x:.4g} GPU-hours<extra></extra>",
            )
        )
    figure.add_hline(y=100 * document["attainment_asked"], line_dash="dash", line_color="black")
    lowest = min((level for level, _ in curve), default=0.95)
    figure.update_yaxes(title_text="attainment on the earlier part, %", range=[100 * lowest - 1, 100.1])
    figure.update_xaxes(title_text="GPU-hours on the earlier part")
    figure.update_layout(
        title={"text": html.escape(document["verdict"]), "font": {"size": 14}},
        template="plotly_white",
        height=640,
    )
    plot = figure.to_html(include_plotlyjs=True, full_html=False, div_id="curve")
    write_whole(path, _page(document, plot).encode())


def _page(document: TuneDocument, plot: str) -> str:
    title = html.escape(f"sagescale tune: {document['trace']['path']}")
    chosen = document["chosen"]
    rows = [("chosen", chosen), ("as configured", document["configured"])]
    rows += [("", other) for other in document["others"]]
    lines = []
    for label, row in rows:
        if row is None:
            continue
        later = row["later"]
        cells = [
            label,
            row["name"],
            f"{100 * row['earlier']['attainment']:.2f} %",
            f"{row['earlier']['gpu_hours']:.3f}",
            "" if later is None else f"{100 * later['attainment']:.2f} %",
            "" if later is None else f"{later['gpu_hours']:.3f}",
            ", ".join(f"{key} {value}" for key, value in row["config"].items()),
        ]
        lines.append("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>")
    head = ("", "", "attainment", "GPU-hours", "later: attainment", "GPU-hours", "configuration")
    header = "".join(f"<th>{name}</th>" for name in head)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        "<style>body{font:14px/1.5 sans-serif;margin:2em}table{border-collapse:collapse}"
        "td,th{padding:.3em .8em;border-bottom:1px solid #ccc;text-align:left;vertical-align:top}</style>"
        f"</head><body><h1>{title}</h1><p>{html.escape(document['verdict'])}</p>"
        f"<p>Later part: {html.escape(document['validation'])}</p>"
        f"<table><tr>{header}</tr>{''.join(lines)}</table>{plot}</body></html>\n"
    )


def _policy(name: str) -> str:
    return name.replace("/", " ").split()[0]
