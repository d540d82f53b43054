"""A run's timeline as its panels take it: small, rounded, whatever the document holds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING

from sagescale.document import as_keys
from sagescale.fleet import PoolCounts, resize
from sagescale.report.facts import interval_s, number, pool_names, setting
from sagescale.report.formats import instant, known, plain
from sagescale.report.reasons import in_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sagescale.document import ResultDocument, RunDocument

_PER_WINDOW = ("requests", "requests_forecast", "requests_forecast_p90")
_AS_IS = (
    "isl", "osl", "ttft_mean_ms", "ttft_p50_ms", "ttft_p99_ms", "itl_mean_ms", "itl_p50_ms", "itl_p99_ms",
    "attainment", "queued_prefill", "queued_decode", "running_decode", "kv_usage", "prefix_hit_rate",
)  # fmt: skip
_OF_POOLS = ("ready", "starting", "draining", "waiting", "target")
_STATES = _OF_POOLS[:4]


_LATEST_S = 8e12
"""What JavaScript's dates go up to."""


Column = list[float | None]


@dataclass(frozen=True, slots=True)
class RunFault:
    """What went wrong, in ms from the start; ``until`` where it lasted, ``pool`` where it struck one."""

    t: float
    until: float | None
    kind: str
    pool: str | None
    restarted: float


@dataclass(frozen=True, slots=True)
class RunBurst:
    """A decision between ticks, in ms from the start: found and target of each pool, reasons in words."""

    t: float
    pools: dict[str, tuple[int, int]]
    reasons: list[str]


class RunColumns:
    """What the panels of a run are drawn from.

    Attributes:
        t: ticks in ms from the start of the trace.
        start_ms: the time of day and date at which the trace started, as ms since 1970 on its own clock.
        step_ms: the interval, where it is known; numbers of requests are then per second.
        columns: values at the ticks, by name; ``POOL_found`` is a pool's size as its ticks found it, counted
            as targets are: without what drains.
        pools: instances of each pool by state as each decision left them, the initial ones first.
        gpus: that all pools use, as each decision left them, the initial ones first.
        reasons: each different list of reasons once, in words; ``reasons_at`` has each tick's place in it.
    """

    def __init__(self, document: ResultDocument, run: RunDocument) -> None:
        timeline, comparison = as_keys(run.timeline), document.comparison
        times = [known(value) for value in timeline.get("time_s") or ()]
        kept = [at for at, time_s in enumerate(times) if time_s is not None and abs(time_s) < _LATEST_S]
        step_s = interval_s(document, run)
        self.t = [_rounded(1000.0 * (times[place] or 0.0), 12) for place in kept]
        self.start_ms = _start_ms(document.trace.started_at)
        self.step_ms = None if step_s is None else 1000.0 * step_s
        self.names = pool_names(run)
        self.corrections = list(run.timeline.corrections)
        of_pools = [f"{name}_{part}" for name in self.names for part in _OF_POOLS]
        others = (*_AS_IS, *of_pools, *(f"{name}_correction" for name in self.corrections))
        units = dict.fromkeys(others, 1.0) | dict.fromkeys(_PER_WINDOW, step_s or 1.0)
        self.columns = {key: _column(timeline.get(key), kept, unit) for key, unit in units.items()}
        for name in self.names:
            asked = (self.columns[f"{name}_{state}"] for state in ("ready", "starting", "waiting"))
            self.columns[f"{name}_found"] = [
                known(sum(each or 0 for each in now)) for now in zip(*asked, strict=True)
            ]
        self.pools, self.gpus = _pools(document, run, kept)
        self.reasons, self.reasons_at = _reasons(timeline.get("reasons") or (), kept)
        self.target_ttft_ms = known(run.sla.target_ttft_ms)
        self.target_itl_ms = known(run.sla.target_mean_itl_ms)
        self.attainment_asked = None if comparison is None else known(comparison.attainment_asked)
        hours, bound = (known(run.horizon_s) or 0.0) / 3600.0, known(run.lower_bound_gpu_hours)
        self.bound_gpus = None if bound is None or hours <= 0 else known(_rounded(bound / hours, 4))
        self.budget = number(document, run, "max_gpu_budget")
        self.faults, self.bursts = _faults(run), _bursts(run)


def _start_ms(started_at: object) -> float | None:
    began = instant(started_at)
    if began is None or not 1970 < began.year < 2200:
        return None
    return began.replace(tzinfo=UTC).timestamp() * 1000.0


def _column(values: Sequence[object] | None, kept: Sequence[int], unit: float) -> Column:
    return [_value(values, place, unit) for place in kept]


def _value(values: Sequence[object] | None, place: int, unit: float) -> float | None:
    found = known(values[place]) if values is not None and place < len(values) else None  # type: ignore[arg-type]  # known takes whatever a document may hold
    return None if found is None else _rounded(found / unit, 5)


def _rounded(value: float, digits: int) -> float:
    """Keep so many significant digits; a whole number is written as one."""
    rounded = float(f"{value:.{digits}g}")
    if math.isinf(rounded):
        return value
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded


def _pools(
    document: ResultDocument, run: RunDocument, kept: Sequence[int]
) -> tuple[dict[str, dict[str, list[int]]], list[int]]:
    """Return each pool's instances by state and the GPUs all hold, at the start and after each decision.

    A timeline holds counts from just before each decision, in which an instance that starts within one
    interval is never seen starting. What holds until the next tick follows from the rules of scaling. A
    drained instance may stop at any time before the next tick, at once if it is idle.
    """
    timeline = as_keys(run.timeline)
    names = pool_names(run)
    budget = number(document, run, "max_gpu_budget")
    acts = setting(document, run, "no_operation") is not True
    each_has = (run.profile or document.profile).gpus_per_instance
    gpus = {name: _whole(each_has.get(name)) or 1 for name in names}
    now = {name: PoolCounts(_whole((run.initial or {}).get(name))) for name in names}
    history = [now]
    for place in kept:
        now = {
            name: PoolCounts(
                *(_whole(_value(timeline.get(f"{name}_{state}"), place, 1.0)) for state in _STATES)
            )
            for name in names
        }
        free = (1e9 if budget is None else budget) - sum(now[name].present * gpus[name] for name in names)
        for name in names:
            target = _value(timeline.get(f"{name}_target"), place, 1.0)
            if acts and target is not None:
                found = now[name]
                now[name] = resize(found, _whole(target)).applied(found, int(max(0.0, free) // gpus[name]))
                free -= gpus[name] * (now[name].present - found.present)
        history.append(now)
    by_state = {
        name: {state: [getattr(each[name], state) for each in history] for state in _STATES} for name in names
    }
    return by_state, [sum(each[name].present * gpus[name] for name in names) for each in history]


def _whole(value: object) -> int:
    return round(min(max(0.0, known(value) or 0.0), 1e9))  # type: ignore[arg-type]  # known takes whatever a document may hold


def _reasons(codes: Sequence[Sequence[str]], kept: Sequence[int]) -> tuple[list[list[str]], list[int]]:
    sets: dict[tuple[str, ...], int] = {}
    at = [
        sets.setdefault(tuple(map(str, codes[place] if place < len(codes) else ())), len(sets))
        for place in kept
    ]
    return [_words(each) for each in sets], at


def _words(codes: Sequence[str]) -> list[str]:
    """Each different reason once: both pools may have the same."""
    return [in_words(code) for code in dict.fromkeys(codes)]


def _faults(run: RunDocument) -> list[RunFault]:
    return [
        RunFault(
            t=1000.0 * time_s,
            until=None if (until_s := known(event.until_s)) is None else min(1000.0 * until_s, 8e15),
            kind=plain(event.kind).replace("_", " "),
            pool=event.pool if event.pool in pool_names(run) else None,
            restarted=known(event.restarted) or 0,
        )
        for event in (() if run.faults is None else run.faults.events)
        if (time_s := known(event.time_s)) is not None and abs(time_s) < _LATEST_S
    ]


def _bursts(run: RunDocument) -> list[RunBurst]:
    return [
        RunBurst(
            t=1000.0 * time_s,
            pools={
                **dict.fromkeys(pool_names(run), (0, 0)),
                **{name: (_whole(pool.found), _whole(pool.target)) for name, pool in burst.pools.items()},
            },
            reasons=_words(burst.reasons or ()),
        )
        for burst in run.surges or ()
        if (time_s := known(burst.time_s)) is not None and abs(time_s) < _LATEST_S
    ]
