"""Attainment against GPU-hours, a panel a scenario: as PNG, and as a page whose points tell their names."""

from __future__ import annotations

import numpy as np
from protocol import ASKED

# Okabe and Ito's colours, which the colour-blind can tell apart; every policy has a shape of its own as well.
_STYLES = {
    "slo": ("#D55E00", "o", "circle"),
    "classic": ("#0072B2", "s", "square"),
    "reactive": ("#009E73", "^", "triangle-up"),
    "static": ("#CC79A7", "D", "diamond"),
    "clairvoyant": ("#000000", "*", "star"),
}
_OTHER = ("#E69F00", "v", "triangle-down")
_FLOOR = 1e-4
_TICKS = (0.5, 0.8, 0.9, 0.95, 0.99, 0.999, 0.9999)


def _style(policy):
    return _STYLES.get(policy, _OTHER)


def _miss(share):
    """Attainment is drawn by its shortfall, on a logarithmic scale that ends at 99.99 %."""
    return max(1.0 - share, _FLOOR)


def png(path, outcomes, tables):
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    columns = min(3, len(outcomes))
    lines = -(-len(outcomes) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(5.4 * columns, 4.3 * lines), squeeze=False)
    seen = {}
    for axis, outcome in zip(axes.flat, outcomes, strict=False):
        draw = _panel if outcome.scenario.budget_share is None else _ranking
        draw(axis, outcome, tables[outcome.scenario.name], seen)
    for axis in list(axes.flat)[len(outcomes) :]:
        axis.set_axis_off()
    entries = 3 * columns
    figure.legend(
        seen.values(),
        seen.keys(),
        loc="lower center",
        ncols=min(len(seen), entries),
        frameon=False,
        fontsize=9,
    )
    figure.tight_layout(rect=(0, 0.06 * -(-len(seen) // entries) / lines, 1, 1))
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _panel(axis, outcome, table, seen):
    champion = _champion(outcome)
    for row in table:
        x, y = row["gpu_hours"]["mean"], _miss(row["attainment"]["mean"])
        _mark(
            axis,
            row,
            seen,
            champion,
            x,
            y,
            xerr=_around(x, row["gpu_hours"], lambda value: value),
            yerr=_around(y, row["attainment"], _miss),
        )
        if row["name"] == champion:
            up = 7 if y > _FLOOR else -16
            _name(axis, row, (x, y), xytext=(-8, up), ha="right", fontsize=9, weight="bold")
    best = next(
        (row for row in table if row["kind"] == "candidate" and row["reaches"] and row["name"] != champion),
        None,
    )
    if best is not None:
        place = best["gpu_hours"]["mean"], _miss(best["attainment"]["mean"])
        _name(axis, best, place, xytext=(9, -14), ha="left", fontsize=8)
    axis.axhline(1.0 - ASKED, color="0.3", linewidth=1.0, linestyle="--", zorder=1)
    axis.axhspan(_FLOOR / 2, 1.0 - ASKED, color="0.93", zorder=0)
    if outcome.lower_bound_gpu_hours:
        axis.axvline(outcome.lower_bound_gpu_hours, color="0.5", linewidth=1.0, linestyle=":", zorder=1)
        axis.text(
            outcome.lower_bound_gpu_hours,
            0.98,
            " lower bound",
            transform=axis.get_xaxis_transform(),
            fontsize=8,
            color="0.4",
            va="top",
        )
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_ylim(1.0, _FLOOR * 0.7)
    axis.set_yticks([1.0 - tick for tick in _TICKS], [f"{100 * tick:g} %" for tick in _TICKS])
    axis.yaxis.set_minor_locator(_nothing())
    low, high = axis.get_xlim()
    ticks = _round_ticks(low, high)
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.xaxis.set_minor_locator(_nothing())
    axis.set_xlim(low, high)
    axis.grid(color="0.88", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.set_title(outcome.scenario.name, loc="left", fontsize=11)
    axis.set_xlabel("GPU-hours in the judged part")
    axis.set_ylabel("attainment")


def _ranking(axis, outcome, table, seen):
    """Attainment by name: where everybody has the whole budget, GPU-hours tell nothing."""
    champion = _champion(outcome)
    ordered = sorted(table, key=lambda row: row["attainment"]["mean"])
    for place, row in enumerate(ordered):
        x = 100.0 * row["attainment"]["mean"]
        xerr = _around(x, row["attainment"], lambda value: 100.0 * value)
        _mark(axis, row, seen, champion, x, place, xerr=xerr)
    axis.set_yticks(range(len(ordered)), [row["name"] for row in ordered], fontsize=7)
    for label, row in zip(axis.get_yticklabels(), ordered, strict=True):
        label.set_weight("bold" if row["name"] == champion else "normal")
    axis.set_xlim(0.0, None)
    axis.grid(color="0.88", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.set_title(f"{outcome.scenario.name}, {outcome.budget} GPUs", loc="left", fontsize=11)
    axis.set_xlabel("attainment, %")


def _champion(outcome):
    return outcome.champion.entry.name if outcome.champion else None


def _mark(axis, row, seen, champion, x, y, **errors):
    colour, marker, _ = _style(row["policy"])
    reference = row["kind"] == "reference"
    label = row["policy"]
    if reference and row["policy"] != "clairvoyant":
        label += " in hindsight" if row["policy"] == "static" else ", true load"
    drawn = axis.errorbar(
        x,
        y,
        **errors,
        fmt=marker,
        color=colour,
        markerfacecolor="white" if reference and marker != "*" else colour,
        markersize=11 if marker == "*" or row["name"] == champion else 6,
        markeredgewidth=1.4,
        alpha=0.45 if row["stopped"] else 1.0,
        elinewidth=1.0,
        capsize=2,
        zorder=4 if row["name"] == champion else 3,
    )
    seen.setdefault(label, drawn)


def _name(axis, row, place, **how):
    from matplotlib.patheffects import withStroke

    axis.annotate(
        row["name"],
        place,
        textcoords="offset points",
        color=_style(row["policy"])[0],
        path_effects=[withStroke(linewidth=3, foreground="white")],
        zorder=6,
        **how,
    )


def _nothing():
    from matplotlib.ticker import NullLocator

    return NullLocator()


def _round_ticks(low, high):
    ticks = [
        digit * 10.0**power
        for power in range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
        for digit in (1, 1.5, 2, 3, 4, 5, 7)
    ]
    return [tick for tick in ticks if low <= tick <= high]


def _around(at, interval, scale):
    """Lengths of the error bars to both sides, in drawn units; None without an interval."""
    if interval["low"] is None:
        return None
    ends = sorted((scale(interval["low"]), scale(interval["high"])))
    return [[max(at - ends[0], 0.0)], [max(ends[1] - at, 0.0)]]


def html(path, outcomes, tables):
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    columns = min(2, len(outcomes))
    figure = make_subplots(
        rows=-(-len(outcomes) // columns),
        cols=columns,
        subplot_titles=[outcome.scenario.name for outcome in outcomes],
    )
    shown = set()
    for number, outcome in enumerate(outcomes):
        place = {"row": number // columns + 1, "col": number % columns + 1}
        for row in tables[outcome.scenario.name]:
            colour, _, symbol = _style(row["policy"])
            reference = row["kind"] == "reference"
            group = f"{row['policy']} (reference)" if reference else row["policy"]
            words = (
                row["name"],
                f"attainment {100 * row['attainment']['mean']:.3f} %",
                f"{row['gpu_hours']['mean']:.3f} GPU-hours",
                f"load_headroom {row['load_headroom']}",
            )
            figure.add_trace(
                go.Scatter(
                    x=[row["gpu_hours"]["mean"]],
                    y=[_miss(row["attainment"]["mean"])],
                    mode="markers",
                    name=group,
                    legendgroup=group,
                    showlegend=group not in shown,
                    marker={
                        "color": colour,
                        "symbol": f"{symbol}-open" if reference else symbol,
                        "size": 12 if outcome.champion and row["name"] == outcome.champion.entry.name else 9,
                    },
                    hovertext="<br>".join(words),
                    hoverinfo="text",
                ),
                **place,
            )
            shown.add(group)
        figure.add_hline(y=1.0 - ASKED, line_dash="dash", line_color="grey", **place)
    figure.update_xaxes(type="log", title_text="GPU-hours")
    figure.update_yaxes(
        type="log",
        range=[0, np.log10(_FLOOR * 0.7)],
        tickvals=[1.0 - tick for tick in _TICKS],
        ticktext=[f"{100 * tick:g} %" for tick in _TICKS],
    )
    figure.update_layout(height=430 * (-(-len(outcomes) // columns)), template="plotly_white")
    figure.write_html(path, include_plotlyjs=True)
