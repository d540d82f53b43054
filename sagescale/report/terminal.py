"""What ``simulate`` prints: one run on one screen, the answer first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from sagescale.report.answer import print_answer
from sagescale.report.facts import (
    GOOD_ATTAINMENT,
    PERCENTILES,
    SURFACE_COLUMNS,
    began_parts,
    engines,
    fault_costs,
    forecast,
    gpu_hours_by_pool,
    interval_s,
    latencies,
    number,
    planner,
    requests,
    scaling,
    sessions,
    surface_rows,
    why,
    why_missed,
)
from sagescale.report.formats import (
    MARK,
    NOTHING,
    Poor,
    cost,
    count,
    duration,
    figure,
    given,
    known,
    plain,
    plural,
    share,
)
from sagescale.report.layout import DIM, GOOD, POOR, STRONG, Page
from sagescale.report.over_time import print_over_time

if TYPE_CHECKING:
    from rich.console import Console

    from sagescale.document import ProfileInfo, ResultDocument, RunDocument, TraceInfo


def print_run(document: ResultDocument, console: Console) -> None:
    """Print the first run of a document.

    Fits a terminal of 80 columns or more, and a pipe: without colour nothing but colour is lost. What is
    not defined prints as "–"; no document, however odd its values, raises.

    Args:
        document: the results; only its first run is printed.
        console: where to; its width and encoding are kept to.
    """
    page = Page(console)
    _print_trace(page, document.trace)
    _print_profile(page, "profile", document.profile)
    if document.world is not None:
        _print_profile(page, "engines", document.world)
    if not document.runs:
        page.field("runs", "none")
        page.warnings(document.warnings or ())
        return
    run = document.runs[0]
    every_s = interval_s(document, run)
    named = [Text(part) for part in planner(document, run)]
    for part in named[:2]:
        part.stylize(STRONG, 0, part.plain.rindex(" "))
    page.field("planner", *named)
    page.blank()
    _print_attainment(page, document, run)
    page.blank()
    _print_latency(page, run)
    for place, line in enumerate(engines(run)):
        page.field("" if place else "engines", line)
    page.blank()
    page.field("requests", *requests(run))
    if run.sessions is not None:
        page.field("sessions", *sessions(document, run))
    _print_gpus(page, document, run)
    page.field("scaling", *scaling(run))
    causes = why(document, run)
    if causes or known(run.scaling.ticks):
        page.field("why", *(causes or ("sizes as forecast: no limit or exception changed one",)))
    for place, parts in enumerate(fault_costs(run)):
        page.field("" if place else "faults", *parts)
    for title, rows in surface_rows(run):
        page.blank()
        page.table(title, SURFACE_COLUMNS, [("", [Text(cell) for cell in row]) for row in rows])
    page.blank()
    print_over_time(page, run, every_s, document.trace.started_at)
    page.blank()
    page.field("forecast", *(forecast(document, run) or (f"{NOTHING}, nothing scored",)))
    _print_timing(page, run)
    page.warnings(document.warnings or ())
    print_answer(page, document.answer)


def _print_trace(page: Page, trace: TraceInfo) -> None:
    requests, duration_s = known(trace.requests), known(trace.duration_s)
    rate = requests / duration_s if requests is not None and duration_s else None
    page.field(
        "trace",
        Text(plain(trace.path or NOTHING), style=STRONG),
        plural(requests, "request"),
        duration(duration_s),
        f"{figure(rate)} requests/s",
        *began_parts(trace),
        *(plain(step) for step in trace.transform or ()),
    )


def _print_profile(page: Page, label: str, profile: ProfileInfo) -> None:
    page.field(
        label,
        Text(plain(profile.name or NOTHING), style=STRONG),
        " ".join(plain(word) for word in (profile.engine, profile.gpu) if word),
        "GPUs an instance: "
        + ", ".join(f"{pool} {count(gpus)}" for pool, gpus in profile.gpus_per_instance.items()),
    )
    if profile.assumed:
        assumed = ", ".join(_assumed(profile, name) for name in profile.assumed)
        page.field("", Text(f"assumed, not measured: {assumed}", style=DIM))


def _assumed(profile: ProfileInfo, name: str) -> str:
    if name == "max_num_seqs":
        return f"{name} {count(profile.max_num_seqs)}"
    if name == "max_kv_tokens":
        tokens = profile.max_kv_tokens
        return f"{name} {'unlimited' if tokens is None else count(tokens)}"
    return plain(name)


def _print_attainment(page: Page, document: ResultDocument, run: RunDocument) -> None:
    sla = run.sla
    attainment = known(sla.attainment)
    good = attainment is None or attainment >= GOOD_ATTAINMENT
    headline = (f"{'' if good else MARK + ' '}{share(attainment)}", f"bold {GOOD}" if good else POOR)
    targets = f"TTFT {given(sla.target_ttft_ms)} ms, {sla.itl_name} {given(sla.target_itl_ms)} ms"
    page.field("attainment", Text.assemble(headline, f"  (target {targets})"))
    page.field(
        "",
        f"TTFT met {share(sla.ttft_attainment)}",
        f"ITL met {share(sla.itl_attainment)}",
        f"goodput {figure(sla.goodput_rps)} requests/s",
    )
    page.field("", why_missed(document, run))


def _print_latency(page: Page, run: RunDocument) -> None:
    rows = [
        (
            row.name,
            [
                *(Text(value, style=POOR if isinstance(value, Poor) else "") for value in row.values),
                Text(row.target, style=DIM),
            ],
        )
        for row in latencies(run)
    ]
    page.table("latency", (*PERCENTILES, f"target ({MARK} above)"), rows)


def _print_gpus(page: Page, document: ResultDocument, run: RunDocument) -> None:
    hours = run.gpu_hours
    budget = number(document, run, "max_gpu_budget")
    money = cost(hours.total, document.gpu_hour_price)
    peak = f"peak {plural(run.scaling.max_gpus, 'GPU')}"
    page.field(
        "GPU-hours",
        Text(figure(hours.total), style=STRONG),
        f"costing {money}" if money else "",
        gpu_hours_by_pool(run),
        f"{figure(run.ratio_to_lower_bound)} × the lower bound {figure(run.lower_bound_gpu_hours)}",
        peak if budget is None else f"{peak} of a budget of {count(budget)}",
    )


def _print_timing(page: Page, run: RunDocument) -> None:
    timing = run.timing
    planner, forecasts = duration(timing.planner_s), duration(timing.forecast_s)
    page.field(
        "simulated",
        Text(f"{duration(run.horizon_s)} in {duration(timing.simulate_s)}", style=DIM),
        Text(f"planner {planner}, of it forecasts {forecasts}", style=DIM),
        Text(f"{count(timing.requests_per_s)} requests/s", style=DIM),
    )
