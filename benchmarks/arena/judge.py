"""What the champion promised, held against what came out: the done-when of issue 17, over scenarios.

Everything is computed from the rows of ``table.rows``: the same figures that are shown and logged.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

from protocol import INSTANT, TRUE_LOAD

BUDGET_SLACK = 0.002
MOST_OVER_ONE = 1.15
MEDIAN_OVER_HINDSIGHT = 1.08
MEDIAN_OVER_CLAIRVOYANT, WORST_OVER_CLAIRVOYANT = 1.25, 1.5
VARIANT_RATIO = 1.02
CHURN, CHURN_OVER_CLAIRVOYANT = 0.1, 2.0


@dataclass(frozen=True)
class Found:
    """One scenario, summed up.

    Attributes:
        ours: the champion's row.
        rivals: rows of single rivals, knobs set.
        tie_gpu_hours: half an instance over the judged part: a difference below is none.
        budget: whether one binds.
    """

    name: str
    is_day: bool
    budget: bool
    tie_gpu_hours: float
    ours: dict
    rivals: list
    rows: list

    def row(self, name):
        return next((row for row in self.rows if row["name"] == name), None)

    @property
    def holds(self):
        """Where a budget binds: as much as the best rival, less a fifth of a point."""
        if self.budget:
            best = max((_attained(row) for row in self.rivals), default=0.0)
            return _attained(self.ours) >= best - BUDGET_SLACK
        return self.ours["reaches"]

    @property
    def cheapest_rival(self):
        """The hindsight minimum: the cheapest of all rivals that hold."""
        return min((row for row in self.rivals if row["reaches"]), key=_hours, default=None)

    def ratio(self, row):
        """The champion's GPU-hours over another's; 1 for a tie."""
        ours, theirs = _hours(self.ours), _hours(row)
        return 1.0 if abs(ours - theirs) < self.tie_gpu_hours else ours / theirs

    @property
    def over_hindsight(self):
        best = self.cheapest_rival
        return None if best is None or not self.ours["reaches"] else self.ratio(best)


def sum_up(outcome, table):
    """None where the champion did not run."""
    scenario = outcome.scenario
    champion = outcome.champion
    if champion is None:
        return None
    ours = next(row for row in table if row["name"] == champion.entry.name)
    rivals = [row for row in table if row["kind"] == "candidate" and row["stopped"] != "failed"]
    return Found(
        scenario.name,
        scenario.is_day,
        scenario.budget_share is not None,
        tie_gpu_hours(scenario),
        ours,
        rivals,
        table,
    )


def tie_gpu_hours(scenario):
    """Half an instance, of the smaller, over the judged part."""
    gpus = min(scenario.engines().prefill.gpus_per_instance, scenario.engines().decode.gpus_per_instance)
    judged_s = scenario.recorded().duration_s - scenario.cut_s
    return 0.5 * gpus * judged_s / 3600.0


def overview(found):
    """Scenarios, unfavourable first, as Markdown: days, then hours."""
    parts = []
    for title, days in (("Days", True), ("Hours", False)):
        chosen = sorted((one for one in found if one.is_day == days), key=_favour)
        if chosen:
            parts += [f"**{title}**", "", *_scenario_table(chosen), ""]
    return "\n".join(parts)


def _favour(one):
    """Not holding, then the lowest attainment; then the dearest against the cheapest rival."""
    return one.holds, _attained(one.ours) if not one.holds else -(one.over_hindsight or 0.0)


def _scenario_table(found):
    columns = (
        "",
        "slo",
        "holds",
        "GPU-hours",
        "cheapest rival that holds",
        "x that",
        "x clairvoyant at slo's attainment",
        "launches soon after a release",
        "with the true load",
        "with instant starts",
    )
    lines = [_line(columns), _line(["---"] * len(columns))]
    for one in found:
        best = one.cheapest_rival
        if one.budget:
            best = max(one.rivals, key=_attained, default=None)
        rival = (
            "none" if best is None else f"{best['name']}, {100 * _attained(best):.2f} %, {_hours(best):.2f}"
        )
        cells = [
            one.name,
            f"{100 * _attained(one.ours):.2f} %",
            "yes" if one.holds else "**no**",
            f"{_hours(one.ours):.2f}",
            rival,
            _number(one.over_hindsight),
            _number(one.ours["ratio_to_clairvoyant"]),
            f"{one.ours['relaunches']} of {one.ours['launches']}",
            _variant(one, TRUE_LOAD),
            _variant(one, INSTANT),
        ]
        lines.append(_line(cells))
    return lines


def rivals_table(found):
    """Each rival against the champion over all scenarios without a budget, the dearest for us first."""
    free = [one for one in found if not one.budget]
    names = sorted({_rival(row) for one in free for row in one.rivals})
    columns = (
        "rival, knob set",
        "scenarios it holds",
        "slo holds",
        "both",
        "slo over rival, geometric mean",
        "worst",
    )
    lines = [_line(columns), _line(["---"] * len(columns))]
    rows = []
    for name in names:
        pairs = [(one, row) for one in free for row in one.rivals if _rival(row) == name]
        held = sum(row["reaches"] for _, row in pairs)
        ratios = [one.ratio(row) for one, row in pairs if row["reaches"] and one.ours["reaches"]]
        mean = math.exp(statistics.fmean(map(math.log, ratios))) if ratios else None
        ours = sum(one.ours["reaches"] for one, _ in pairs)
        rows.append((name, held, ours, len(pairs), ratios, mean))
    rows.sort(key=lambda row: -(row[5] or 0.0))
    for name, held, ours, count, ratios, mean in rows:
        worst = _number(max(ratios, default=None))
        lines.append(_line((name, f"{held} of {count}", f"{ours}", f"{len(ratios)}", _number(mean), worst)))
    return "\n".join(lines), rows


def verdicts(found):
    """(met, sentence) for each thing that is asked of the champion; None where it could not be said."""
    free = [one for one in found if not one.budget]
    missed = [one.name for one in found if not one.holds]
    said = [(not missed, f"holds in {len(found) - len(missed)} of {len(found)}" + _names(missed))]
    _, rivals = rivals_table(found)
    fewer = [name for name, held, ours, _, _, _ in rivals if ours <= held]
    said.append(
        (not fewer if rivals else None, "holds in more scenarios than each rival" + _names(fewer, "not than"))
    )
    dear = [f"{name} {mean:.2f}" for name, *_, mean in rivals if mean is not None and mean > 1.0 + 1e-9]
    compared = any(ratios for *_, ratios, _ in rivals)
    said.append(
        (
            not dear if compared else None,
            "geometric mean of GPU-hours at most 1.00 of each rival's" + _names(dear),
        )
    )
    over = [
        f"{one.name} ({_rival(row)} {one.ratio(row):.2f})"
        for one in free
        for row in one.rivals
        if row["reaches"] and one.ours["reaches"] and one.ratio(row) > MOST_OVER_ONE
    ]
    said.append(
        (
            not over if compared else None,
            f"nowhere over {MOST_OVER_ONE:g} of a rival that holds" + _names(over),
        )
    )
    said.append(
        _median([one.over_hindsight for one in free], MEDIAN_OVER_HINDSIGHT, None, "hindsight minimum")
    )
    said.append(
        _median(
            [one.ours["ratio_to_clairvoyant"] for one in free],
            MEDIAN_OVER_CLAIRVOYANT,
            WORST_OVER_CLAIRVOYANT,
            "clairvoyant",
        )
    )
    known = [(one, row) for one in free for name in (TRUE_LOAD, INSTANT) if (row := one.row(name))]
    broken = [
        f"{one.name} {row['name']}"
        for one, row in known
        if not (row["reaches"] and row["paired_ratio_to_champion"] <= VARIANT_RATIO)
    ]
    said.append(
        (
            not broken if known else None,
            "better known, no worse: true load and instant starts" + _names(broken),
        )
    )
    churning = [one.name for one in found if _share(one.ours) > _allowed_churn(one) + 1e-9]
    said.append((not churning, f"launches soon after a release at most {CHURN:g}" + _names(churning)))
    return said


def _allowed_churn(one):
    foreseen = one.row("clairvoyant")
    return max(CHURN, CHURN_OVER_CLAIRVOYANT * _share(foreseen) if foreseen else 0.0)


def _median(ratios, asked, worst, of):
    known = [ratio for ratio in ratios if ratio is not None]
    if not known:
        return None, f"over {of}: nothing to compare with"
    middle, most = statistics.median(known), max(known)
    met = middle <= asked and (worst is None or most <= worst)
    limit = f"at most {asked:g}" + ("" if worst is None else f", worst {worst:g}")
    return met, f"over {of}: median {middle:.2f}, worst {most:.2f}, {len(known)} scenarios ({limit})"


def _variant(one, name):
    row = one.row(name)
    return (
        "" if row is None else f"{100 * _attained(row):.2f} %, x {_number(row['paired_ratio_to_champion'])}"
    )


def _rival(row):
    """Fixed sizes are one rival whatever the sizes."""
    return "static" if row["policy"] == "static" else row["name"]


def _share(row):
    return row["relaunches"] / row["launches"] if row["launches"] else 0.0


def _attained(row):
    return row["attainment"]["mean"]


def _hours(row):
    return row["gpu_hours"]["mean"]


def _line(cells):
    return f"| {' | '.join(cells)} |"


def _number(value):
    return "" if value is None else f"{value:.2f}"


def _names(names, word="not in"):
    return f"; {word}: {', '.join(names)}" if names else ""
