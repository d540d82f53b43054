"""Figures as PNG pictures, by matplotlib."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from sagescale.report.figures import LIGHT
from sagescale.report.formats import thousands

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from sagescale.report.figures import Figure, Panel, Series

_MARKERS = {
    "circle": "o", "square": "s", "triangle-up": "^", "triangle-down": "v", "diamond": "D", "star": "*",
}  # fmt: skip
_DPI = 150


def png_picture(figure: Figure, title: str) -> bytes:
    """Draw panels of logarithmic axes two by two; the same ones give the same picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Drawing

    rows = (len(figure.panels) + 1) // 2
    drawing = Drawing(figsize=(15.0, 4.5 * rows), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(drawing)
    drawing.suptitle(title, fontsize=15, fontweight="bold")
    grid = drawing.subplots(rows, 2)
    for axes, panel in zip(grid.flat, figure.panels, strict=False):
        _draw(axes, panel)
    for axes in grid.flat[len(figure.panels) :]:
        axes.set_axis_off()
    stream = io.BytesIO()
    drawing.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def _draw(axes: Axes, panel: Panel) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    for series in panel.series:
        axes.plot(*zip(*series.points(), strict=True), **_look(series, LIGHT[series.colour]))
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis, values in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        narrow = values[1] < 15.0 * values[0]
        axis.set_major_locator(
            LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0) if narrow else (1.0, 2.0, 5.0))
        )
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: thousands(value)))
    for level in panel.levels:
        axes.axvline(level.value, color="black", linestyle="--", linewidth=1.0, zorder=1)
        axes.annotate(
            level.words,
            (level.value, 0.03),
            xycoords=("data", "axes fraction"),
            xytext=(-4, 0),
            textcoords="offset points",
            rotation=90,
            horizontalalignment="right",
            verticalalignment="bottom",
            fontsize=9,
        )
    axes.set_title(panel.title, fontsize=12)
    axes.set_xlabel(panel.x.title)
    axes.set_ylabel(panel.y.title)
    axes.grid(visible=True, which="major", color="#DDDDDD", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    _legend(axes, panel)


def _look(series: Series, colour: str) -> dict[str, Any]:
    if not series.mark:
        return {"color": colour, "linewidth": 1.8, "label": series.name, "zorder": 2}
    symbol = str(series.mark)
    look = {"color": colour, "marker": _MARKERS[symbol.removesuffix("-open")], "linestyle": "none"}
    if symbol == "star":
        return look | {"markersize": 15, "markeredgecolor": "black", "zorder": 4}
    return look | {"markersize": 6, "markerfacecolor": "white", "markeredgewidth": 1.5, "zorder": 3}


def _legend(axes: Axes, panel: Panel) -> None:
    """List the lines, and each kind of marks once."""
    from matplotlib.lines import Line2D

    handles, labels = axes.get_legend_handles_labels()
    lines = {series.name for series in panel.series if not series.mark}
    kinds = {series.name: series for series in panel.series if series.mark and series.name not in lines}
    for name, series in kinds.items():
        look = _look(series, "black") | ({"color": "white"} if series.mark == "star" else {"marker": "o"})
        handles.append(Line2D([], [], **look))
        labels.append(
            f"{name}\n(line: fitted)" if name == "measured" else name.replace(" within", "\nwithin")
        )
    # Beside the axes: inside, some profile's curves are always under it.
    axes.legend(handles, labels, fontsize=9, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
