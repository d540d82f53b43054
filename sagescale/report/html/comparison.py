"""The figures of a comparison: the picture's points and front, the table's cells, and the notes below."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sagescale.report.facts import CAUSES, helping, uses_predictor
from sagescale.report.formats import (
    MARK,
    NOTHING,
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

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sagescale.document import ComparisonInfo, ResultDocument, RunDocument

__all__ = [
    "comparison_notes",
    "comparison_points",
    "comparison_table",
    "pareto_front",
]

_COLUMNS = (
    ("#", "rank", "place in the ranking"),
    ("run", "name", "click for its panels"),
    ("attained", "attainment", "share of requests within both targets"),
    ("GPU-h", "hours", "GPU-hours"),
    ("×bound", "ratio", "GPU-hours over the lower bound"),
    ("regret", "regret", "GPU-hours above the cheapest schedule found in hindsight"),
    ("peak", "peak", "most GPUs at once"),
    ("changes", "changes", "ticks at which a target moved"),
    ("TTFT p99", "ttft", "ms"),
    ("ITL p99", "itl", "ms"),
    ("MAPE", "mape", "of the forecasts of requests, one interval ahead"),
    ("misses", "misses", "requests outside a target, and where most of them come from"),
)
_COST = ("cost", "cost", "what the GPU-hours cost, by gpu_hour_price")
"""After the GPU-hours, where there is a price."""
_FAULT_COLUMNS = (
    ("restarted", "restarted", "requests thrown back by crashes"),
    ("w/o faults", "calm", "attained by the same run with nothing going wrong"),
    ("GPU-h w/o", "calmhours", "GPU-hours of the same run with nothing going wrong"),
)
"""Only where faults were given."""


def comparison_points(document: ResultDocument) -> dict[str, object]:
    """Return what the picture of a comparison is drawn from; ``front`` are places of runs, cheapest first."""
    runs, comparison = document.runs, document.comparison
    return {
        "runs": [_point(run) for run in runs],
        "front": pareto_front(runs),
        "asked": None if comparison is None else known(comparison.attainment_asked),
        "bound": known(document.lower_bound_gpu_hours) or None,
    }


def _point(run: RunDocument) -> dict[str, object]:
    return {
        "name": plain(run.name),
        "policy": plain(run.policy),
        "hindsight": run.kind == "hindsight",
        "hours": known(run.judged_gpu_hours.mean),
        "attainment": known(run.judged_attainment.mean),
        "hours_half": known(run.judged_gpu_hours.half_width),
        "attainment_half": known(run.judged_attainment.half_width),
        "ratio": known(run.ratio_to_lower_bound),
        "ttft_p99": known(run.ttft_ms.p99),
        "itl_p99": known(run.itl_ms.p99),
    }


class Cell(NamedTuple):
    """One figure of the table: what to sort by ("" where it is not defined), and how it is written."""

    value: str
    text: str
    poor: bool = False


def comparison_table(document: ResultDocument) -> dict[str, object]:
    """Return the columns (label, key, title) and, a run each, the cells after its place and name."""
    comparison = document.comparison
    faulty = any(run.faults for run in document.runs)
    columns, price = list(_COLUMNS), known(document.gpu_hour_price)
    rows = [(run, _cells(run, comparison)) for run in document.runs]
    if price is not None:
        columns.insert(1 + [key for _, key, _ in columns].index("hours"), _COST)
        for run, cells in rows:
            hours = known(run.judged_gpu_hours.mean)
            cells.insert(2, _cell(None if hours is None else hours * price, cost(hours, price) or NOTHING))
    if faulty:
        columns += _FAULT_COLUMNS
        rows = [(run, cells + _without_faults(run)) for run, cells in rows]
    return {"columns": columns, "rows": rows}


def _cells(run: RunDocument, comparison: ComparisonInfo | None) -> list[Cell]:
    sla, scaling = run.sla, run.scaling
    reached = comparison is None or run.name in comparison.reaching
    attainment, hours = run.judged_attainment, run.judged_gpu_hours
    # Scored whether or not the policy looks at it.
    mape = run.forecast.requests.mape if uses_predictor(run) else None
    ratio, regret = run.ratio_to_lower_bound, run.regret_gpu_hours
    return [
        _cell(attainment.mean, share_within(attainment.mean, attainment.half_width), poor=not reached),
        _cell(hours.mean, within(hours.mean, hours.half_width)),
        _cell(ratio, figure(ratio)),
        _cell(regret, signed(regret)),
        _cell(scaling.max_gpus, count(scaling.max_gpus)),
        _cell(scaling.changes, count(scaling.changes)),
        _latency(run.ttft_ms.p99, sla.target_ttft_ms),
        _latency(run.itl_ms.p99, sla.target_mean_itl_ms),
        _cell(mape, share(mape, 1)),
        _missed(run),
    ]


def _without_faults(run: RunDocument) -> list[Cell]:
    faults = run.faults
    without = None if not faults else faults.without
    attained, hours = (without.attainment, without.gpu_hours) if without else (None, None)
    restarted = run.requests.restarted
    return [_cell(restarted, count(restarted)), _cell(attained, share(attained)), _cell(hours, figure(hours))]


def _cell(value: float | None, text: str, *, poor: bool = False) -> Cell:
    number = known(value)
    return Cell("" if number is None else repr(number), text, poor)


def _latency(value: float | None, target: float | None) -> Cell:
    number, limit = known(value), known(target)
    return _cell(number, figure(number), poor=number is not None and limit is not None and number > limit)


def _missed(run: RunDocument) -> Cell:
    misses = run.misses
    if misses is None:
        return _cell(None, NOTHING)
    total = known(misses.total)
    parts = {cause: known(getattr(misses, cause)) or 0 for cause in CAUSES}
    worst = max(CAUSES, key=lambda cause: parts[cause])
    text = count(total)
    if total and parts[worst]:
        words = [f"{share(parts[worst] / total, 0)} {worst}"]
        words += [f"{cause} helped" for cause in helping(misses)]
        text += f" ({', '.join(words)})".replace("_", " ")
    return _cell(total, text)


def comparison_notes(comparison: ComparisonInfo) -> list[tuple[str, tuple[str, ...]]]:
    """Return label and parts of the lines under the table: what the comparison rests on."""
    lines: list[tuple[str, tuple[str, ...]]] = []
    for made in comparison.forecasters:
        if made.refits:
            windows = f"{plain(made.predictor)} ({duration(made.interval_s)} windows)"
            done = f"{plural(made.refits, 'fit')} over {plural(made.windows, 'window')}"
            lines.append(("refits", (f"{windows}: {plain(made.cadence)}", done)))
    lines += [
        (f"{MARK} failed", (f"{plain(failed.name)}: {plain(failed.error)}",)) for failed in comparison.failed
    ]
    if comparison.interrupted:
        names = ", ".join(map(plain, comparison.not_run)) or NOTHING
        lines.append((f"{MARK} stopped", (f"interrupted before these were done: {names}",)))
    if comparison.replicates > 1:
        meaning = "± is half the width of the mean's 95 % confidence interval"
        lines.append(("replicates", (f"{comparison.replicates}", meaning)))
    lines.append(("took", (duration(comparison.timing.wall_s),)))
    return lines


def pareto_front(runs: Sequence[RunDocument]) -> list[int]:
    """Return the places of the candidates on the Pareto front, cheapest first.

    A run is on it where no other has at least its attainment for at most its GPU-hours and is better in one;
    of equals the first is. What knows the future is not a candidate.
    """
    candidates = sorted(
        (hours, -attainment, place)
        for place, run in enumerate(runs)
        if run.kind != "hindsight"
        and (hours := known(run.judged_gpu_hours.mean)) is not None
        and (attainment := known(run.judged_attainment.mean)) is not None
    )
    front: list[int] = []
    best = float("inf")
    for _, missing, place in candidates:
        if missing < best:
            front.append(place)
            best = missing
    return front
