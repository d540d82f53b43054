"""A run's timeline as the page's scripts take it: small, rounded, whatever the document holds."""

from __future__ import annotations

import math
from datetime import UTC
from typing import TYPE_CHECKING, Any

from sagescale.document import as_keys
from sagescale.fleet import PoolCounts, resize
from sagescale.report.facts import interval_s, number, pool_names, setting
from sagescale.report.formats import instant, known, plain
from sagescale.report.reasons import in_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sagescale.document import ResultDocument, RunDocument

__all__ = ["run_columns"]

_PER_WINDOW = ("requests", "requests_forecast", "requests_forecast_p90")
_AS_IS = (
    "isl", "osl", "ttft_mean_ms", "ttft_p50_ms", "ttft_p99_ms", "itl_mean_ms", "itl_p50_ms", "itl_p99_ms",
    "attainment", "queued_prefill", "queued_decode", "running_decode", "kv_usage", "prefix_hit_rate",
)  # fmt: skip
_OF_POOLS = ("ready", "starting", "draining", "waiting", "target")
_STATES = _OF_POOLS[:4]


_LATEST_S = 8e12
"""What JavaScript's dates go up to."""


def run_columns(document: ResultDocument, run: RunDocument) -> dict[str, object]:
    """Return what the panels of a run are drawn from.

    Times are ms from the start of the trace, ``step_ms`` the interval, ``start_ms`` the time of day and date
    at which the trace started, as ms since 1970 on its own clock; null where that is not known. ``columns``
    are lists of one length, or one value where all are equal; numbers of requests are per second where the
    interval is known.
    ``names`` are the pools and ``corrections`` the correction factors; ``pools`` are the states that each
    decision left, the initial ones first, so one entry longer.
    ``reasons`` has each different list of reasons once, and a tick's index into them.
    """
    timeline = as_keys(run.timeline)
    times = [known(value) for value in timeline.get("time_s") or ()]
    kept = [place for place, time_s in enumerate(times) if time_s is not None and abs(time_s) < _LATEST_S]
    step_s = interval_s(document, run)
    of_pools = [f"{name}_{part}" for name in pool_names(run) for part in _OF_POOLS]
    corrections = list(run.timeline.corrections)
    of_corrections = [f"{name}_correction" for name in corrections]
    columns = {key: _column(timeline.get(key), kept, 1.0) for key in (*_AS_IS, *of_pools, *of_corrections)}
    for key in _PER_WINDOW:
        columns[key] = _column(timeline.get(key), kept, step_s or 1.0)
    sla = run.sla
    hours = (known(run.horizon_s) or 0.0) / 3600.0
    bound = known(run.lower_bound_gpu_hours)
    comparison = document.comparison
    return {
        "t": [_rounded(1000.0 * (times[place] or 0.0), 12) for place in kept],
        "start_ms": _start_ms(document.trace.started_at),
        "step_ms": None if step_s is None else 1000.0 * step_s,
        "per_second": step_s is not None,
        "names": pool_names(run),
        "corrections": corrections,
        "columns": columns,
        "pools": _pools(document, run, kept),
        "reasons": _reasons(timeline.get("reasons") or (), kept),
        "target_ttft_ms": known(sla.target_ttft_ms),
        "target_itl_ms": known(sla.target_mean_itl_ms),
        "attainment_asked": None if comparison is None else known(comparison.attainment_asked),
        "bound_gpus": None if bound is None or hours <= 0 else known(_rounded(bound / hours, 4)),
        "budget": number(document, run, "max_gpu_budget"),
        "faults": _faults(run),
        "surges": _surges(run),
    }


def _start_ms(started_at: object) -> float | None:
    began = instant(started_at)
    if began is None or not 1970 < began.year < 2200:
        return None
    return began.replace(tzinfo=UTC).timestamp() * 1000.0


def _column(values: Sequence[object] | None, kept: Sequence[int], unit: float) -> object:
    numbers = [_value(values, place, unit) for place in kept]
    return numbers[0] if numbers and all(value == numbers[0] for value in numbers) else numbers


def _value(values: Sequence[object] | None, place: int, unit: float) -> float | None:
    found = known(values[place]) if values is not None and place < len(values) else None  # type: ignore[arg-type]  # known takes whatever a document may hold
    return None if found is None else _rounded(found / unit, 5)


def _rounded(value: float, digits: int) -> float:
    """Keep so many significant digits; a whole number is written as one."""
    rounded = float(f"{value:.{digits}g}")
    if math.isinf(rounded):
        return value
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded


def _pools(document: ResultDocument, run: RunDocument, kept: Sequence[int]) -> dict[str, object]:
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
    return {
        **{
            name: {state: [getattr(each[name], state) for each in history] for state in _STATES}
            for name in names
        },
        "gpus": [sum(each[name].present * gpus[name] for name in names) for each in history],
    }


def _whole(value: object) -> int:
    return round(min(max(0.0, known(value) or 0.0), 1e9))  # type: ignore[arg-type]  # known takes whatever a document may hold


def _reasons(codes: Sequence[Sequence[str]], kept: Sequence[int]) -> dict[str, list[Any]]:
    sets: dict[tuple[str, ...], int] = {}
    at = [
        sets.setdefault(tuple(map(str, codes[place] if place < len(codes) else ())), len(sets))
        for place in kept
    ]
    return {"sets": [_words(each) for each in sets], "at": at}


def _words(codes: Sequence[str]) -> list[str]:
    """Each different reason once: both pools may have the same."""
    return [in_words(code) for code in dict.fromkeys(codes)]


def _faults(run: RunDocument) -> list[dict[str, object]]:
    """Return what went wrong and when, for marks on the panels."""
    return [
        {
            "t": 1000.0 * time_s,
            "until": None if (until_s := known(event.until_s)) is None else min(1000.0 * until_s, 8e15),
            "kind": plain(event.kind).replace("_", " "),
            "pool": event.pool if event.pool in pool_names(run) else None,
            "restarted": known(event.restarted) or 0,
        }
        for event in (() if run.faults is None else run.faults.events)
        if (time_s := known(event.time_s)) is not None and abs(time_s) < _LATEST_S
    ]


def _surges(run: RunDocument) -> list[dict[str, object]]:
    """Return the decisions between ticks: found and target of each pool, and reasons in words."""
    return [
        {
            "t": 1000.0 * time_s,
            **{name: [0, 0] for name in pool_names(run)},
            **{name: [_whole(pool.found), _whole(pool.target)] for name, pool in surge.pools.items()},
            "reasons": _words(surge.reasons or ()),
        }
        for surge in run.surges or ()
        if (time_s := known(surge.time_s)) is not None and abs(time_s) < _LATEST_S
    ]
