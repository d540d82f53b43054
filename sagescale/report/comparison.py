"""What ``compare-predictors`` prints: the verdict first, then the table, then what it rests on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich.text import Text

from sagescale.report.answer import print_answer
from sagescale.report.facts import CAUSES, happened, helping, trace_parts, uses_predictor
from sagescale.report.formats import (
    MARK,
    NOTHING,
    above,
    cost,
    count,
    duration,
    figure,
    known,
    plain,
    plural,
    share,
    share_within,
    signed,
    within,
)
from sagescale.report.layout import DIM, GOOD, POOR, STRONG, Page
from sagescale.report.text_plots import bars

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from sagescale.document import (
        ComparisonInfo,
        FaultsResult,
        ForecastScore,
        MissSplit,
        ResultDocument,
        RunDocument,
    )

_SERIES = ("requests", "isl", "osl")
_WIDE = 125
_WIDE_FAULTS = 100
_CAUSE_WORDS = {"whole_instances": "rounding"}
_CAUSE_HEADS = {
    "faults": "fault",
    "forecast": "forec",
    "startup": "start",
    "whole_instances": "whole",
    "policy": "polcy",
}


def print_comparison(document: ResultDocument, console: Console) -> None:
    """Print a comparison: every column from 125 columns up, the most important ones below."""
    page = Page(console)
    comparison, runs = document.comparison, document.runs
    assert comparison is not None  # a comparison's document
    trace = document.trace
    page.field("trace", *trace_parts(trace))
    page.field("profile", plain(document.profile.name))
    targets = {
        f"with TTFT ≤ {figure(sla.target_ttft_ms)} ms and {sla.itl_name} ≤ {figure(sla.target_itl_ms)} ms"
        for sla in (run.sla for run in runs)
    }
    if targets:
        page.field(
            "asked",
            f"{share(comparison.attainment_asked)} of requests "
            + (targets.pop() if len(targets) == 1 else "within each run's own targets"),
            *((f"{comparison.replicates} replicates",) if (comparison.replicates or 1) > 1 else ()),
        )
    page.blank()
    style = f"{STRONG} {GOOD}" if comparison.winner else POOR
    mark = "" if comparison.winner else f"{MARK} "
    page.field("verdict", Text(mark + (comparison.verdict or NOTHING), style=style))
    page.blank()
    if runs:
        _print_ranking(page, document, comparison)
        _print_fault_costs(page, runs, [_name(run) for run in runs])
        page.blank()
        _print_forecasts(page, runs)
    _print_cost(page, comparison)
    for failure in comparison.failed:
        page.field("failed", Text(f"{MARK} {failure.name}: {plain(failure.error)}", style=POOR))
    if comparison.interrupted:
        page.field(
            "stopped",
            Text(
                f"{MARK} interrupted: {plural(len(runs), 'run')} done, {len(comparison.not_run)} not done",
                style=POOR,
            ),
        )
    page.warnings(document.warnings)
    print_answer(page, document.answer)


def _print_ranking(page: Page, document: ResultDocument, comparison: ComparisonInfo) -> None:
    """One line a run: those that reach the attainment by GPU-hours, a rule, the others."""
    runs = document.runs
    reaching = len(comparison.reaching)
    wide = page.width >= _WIDE
    causes = _causes(runs)
    header = ["", "GPU-h", "attained", "misses", "most from"]
    if wide:
        header = [
            "",
            "GPU-h",
            "×bound",
            "attained",
            "TTFT p99",
            "ITL p99",
            "misses",
            *(_CAUSE_HEADS[cause] for cause in causes),
        ]
    price = document.gpu_hour_price
    if price is not None:
        header.insert(2, "cost")
    rows: list[tuple[str, list[Text]]] = []
    named = max(len(_name(run)) for run in runs)
    for place, run in enumerate(runs):
        if place == reaching and reaching:
            rows.append(("", [Text("·" * named, style=DIM), *[Text("") for _ in header[1:]]]))
        cells = _cells(run, named, causes, reached=place < reaching, wide=wide)
        if price is not None:
            cells.insert(2, Text(cost(run.judged_gpu_hours.mean, price)))
        rows.append((_place(place, reaching, run, comparison), cells))
    page.table("ranking", header, rows)
    helped = any(run.misses is not None and helping(run.misses) for run in runs)
    notes = [
        "* reference (knows the future): not a candidate",
        f"misses by cause: {', '.join(map(_in_words, causes))}"
        + ("; one below 0 helped (docs/comparing.md)" if helped else " (docs/comparing.md)"),
        f"lower bound {figure(document.lower_bound_gpu_hours)} GPU-hours",
    ]
    if comparison.clairvoyant_gpu_hours is not None:
        notes.append(
            f"cheapest schedule known in hindsight {figure(comparison.clairvoyant_gpu_hours)} GPU-hours"
        )
    page.field("", *(Text(note, style=DIM) for note in notes))
    _print_shapes(page, runs)


def _causes(runs: Sequence[RunDocument]) -> tuple[str, ...]:
    """The causes there can be: faults only where there are any."""
    return CAUSES if any(run.faults is not None for run in runs) else CAUSES[1:]


def _in_words(cause: str) -> str:
    return cause.replace("_", " ")


def _place(place: int, reaching: int, run: RunDocument, comparison: ComparisonInfo) -> str:
    if run.name == comparison.winner:
        return "winner"
    return str(place + 1) if place < reaching else NOTHING


def _name(run: RunDocument) -> str:
    return plain(run.name) + ("*" if run.kind == "hindsight" else "")


def _cells(run: RunDocument, named: int, causes: Sequence[str], *, reached: bool, wide: bool) -> list[Text]:
    style = "" if reached else DIM
    if run.kind == "hindsight":
        style = f"{style} italic".strip()
    sla, spent, met = run.sla, run.judged_gpu_hours, run.judged_attainment
    hours, attained = within(spent.mean, spent.half_width), share_within(met.mean, met.half_width)
    name, misses = Text(_name(run).ljust(named), style=style), run.misses
    reach = Text(attained if reached else f"{MARK} {attained}", style=style if reached else POOR)
    if not wide:
        total = None if misses is None else misses.total
        return [name, Text(hours, style=style), reach, Text(count(total), style=style), _most(misses, style)]
    cells = [
        name,
        Text(hours, style=style),
        Text(figure(run.ratio_to_lower_bound), style=style),
        reach,
        _against(run.ttft_ms.p99, sla.target_ttft_ms, style),
        _against(run.itl_ms.p99, sla.target_mean_itl_ms, style),
    ]
    if misses is None:
        return [*cells, *[Text(NOTHING, style=DIM) for _ in ("misses", *causes)]]
    cells.append(Text(count(misses.total), style=style))
    return [*cells, *(Text(_part(misses, cause), style=style) for cause in causes)]


def _part(misses: MissSplit, cause: str) -> str:
    """A cause's share of the misses, below zero where it helped; nothing where it has none."""
    number = getattr(misses, cause) or 0  # documents of before faults lack theirs
    return f"{number / misses.total:.0%}" if number and misses.total else ""


def _most(misses: MissSplit | None, style: str) -> Text:
    if misses is None or not misses.total:
        return Text("", style=style)
    cause = max(CAUSES, key=lambda name: getattr(misses, name) or 0)
    return Text(f"{_CAUSE_WORDS.get(cause, cause)} {_part(misses, cause)}", style=style)


def _against(value: float | None, target: float | None, style: str) -> Text:
    if above(value, target):
        return Text(f"{MARK} {figure(value)}", style=POOR)
    return Text(figure(value), style=style)


def _print_shapes(page: Page, runs: Sequence[RunDocument]) -> None:
    """GPUs over time of the best few, under one scale: where the money goes."""
    shown = [run for run in runs if run.timeline.gpus][:5]
    if not shown:
        return
    top = max(max(run.timeline.gpus) for run in shown)
    width = min(max(len(_name(run)) for run in shown), page.body_width // 2)
    ends = [[known(time_s) or 0.0 for time_s in run.timeline.time_s] for run in shown]
    longest_s = max(times[0] for times in ends)
    bar_s = max(longest_s, max(times[-1] for times in ends) / max(1, page.body_width - width - 8))
    page.blank()
    for place, (run, times) in enumerate(zip(shown, ends, strict=True)):
        line = Text(_shortened(_name(run), width).ljust(width) + "  ")
        line.append(bars(_by_time(times, run.timeline.gpus, bar_s), 0.0, float(top)), style=GOOD)
        line.append(f"  ≤ {count(max(run.timeline.gpus))}", style=DIM)
        page.field("GPUs" if place == 0 else "", line)


def _shortened(name: str, width: int) -> str:
    """Cut in the middle: names that begin alike end differently."""
    if len(name) <= width:
        return name
    tail = (width - 1) // 2
    return f"{name[: width - 1 - tail]}…{name[len(name) - tail :]}"


def _by_time(times: Sequence[float], values: Sequence[float], bar_s: float) -> list[float | None]:
    """The largest value of every ``bar_s`` seconds, whatever the interval of its ticks."""
    most: dict[int, float] = {}
    for time_s, value in zip(times, values, strict=True):
        bar = max(0, math.ceil(time_s / bar_s - 1e-9) - 1) if bar_s > 0 else 0
        most[bar] = max(float(value), most.get(bar, 0.0))
    return [most.get(bar) for bar in range(max(most) + 1)]


def _print_fault_costs(page: Page, runs: Sequence[RunDocument], names: Sequence[str]) -> None:
    """Print a row a run, in the order and by the names given; nothing where nothing was to go wrong."""
    befallen = [
        (name, run, faults)
        for name, run in zip(names, runs, strict=True)
        if (faults := run.faults) is not None
    ]
    if not befallen:
        return
    name, _, faults = befallen[0]
    what = ", ".join(happened(faults)) if faults.events else "nothing went wrong"
    page.blank()
    page.field("faults", plain(faults.file) or "given", f"in {name}: {what}")
    wide = page.width >= _WIDE_FAULTS
    named = max(len(name) for name, _, _ in befallen)
    rows = [("", _fault_cells(name.ljust(named), run, faults, wide=wide)) for name, run, faults in befallen]
    more = ("of them missed", "GPU-h lost") if wide else ()
    page.table("", ["", "restarted", *more, "attained w/o", "GPU-h w/o"], rows)
    page.field("", Text("w/o: the same run with nothing going wrong", style=DIM))


def _fault_cells(name: str, run: RunDocument, faults: FaultsResult, *, wide: bool) -> list[Text]:
    without = faults.without
    more = (count(faults.restarted_missed), figure(faults.gpu_hours_lost.total))
    texts = (
        name,
        count(run.requests.restarted),
        *(more if wide else ()),
        NOTHING if without is None else share(without.attainment),
        NOTHING if without is None else figure(without.gpu_hours),
    )
    return [Text(text) for text in texts]


def _print_forecasts(page: Page, runs: Sequence[RunDocument]) -> None:
    """How good each predictor was, by series, in the best-placed run that used it."""
    best: dict[str, RunDocument] = {}
    for run in runs:
        if uses_predictor(run) and run.predictor not in (None, "oracle"):
            best.setdefault(run.predictor, run)
    if not best:
        return
    rows = []
    wide = page.width >= _WIDE
    named = max(len(name) for name in best)
    for predictor, run in best.items():
        cells = [Text(plain(predictor).ljust(named))]
        for series in _SERIES:
            score: ForecastScore = getattr(run.forecast, series)
            cells.append(Text(share(score.mape, 1)))
            if wide or series == "requests":
                cells += [
                    Text(signed(score.bias)),
                    Text(figure(score.pinball_p90)),
                    Text(share(score.coverage_p90, 0)),
                ]
        rows.append(("", cells))
    header = [""]
    for series in ("requests", "ISL", "OSL"):
        more = wide or series == "requests"
        header += [f"{series} MAPE", *(("bias", "pinball", "≤p90") if more else ())]
    page.table("forecasts", header, rows)
    page.field(
        "",
        Text(
            "one interval ahead; bias and pinball loss at p90 in requests a window and in tokens", style=DIM
        ),
    )


def _print_cost(page: Page, comparison: ComparisonInfo) -> None:
    for place, made in enumerate(comparison.forecasters):
        if not made.refits:
            continue
        page.field(
            "refits" if not any(one.refits for one in comparison.forecasters[:place]) else "",
            f"{plain(made.predictor)} ({duration(made.interval_s)} windows): {plain(made.cadence)}",
            Text(
                f"{plural(made.refits, 'fit')} over {plural(made.windows, 'window')} of requests and "
                f"ISL, {duration((made.timing or {}).get('seconds', 0.0))}, once for all runs",
                style=DIM,
            ),
        )
    page.field("took", Text(duration(comparison.timing.wall_s), style=DIM))
