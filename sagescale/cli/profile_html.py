"""A profile's panels as one HTML page that needs no network, drawn with plotly."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sagescale.cli.profile_png import COLOURS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sagescale.perf.panels import Panel

__all__ = ["html_page"]

_SYMBOLS = ("circle", "square", "triangle-up", "diamond", "triangle-down")
_GAP = 0.16
"""Between the columns, as a share of the width: the left column's legends stand there."""


def html_page(panels: Sequence[Panel], title: str) -> str:
    """Return the page; hovering shows values. Most of its 5 MB is plotly's script."""
    import html

    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    figure = make_subplots(
        rows=2,
        cols=2,
        subplot_titles=[panel.title for panel in panels],
        horizontal_spacing=_GAP,
        vertical_spacing=0.12,
    )
    for number, panel in enumerate(panels):
        at = {"row": number // 2 + 1, "col": number % 2 + 1}
        legend = "legend" if number == 0 else f"legend{number + 1}"
        hover = f"{panel.x_label} %{{x:,.6g}}<br>{panel.y_label} %{{y:,.4g}}"
        points = [point for curve in panel.curves for point in (*curve.line, *curve.measured)]
        for index, curve in enumerate(panel.curves):
            colour = COLOURS[index % len(COLOURS)]
            common = {"legend": legend, "legendgroup": f"{number}/{index}", "hovertemplate": hover}
            x, y = zip(*curve.line, strict=True)
            line = go.Scatter(x=x, y=y, mode="lines", line={"color": colour}, name=curve.label, **common)
            figure.add_trace(line, **at)
            marks = []
            if curve.measured:
                style = {"symbol": f"{_SYMBOLS[index % len(_SYMBOLS)]}-open", "size": 8, "line": {"width": 2}}
                marks.append((f"{curve.label}, measured", curve.measured, style))
            if curve.chosen:
                star = {"symbol": "star", "size": 15, "line": {"width": 1, "color": "black"}}
                marks.append((f"{curve.label}, most tokens within the target", (curve.chosen,), star))
            for name, marked, style in marks:
                x, y = zip(*marked, strict=True)
                look = {"color": colour, **style}
                dots = go.Scatter(
                    x=x, y=y, mode="markers", marker=look, name=name, showlegend=False, **common
                )
                figure.add_trace(dots, **at)
        if panel.target:
            where, words = panel.target
            ends = [min(y for _, y in points), max(y for _, y in points)]
            dash = {"color": "black", "dash": "dash", "width": 1}
            rule = go.Scatter(x=[where] * 2, y=ends, mode="lines", line=dash, name=words, legend=legend)
            figure.add_trace(rule, **at)
            points.append((where, ends[0]))
        style = {"showline": True, "linecolor": "#888888", "gridcolor": "#DDDDDD"}
        x_axis = _axis([x for x, _ in points], log=panel.log_x)
        y_axis = _axis([y for _, y in points], log=panel.log_y)
        figure.update_xaxes(title_text=panel.x_label, **x_axis, **style, **at)
        figure.update_yaxes(title_text=panel.y_label, **y_axis, **style, **at)
        left = (1.0 - _GAP) / 2.0 if at["col"] == 1 else 1.0
        place = {"x": left + 0.005, "y": 1.0 if at["row"] == 1 else 0.44}
        figure.update_layout({legend: {**place, "xanchor": "left", "yanchor": "top"}})
    heading = f"{title} — lines: fitted, symbols: measured, stars: most tokens within the target"
    figure.update_layout(
        title={"text": html.escape(heading), "x": 0.5, "font": {"size": 16}},
        template="plotly_white",
        height=950,
        hoverlabel={"namelength": -1},
    )
    page: str = figure.to_html(include_plotlyjs=True, full_html=True, div_id="profile")
    return page


def _axis(values: Sequence[float], *, log: bool) -> dict[str, object]:
    """Return an axis over the values with a little room, on a logarithmic one ticks at 1, 2 and 5."""
    if not log:
        return {"type": "linear"}
    low, high = math.log10(min(values)) - 0.05, math.log10(max(values)) + 0.05
    ticks = [m * 10.0**e for e in range(math.floor(low), math.ceil(high) + 1) for m in (1, 2, 5)]
    shown = [tick for tick in ticks if low <= math.log10(tick) <= high]
    words = [f"{tick / 1000:g}k" if tick >= 1000 else f"{tick:g}" for tick in shown]
    return {"type": "log", "range": [low, high], "tickmode": "array", "tickvals": shown, "ticktext": words}
