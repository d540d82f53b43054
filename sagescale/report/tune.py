"""The terminal page of ``sagescale tune``: what was chosen, what else there is, and what attainment costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from sagescale.report.facts import trace_parts
from sagescale.report.formats import MARK, figure, plain, plural, share
from sagescale.report.layout import DIM, GOOD, POOR, Page

if TYPE_CHECKING:
    from rich.console import Console

    from sagescale.document import TuneDocument, TuneRow, TuneScore

__all__ = ["print_tuning"]

_BAR = 24
_HEADER = ("earlier", "GPU-h", "later", "GPU-h", "worst", "head", "every")
"""Of both parts attainment and GPU-hours, of the later one the worst five minutes; headroom; interval."""


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
        rows += [("", other) for other in document.others if other != nearest]
        asked = document.attainment_asked
        out.table("", (*_HEADER, ""), [(label, _cells(row, asked)) for label, row in rows])
        out.field("", Text("worst: five minutes of the later part; head: load_headroom", style=DIM))
        out.blank()
        _curve(out, document)
    for warning in document.warnings:
        out.field("warning", Text(f"{MARK} {plain(warning)}", style=POOR))
    if document.interrupted:
        out.field("warning", Text(f"{MARK} interrupted: this is the best known by then", style=POOR))
    good = document.holds is True
    out.field("verdict", Text(("" if good else f"{MARK} ") + document.verdict, style=GOOD if good else POOR))


def _cells(row: TuneRow, asked: float) -> list[Text]:
    later, config = row.later, row.config
    return [
        _attained(row.earlier, asked),
        Text(figure(row.earlier.gpu_hours)),
        Text("") if later is None else _attained(later, asked),
        Text("" if later is None else figure(later.gpu_hours)),
        Text("" if later is None else share(later.worst_5_min_attainment, 1)),
        Text(f"{config['load_headroom']:.3g}"),
        Text(f"{config['adjustment_interval_sec']}s"),
        Text(row.name),
    ]


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
