"""Every policy with every predictor, ours and the field's, judged on data that set none of their knobs.

    python benchmarks/arena [--group judged ...] [--scenario r1_day ...] [--draw N --seed S ...] [--quick]
                            [--policies a,b] [--predictors a,b] [--jobs 2]
                            [--json OUT] [--markdown OUT] [--png OUT] [--html OUT]

Every policy has the same knob, ``load_headroom``, on the same grid, and the same constraints. It is set on
the first 40 % of the trace (two days: the first) to the cheapest value that reaches 99 %, and judged on the
rest; the first ten minutes do not count. The champion's policy runs with every key as it comes. What is
clearly losing is stopped after the first seeds: the table says so. SPLIT.md has the rules, and which traces
set constants and which judge; every run on the judging side adds its rows to judged.csv.
docs/arena.md tells the protocol; finished runs are kept in --store, and a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path

from sagescale.threads import use_one_thread

use_one_thread()


def main() -> int:
    import draws
    import judged_log
    from judge import overview, rivals_table, sum_up, verdicts
    from offered import offer
    from protocol import compete
    from sagescale.errors import SagescaleError
    from sagescale.experiment.execute import default_jobs, open_backend
    from sagescale.planner.forecast import predictor_names
    from sagescale.planner.policy import policy_names, uses_forecast
    from sagescale.setup import choose
    from scenarios import GROUPS, quick
    from store import Store
    from table import markdown, rows, verdict
    from traffic import TRACES
    from worker import Worker

    offer()
    every = [scenario for group in GROUPS.values() for scenario in group]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--group",
        action="append",
        choices=list(GROUPS),
        help="repeatable; default: the six (judged: SPLIT.md)",
    )
    parser.add_argument(
        "--elsewhere", action="append_const", dest="group", const="elsewhere", help="--group elsewhere"
    )
    parser.add_argument(
        "--scenario",
        action="append",
        choices=[scenario.name for scenario in every],
        metavar="NAME",
        help="repeatable",
    )
    parser.add_argument("--draw", type=int, metavar="N", help="N scenarios at random from the judging traces")
    parser.add_argument(
        "--seed",
        type=int,
        action="append",
        metavar="S",
        help="of --draw; several are compared; default 17, ours",
    )
    parser.add_argument("--policies", default="all", metavar="A,B")
    parser.add_argument(
        "--predictors",
        metavar="A,B",
        help="default constant,arima,auto, and slo with its own; all: every one",
    )
    parser.add_argument(
        "--champion", default="slo", metavar="POLICY[/PREDICTOR]", help="default slo, every key as it comes"
    )
    parser.add_argument(
        "--quick", action="store_true", help="two seeds, shorter searches, a third of each day"
    )
    parser.add_argument(
        "--seeds", type=int, metavar="N", help="judged seeds, in place of each scenario's own"
    )
    parser.add_argument(
        "--foreseen", type=int, metavar="N", help="judged seeds on which clairvoyant is solved; default all"
    )
    parser.add_argument("--jobs", type=int, default=default_jobs(), metavar="N")
    parser.add_argument("--store", type=Path, default=Path("out/arena.jsonl"), metavar="FILE")
    parser.add_argument(
        "--old-others",
        action="store_true",
        help="take other policies' runs from the store even where code has changed since; only the "
        "champion's are done anew",
    )
    parser.add_argument("--json", type=Path, metavar="OUT")
    parser.add_argument("--markdown", type=Path, metavar="OUT")
    parser.add_argument("--png", type=Path, metavar="OUT")
    parser.add_argument("--html", type=Path, metavar="OUT")
    given = parser.parse_args()
    try:
        policies = choose("--policies", given.policies, policy_names())
        predictors = choose("--predictors", given.predictors or "constant,arima,auto", predictor_names())
    except SagescaleError as error:
        parser.error(str(error))
    if not TRACES.is_dir():
        parser.error(f"{TRACES}: no such folder; SAGESCALE_SHARED names the one that holds traces/")
    own = given.champion.partition("/")[0]
    entrants = [] if own not in policies else [given.champion]
    for policy in policies:
        if policy == "static" or not uses_forecast(policy):
            entrants.append(policy)
        elif policy != own or given.predictors:
            entrants += [f"{policy}/{predictor}" for predictor in predictors]
    entrants = list(dict.fromkeys(entrants))
    if given.draw is not None:
        if given.draw < 1 or given.group or given.scenario:
            parser.error(
                f"--draw {given.draw}: expected a number above 0, and neither --group nor --scenario"
            )
        chosen = [scenario for seed in given.seed or [17] for scenario in draws.draw(given.draw, seed)]
    elif given.seed:
        parser.error("--seed: draws scenarios, so it needs --draw N")
    elif given.scenario:
        chosen = [scenario for scenario in every if scenario.name in given.scenario]
    else:
        chosen = [scenario for name in given.group or ["six"] for scenario in GROUPS[name]]
    if given.quick:
        chosen = [quick(scenario) for scenario in chosen]
    if given.seeds:
        chosen = [dataclasses.replace(scenario, seeds=given.seeds) for scenario in chosen]
    if given.foreseen:
        chosen = [dataclasses.replace(scenario, foreseen=given.foreseen) for scenario in chosen]
    outcomes, tables, told, found = [], {}, {}, []
    began, began_cpu = time.perf_counter(), _cpu_s()
    stopped = False
    with open_backend("processes", given.jobs, None) as backend:
        worker = Worker(backend, Store(given.store), own if given.old_others else None)
        for scenario in chosen:
            print(f"{scenario.name} ...", file=sys.stderr, flush=True)
            try:
                outcome = compete(scenario, worker, entrants, given.champion)
            except KeyboardInterrupt:
                print(f"interrupted: what is done is kept in {given.store}", file=sys.stderr)
                stopped = True
                break
            table = rows(outcome)
            outcomes.append(outcome)
            tables[scenario.name] = table
            told[scenario.name] = verdict(outcome, table)
            judged_log.log(scenario, table)
            print(markdown(outcome, table))
            print(told[scenario.name][1], "\n", flush=True)
            if (one := sum_up(outcome, table)) is not None:
                found.append(one)
    _end_workers()  # only then is their CPU time known
    minutes, cpu_minutes = (time.perf_counter() - began) / 60.0, (_cpu_s() - began_cpu) / 60.0
    summary = []
    if found:
        summary += [overview(found), rivals_table(found)[0], ""]
        summary += [f"* {_yes(met)} {sentence}" for met, sentence in verdicts(found)]
        if len(given.seed or ()) > 1:
            summary += ["", _gap(found, given.seed)]
    print("\n".join(summary))
    for won, sentence in told.values():
        print(_yes(won), sentence)
    print(
        f"{minutes:.1f} minutes, {cpu_minutes:.1f} of CPU time with {given.jobs} jobs; {worker.done_runs} "
        f"runs done, {worker.reused_runs} found in {given.store}, {worker.old_runs} of them by other code"
    )
    for failure in worker.failures:
        print(f"failed: {failure}", file=sys.stderr)
    if given.json:
        document = {
            "minutes": minutes,
            "cpu_minutes": cpu_minutes,
            "champion": given.champion,
            "verdicts": {name: {"won": won, "text": text} for name, (won, text) in told.items()},
            "asked": [{"met": met, "text": text} for met, text in verdicts(found)] if found else [],
            "scenarios": [
                {
                    **dataclasses.asdict(outcome.scenario),
                    "budget": outcome.budget,
                    "lower_bound_gpu_hours": outcome.lower_bound_gpu_hours,
                    "rows": tables[outcome.scenario.name],
                }
                for outcome in outcomes
            ],
        }
        given.json.write_text(json.dumps(document, indent=1) + "\n")
    if given.markdown:
        parts = [markdown(outcome, tables[outcome.scenario.name]) for outcome in outcomes]
        sentences = (text for _, text in told.values())
        given.markdown.write_text("\n".join([*summary, "", *parts, *sentences]) + "\n")
    if outcomes and (given.png or given.html):
        from picture import html, png

        if given.png:
            png(given.png, outcomes, tables)
        if given.html:
            html(given.html, outcomes, tables)
    if stopped:
        return 130
    return 1 if worker.failures else 0


def _yes(met):
    return {True: "yes", False: "NO ", None: "-  "}[met]


def _gap(found, seeds):
    """What each seed of --draw says, one beside the other."""
    lines = ["| draws of seed | days that hold | all that hold | lowest attainment |", "|---|---|---|---|"]
    for seed in seeds:
        mine = [one for one in found if one.name.startswith(f"draw{seed}-")]
        days = [one for one in mine if one.is_day]
        lowest = min((one.ours["attainment"]["mean"] for one in mine), default=float("nan"))
        held, held_days = (sum(one.holds for one in group) for group in (mine, days))
        lines.append(
            f"| {seed} | {held_days} of {len(days)} | {held} of {len(mine)} | {100 * lowest:.2f} % |"
        )
    return "\n".join(lines)


def _end_workers():
    from joblib.externals.loky import get_reusable_executor

    get_reusable_executor().shutdown(wait=True)


def _cpu_s():
    """CPU seconds of this process and of those it has waited for."""
    import resource

    own = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


if __name__ == "__main__":
    sys.exit(main())
