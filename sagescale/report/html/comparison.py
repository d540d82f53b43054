"""A comparison of runs: its picture, the table's cells, and the notes below."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from sagescale.report.facts import CAUSES, helping, uses_predictor
from sagescale.report.figures import HUES, LARGEST, SYMBOLS, Axis, Figure, Label, Level, Panel, Series
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

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sagescale.document import ComparisonInfo, ResultDocument, RunDocument

_COLUMNS = (
    ("#", "rank", "place in the ranking"),
    ("run", "name", "click for its panels"),
    ("attained", "attainment", "share of requests within both targets"),
    ("GPU-h", "hours", "GPU-hours"),
    ("×bound", "ratio", "GPU-hours over the lower bound"),
    ("regret", "regret", "GPU-hours above the cheapest schedule found in hindsight"),
    ("peak", "peak", "most GPUs at once"),
    ("changes", "changes", "ticks at which a target moved"),
    ("TTFT p99, ms", "ttft", "of all requests"),
    ("ITL p99, ms", "itl", "of the requests' mean ITL"),
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


_NINES = (0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999, 0.99999)
_FEWEST_MISSED = 1e-6
_NEAR = (0.002, 0.01)
"""Marks coincide that are so near: a share of the most GPU-hours, and of a step from 90 % to 99 %."""
_NAMED = 4
_BENEATH = 3
"""The marks below another that still make it larger."""


class _Point(NamedTuple):
    """A run in the picture: GPU-hours and attainment with half the widths of their intervals, if known."""

    place: int
    run: RunDocument
    hours: float
    attainment: float
    hours_half: float | None
    half: float | None

    @property
    def hindsight(self) -> bool:
        return self.run.kind == "hindsight"

    @property
    def policy(self) -> str:
        return plain(self.run.policy)


class _Nines:
    """Attainment on a scale of nines: equal steps from 90 % to 99 % to 99.9 %; all of them is at the end."""

    def __init__(self, values: Sequence[float]) -> None:
        least = min((1 - value for value in values if value < 1), default=1e-2)
        self._floor = max(min(least, 1e-2) / 3, _FEWEST_MISSED)
        scaled = [2.0, *map(self.at, values)]
        low, high = min(scaled), max(scaled)
        edge = 0.06 * (high - low or 1)
        ticks = [nine for nine in _NINES if self.at(nine) >= low - edge and 1 - nine > 1.4 * self._floor]
        ticks += [1] if any(value >= 1 for value in values) else []
        words = [(self.at(tick), f"{100 * tick:.6g} %") for tick in ticks]
        self.axis = Axis(range=(low - edge, high + 2 * edge), ticks=words)

    def at(self, attainment: float) -> float:
        """Return where an attainment is on the scale."""
        return -math.log10(max(1 - attainment, self._floor))


def comparison_figure(document: ResultDocument) -> Figure:
    """Return attainment against GPU-hours of all runs, with front, attainment asked and lower bound."""
    comparison, bound = document.comparison, known(document.lower_bound_gpu_hours) or None
    bound = None if bound is None or abs(bound) > LARGEST else bound
    asked = None if comparison is None else known(comparison.attainment_asked)
    placed = list(_placed(document.runs))
    ends = [end for point in placed for end in _ends(point)]
    nines = _Nines([*ends, *([] if asked is None else [asked])])
    by_place = {point.place: point for point in placed}
    front = [place for place in pareto_front(document.runs) if place in by_place]
    most = max((point.hours + (point.hours_half or 0) for point in placed), default=0.0)
    least = min(
        [point.hours - (point.hours_half or 0) for point in placed] + [most if bound is None else bound]
    )
    room = 0.06 * (most - least or most or 1)
    policies = list(dict.fromkeys(point.policy for point in placed))
    drawn = sorted(placed, key=lambda point: policies.index(point.policy))
    coincide = {
        point.place: [other for other in drawn if _coincide(point, other, most, nines)] for point in drawn
    }
    series = [
        Series(
            "Pareto front", [by_place[place].hours for place in front],
            [nines.at(by_place[place].attainment) for place in front],
            colour="muted", width=1.2, steps=True, silent=True,
        ),
        *(
            _of_policy(i, [point for point in placed if point.policy == policy], coincide, drawn, nines)
            for i, policy in enumerate(policies)
        ),
    ]  # fmt: skip
    levels = [] if asked is None else [Level(nines.at(asked), f"asked {share(asked)}")]
    if bound is not None:
        levels.append(Level(bound, f"lower bound {figure(bound)}", "green", axis="x", dash="2px,2px"))
    ranked = sorted(placed, key=lambda point: (point.place not in front, not point.hindsight))
    panel = Panel(
        "comparison",
        "Attainment against GPU-hours",
        "upper left is better; click a run for its panels",
        series,
        levels=levels,
        labels=[
            Label(
                x=point.hours,
                y=nines.at(point.attainment),
                text=plain(point.run.name) + ("*" if point.hindsight else ""),
                group=point.policy,
                strong=point.place in front,
            )
            for point in ranked
        ],
        x=Axis(title="GPU-hours", range=(max(0.0, least - 2 * room), most + room)),
        y=nines.axis,
        note="* hollow: reference (knows the future)",
    )
    return Figure(panels=[panel], height=400.0)


def _placed(runs: Sequence[RunDocument]) -> Iterator[_Point]:
    for place, run in enumerate(runs):
        hours, met = run.judged_gpu_hours, run.judged_attainment
        across, up = known(hours.mean), known(met.mean)
        wide, high = known(hours.half_width), known(met.half_width)
        if across is None or up is None or max(abs(across), abs(wide or 0.0)) > LARGEST:
            continue
        yield _Point(place, run, across, up, wide, high)


def _ends(point: _Point) -> tuple[float, ...]:
    """Return the ends of a run's interval, which is a point where there is but one replicate."""
    if not point.half:
        return (point.attainment,)
    return max(0.0, point.attainment - point.half), point.attainment, min(1.0, point.attainment + point.half)


def _coincide(point: _Point, other: _Point, most: float, nines: _Nines) -> bool:
    return (
        other is not point
        and abs(other.hours - point.hours) <= _NEAR[0] * most
        and abs(nines.at(other.attainment) - nines.at(point.attainment)) <= _NEAR[1]
    )


def _of_policy(
    i: int, mine: Sequence[_Point], coincide: dict[int, list[_Point]], drawn: Sequence[_Point], nines: _Nines
) -> Series:
    """Mark a policy's runs: those that coincide are nested, the first the largest, and tell of the others."""
    hue, symbol = HUES[i % len(HUES)], SYMBOLS[i % len(SYMBOLS)]
    beneath = [
        sum(drawn.index(other) > drawn.index(point) for other in coincide[point.place]) for point in mine
    ]
    up = [nines.at(point.attainment) for point in mine]
    ends = [_ends(point) for point in mine]
    halves = any(point.hours_half is not None for point in mine)
    return Series(
        mine[0].policy,
        [point.hours for point in mine],
        up,
        colour=hue,
        mark=[symbol + ("-open" if point.hindsight else "") for point in mine],
        size=[10.0 + 5.0 * min(_BENEATH, below) for below in beneath],
        edge=[1.6 if point.hindsight else 1.0 for point in mine],
        texts=[_about(point, coincide[point.place]) for point in mine],
        links=[f"run-{point.place}" for point in mine],
        error_x=[point.hours_half for point in mine] if halves else (),
        error_y=(
            [nines.at(each[-1]) - at for each, at in zip(ends, up, strict=True)],
            [at - nines.at(each[0]) for each, at in zip(ends, up, strict=True)],
        )
        if halves
        else None,
        group=mine[0].policy,
    )


def _about(point: _Point, beside: Sequence[_Point]) -> list[str]:
    run = point.run
    lines = [
        plain(run.name),
        f"{share(point.attainment)} of requests",
        f"{figure(point.hours)} GPU-hours, {figure(run.ratio_to_lower_bound)} × the lower bound",
        f"TTFT p99 {figure(run.ttft_ms.p99)} ms, ITL p99 {figure(run.itl_ms.p99)} ms",
    ]
    if point.hindsight:
        lines.append("reference (knows the future)")
    if beside:
        names = [plain(other.run.name) for other in beside[:_NAMED]]
        lines.append(f"here as well: {', '.join(names)}{', …' if len(beside) > _NAMED else ''}")
    return lines


class Cell(NamedTuple):
    """One figure of the table: what to sort by ("" where it is not defined), and how it is written.

    A ``long`` one goes over several lines where there is no room.
    """

    value: str
    text: str
    poor: bool = False
    long: bool = False


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
    return _cell(value, figure(value), poor=above(value, target))


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
    return _cell(total, text)._replace(long=True)


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
    if (comparison.replicates or 1) > 1:
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
