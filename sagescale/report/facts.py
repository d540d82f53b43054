"""A run in words, a list of parts a line: what the terminal prints and the page shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sagescale.report.formats import (
    MARK,
    NOTHING,
    Poor,
    above,
    count,
    duration,
    figure,
    given,
    instant,
    known,
    latency_unit,
    plain,
    plural,
    share,
    signed,
)
from sagescale.report.reasons import LIMITS, causes, limits, times

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sagescale.document import (
        FaultsResult,
        ForecastScore,
        HitsByAge,
        ItlPoint,
        Latency,
        MissSplit,
        PrefixHits,
        ResultDocument,
        RunDocument,
        TraceInfo,
        TtftPoint,
    )

CAUSES = ("faults", "forecast", "startup", "whole_instances", "policy")
"""What a request can miss its targets by."""

GOOD_ATTAINMENT = 0.99
"""From this attainment on a run counts as good: at most one request in a hundred misses, as p99 puts it."""

PERCENTILES = ("mean", "p50", "p90", "p95", "p99", "max")
SURFACE_COLUMNS = ("tokens", "profile", "learned", "real", "error of learned")

_NO_FORECAST = {"none", "peak", "cheapest"}
"""What stands in place of a predictor where there is none."""
_MOST_CAUSES = 5
_YOUNG_S = 120.0
_HAPPENED = {
    "crash": ("crash", "crashes"),
    "failed_start": ("failed start", "failed starts"),
    "stuck_start": ("stuck start", "stuck starts"),
    "start_timeout": ("start given up", "starts given up"),
    "slow_start": ("slow start", "slow starts"),
    "cold_start": ("cold start", "cold starts"),
    "no_such_instance": ("crash of no instance there", "crashes of no instance there"),
}
_LASTED = {
    "no_gpus": "no GPUs for",
    "metrics_vanish": "no metrics for",
    "metrics_freeze": "metrics frozen for",
    "metrics_lag": "metrics late for",
}


def setting(document: ResultDocument, run: RunDocument, key: str) -> object:
    """Return a configuration value of the run: its own, else the document's."""
    return (run.config or {}).get(key, (document.config or {}).get(key))


def number(document: ResultDocument, run: RunDocument, key: str) -> float | None:
    """Return a configuration value that is a number, else None."""
    value = setting(document, run, key)
    return known(value) if isinstance(value, int | float) else None


def interval_s(document: ResultDocument, run: RunDocument) -> float | None:
    """Return seconds between ticks: as configured, else as found (the first tick ends the first window)."""
    configured = number(document, run, "adjustment_interval_sec")
    time_s = run.timeline.time_s
    first = known(time_s[0]) if time_s else None
    return next((each for each in (configured, first) if each is not None and each > 0), None)


class LatencyRow(NamedTuple):
    """A distribution in one unit, which its name has: each of ``PERCENTILES``, marked above the target."""

    name: str
    values: list[str]
    target: str


def latencies(run: RunDocument) -> list[LatencyRow]:
    """Return TTFT, ITL and E2E in the unit that suits the largest value of each."""
    sla = run.sla
    return [
        _latency_row("TTFT", run.ttft_ms, sla.target_ttft_ms),
        _latency_row("ITL", run.itl_ms, sla.target_mean_itl_ms),
        _latency_row("E2E", run.e2e_ms, None),
    ]


def _latency_row(name: str, latency: Latency, target_ms: float | None) -> LatencyRow:
    values = [known(getattr(latency, name)) for name in PERCENTILES]
    target = known(target_ms)
    unit, unit_ms = latency_unit(max((value for value in values if value is not None), default=None))
    cells = []
    for value in values:
        shown = figure(None if value is None else value / unit_ms)
        cells.append(Poor(f"{MARK} {shown}") if above(value, target) else shown)
    return LatencyRow(f"{name}, {unit}", cells, given(None if target is None else target / unit_ms))


def p99_tiles(run: RunDocument) -> list[tuple[str, str, str, bool]]:
    """Return label, value, target and whether it is above that, of the headline's p99 of TTFT and ITL."""
    sla = run.sla
    itl_note = None if sla.itl_statistic is None else f"{sla.itl_name}: target {given(sla.target_itl_ms)} ms"
    return [
        _p99_tile("TTFT", run.ttft_ms.p99, sla.target_ttft_ms),
        _p99_tile("ITL", run.itl_ms.p99, sla.target_mean_itl_ms, itl_note),
    ]


def _p99_tile(
    name: str, p99_ms: float | None, target_ms: float | None, note: str | None = None
) -> tuple[str, str, str, bool]:
    value, target = known(p99_ms), known(target_ms)
    unit, unit_ms = latency_unit(value)
    shown = NOTHING if value is None else f"{figure(value / unit_ms)} {unit}"
    in_unit = given(None if target is None else target / unit_ms)
    return f"{name} p99", shown, note or f"target {in_unit} {unit}", above(value, target)


def uses_predictor(run: RunDocument) -> bool:
    """Say whether a predictor, or the truth, stood behind the run's decisions."""
    return run.predictor not in _NO_FORECAST


def pool_names(run: RunDocument) -> tuple[str, ...]:
    """Return the pools that a run's timeline tells of, in its order."""
    return tuple(run.timeline.pools)


def pools_in_words(run: RunDocument, values: Mapping[str, float] | None) -> str:
    """Write a value of each pool, ``3 prefill, 5 decode``."""
    return ", ".join(f"{count((values or {}).get(name))} {name}" for name in pool_names(run))


def gpu_hours_by_pool(run: RunDocument) -> str:
    """Write the GPU-hours of each pool, ``prefill 3.1, decode 8.2``."""
    return ", ".join(f"{name} {figure(run.gpu_hours.pools.get(name))}" for name in pool_names(run))


def began_parts(trace: TraceInfo) -> list[str]:
    """Say when the first request came, where that is known: ``from 2026-11-24 09:00 +0100``."""
    began = instant(trace.started_at)
    return [] if began is None else [f"from {began:%Y-%m-%d %H:%M %z}".rstrip()]


def trace_parts(trace: TraceInfo) -> list[str]:
    """Say what was replayed: path, requests, length and what was made of it."""
    return [
        plain(trace.path),
        plural(trace.requests, "request"),
        duration(trace.duration_s),
        *began_parts(trace),
        *map(plain, trace.transform),
    ]


def planner(document: ResultDocument, run: RunDocument) -> list[str]:
    """Say what decided: policy, predictor, interval and what else was set."""
    startup, first_token = setting(document, run, "startup_delay_s"), setting(document, run, "first_token")
    if setting(document, run, "serving") == "aggregated":
        first_token = None  # an instance makes all of them
    return [
        f"{plain(run.policy or NOTHING)} policy",
        f"{plain(run.predictor or NOTHING)} predictor",
        f"decides every {duration(interval_s(document, run))}",
        "" if startup is None else f"startup {_delay(startup)}",
        f"starts at {pools_in_words(run, run.initial)}",
        "" if first_token is None else f"first token from {plain(first_token)}",
        *(f"{plain(key)}={_as_set(value)}" for key, value in (run.config or {}).items()),
    ]


def _as_set(value: object) -> str:
    """Write a value as ``--set`` takes it."""
    return str(value).lower() if isinstance(value, bool) else "null" if value is None else plain(value)


def engines(run: RunDocument) -> list[str]:
    """Say what engines did that take one step after the other, a line each; nothing without any."""
    found = run.engines
    if found is None:
        return []
    gaps = found.gap_ms
    lines = [
        f"gaps between tokens p50 {figure(gaps.p50)}, p99 {figure(gaps.p99)}, largest {figure(gaps.max)} ms"
    ]
    if found.preemptions:
        lines.append(
            f"{plural(found.preemptions, 'pre-emption')} of {plural(found.preempted_requests, 'request')}, "
            f"{plural(found.recomputed_tokens, 'token')} computed again"
        )
    if found.full_memory_s:
        lines.append(f"KV memory full for {duration(found.full_memory_s)} of instances' time")
    if found.prefix is not None:
        lines.append(f"prefix caches hit {share(found.prefix.hit_rate)} of the prompts' tokens")
        lines.extend(_hits_by_age(found.prefix))
        lines.extend(_drained_caches(found.prefix))
    return lines


def _hits_by_age(prefix: PrefixHits) -> list[str]:
    """Say what newly started instances hit, where some did."""
    ages = prefix.by_age or []
    young = [one for one in ages if one.until_s is not None and one.until_s <= _YOUNG_S]
    if not young or len(young) == len(ages):
        return []
    old = [one for one in ages if one not in young]
    rates = [share(_hit_rate(group)) for group in (young, old)]
    return [f"{rates[0]} on instances ready for less than {duration(_YOUNG_S)}, {rates[1]} on others"]


def _hit_rate(ages: Sequence[HitsByAge]) -> float | None:
    asked, hit = (
        sum(known(getattr(one, name)) or 0.0 for one in ages) for name in ("asked_tokens", "hit_tokens")
    )
    return hit / asked if asked else None


def _drained_caches(prefix: PrefixHits) -> list[str]:
    """Say what scale-downs cost."""
    lost = prefix.scale_downs
    if lost is None:
        return []
    drained = (
        f"scale-downs drained {plural(lost.instances, 'instance')} with {count(lost.cached_tokens)} tokens"
    )
    again = f"{count(lost.asked_again_tokens)} of them asked for again and computed anew"
    rates = ""
    if known(lost.hit_rate_before) is not None and known(lost.hit_rate_after) is not None:  # else none came
        before, after = share(lost.hit_rate_before), share(lost.hit_rate_after)
        rates = f"; hit rate {before} in the {duration(lost.within_s)} before, {after} after"
    return [f"{drained} cached, {again}{rates}"]


def sessions(document: ResultDocument, run: RunDocument) -> list[str]:
    """Say what became of the sessions; nothing where turns wait for nobody."""
    found = run.sessions
    if found is None:
        return []
    times = found.finish_s
    open_loop = setting(document, run, "open_loop") is True
    alive = number(document, run, "concurrent_sessions")
    return [
        f"{count(found.finished)} finished of {plural(found.started, 'session')} started",
        f"{count(found.total)} in all" if found.total != found.started else "",
        f"{share(found.attainment)} with every request within both targets",
        f"time to finish p50 {_seconds(times.p50)}, p90 {_seconds(times.p90)}, p99 {_seconds(times.p99)}",
        "open loop: turns as recorded" if open_loop else "turns wait for answers",
        "" if alive is None else f"{count(alive)} at a time",
    ]


def _seconds(value: float | None) -> str:
    return NOTHING if known(value) is None else duration(value)


def requests(run: RunDocument) -> list[str]:
    """Say what became of the requests."""
    found = run.requests
    unfinished = f"{count(found.unfinished)} unfinished"
    return [
        f"{count(found.arrived)} arrived",
        f"{count(found.completed)} completed",
        Poor(f"{MARK} {unfinished}, each a miss") if known(found.unfinished) else unfinished,
        *(
            Poor(f"{count(more)} {words}")
            for more, words in (
                (found.rejected, "rejected as too large"),
                (found.timed_out, "timed out"),
                (found.restarted, "restarted"),
                (found.never_arrived, "never arrived: their session had ended; each a miss"),
            )
            if known(more)
        ),
    ]


def scaling(run: RunDocument) -> list[str]:
    """Say how often the pools moved."""
    found, reasons = run.scaling, run.reasons or {}
    up, down = count(times(reasons, "scale_up")), count(times(reasons, "scale_down"))
    emergencies = known(found.surges)
    return [
        plural(found.ticks, "tick"),
        f"{plural(found.changes, 'change')} (up in {up}, down in {down})",
        f"{plural(emergencies, 'emergency scale-up')} between decisions" if emergencies else "",
        f"launched {pools_in_words(run, found.launched)}",
    ]


def helping(misses: MissSplit) -> list[str]:
    """Causes of misses without which more would have been missed."""
    return [cause for cause in CAUSES if (getattr(misses, cause) or 0) < 0]


def why(document: ResultDocument, run: RunDocument) -> list[str]:
    """Say what most often shaped a size."""
    parts = []
    for found, code, words in causes(run.reasons or {}, _MOST_CAUSES):
        if code == "sized_for_misses":
            ticks = run.scaling.ticks
            given = run.timeline.reasons
            decided = (
                sum(code in each and LIMITS.keys().isdisjoint(each) for each in given) if given else found
            )
            at = f"all {count(ticks)}" if known(ticks) == decided else f"{count(decided)} of {count(ticks)}"
            kept = share(number(document, run, "target_attainment"), 2).replace(".00", "")
            if decided:
                parts.append(f"sized to keep {kept} at {at} decisions")
        else:
            parts.append(f"{count(found)}× {words}")
    return parts


def forecast(document: ResultDocument, run: RunDocument, *, covered: bool = False) -> list[str]:
    """Say how far the forecasts were off, of what was scored; ``covered``: and how often the p90 held."""
    every_s, scores = interval_s(document, run), run.forecast

    def p90(score: ForecastScore) -> str:
        under = known(score.coverage_p90)
        return "" if under is None or not covered else f", {share(under, 0)} at or under p90"

    parts = [
        f"{name} {share(score.mape, 1)} (bias {signed(score.bias)}{unit}{p90(score)})"
        for name, score, unit in (
            ("requests", scores.requests, " a window" if every_s is None else f" per {duration(every_s)}"),
            ("ISL", scores.isl, " tokens"),
            ("OSL", scores.osl, " tokens"),
        )
        if known(score.mape) is not None or known(score.bias) is not None
    ]
    return [f"MAPE {parts[0]}", *parts[1:]] if parts else []


def happened(faults: FaultsResult) -> list[str]:
    """Say what went wrong: how often, or for how long in all."""
    counts = faults.counts or {}
    parts = [plural(counts[kind], one, many) for kind, (one, many) in _HAPPENED.items() if counts.get(kind)]
    for kind, words in _LASTED.items():
        if counts.get(kind):
            spans = [event for event in faults.events if event.kind == kind]
            lasted_s = [known(event.until_s) for event in spans]
            together = sum(
                until_s - (event.time_s or 0.0)
                for event, until_s in zip(spans, lasted_s, strict=True)
                if until_s
            )
            parts.append(f"{words} {duration(together)}")
    known_kinds = {*_HAPPENED, *_LASTED}
    parts += [f"{count(found)} {plain(kind)}" for kind, found in counts.items() if kind not in known_kinds]
    return parts


def fault_costs(run: RunDocument) -> list[list[str]]:
    """Say in lines what went wrong and what it cost; nothing where nothing did."""
    faults = run.faults
    if not faults or not faults.events:
        return []
    missed, lost = known(faults.restarted_missed), known(faults.gpu_hours_lost.total)
    lines = [
        happened(faults),
        [
            f"{plural(known(run.requests.restarted), 'request')} restarted",
            Poor(f"{MARK} {count(missed)} of them missed") if missed else "",
            f"{figure(lost)} GPU-hours lost in starts" if lost else "",
        ],
    ]
    without, attained = faults.without, share(run.sla.attainment)
    if without is not None:
        lines.append(
            [
                f"attainment {attained}, without faults {share(without.attainment)}",
                f"GPU-hours {figure(run.gpu_hours.total)}, without {figure(without.gpu_hours)}",
            ]
        )
    return lines


def surface_rows(run: RunDocument) -> list[tuple[str, list[list[str]]]]:
    """Return titled rows of cells under ``SURFACE_COLUMNS``; none where the profile is the real one."""
    found = run.surfaces
    if found is None:
        return []
    return [
        ("TTFT, ms", [_surface(figure(point.isl), point) for point in found.ttft]),
        (
            "ITL, ms",
            [
                _surface(f"{count(point.requests)} x {figure(point.context_tokens)}", point)
                for point in found.itl
            ],
        ),
    ]


def why_missed(document: ResultDocument, run: RunDocument) -> str:
    """Say which side of the SLA failed and what kept the pools from growing; empty where nothing failed."""
    attainment = known(run.sla.attainment)
    if attainment is None or attainment >= 1:
        return ""
    limited = ", ".join(_limited(document, run)) or "no budget or instance limit was in the way"
    return f"{_failed_most(run)}; {limited}."


def _failed_most(run: RunDocument) -> str:
    sla = run.sla
    ttft, itl = known(sla.ttft_attainment), known(sla.itl_attainment)
    if ttft is None or itl is None:
        return "Not every request was within its targets"
    missed = {"TTFT": share(1.0 - ttft), "ITL": share(1.0 - itl)}
    if ttft == itl:
        return f"TTFT and ITL fail alike: each is missed by {missed['ITL']} of requests"
    worse, better = ("TTFT", "ITL") if ttft < itl else ("ITL", "TTFT")
    return f"{worse} fails most: {missed[worse]} of requests miss it, {missed[better]} miss {better}"


def _limited(document: ResultDocument, run: RunDocument) -> Iterable[str]:
    """Say what kept the pools from growing, as far as the planner's reasons tell."""
    reasons = run.reasons or {}
    of = f"of {plural(run.scaling.ticks, 'decision')}"
    for code, words in (
        ("target_ttft_unreachable", "a lone prompt of mean length exceeds the TTFT target"),
        ("sla_infeasible", "no decode point meets the ITL target"),
    ):
        if found := times(reasons, code):
            yield f"{words} in {count(found)} {of}"
    for found, key in limits(reasons):
        yield f"{key} {count(number(document, run, key))} cut the sizes in {count(found)} {of}"


def _surface(place: str, point: TtftPoint | ItlPoint) -> list[str]:
    learned, true = known(point.learned_ms), known(point.true_ms)
    off = f"{learned / true - 1.0:+.1%}" if learned is not None and true else NOTHING
    return [place, figure(point.told_ms), figure(learned), figure(true), off]


def _delay(value: object) -> str:
    """Write a startup delay: seconds, as a number or in a string, or the name of a distribution."""
    try:
        return duration(float(str(value)))
    except ValueError:
        return plain(value)
