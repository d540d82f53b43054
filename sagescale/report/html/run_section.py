"""The section of one run: its figures in words, and the places its panels are drawn in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sagescale.report.formats import (
    count,
    duration,
    figure,
    given,
    known,
    plain,
    plural,
    share,
    signed,
)
from sagescale.report.html.markup import Markup, element, join
from sagescale.report.layout import MARK
from sagescale.report.reasons import causes, surges_in_words, times
from sagescale.report.settings import delay, interval_s, number, setting, uses_predictor
from sagescale.report.shortfall import HELD, why_missed
from sagescale.report.surfaces import SURFACE_COLUMNS, surface_rows

if TYPE_CHECKING:
    from sagescale.document import Latency, ResultDocument, RunDocument

__all__ = ["PANELS", "run_section"]

PANELS = (
    ("load", "Load", "requests/s"),
    ("attainment", "Attainment", "share of arrivals within both targets"),
    ("prefill", "Prefill instances", ""),
    ("ttft", "TTFT", "ms, of arrivals"),
    ("decode", "Decode instances", ""),
    ("itl", "ITL", "ms, of arrivals"),
    ("gpus", "GPUs", "held"),
    ("queues", "Queues", "requests"),
    ("decisions", "Decisions", "hover for reasons"),
    ("kv", "KV memory in use", "mean of decode instances"),
    ("lengths", "Lengths", "mean tokens a request"),
    ("corrections", "Corrections", "measured over expected latency"),
)
"""Id, title and unit of every panel, row by row in two columns."""

_PERCENTILES = ("mean", "p50", "p90", "p95", "p99", "max")
_MOST_CAUSES = 5
_MISS_WORDS = {
    "faults": "faults",
    "forecast": "forecasts",
    "startup": "startup",
    "whole_instances": "whole instances",
    "policy": "policy",
}


def run_section(document: ResultDocument, run: RunDocument, place: int, *, alone: bool) -> Markup:
    """Render the run at ``place``; one among several is hidden until it is asked for."""
    title = plain(run["name"])
    return element(
        "section",
        None
        if alone
        else element(
            "nav",
            element("a", "← all runs", href="#"),
            element("h2", title),
            element("span", "knows the future: a yardstick", class_="tag")
            if run.get("kind") == "hindsight"
            else None,
        ),
        _tiles(document, run),
        _sentence(why_missed(document, run)),
        element("div", _latencies(run), _facts(document, run), class_="facts"),
        _surfaces(run),
        element("div", *(_panel(*panel) for panel in PANELS), class_="panels"),
        class_="run",
        id=f"run-{place}",
        data_run=str(place),
        hidden=not alone,
        aria_label=f"run {title}",
    )


def tile(label: str, value: str, note: str, *, poor: bool = False) -> Markup:
    """Render one figure of a headline; a poor one has a mark besides its colour."""
    return element(
        "div",
        element("dt", label),
        element("dd", f"{MARK} {value}" if poor else value, class_="poor" if poor else None),
        element("dd", note, class_="note"),
    )


def _tiles(document: ResultDocument, run: RunDocument) -> Markup:
    sla, hours = run["sla"], run["gpu_hours"]
    attainment = known(sla["attainment"])
    asked = known(document["comparison"]["attainment_asked"]) if "comparison" in document else None
    budget = number(document, run, "max_gpu_budget")
    return element(
        "dl",
        tile(
            "attainment",
            share(attainment),
            f"TTFT met {share(sla['ttft_attainment'])}, ITL {share(sla['itl_attainment'])}",
            poor=attainment is not None and attainment < (HELD if asked is None else asked),
        ),
        tile(
            "GPU-hours",
            figure(hours["total"]),
            f"prefill {figure(hours['prefill'])}, decode {figure(hours['decode'])}",
        ),
        tile(
            "× lower bound",
            figure(run["ratio_to_lower_bound"]),
            f"of {figure(run['lower_bound_gpu_hours'])} GPU-hours",
        ),
        _p99("TTFT p99", run["ttft_ms"], sla["target_ttft_ms"]),
        _p99("ITL p99", run["itl_ms"], sla["target_itl_ms"]),
        tile(
            "peak GPUs",
            count(run["scaling"]["max_gpus"]),
            "no budget" if budget is None else f"of a budget of {count(budget)}",
        ),
        tile("goodput", f"{figure(sla['goodput_rps'])}/s", "requests within both targets"),
        class_="tiles",
    )


def _p99(label: str, latency: Latency, target_ms: float) -> Markup:
    value, target = known(latency["p99"]), known(target_ms)
    over = value is not None and target is not None and value > target
    unit = "" if value is None else " ms"
    return tile(label, figure(value) + unit, f"target {given(target_ms)} ms", poor=over)


def _sentence(text: str) -> Markup | None:
    return element("p", text, class_="why") if text else None


def _latencies(run: RunDocument) -> Markup:
    sla = run["sla"]
    rows = (
        ("TTFT, ms", run["ttft_ms"], known(sla["target_ttft_ms"])),
        ("ITL, ms", run["itl_ms"], known(sla["target_itl_ms"])),
        ("E2E, ms", run["e2e_ms"], None),
    )
    heads = (element("th", name, scope="col") for name in ("latency", *_PERCENTILES, "target"))
    return element(
        "table",
        element("thead", element("tr", *heads)),
        element("tbody", *(_latency_row(*row) for row in rows)),
        class_="figures",
    )


def _latency_row(name: str, latency: Latency, target: float | None) -> Markup:
    cells = []
    for each in (
        latency["mean"],
        latency["p50"],
        latency["p90"],
        latency["p95"],
        latency["p99"],
        latency["max"],
    ):
        value = known(each)
        over = value is not None and target is not None and value > target
        text = f"{MARK} {figure(value)}" if over else figure(value)
        cells.append(element("td", text, class_="poor" if over else None))
    return element("tr", element("th", name, scope="row"), *cells, element("td", given(target)))


def _surfaces(run: RunDocument) -> Markup | None:
    parts = surface_rows(run)
    if not parts:
        return None
    heads = (element("th", name, scope="col") for name in ("engines", *SURFACE_COLUMNS))
    rows = (
        element("tr", element("th", title, scope="row"), *(element("td", cell) for cell in cells))
        for title, part in parts
        for cells in part
    )
    return element(
        "table",
        element("thead", element("tr", *heads)),
        element("tbody", *rows),
        class_="figures",
    )


def _facts(document: ResultDocument, run: RunDocument) -> Markup:
    why = (f"{count(found)}× {words}" for found, words in causes(run["reasons"] or {}, _MOST_CAUSES))
    lines = (
        ("planner", _planner(document, run)),
        ("requests", _requests(run)),
        ("scaling", _scaling(run)),
        ("why", "; ".join(why)),
        ("forecast", _forecast(document, run)),
        ("misses", _misses(run)),
        ("faults", _faults(run)),
        ("simulated", _timing(run)),
    )
    return element(
        "dl",
        *(join(element("dt", label), element("dd", text)) for label, text in lines if text),
        class_="lines",
    )


def _planner(document: ResultDocument, run: RunDocument) -> str:
    startup, initial = setting(document, run, "startup_delay_s"), run["initial"] or {}
    return "; ".join(
        part
        for part in (
            f"{plain(run['policy'])} policy",
            f"{plain(run['predictor'])} predictor" if uses_predictor(run) else "no predictor",
            f"decides every {duration(interval_s(document, run))}",
            "" if startup is None else f"startup {delay(startup)}",
            f"starts at {count(initial.get('prefill'))} prefill, {count(initial.get('decode'))} decode",
            *(f"{plain(key)}={plain(value)}" for key, value in (run["config"] or {}).items()),
        )
        if part
    )


def _requests(run: RunDocument) -> str:
    requests = run["requests"]
    more = (
        ("rejected as too large", requests["rejected"]),
        ("timed out", requests["timed_out"]),
        ("restarted", requests["restarted"]),
    )
    return "; ".join(
        (
            f"{count(requests['arrived'])} arrived",
            f"{count(requests['completed'])} completed",
            f"{count(requests['unfinished'])} unfinished",
            *(f"{count(found)} {words}" for words, found in more if known(found)),
        )
    )


def _scaling(run: RunDocument) -> str:
    scaling, reasons = run["scaling"], run["reasons"] or {}
    prefill, decode = count(scaling["prefill_launched"]), count(scaling["decode_launched"])
    up, down = count(times(reasons, "scale_up")), count(times(reasons, "scale_down"))
    return "; ".join(
        (
            plural(scaling["ticks"], "tick"),
            f"{plural(scaling['changes'], 'change')} (up in {up}, down in {down})",
            *surges_in_words(run),
            f"launched {prefill} prefill, {decode} decode",
        )
    )


def _forecast(document: ResultDocument, run: RunDocument) -> str:
    every_s = interval_s(document, run)
    scores = run["forecast"]
    window = " a window" if every_s is None else f" per {duration(every_s)}"
    parts = []
    for name, score, unit in (
        ("requests", scores["requests"], window),
        ("ISL", scores["isl"], " tokens"),
        ("OSL", scores["osl"], " tokens"),
    ):
        if known(score["mape"]) is None and known(score["bias"]) is None:
            continue
        covered = known(score.get("coverage_p90"))
        parts.append(
            f"{name} MAPE {share(score['mape'], 1)}, bias {signed(score['bias'])}{unit}"
            + ("" if covered is None else f", {share(covered, 0)} at or under p90")
        )
    return "; ".join(parts)


def _misses(run: RunDocument) -> str:
    misses = run.get("misses")
    if misses is None:
        return ""
    causes_found = (
        *((("faults", misses["faults"]),) if misses.get("faults") else ()),
        ("forecast", misses["forecast"]),
        ("startup", misses["startup"]),
        ("whole_instances", misses["whole_instances"]),
        ("policy", misses["policy"]),
    )
    return f"{plural(misses['total'], 'request')}: " + ", ".join(
        f"{_MISS_WORDS[cause]} {count(found)}" for cause, found in causes_found
    )


def _faults(run: RunDocument) -> str:
    faults = run["faults"] if "faults" in run else None  # noqa: SIM401  # documents of before faults have no key
    if faults is None:
        return ""
    counts = faults.get("counts", {})
    parts = [f"{count(found)}× {plain(kind).replace('_', ' ')}" for kind, found in counts.items()]
    lost = known(faults["gpu_hours_lost"]["total"])
    if lost:
        parts.append(f"{figure(lost)} GPU-hours lost in starts")
    without = faults.get("without")
    if without:
        parts.append(
            f"without them attainment {share(without.get('attainment'))} "
            f"at {figure(without.get('gpu_hours'))} GPU-hours"
        )
    return "; ".join(parts)


def _timing(run: RunDocument) -> str:
    timing = run["timing"]
    return (
        f"{duration(run['horizon_s'])} in {duration(timing['simulate_s'])}, "
        f"{count(timing['requests_per_s'])} requests/s"
    )


def _panel(name: str, title: str, unit: str) -> Markup:
    return element(
        "figure",
        element(
            "figcaption",
            element("b", title),
            element("span", unit, class_="unit"),
            element("span", class_="legend"),
        ),
        element("div", class_="plot"),
        class_="panel",
        data_panel=name,
    )
