"""slo against its rivals, as judged.csv has them: `benchmarks/arena/logged.py --slo COMMIT --rivals COMMIT`.

The last rows of each scenario count. What needs paired seeds (clairvoyant, the true load, instant starts) is
only in the tables of the run itself.
"""

from __future__ import annotations

import argparse
import csv
import sys

from judge import Found, rivals_table, tie_gpu_hours, verdicts
from judged_log import LOG
from protocol import ASKED, INSTANT, TRUE_LOAD
from sagescale.errors import SagescaleError
from scenarios import JUDGED


def _rows(commit):
    """The last row of each entry of each scenario, judged at that commit."""
    found = {}
    with LOG.open(newline="") as stream:
        for row in csv.DictReader(stream):
            if row["commit"].startswith(commit):
                found[row["scenario"], row["entry"]] = _row(row)
    return found


def _row(logged):
    attained, entry = float(logged["attainment"]), logged["entry"]
    policy, kind = entry.split()[0].split("/")[0], "candidate"
    if policy == "slo" or entry in (TRUE_LOAD, INSTANT):
        kind = "variant"
    elif "hindsight" in entry or entry == "clairvoyant":
        kind = "reference"
    return {
        "name": entry,
        "policy": policy,
        "kind": kind,
        "attainment": {"mean": attained},
        "reaches": attained >= ASKED,
        "gpu_hours": {"mean": float(logged["gpu_hours"])},
        "ratio_to_clairvoyant": None,
        "launches": int(logged["launches"] or 0),
        "relaunches": int(logged["relaunches"] or 0),
    }


def _found(ours, others):
    """What each scenario with rows of both comes to."""
    found = []
    for scenario in JUDGED:
        mine, foreseen = (ours.get((scenario.name, entry)) for entry in ("slo", "clairvoyant"))
        rivals = [
            row for (name, _), row in others.items() if name == scenario.name and row["kind"] == "candidate"
        ]
        if mine is not None and rivals:
            budget, tie = scenario.budget_share is not None, tie_gpu_hours(scenario)
            found.append(
                Found(
                    scenario.name, scenario.is_day, budget, tie, mine, rivals, [foreseen] if foreseen else []
                )
            )
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--slo", required=True, metavar="COMMIT")
    parser.add_argument("--rivals", required=True, metavar="COMMIT")
    given = parser.parse_args()
    ours, others = _rows(given.slo), _rows(given.rivals)
    try:
        found = _found(ours, others)
    except SagescaleError as error:
        parser.error(str(error))
    if not found:
        parser.error(f"{LOG}: no scenario has rows of both {given.slo} and {given.rivals}")
    said = [f"* {'yes' if met else 'NO '} {text}" for met, text in verdicts(found) if met is not None]
    print("\n".join([rivals_table(found)[0], "", *said]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
