"""Every policy with every predictor, on six scenarios, judged on data that set none of their knobs.

    python benchmarks/arena [--quick] [--elsewhere] [--scenario chat ...] [--policies a,b] [--predictors a,b]
                            [--jobs 2] [--json OUT] [--markdown OUT] [--png OUT] [--html OUT]

Every policy has the same knob, ``load_headroom``, on the same grid, and the same constraints. It is set on
the first 40 % of the trace (two days: the first) to the cheapest value that reaches 99 %, and judged on the
rest; the first ten minutes do not count. The champion's policy runs with its knob as it comes (1). What is
clearly losing is stopped after the first seeds: the table says so.
docs/arena.md tells the protocol; finished runs are kept in --store, and a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time
from pathlib import Path

for _library in ("OPENBLAS", "OMP", "MKL", "NUMEXPR"):
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")


def main() -> int:
    from protocol import compete
    from sagescale.cli.options import choose
    from sagescale.errors import SagescaleError
    from sagescale.experiment.execute import default_jobs, open_backend
    from sagescale.planner import AutoscalerConfig
    from sagescale.planner.forecast import predictor_names
    from sagescale.planner.policy import policy_names
    from scenarios import ELSEWHERE, SCENARIOS, TRACES, quick
    from store import Store
    from table import markdown, rows, verdict
    from worker import Worker

    every = (*SCENARIOS, *ELSEWHERE)
    names = [scenario.name for scenario in every]
    default = AutoscalerConfig().load_predictor_type
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenario", action="append", choices=names, help="repeatable; default: the six")
    parser.add_argument("--policies", default="all", metavar="A,B")
    parser.add_argument("--predictors", default="all", metavar="A,B")
    parser.add_argument(
        "--champion", default=f"slo/{default}", metavar="POLICY/PREDICTOR", help=f"default slo/{default}"
    )
    parser.add_argument("--elsewhere", action="store_true", help="eight other scenarios, three seeds each")
    parser.add_argument("--quick", action="store_true", help="fewer seeds, a tenth of the two days' traffic")
    parser.add_argument(
        "--seeds", type=int, metavar="N", help="judged seeds, in place of each scenario's own"
    )
    parser.add_argument("--jobs", type=int, default=default_jobs(), metavar="N")
    parser.add_argument("--store", type=Path, default=Path("out/arena.jsonl"), metavar="FILE")
    parser.add_argument("--json", type=Path, metavar="OUT")
    parser.add_argument("--markdown", type=Path, metavar="OUT")
    parser.add_argument("--png", type=Path, metavar="OUT")
    parser.add_argument("--html", type=Path, metavar="OUT")
    given = parser.parse_args()
    try:
        policies = choose("--policies", given.policies, policy_names())
        tried = predictor_names()
        predictors = choose("--predictors", given.predictors, tried)
    except SagescaleError as error:
        parser.error(str(error))
    if not TRACES.is_dir():
        parser.error(f"{TRACES}: no such folder; SAGESCALE_SHARED names the one that holds traces/")
    if given.scenario:
        chosen = [scenario for scenario in every if scenario.name in given.scenario]
    else:
        chosen = ELSEWHERE if given.elsewhere else SCENARIOS
    if given.quick:
        chosen = [quick(scenario) for scenario in chosen]
    if given.seeds:
        chosen = [dataclasses.replace(scenario, seeds=given.seeds) for scenario in chosen]
    outcomes, tables, verdicts = [], {}, {}
    began, began_cpu = time.perf_counter(), _cpu_s()
    stopped = False
    with open_backend("processes", given.jobs, None) as backend:
        worker = Worker(backend, Store(given.store))
        for scenario in chosen:
            print(f"{scenario.name} ...", file=sys.stderr, flush=True)
            try:
                outcome = compete(scenario, worker, policies, predictors, given.champion)
            except KeyboardInterrupt:
                print(f"interrupted: what is done is kept in {given.store}", file=sys.stderr)
                stopped = True
                break
            table = rows(outcome)
            outcomes.append(outcome)
            tables[scenario.name] = table
            verdicts[scenario.name] = verdict(outcome, table)
            print(markdown(outcome, table))
            print(verdicts[scenario.name][1], "\n", flush=True)
    _end_workers()  # only then is their CPU time known
    minutes, cpu_minutes = (time.perf_counter() - began) / 60.0, (_cpu_s() - began_cpu) / 60.0
    for won, sentence in verdicts.values():
        print({True: "yes", False: "NO ", None: "-  "}[won], sentence)
    print(
        f"{minutes:.1f} minutes, {cpu_minutes:.1f} of CPU time with {given.jobs} jobs; {worker.done_runs} "
        f"runs done, {worker.reused_runs} found in {given.store}"
    )
    for failure in worker.failures:
        print(f"failed: {failure}", file=sys.stderr)
    if given.json:
        document = {
            "minutes": minutes,
            "cpu_minutes": cpu_minutes,
            "champion": given.champion,
            "verdicts": {name: {"won": won, "text": text} for name, (won, text) in verdicts.items()},
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
        given.markdown.write_text("\n".join([*parts, *(text for _, text in verdicts.values())]) + "\n")
    if outcomes and (given.png or given.html):
        from picture import html, png

        if given.png:
            png(given.png, outcomes, tables)
        if given.html:
            html(given.html, outcomes, tables)
    if stopped:
        return 130
    return 1 if worker.failures else 0


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
