"""A profile's panels as a PNG, drawn with matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from sagescale.perf.panels import Panel

__all__ = ["COLOURS", "png_picture"]

# Okabe and Ito's colours, told apart by colour-blind readers; yellow and light blue are too pale for lines.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#4D4D4D")
_MARKERS = ("o", "s", "^", "D", "v")
_DPI = 150


def png_picture(panels: Sequence[Panel], title: str) -> bytes:
    """Draw the panels two by two; the same panels give the same picture."""
    import io

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15.0, 9.0), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=15, fontweight="bold")
    grid = figure.subplots(2, 2)
    for axes, panel in zip(grid.flat, panels, strict=True):
        _draw(axes, panel)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def _draw(axes: Axes, panel: Panel) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    for index, curve in enumerate(panel.curves):
        colour, marker = COLOURS[index % len(COLOURS)], _MARKERS[index % len(_MARKERS)]
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
