"""The section of a comparison: the verdict, attainment against GPU-hours, and a table to sort."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sagescale.report.formats import (
    NOTHING,
    count,
    duration,
    figure,
    known,
    plain,
    plural,
    share,
    signed,
    within,
)
from sagescale.report.html.frontier import attainment_of, gpu_hours_of, half_widths, pareto_front
from sagescale.report.html.markup import Markup, element, join
from sagescale.report.html.run_section import tile
from sagescale.report.layout import MARK
from sagescale.report.settings import uses_predictor

if TYPE_CHECKING:
    from sagescale.document import ComparisonInfo, ResultDocument, RunDocument

__all__ = ["comparison_points", "comparison_section"]

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
_FAULT_COLUMNS = (
    ("restarted", "restarted", "requests thrown back by crashes"),
    ("w/o faults", "calm", "attained by the same run with nothing going wrong"),
    ("GPU-h w/o", "calmhours", "GPU-hours of the same run with nothing going wrong"),
)
"""Only where faults were given."""

_CAUSES = ("faults", "forecast", "startup", "whole_instances", "policy")


def comparison_section(document: ResultDocument) -> Markup:
    """Render what the runs of a document look like beside each other."""
    comparison = document.get("comparison")
    return element(
        "section",
        None if comparison is None else _verdict(comparison),
        _headline(document, comparison),
        element(
            "figure",
            element(
                "figcaption",
                element("b", "Attainment against GPU-hours"),
                element("span", "upper left is better; click a run for its panels", class_="unit"),
                element("span", class_="legend"),
            ),
            element("div", class_="plot"),
            class_="panel scatter",
            data_panel="comparison",
        ),
        _table(document, comparison),
        None if comparison is None else _notes(comparison),
        id="comparison",
        aria_label="comparison",
    )


def comparison_points(document: ResultDocument) -> dict[str, object]:
    """Return what the picture of a comparison is drawn from; ``front`` are places of runs, cheapest first."""
    runs, comparison = document["runs"], document.get("comparison")
    return {
        "runs": [_point(run) for run in runs],
        "front": pareto_front(runs),
        "asked": None if comparison is None else known(comparison["attainment_asked"]),
        "bound": known(document["lower_bound_gpu_hours"]) or None,
    }


def _point(run: RunDocument) -> dict[str, object]:
    hours_half, attainment_half = half_widths(run)
    return {
        "name": plain(run["name"]),
        "policy": plain(run["policy"]),
        "hindsight": run.get("kind") == "hindsight",
        "hours": gpu_hours_of(run),
        "attainment": attainment_of(run),
        "hours_half": hours_half,
        "attainment_half": attainment_half,
        "ratio": known(run["ratio_to_lower_bound"]),
        "ttft_p99": known(run["ttft_ms"]["p99"]),
        "itl_p99": known(run["itl_ms"]["p99"]),
    }


def _verdict(comparison: ComparisonInfo) -> Markup:
    won = comparison["winner"] is not None
    text = plain(comparison["verdict"])
    return element("p", text if won else f"{MARK} {text}", class_="verdict" if won else "verdict poor")


def _headline(document: ResultDocument, comparison: ComparisonInfo | None) -> Markup | None:
    runs = document["runs"]
    winner = None
    if comparison is not None:
        winner = next((run for run in runs if run["name"] == comparison["winner"]), None)
    if comparison is None or winner is None:
        return None
    misses = winner.get("misses")
    clairvoyant = known(comparison["clairvoyant_gpu_hours"])
    sla = winner["sla"]
    return element(
        "dl",
        tile("attainment", share(attainment_of(winner)), f"{share(comparison['attainment_asked'])} asked"),
        tile(
            "GPU-hours",
            figure(gpu_hours_of(winner)),
            NOTHING if clairvoyant is None else f"{figure(clairvoyant)} known in hindsight",
        ),
        tile(
            "× lower bound",
            figure(winner["ratio_to_lower_bound"]),
            f"of {figure(winner['lower_bound_gpu_hours'])} GPU-hours",
        ),
        tile("reach it", f"{len(comparison['reaching'])} of {len(runs)}", "runs, yardsticks included"),
        tile("targets", f"{figure(sla['target_ttft_ms'])} / {figure(sla['target_itl_ms'])} ms", "TTFT / ITL"),
        tile("misses", NOTHING if misses is None else count(misses["total"]), "requests of the winner"),
        class_="tiles",
    )


def _table(document: ResultDocument, comparison: ComparisonInfo | None) -> Markup:
    faulty = any(run.get("faults") for run in document["runs"])
    heads = [
        element(
            "th",
            element("button", label, type="button", title=title),
            scope="col",
            data_key=key,
            aria_sort="ascending" if key == "rank" else "none",
        )
        for label, key, title in (*_COLUMNS, *(_FAULT_COLUMNS if faulty else ()))
    ]
    front = set(pareto_front(document["runs"]))
    rows = [
        _row(run, place, comparison, on_front=place in front, faulty=faulty)
        for place, run in enumerate(document["runs"])
    ]
    return join(
        element(
            "div",
            element(
                "table",
                element("thead", element("tr", *heads)),
                element("tbody", *rows),
                id="ranking",
                class_="figures",
            ),
            class_="wide",
        ),
        element(
            "p",
            f"★ winner · ◆ on the Pareto front · {MARK} below the attainment asked, or above a target "
            "· * knows the future: a yardstick, not a competitor",
            class_="key",
        ),
    )


def _row(
    run: RunDocument, place: int, comparison: ComparisonInfo | None, *, on_front: bool, faulty: bool
) -> Markup:
    sla = run["sla"]
    reached = comparison is None or run["name"] in comparison["reaching"]
    won = comparison is not None and run["name"] == comparison["winner"]
    hindsight = run.get("kind") == "hindsight"
    name = plain(run["name"]) + ("*" if hindsight else "")
    attainment, hours = attainment_of(run), gpu_hours_of(run)
    hours_half, attainment_half = half_widths(run)
    attained = share(attainment) + ("" if attainment_half is None else f" ± {100 * attainment_half:.2f}")
    # Scored whether or not the policy looks at it.
    mape = known(run["forecast"]["requests"]["mape"]) if uses_predictor(run) else None
    peak, changes = known(run["scaling"]["max_gpus"]), known(run["scaling"]["changes"])
    regret, ratio = known(run.get("regret_gpu_hours")), known(run["ratio_to_lower_bound"])
    return element(
        "tr",
        _cell(place, str(place + 1)),
        element(
            "th",
            element("a", name, href=f"#run-{place}"),
            element("span", " ★", title="winner") if won else None,
            element("span", " ◆", title="on the Pareto front") if on_front and not won else None,
            scope="row",
            data_value=plain(run["name"]),
        ),
        _cell(attainment, attained, poor=not reached),
        _cell(hours, within(hours, hours_half)),
        _cell(ratio, figure(ratio)),
        _cell(regret, signed(regret)),
        _cell(peak, count(peak)),
        _cell(changes, count(changes)),
        _latency(run["ttft_ms"]["p99"], sla["target_ttft_ms"]),
        _latency(run["itl_ms"]["p99"], sla["target_itl_ms"]),
        _cell(mape, share(mape, 1)),
        _missed(run),
        *(_without_faults(run) if faulty else ()),
        class_=" ".join(filter(None, ("won" if won else "", "hindsight" if hindsight else ""))) or None,
        data_run=str(place),
    )


def _without_faults(run: RunDocument) -> tuple[Markup, ...]:
    faults = run.get("faults")
    without = None if not faults else faults.get("without")
    restarted = known(run["requests"]["restarted"])
    attained = None if not without else known(without["attainment"])
    hours = None if not without else known(without["gpu_hours"])
    return _cell(restarted, count(restarted)), _cell(attained, share(attained)), _cell(hours, figure(hours))


def _cell(value: float | None, text: str, *, poor: bool = False) -> Markup:
    return element(
        "td",
        f"{MARK} {text}" if poor else text,
        class_="poor" if poor else None,
        data_value="" if value is None else repr(value),
    )


def _latency(value: float | None, target: float) -> Markup:
    number, limit = known(value), known(target)
    return _cell(number, figure(number), poor=number is not None and limit is not None and number > limit)


def _missed(run: RunDocument) -> Markup:
    misses = run.get("misses")
    if misses is None:
        return _cell(None, NOTHING)
    total = known(misses["total"])
    parts = {cause: known(misses.get(cause)) or 0 for cause in _CAUSES}  # type: ignore[arg-type]  # its own keys
    worst = max(_CAUSES, key=lambda cause: parts[cause])
    text = count(total)
    if total and parts[worst]:
        text += f" ({share(parts[worst] / total, 0)} {worst.replace('_', ' ')})"
    return _cell(total, text)


def _notes(comparison: ComparisonInfo) -> Markup:
    lines: list[tuple[str, str]] = []
    for made in comparison["forecasters"]:
        if made["refits"]:
            windows = f"{plain(made['predictor'])} ({duration(made['interval_s'])} windows)"
            done = f"{plural(made['refits'], 'fit')} over {plural(made['windows'], 'window')}"
            lines.append(("refits", f"{windows}: {plain(made['cadence'])}; {done}"))
    lines += [
        (f"{MARK} failed", f"{plain(failed['name'])}: {plain(failed['error'])}")
        for failed in comparison["failed"]
    ]
    if comparison["interrupted"]:
        names = ", ".join(map(plain, comparison["not_run"])) or NOTHING
        lines.append((f"{MARK} stopped", f"interrupted before these were done: {names}"))
    if comparison["replicates"] > 1:
        meaning = "± is half the width of the mean's 95 % confidence interval"
        lines.append(("replicates", f"{comparison['replicates']}; {meaning}"))
    lines.append(("took", duration(comparison["timing"]["wall_s"])))
    pairs = (join(element("dt", label), element("dd", text)) for label, text in lines)
    return element("dl", *pairs, class_="lines")
