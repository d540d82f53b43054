"""A profile's panels drawn in the terminal, as a PNG and as an HTML page."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from rich.text import Text

    from sagescale.perf.panels import Panel

__all__ = ["html_page", "panel_text", "png_picture"]

# Okabe and Ito's colours, which colour-blind readers can distinguish; yellow and light blue are too pale for
# lines.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#4D4D4D")
_STYLES = ("bright_blue", "dark_orange", "green", "magenta", "bright_black")
"""The same for the terminal."""

_LETTERS = "abcde"
_ROWS = 14
_MARGIN = 9
_MARKERS = ("o", "s", "^", "D", "v")
_DPI = 150
_SYMBOLS = ("circle", "square", "triangle-up", "diamond", "triangle-down")


class _Axis:
    """A range of values laid over a number of dots."""

    def __init__(self, values: Sequence[float], dots: int, *, log: bool) -> None:
        self._log, self._dots = log, dots
        self.low, self.high = min(values), max(values)
        self._from, self._to = self._scaled(self.low), self._scaled(self.high)

    def _scaled(self, value: float) -> float:
        return math.log(value) if self._log else value

    def dot(self, value: float) -> int:
        """Return the dot a value falls on."""
        span = self._to - self._from
        share = (self._scaled(value) - self._from) / span if span else 0.0
        return min(self._dots - 1, max(0, round(share * (self._dots - 1))))

    def value(self, dot: float) -> float:
        """Return the value at a dot."""
        at = self._from + dot / (self._dots - 1) * (self._to - self._from)
        return math.exp(at) if self._log else at


def panel_text(panel: Panel, width: int) -> Text:
    """Draw a panel ``width`` characters wide. Letters stand where something was measured, one a curve."""
    from rich.text import Text

    from sagescale.report.text_plots import Braille

    columns = max(20, width - _MARGIN - 1)
    points = [p for curve in panel.curves for p in (*curve.line, *curve.measured)]
    x_axis = _Axis([x for x, _ in points], 2 * columns, log=panel.log_x)
    y_axis = _Axis([y for _, y in points], 4 * _ROWS, log=panel.log_y)
    plot = Braille(_ROWS)
    letters: dict[tuple[int, int], tuple[str, int]] = {}
    for index, curve in enumerate(panel.curves):
        plot.line([(x_axis.dot(x), y_axis.dot(y)) for x, y in curve.line], index)
        marked = [(_LETTERS[index], at) for at in curve.measured] + (
            [("★", curve.chosen)] if curve.chosen else []
        )
        for sign, (x, y) in marked:
            letters[plot.at(x_axis.dot(x), y_axis.dot(y))] = sign, index
    target = -1
    if panel.target and x_axis.low <= panel.target[0] <= x_axis.high:
        target = x_axis.dot(panel.target[0]) // 2

    text = Text()
    text.append(f"{panel.title}: {panel.y_label} over {panel.x_label}\n", style="bold")
    for row in range(_ROWS):
        named = row % 4 == 0 or row == _ROWS - 1
        label = _written(y_axis.value(4 * (_ROWS - 1 - row) + 1.5)) if named else ""
        text.append(f"{label:>{_MARGIN - 1}} │")
        for column in range(columns):
            letter = letters.get((row, column))
            if letter:
                text.append(letter[0], style=f"bold {_STYLES[letter[1]]}")
            elif braille := plot.sign(row, column):
                text.append(braille, style=_STYLES[plot.drawn[row, column][1]])
            else:
                text.append("┊" if column == target else " ")
        text.append("\n")
    text.append(" " * _MARGIN + "└" + "─" * columns + "\n")
    text.append(" " * (_MARGIN + 1) + _ruler(x_axis, columns) + "\n")
    text.append(" " * (_MARGIN + 1))
    for index, curve in enumerate(panel.curves):
        shown = f"{_LETTERS[index]} " if curve.measured else "  "
        text.append(f"━ {shown}{curve.label}   ", style=_STYLES[index])
    if any(curve.measured for curve in panel.curves):
        text.append("letters: measured   ")
    if panel.target:
        text.append(f"┊ {panel.target[1]}, ★ most tokens within it")
    text.append("\n")
    return text


def _ruler(axis: _Axis, columns: int) -> str:
    line = [" "] * columns
    for i in range(5):
        column = round(i * (columns - 1) / 4)
        words = _written(axis.value(2 * column))
        start = min(max(0, column - len(words) // 2), columns - len(words))
        line[start : start + len(words)] = words
    return "".join(line).rstrip()


def _written(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def png_picture(panels: Sequence[Panel], title: str) -> bytes:
    """Draw the panels two by two; the same panels give the same picture."""
    import io

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = (len(panels) + 1) // 2
    figure = Figure(figsize=(15.0, 4.5 * rows), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=15, fontweight="bold")
    grid = figure.subplots(rows, 2)
    for axes, panel in zip(grid.flat, panels, strict=False):
        _draw(axes, panel)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def _draw(axes: Axes, panel: Panel) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    for index, curve in enumerate(panel.curves):
        colour, marker = _COLOURS[index % len(_COLOURS)], _MARKERS[index % len(_MARKERS)]
        axes.plot(*zip(*curve.line, strict=True), color=colour, linewidth=1.8, label=curve.label, zorder=2)
        if curve.measured:
            axes.plot(
                *zip(*curve.measured, strict=True),
                color=colour,
                marker=marker,
                linestyle="none",
                markersize=6,
                markerfacecolor="white",
                markeredgewidth=1.5,
                zorder=3,
            )
        if curve.chosen:
            axes.plot(
                *curve.chosen, color=colour, marker="*", markersize=15, markeredgecolor="black", zorder=4
            )
    if panel.log_x:
        axes.set_xscale("log")
    if panel.log_y:
        axes.set_yscale("log")
    for axis, values in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        narrow = values[1] < 15.0 * values[0]
        axis.set_major_locator(
            LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0) if narrow else (1.0, 2.0, 5.0))
        )
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(_figure))
    if panel.target:
        where, words = panel.target
        axes.axvline(where, color="black", linestyle="--", linewidth=1.0, zorder=1)
        axes.annotate(
            words,
            (where, 0.03),
            xycoords=("data", "axes fraction"),
            xytext=(-4, 0),
            textcoords="offset points",
            rotation=90,
            horizontalalignment="right",
            verticalalignment="bottom",
            fontsize=9,
        )
    axes.set_title(panel.title, fontsize=12)
    axes.set_xlabel(panel.x_label)
    axes.set_ylabel(panel.y_label)
    axes.grid(visible=True, which="major", color="#DDDDDD", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    _legend(axes, panel)


def _legend(axes: Axes, panel: Panel) -> None:
    from matplotlib.lines import Line2D

    handles, labels = axes.get_legend_handles_labels()
    if any(curve.measured for curve in panel.curves):
        handles.append(
            Line2D([], [], color="black", marker="o", linestyle="none", markerfacecolor="white", markersize=6)
        )
        labels.append("measured\n(line: fitted)")
    if any(curve.chosen for curve in panel.curves):
        handles.append(Line2D([], [], color="white", marker="*", markeredgecolor="black", markersize=13))
        labels.append("most tokens\nwithin the target")
    # Beside the axes: inside, some profile's curves are always under it.
    axes.legend(handles, labels, fontsize=9, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _figure(value: float, _position: int | None = None) -> str:
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"


def html_page(panels: Sequence[Panel], title: str) -> str:
    """Return the page; hovering shows values. Most of its 5 MB is plotly's script."""
    from sagescale import __version__
    from sagescale.report.html.page import render_page

    return render_page(
        "plots.html",
        title=title,
        version=__version__,
        data={"plots": [_plot(panel) for panel in panels]},
        scripts=("plots.js",),
        heading=title,
        texts=("Lines: fitted, symbols: measured, stars: most tokens within the target.",),
        plots=[panel.title for panel in panels],
    )


def _plot(panel: Panel) -> dict[str, object]:
    """Return what plotly draws of a panel: traces and layout."""
    hover = f"{panel.x_label} %{{x:,.6g}}<br>{panel.y_label} %{{y:,.4g}}"
    points = [point for curve in panel.curves for point in (*curve.line, *curve.measured)]
    traces = []
    for index, curve in enumerate(panel.curves):
        drawn: list[tuple[str, Sequence[tuple[float, float]], dict[str, object]]] = [
            (curve.label, curve.line, {"mode": "lines", "line": {"color": _COLOURS[index % len(_COLOURS)]}})
        ]
        if curve.measured:
            style: dict[str, object] = {
                "symbol": f"{_SYMBOLS[index % len(_SYMBOLS)]}-open",
                "size": 8,
                "line": {"width": 2},
            }
            drawn.append((f"{curve.label}, measured", curve.measured, style))
        if curve.chosen:
            style = {"symbol": "star", "size": 15, "line": {"width": 1, "color": "black"}}
            drawn.append((f"{curve.label}, most tokens within the target", (curve.chosen,), style))
        for place, (name, marked, look) in enumerate(drawn):
            colour = {"color": _COLOURS[index % len(_COLOURS)]}
            shown = look if place == 0 else {"mode": "markers", "marker": colour | look, "showlegend": False}
            x, y = zip(*marked, strict=True)
            traces.append(
                {"name": name, "x": x, "y": y, "legendgroup": str(index), "hovertemplate": hover, **shown}
            )
    if panel.target:
        where, words = panel.target
        ends = [min(y for _, y in points), max(y for _, y in points)]
        dash = {"dash": "dash", "width": 1}
        traces.append({"name": words, "x": [where] * 2, "y": ends, "mode": "lines", "line": dash})
        points.append((where, ends[0]))
    return {
        "traces": traces,
        "layout": {
            "xaxis": {"title": {"text": panel.x_label}, **_axis([x for x, _ in points], log=panel.log_x)},
            "yaxis": {"title": {"text": panel.y_label}, **_axis([y for _, y in points], log=panel.log_y)},
        },
    }


def _axis(values: Sequence[float], *, log: bool) -> dict[str, object]:
    """Return an axis over the values with a little room, on a logarithmic one ticks at 1, 2 and 5."""
    if not log:
        return {"type": "linear"}
    low, high = math.log10(min(values)) - 0.05, math.log10(max(values)) + 0.05
    ticks = [m * 10.0**e for e in range(math.floor(low), math.ceil(high) + 1) for m in (1, 2, 5)]
    shown = [tick for tick in ticks if low <= math.log10(tick) <= high]
    words = [_figure(tick) for tick in shown]
    return {"type": "log", "range": [low, high], "tickmode": "array", "tickvals": shown, "ticktext": words}
