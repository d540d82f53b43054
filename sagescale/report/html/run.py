"""What the panels of a run show, and what is told at each of its decisions."""

from __future__ import annotations

import math
from bisect import bisect_left
from itertools import chain, groupby, zip_longest
from typing import TYPE_CHECKING, Any

from sagescale.report.figures import DASHES, LARGEST, Axis, Clock, Event, Figure, Level, Panel, Series, Span
from sagescale.report.formats import count, figure, given, share
from sagescale.report.html.run_columns import RunColumns
from sagescale.report.reasons import MOVES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sagescale.document import ResultDocument, RunDocument
    from sagescale.report.html.run_columns import Column, RunBurst

_MANY = 300
"""Ticks from which marks are smaller."""
_DENSE = 600
"""Ticks from which lines are thinner."""
_LOG = 8.0
"""A latency that goes so many times over its target has a logarithmic axis."""


def run_figure(document: ResultDocument, run: RunDocument) -> Figure:
    """Return the panels of a run, row by row in two columns."""
    return _Drawn(RunColumns(document, run), hits=bool(run.timeline.prefix_hit_rate)).figure()


def _largest(*columns: Iterable[float | None]) -> float:
    top = max((value for column in columns for value in column if value is not None), default=0.0)
    return min(max(0.0, top), LARGEST)


class _Drawn:
    """The panels of one run; ``hits``: its engines have prefix caches."""

    def __init__(self, run: RunColumns, *, hits: bool) -> None:
        self.run, self.hits = run, hits
        ticks = run.t
        self.step = run.step_ms or (ticks[1] - ticks[0] if len(ticks) > 1 else 0) or (ticks or [0])[0] or 60e3
        self.end = ticks[-1] if ticks else self.step
        self.thin = 0.9 if len(ticks) > _DENSE else 1.6

    def figure(self) -> Figure:
        """Return all panels with their columns and what is told at each tick."""
        run = self.run
        latencies = (self._latency("ttft", run.target_ttft_ms), self._latency("itl", run.target_itl_ms))
        rows = zip_longest(map(self._instances, run.names), latencies)
        panels = [
            self._load(),
            self._attainment(),
            *(panel for row in rows for panel in row if panel is not None),
            self._gpus(),
            self._queues(),
            self._decisions(),
            self._share("kv", "KV memory in use", "mean of instances that decode", "in use", "kv_usage"),
            *([self._hits()] if self.hits else []),
            self._lengths(),
            self._corrections(),
        ]
        columns: dict[str, object] = {"t": run.t, "gpus": run.gpus}
        columns |= {
            key: values[0] if values and all(value == values[0] for value in values) else values
            for key, values in run.columns.items()
            if not key.endswith(("_ready", "_starting", "_draining", "_waiting"))
        }
        columns |= {
            f"{name}_{state}": values for name, pool in run.pools.items() for state, values in pool.items()
        }
        return Figure(panels=panels, columns=columns, clock=self._clock())

    def _line(self, name: str, y: str, colour: str = "ink", dash: str = "", **look: Any) -> Series:  # noqa: ANN401
        return Series(name, **{"x": "t", "width": self.thin, **look}, y=y, colour=colour, dash=dash)

    def _sizes(self, pool: str) -> tuple[Column, Column]:
        """Return a pool's target and the size found at each tick."""
        return self.run.columns[f"{pool}_target"], self.run.columns[f"{pool}_found"]

    def _size(self, few: float, many: float) -> float:
        return many if len(self.run.t) > _MANY else few

    def _load(self) -> Panel:
        series = [
            self._line("forecast", "requests_forecast", "blue", DASHES[1], x="next"),
            self._line(
                "p90", "requests_forecast_p90", "blue", x="next", width=0.8, opacity=0.5, fill="previous"
            ),
            self._line("observed", "requests"),
        ]
        unit = "requests/s" if self.run.step_ms is not None else "requests a window"
        return Panel("load", "Load", unit, series, y=Axis(zero=True))

    def _attainment(self) -> Panel:
        values, asked = self.run.columns["attainment"], self.run.attainment_asked
        low = min((max(0.0, value) for value in values if value is not None), default=1.0)
        floor = min(0.9, math.floor(10 * min(low, 1.0)) / 10)
        below = [i for i, value in enumerate(values) if None not in (value, asked) and value < asked]  # type: ignore[operator]  # both known
        size = self._size(7, 5)
        series = [
            self._line("attained", "attainment", percent=True),
            self._line("below asked", "attainment", "vermillion", at=below, mark="triangle-down", size=size),
        ]
        return Panel(
            "attainment",
            "Attainment",
            "share of arrivals within both targets",
            series,
            levels=[] if asked is None else [Level(asked, f"asked {share(asked)}", below=True)],
            y=Axis(range=(floor - 0.04 * (1 - floor), 1 + 0.08 * (1 - floor)), format=".0%"),
        )

    def _latency(self, name: str, target: float | None) -> Panel:
        mean, p50, p99 = (self.run.columns[f"{name}_{part}_ms"] for part in ("mean", "p50", "p99"))
        top = _largest(p99, mean)
        over = [i for i, value in enumerate(p99) if None not in (value, target) and value > target]  # type: ignore[operator]  # both known
        axis, note = Axis(range=(0.0, 1.18 * max(top, min(target or 0.0, LARGEST)) or 1.0)), ""
        if top > _LOG * (target or top):
            values = [v for v in (*p50, *mean, *p99, target) if v is not None and v > 0]
            if values:
                low, high = max(min(values), 1 / LARGEST), min(max(values), LARGEST)
                axis = Axis(log=True, range=(low / 1.3, 1.5 * high))
            note = "log scale"
        size = self._size(7, 4)
        series = [
            self._line("p99", f"{name}_p99_ms"),
            self._line("mean", f"{name}_mean_ms", "blue", DASHES[1]),
            self._line("p50", f"{name}_p50_ms", "green", DASHES[2]),
            # A shape besides the colour, as ▲ is in the text.
            self._line(
                "above target", f"{name}_p99_ms", "vermillion", at=over, mark="triangle-up", size=size
            ),
        ]
        levels = [] if target is None else [Level(target, f"target {given(target)} ms")]
        return Panel(name, name.upper(), "ms, of arrivals", series, levels=levels, y=axis, note=note)

    def _instances(self, pool: str) -> Panel:
        run = self.run
        states = [("ready", "blue", ""), ("starting", "orange", "/"), ("draining", "purple", ".")]
        if any(run.pools[pool]["waiting"]):
            states.append(("waiting", "grey", "x"))
        began = run.pools[pool]["ready"][0]
        top = _largest(run.columns[f"{pool}_target"], [began])
        bursts = [burst for burst in run.bursts if burst.pools[pool][1] != burst.pools[pool][0]]
        crashes = [fault.t for fault in run.faults if fault.pool == pool and fault.until is None]
        dense = len(run.t) > _DENSE
        series = [
            *(
                Series(
                    state, "edges", f"{pool}_{state}", colour=colour, width=0.6, steps=True, fill="stack",
                    pattern=pattern,
                )
                for state, colour, pattern in states
            ),
            Series(
                "decided", "edges", f"{pool}_target", first=began, steps=True,
                dash="" if dense else "4px,2px", width=0.5 if dense else 1.4,
            ),
            Series(
                "emergency", [burst.t for burst in bursts], [burst.pools[pool][1] for burst in bursts],
                mark="triangle-up-open", edge=1.2,
            ),
            Series("fault", crashes, 0.06 * (top or 1.0), mark="x", size=8, colour="vermillion", edge=1),
        ]  # fmt: skip
        axis = Axis(zero=True, format="d", step=1 if top <= 5 else None)
        return Panel(pool, f"{pool.capitalize()} instances", "", series, y=axis, explained=True)

    def _gpus(self) -> Panel:
        run = self.run
        top = 1.25 * max(_largest(run.gpus), min(run.bound_gpus or 0.0, LARGEST)) or 1.0
        levels = []
        if run.bound_gpus is not None:
            words = f"lower bound, on average {figure(run.bound_gpus)}"
            levels.append(Level(run.bound_gpus, words, "green", dash="2px,2px"))
        near = run.budget is not None and run.budget <= 2.5 * top
        note = ""
        if run.budget is not None:
            words = f"budget {given(run.budget)}"
            note = "" if near else f"{words}, far above"
            levels += [Level(run.budget, words)] if near else []
        series = self._line("in use", "gpus", x="edges", steps=True, fill="zero", fill_colour="grey")
        high = 1.18 * max(run.budget or 0.0, top / 1.25) if near else top
        axis = Axis(range=(0.0, high), format="~r")
        return Panel("gpus", "GPUs", "in use", [series], levels=levels, y=axis, note=note)

    def _queues(self) -> Panel:
        if "aggregated" in self.run.names:
            series = [
                self._line("running", "running_decode", "grey", width=1.2),
                self._line("waiting", "queued_prefill", "vermillion", DASHES[2], width=2.0),
            ]
        else:
            series = [
                self._line("running in decode", "running_decode", "grey", width=1.2),
                self._line("waiting for prefill", "queued_prefill", "blue", DASHES[1]),
                self._line("waiting for decode", "queued_decode", "vermillion", DASHES[2], width=2.0),
            ]
        return Panel("queues", "Queues", "requests", series, y=Axis(zero=True))

    def _decisions(self) -> Panel:
        """Mark moves in a row a pool, the first on top, and where reasons change in one below the first."""
        run = self.run
        rows = {pool: len(run.names) - 1 - i for i, pool in enumerate(run.names)}
        middle = len(run.names) - 1.5
        moved: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
        for pool, row in rows.items():
            for at, target, found in zip(run.t, *self._sizes(pool), strict=True):
                if move := (target or 0) - (found or 0):
                    moved[move > 0].append((at, row))
        why = [" ".join(r for r in run.reasons[at] if r not in MOVES) for at in run.reasons_at]
        changed = [run.t[i] for i, words in enumerate(why) if words and (i == 0 or words != why[i - 1])]
        lasting: list[float | None] = []
        for given_any, ticks in groupby(zip(run.t, why, strict=True), lambda tick: bool(tick[1])):
            times = [at for at, _ in ticks]
            lasting += [times[0], times[-1], None] if given_any else []
        bursts = [
            (burst.t, row + 0.3)
            for burst in run.bursts
            for pool, row in rows.items()
            if burst.pools[pool][1] != burst.pools[pool][0]
        ]
        many, size = len(run.t) > _MANY, self._size(9, 6)

        def dots(name: str, points: list[tuple[float, float]], mark: str, **look: Any) -> Series:  # noqa: ANN401
            return Series(name, [x for x, _ in points], [y for _, y in points], mark=mark, **look)

        series = [
            Series("for as long", lasting, middle, colour="purple", opacity=0.6, width=1, listed=False),
            dots("up", moved[True], "triangle-up", size=size, colour="blue"),
            dots("down", moved[False], "triangle-down", size=size, colour="orange"),
            Series(
                "why", changed, middle, mark="diamond-open", size=size - 1, colour="purple",
                opacity=0.5 if many else 1.0, edge=0.7 if many else 1.5,
            ),
            dots("emergency", bursts, "triangle-up-open", size=size - 2, colour="blue", edge=1.2),
            Series(
                "steady", [0, self.end, None] * len(rows), [row for row in rows.values() for _ in range(3)],
                colour="grey", width=1, dash="1px,3px", listed=False,
            ),
        ]  # fmt: skip
        axis = Axis(
            range=(-0.6, len(rows) - 0.4),
            ticks=[*((row, pool) for pool, row in rows.items()), (middle, "why")],
            grid=False,
            # Longer names have no room beside the panel.
            inside=any(len(pool) > 8 for pool in rows),
        )
        return Panel("decisions", "Decisions", "hover for reasons", series, y=axis, explained=True)

    def _share(self, name: str, title: str, unit: str, line: str, column: str) -> Panel:
        top = min(1.05, max(1.18 * _largest(self.run.columns[column]), 0.05))
        series = [self._line(line, column, percent=True)]
        return Panel(name, title, unit, series, y=Axis(range=(0.0, top), format=".0%"))

    def _hits(self) -> Panel:
        unit = "share of prompts' tokens, of arrivals"
        return self._share("hits", "Prefix cache hits", unit, "hit", "prefix_hit_rate")

    def _lengths(self) -> Panel:
        series = [self._line("ISL", "isl", "blue"), self._line("OSL", "osl", "orange", DASHES[1])]
        return Panel("lengths", "Lengths", "mean tokens a request", series, y=Axis(zero=True))

    def _corrections(self) -> Panel:
        hues = ("blue", "orange", "green")
        series = [
            self._line(pool, f"{pool}_correction", hues[i % len(hues)], DASHES[i % len(DASHES)])
            for i, pool in enumerate(self.run.corrections)
        ]
        one = Level(1.0, "", "muted", dash="2px,2px")
        unit = "measured over expected latency"
        return Panel("corrections", "Corrections", unit, series, levels=[one], y=Axis(zero=True))

    def _clock(self) -> Clock:
        run = self.run
        texts: dict[tuple[tuple[str, ...], ...], int] = {}
        text_at = [texts.setdefault(self._told(i), len(texts)) for i in range(len(run.t))]
        return Clock(
            start_ms=run.start_ms or 0.0,
            step_ms=self.step,
            spans=[
                Span(begin_ms=fault.t, end_ms=fault.until, words=fault.kind)
                for fault in run.faults
                if fault.until is not None
            ],
            events=list(self._events()),
            texts=list(texts),
            text_at=text_at,
        )

    def _told(self, i: int) -> tuple[tuple[str, ...], ...]:
        """Return a decision and its reasons, a line each: words and names of columns in turn."""
        run = self.run
        unit = " requests/s" if run.step_ms is not None else " requests"
        expects = [("no load expected", "")]
        if run.columns["requests_forecast"][i] is not None:
            p90 = run.columns["requests_forecast_p90"][i] is not None
            further = (f"{unit}, p90 ", "requests_forecast_p90") if p90 else (unit, "")
            expects = [("expects ", "requests_forecast"), further]
        sizes = [
            part
            for place, pool in enumerate(run.names)
            for part in self._move(pool, i, ", " if place else "")
        ]
        corrections = [
            (f"{', ' if place else 'corrections: '}{pool} ", f"{pool}_correction")
            for place, pool in enumerate(run.corrections)
        ]
        whys = [[(f"• {why}", "")] for why in run.reasons[run.reasons_at[i]]]
        return tuple(tuple(chain.from_iterable(line)) for line in (sizes, expects, corrections, *whys))

    def _move(self, pool: str, i: int, before: str) -> list[tuple[str, str]]:
        target, found = self._sizes(pool)
        if target[i] == found[i]:
            return [(f"{before}{pool} stays at ", f"{pool}_target")]
        return [(f"{before}{pool} ", f"{pool}_found"), (" → ", f"{pool}_target")]

    def _events(self) -> Iterable[Event]:
        """Yield each burst at the tick nearest to it, each fault at the one that comes after it."""
        run, last = self.run, len(self.run.t) - 1
        if not run.t:
            return
        for burst in run.bursts:
            tick = min(bisect_left(run.t, burst.t), last)
            tick -= tick > 0 and burst.t - run.t[tick - 1] < run.t[tick] - burst.t
            after = f" between decisions: {_emergency(burst)}"
            yield Event(tick=tick, before="▲ ", time_ms=burst.t, after=after)
        for fault in run.faults:
            if 0 < fault.t <= run.t[last]:
                restarted = f", {count(fault.restarted)} requests restarted" if fault.restarted else ""
                yield Event(tick=bisect_left(run.t, fault.t), before=f"× {fault.kind}{restarted}")


def _emergency(burst: RunBurst) -> str:
    moves = [
        f"{pool} {count(found)} → {count(target)}"
        for pool, (found, target) in burst.pools.items()
        if found != target
    ]
    return "; ".join([", ".join(moves), *(why for why in burst.reasons if why not in MOVES)])
