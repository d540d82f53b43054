"""The terminal page of ``sagescale tune``: what was chosen, what else there is, and what attainment costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from sagescale.report.answer import print_answer
from sagescale.report.facts import trace_parts
from sagescale.report.formats import MARK, cost, figure, plain, plural, share
from sagescale.report.layout import DIM, GOOD, POOR, Page

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from sagescale.document import TuneDocument, TuneRow, TuneScore

_BAR = 24
_WIDE = 100
"""Columns from which the later part's worst five minutes and, beside a cost, the earlier hours are shown."""


def print_tuning(document: TuneDocument, console: Console) -> None:
    """Write the page to a console."""
    out = Page(console)
    out.field("trace", *trace_parts(document.trace))
    out.field("engines", plain(document.profile))
    out.field(
        "asked",
        f"{share(document.attainment_asked)} of requests within both targets, at the least GPU-hours",
    )
    out.field(
        "tried",
        plural(len(document.tried), "configuration"),
        plural(document.replicates, "replicate"),
        plural(document.simulations, "simulation"),
    )
    out.field("later part", document.validation)
    out.blank()
    chosen = document.chosen
    if chosen is not None:
        out.field("chosen", *(f"{key}: {value}" for key, value in chosen.config.items()))
        out.blank()
        rows = [("chosen", chosen)]
        if document.configured is not None and document.configured.config != chosen.config:
            rows.append(("configured", document.configured))
        nearest = document.nearest_holding
        if nearest is not None:
            rows.append(("holds", nearest))
        known = [row for _, row in rows]
        rows += [("", other) for other in document.others if other not in known]
        _print_rows(out, rows, document)
        out.blank()
        _curve(out, document)
    out.warnings(document.warnings)
    if document.interrupted:
        out.field("warning", Text(f"{MARK} interrupted: this is the best known by then", style=POOR))
    good = document.holds is True
    out.field("verdict", Text(("" if good else f"{MARK} ") + document.verdict, style=GOOD if good else POOR))
    print_answer(out, document.answer)


def _print_rows(out: Page, rows: Sequence[tuple[str, TuneRow]], document: TuneDocument) -> None:
    """One line a configuration, in 80 columns: what all have in common is not repeated."""
    asked, price = document.attainment_asked, document.gpu_hour_price
    wide = out.width >= _WIDE
    intervals = {row.config["adjustment_interval_sec"] for _, row in rows}
    shown = {
        "earlier": True,
        "GPU-h": wide or price is None,
        "later": True,
        "GPU-h ": True,
        "cost": price is not None,
        "worst": wide,
        "headroom": True,
        "every": len(intervals) > 1,
        "": True,
    }
    lines = []
    for label, row in rows:
        cells = _cells(row, asked, price)
        lines.append((label, [cells[name] for name, is_shown in shown.items() if is_shown]))
    out.table("", [name for name, is_shown in shown.items() if is_shown], lines)
    if wide:
        out.field("", Text("worst: the worst five minutes of the later part", style=DIM))


def _cells(row: TuneRow, asked: float, price: float | None) -> dict[str, Text]:
    later, config = row.later, row.config
    hours = None if later is None else later.gpu_hours
    return {
        "earlier": _attained(row.earlier, asked),
        "GPU-h": Text(figure(row.earlier.gpu_hours)),
        "later": Text("") if later is None else _attained(later, asked),
        "GPU-h ": Text("" if hours is None else figure(hours)),
        "cost": Text(cost(hours, price)),
        "worst": Text("" if later is None else share(later.worst_5_min_attainment, 1)),
        "headroom": Text(f"{config['load_headroom']:.3g}"),
        "every": Text(f"{config['adjustment_interval_sec']} s"),
        "": Text(row.name),
    }


def _attained(score: TuneScore, asked: float) -> Text:
    good = score.attainment >= asked
    return Text(("" if good else f"{MARK} ") + share(score.attainment), style=GOOD if good else POOR)


def _curve(out: Page, document: TuneDocument) -> None:
    """What each level of attainment costs on the earlier part, as bars from 0."""
    reached = [point.reached for point in document.curve]
    most = max((row.earlier.gpu_hours for row in reached if row is not None), default=0.0)
    rows = []
    for point in document.curve:
        row = point.reached
        label = f"{100 * point.attainment:g} %"
        if row is None or not most:
            rows.append((label, [Text("not reached", style=POOR), Text(""), Text("")]))
            continue
        hours = row.earlier.gpu_hours
        bar = "█" * max(1, round(_BAR * hours / most))
        who = f"{row.name} x{row.config['load_headroom']:.3g}"
        rows.append((label, [Text(figure(hours)), Text(bar.ljust(_BAR), style=GOOD), Text(who, style=DIM)]))
    out.table("at least", ("GPU-hours", "", ""), rows)
    out.blank()
