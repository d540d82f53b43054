"""The arena's outcome as rows, as a Markdown table and in sentences."""

from __future__ import annotations

import estimates
from protocol import ASKED, estimate
from sagescale.document import as_keys

_CAUSES = ("forecast", "startup", "whole_instances", "policy")
NEAR = 0.03
"""What "at most 3 % above the best" means in the scenarios where winning is not asked."""


def rows(outcome):
    """A plain dict for every judged entry; those that reach the attainment first, by GPU-hours."""
    scenario, champion = outcome.scenario, outcome.champion
    foreseen = outcome.by_name("clairvoyant")
    made = []
    for one in outcome.judged:
        attained, hours = estimate(one, scenario)
        row = {
            "scenario": scenario.name,
            "name": one.entry.name,
            "policy": one.entry.policy,
            "predictor": one.entry.predictor,
            "kind": one.entry.kind,
            "load_headroom": one.entry.headroom,
            "seeds": len(one.series),
            "stopped": one.stopped,
            "attainment": _interval(attained),
            "reaches": attained.mean >= ASKED,
            "worst_5_min": estimates.worst(one.series),
            "gpu_hours": _interval(hours),
            "ratio_to_lower_bound": _ratio(hours.mean, outcome.lower_bound_gpu_hours),
            "ratio_to_clairvoyant": None if foreseen is None else _paired(one, foreseen),
            "launches": sum(part.launches for part in one.series),
            "relaunches": sum(part.relaunches for part in one.series),
            "misses": None if one.misses is None else as_keys(one.misses),
            "paired_ratio_to_champion": None,
            "gpu_hours_more_than_champion": None,
            "attainment_less_than_champion": None,
        }
        if champion is not None and one is not champion:
            resampled = scenario.hours_resampled
            more = estimates.gpu_hours_difference(champion.series, one.series, resampled=resampled)
            less = estimates.attainment_difference(champion.series, one.series, resampled=resampled)
            row["paired_ratio_to_champion"] = _paired(one, champion)
            row["gpu_hours_more_than_champion"] = _interval(more)
            row["attainment_less_than_champion"] = _interval(less)
        made.append(row)
    return sorted(
        made,
        key=lambda row: (
            row["kind"] in {"variant", "reference"},
            not row["reaches"],
            row["gpu_hours"]["mean"] if row["reaches"] else -row["attainment"]["mean"],
        ),
    )


def verdict(outcome, table):
    """Whether the champion does what is asked of it in this scenario, and by how much, in a sentence."""
    name = outcome.scenario.name
    who = outcome.champion.entry.name if outcome.champion else None
    champion = next((row for row in table if row["name"] == who), None)
    if champion is None:
        return None, f"{name}: the champion did not run."
    rivals = [row for row in table if row["kind"] == "candidate" and row["policy"] != champion["policy"]]
    if outcome.scenario.budget_share is not None:
        best = max(rivals, key=lambda row: row["attainment"]["mean"], default=None)
        if best is None:
            return None, f"{name}: no rival ran."
        more = best["attainment_less_than_champion"]
        won = more["mean"] > 0
        return won, (
            f"{name}: {who} attains {_percent(champion['attainment']['mean'])} with {outcome.budget} GPUs, "
            f"the best rival, {best['name']}, {_percent(best['attainment']['mean'])}; difference "
            f"{_share_interval(more)}."
        )
    if not champion["reaches"]:
        return False, (
            f"{name}: {who} attains {_percent(champion['attainment']['mean'])}, less than {100 * ASKED:g} %."
        )
    reaching = [row for row in rivals if row["reaches"] and row["stopped"] != "failed"]
    best = min(reaching, key=lambda row: row["gpu_hours"]["mean"], default=None)
    if best is None:
        return True, f"{name}: {who} reaches {100 * ASKED:g} %, no rival does."
    more = best["gpu_hours_more_than_champion"]
    hours = champion["gpu_hours"]["mean"]
    if name in {"code", "large"}:
        won = hours <= (1.0 + NEAR) * best["gpu_hours"]["mean"]
    else:
        # Not only the cheapest: every rival that reaches it, each by its own paired difference.
        won = all((row["gpu_hours_more_than_champion"]["low"] or 0.0) > 0 for row in reaching)
    at = "" if best["load_headroom"] is None else f" at load_headroom {_headroom(best)}"
    return won, (
        f"{name}: {who} reaches {100 * ASKED:g} % with {hours:.2f} GPU-hours; the cheapest rival that does, "
        f"{best['name']}{at}, takes {best['gpu_hours']['mean']:.2f}: "
        f"{_hours_interval(more)} more ({100 * more['mean'] / hours:+.1f} %)."
    )


def markdown(outcome, table):
    """One scenario as a Markdown table."""
    scenario = outcome.scenario
    budget = f", budget {outcome.budget} GPUs" if scenario.budget_share is not None else ""
    about = (
        f"{scenario.trace} x {scenario.rate_scale:g}, {scenario.profile}, "
        f"TTFT {scenario.target_ttft_ms:g} ms, ITL {scenario.target_itl_ms:g} ms, "
        f"startup {scenario.startup_s:g} s, interval {scenario.interval_s} s"
        f"{budget}. Lower bound {_number(outcome.lower_bound_gpu_hours)} GPU-hours."
    )
    columns = (
        "",
        "load_headroom",
        "attainment %",
        "worst 5 min %",
        "GPU-hours",
        "x bound",
        "x clairvoyant",
        "GPU-hours more than champion",
        "launches soon after a release",
        "misses: forecast/startup/whole/policy %",
        "seeds",
    )
    lines = [f"### {scenario.name}", "", about, "", _line(columns), _line(["---"] * len(columns))]
    headings = {True: "reach it", False: "do not reach it"}
    last = None
    for row in table:
        heading = (
            "*references*" if row["kind"] in {"variant", "reference"} else f"*{headings[row['reaches']]}*"
        )
        if heading != last:
            lines.append(_line([heading, *[""] * (len(columns) - 1)]))
            last = heading
        is_champion = outcome.champion is not None and row["name"] == outcome.champion.entry.name
        more = row["gpu_hours_more_than_champion"]
        cells = (
            f"**{row['name']}**" if is_champion else row["name"],
            _headroom(row),
            _percent_interval(row["attainment"]),
            f"{100 * row['worst_5_min']:.1f}",
            _hours_interval(row["gpu_hours"]),
            _number(row["ratio_to_lower_bound"]),
            _number(row["ratio_to_clairvoyant"]),
            "" if more is None else _hours_interval(more, sign="+"),
            _churn(row),
            _misses(row["misses"]),
            _seeds(row),
        )
        lines.append(_line(cells))
    return "\n".join([*lines, ""])


def _line(cells):
    return f"| {' | '.join(cells)} |"


def _seeds(row):
    return f"{row['seeds']}, stopped ({row['stopped']})" if row["stopped"] else str(row["seeds"])


def _churn(row):
    return f"{row['relaunches']}/{row['launches']}" if row["launches"] else "0"


def _misses(split):
    if split is None:
        return ""
    if not split["total"]:
        return "none"
    return "/".join(f"{100 * split[cause] / split['total']:.0f}" for cause in _CAUSES)


def _interval(estimate):
    return {"mean": estimate.mean, "low": estimate.low, "high": estimate.high}


def _paired(one, other):
    """GPU-hours of one over another's, on the seeds that both have, from the first on."""
    both = list(zip(one.series, other.series, strict=False))
    return _ratio(sum(mine.gpu_hours for mine, _ in both), sum(theirs.gpu_hours for _, theirs in both))


def _ratio(value, by):
    return value / by if by else None


def _headroom(row):
    return "" if row["load_headroom"] is None else f"{row['load_headroom']:g}"


def _number(value):
    return "" if value is None else f"{value:.2f}"


def _percent(share):
    return f"{100 * share:.2f} %"


def _share_interval(interval):
    return _text(interval, lambda value: f"{100 * value:+.2f}") + " percentage points"


def _percent_interval(interval):
    return _text(interval, lambda value: f"{100 * value:.2f}")


def _hours_interval(interval, sign=""):
    return _text(interval, lambda value: f"{value:{sign}.2f}")


def _text(interval, form):
    if interval["low"] is None:
        return form(interval["mean"])
    return f"{form(interval['mean'])} [{form(interval['low'])}, {form(interval['high'])}]"
