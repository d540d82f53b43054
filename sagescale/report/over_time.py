"""How a run went, tick by tick: sparklines under one time axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.text import Text

from sagescale.report.formats import MARK, NOTHING, count, duration, figure, instant, known, share
from sagescale.report.layout import DIM, GOOD, POOR, Page
from sagescale.report.text_plots import bars, downsample, windows_per_bar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sagescale.document import RunDocument

_ATTAINMENT_FLOOR = 0.9
"""Attainment bars start here or at the worst window, so that 99 % does not look like a disaster."""


@dataclass(frozen=True, slots=True)
class _Series:
    """One line: ``pick`` is what a bar shows of its windows, ``target`` what they should not exceed."""

    label: str
    values: Sequence[float | None]
    write: Callable[[float | None], str]
    unit: str
    pick: Callable[[Iterable[float]], float] = max
    low: float = 0.0
    high: float | None = None
    target: float | None = None


def print_over_time(
    page: Page, run: RunDocument, interval_s: float | None, started_at: str | None = None
) -> None:
    """Print load, pools and latencies over the run, by the clock where it is known when the trace started."""
    timeline, sla = run.timeline, run.sla
    series = [
        _Series("load", _per_second(timeline.requests or (), interval_s), figure, " requests/s"),
        *(_Series(name, pool.ready or (), count, " ready") for name, pool in timeline.pools.items()),
        _Series("TTFT p99", timeline.ttft_p99_ms or (), figure, " ms", target=known(sla.target_ttft_ms)),
        _Series("ITL p99", timeline.itl_p99_ms or (), figure, " ms", target=known(sla.target_mean_itl_ms)),
        _Series(
            "attainment",
            timeline.attainment or (),
            _percent,
            " %",
            pick=min,
            low=_ATTAINMENT_FLOOR,
            high=1.0,
        ),
    ]
    ticks = max(len(one.values) for one in series)
    if ticks == 0:
        page.field("over time", Text("no tick: the run ended within its first interval", style=DIM))
        return
    notes = [_note(one) for one in series]
    size = windows_per_bar(ticks, page.body_width - 2 - max(note.cell_len for note in notes))
    drawn = -(-ticks // size)
    marked = any(MARK in note.plain for note in notes)
    page.field(
        "over time",
        Text(_heading(timeline.time_s, interval_s, size, started_at), style=DIM),
        Text(f"{MARK} windows above target" if marked else "", style=DIM),
    )
    for one, note in zip(series, notes, strict=True):
        line = _draw(one, size)
        line.append(" " * (drawn - line.cell_len + 2)).append_text(note)
        page.field(one.label, line)


def _per_second(requests: Sequence[float | None], interval_s: float | None) -> list[float | None]:
    return [
        None if interval_s is None or (number := known(value)) is None else number / interval_s
        for value in requests
    ]


def _percent(value: float | None) -> str:
    return share(value, 1).removesuffix(" %")


def _heading(time_s: Sequence[float], interval_s: float | None, size: int, started_at: str | None) -> str:
    end_s = known(time_s[-1]) if time_s else None
    each = duration(None if interval_s is None else interval_s * size)
    of = each if size == 1 else f"the worst or busiest of {count(size)} windows ({each})"
    began, ended = instant(started_at), instant(started_at, end_s)
    if began is None or ended is None:
        return f"0 to {duration(end_s)}, a bar is {of}"
    return f"{began:%Y-%m-%d %H:%M} to {ended:%Y-%m-%d %H:%M %z}, a bar is {of}"


def _known(values: Sequence[float | None]) -> list[float]:
    return [number for value in values if (number := known(value)) is not None]


def _note(series: _Series) -> Text:
    """Say the range of all windows, and in how many of them a target was exceeded."""
    values = _known(series.values)
    if not values:
        return Text(NOTHING, style=DIM)
    low, high = series.write(min(values)), series.write(max(values))
    note = Text((low if low == high else f"{low} to {high}") + series.unit)
    if series.target is not None:
        over = sum(value > series.target for value in values)
        if over:
            note.append(f"  {MARK} {count(over)}/{count(len(values))}", style=POOR)
    return note


def _draw(series: _Series, size: int) -> Text:
    shown = downsample(series.values, size, series.pick)
    values = _known(shown)
    low = min([series.low, *values])
    high = series.high if series.high is not None else max(values, default=0.0)
    line = Text().append(bars(shown, low, high), style=GOOD)
    if series.target is not None:
        for place, value in enumerate(shown):
            if value is not None and value > series.target:
                line.stylize(POOR, place, place + 1)
    return line
