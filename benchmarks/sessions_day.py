"""A day of coding agents, planned for: what every policy keeps and costs, and what open loop makes of each.

    python benchmarks/sessions_day.py [--copies N] [--slice A:B] [--only NAME,...] [--set KEY=VALUE ...]

The 300 recorded sessions begin as a service's requests come over a day (ServeGen's m-mid: so many of its
arrivals, drawn; which session begins when is drawn, too), and go on as they are answered. Engines are an 8B
model on H100s, aggregated, with prefix caches. Printed is a row a policy: attainment and GPU-hours with the
loop closed, and what replaying the recorded arrival times shows instead. Searches know the future: those of
``static`` and ``clairvoyant`` are made for each loop, and where none is found in open loop, what was found in
the closed one is replayed. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sagescale.experiment.grid import scenario_of
from sagescale.experiment.tasks import (
    ClairvoyantTask,
    RunTask,
    StaticSearchTask,
    fixed_sizes,
    perform,
    simulate_task,
)
from sagescale.experiment.verdict import percent
from sagescale.setup import load_comparison
from sagescale.sim.measures import score
from sagescale.trace import TransformSpec, parse_sessions, parse_slice, read_trace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sagescale.experiment.grid import Variant
    from sagescale.experiment.workload import Workload

_TRACES = Path(__file__).resolve().parents[2] / "shared" / "traces"
_KEYS = {
    "serving": "aggregated",
    "prefix_cache": True,
    # 900,000 tokens of an 8B model with its KV in 8 bits are 59 GB, beside 16 GB of weights.
    "max_kv_tokens": 900_000,
    "max_batched_tokens": 8192,
    "routing_strategy": "kv_aware",
    "target_ttft_ms": 10_000,
    "target_itl_ms": 100,
    "target_attainment": 0.95,
    "max_instances": 16,
}
_POLICIES = ("slo", "classic", "reactive", "static", "clairvoyant", "slo/oracle", "classic/oracle")


def run_of(workload: Workload, variant: Variant, name: str) -> RunTask | None:
    """The run of a policy; None where nothing reaches the attainment."""
    policy, _, load = name.partition("/")
    scenario = scenario_of(variant)
    asked = variant.config.target_attainment
    if policy == "static":
        found = perform(workload, StaticSearchTask(scenario.config, scenario.simulator, asked))
        if found is None or found.sizes is None:
            return None
        print(f"  static: {found.sizes}", flush=True)
        return RunTask(*fixed_sizes(scenario.config, scenario.simulator, found.sizes))
    if policy == "clairvoyant":
        schedule = perform(workload, ClairvoyantTask(scenario.config, scenario.simulator, asked))
        if schedule is None:
            return None
        return RunTask(scenario.config, scenario.simulator, schedule=schedule, load="true")
    return RunTask(
        replace(variant.config, policy=policy), variant.simulator, load="true" if load else "named"
    )


def options(description: str | None) -> argparse.ArgumentParser:
    """What sessions come when, and the keys that are set beside those of the day."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--agents", default=str(_TRACES / "sessions" / "claude_code_300.jsonl.gz"))
    parser.add_argument("--sessions", default=f"trace:{_TRACES / 'servegen_m-mid_1d.parquet'}")
    parser.add_argument("--copies", type=float, default=1.0, help="of every session")
    parser.add_argument("--slice", help="sessions that begin from A to before B, s")
    parser.add_argument("--max-think-s", type=float, default=3600.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    return parser


def workload_and_variants(given: argparse.Namespace, *ways: str) -> tuple[Workload, Sequence[Variant]]:
    """The sessions, and a variant for each way of closing the loop or not."""
    transforms = TransformSpec(
        sessions=parse_sessions(given.sessions),
        rate_scale=given.copies,
        max_think_s=given.max_think_s,
        slice=parse_slice(given.slice) if given.slice else None,
        seed=given.seed,
    )
    both = [[*(f"{key}={value}" for key, value in _KEYS.items()), *given.set, f"open_loop={way}"]
            for way in ways]  # fmt: skip
    return load_comparison(
        read_trace(given.agents),
        "h100-llama-3.1-8b-bf16-agg",
        [([], chosen, {}) for chosen in both],
        transforms,
    )


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--only", default=",".join(_POLICIES), help="policies")
    given = parser.parse_args()
    workload, variants = workload_and_variants(given, "false", "true")
    trace = workload.trace()
    print(
        f"{len(trace):,} requests of {trace.session_id.max() + 1:,} sessions: {'; '.join(trace.transforms)}"
    )
    print(
        "| policy | closed: attainment | GPU-hours | hits | sessions | open: attainment | GPU-hours | error |"
    )
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for name in given.only.split(","):
        began, cells, found, before = time.process_time(), [], [], None
        for variant in variants:
            task = run_of(workload, variant, name)
            same = ""
            if task is None:
                if before is None:
                    cells += ["not reached", "-"]
                    continue
                task = replace(before, simulator=replace(before.simulator, open_loop=True))
                same = "not reached; as closed: "
            before = task
            run = simulate_task(workload, task)
            found.append(score(run))
            cells += [same + percent(found[-1].attainment), f"{found[-1].gpu_hours:.1f}"]
            if not variant.simulator.open_loop:
                cells += measures(run)
        if len(found) == 2:
            closed, opened = found
            hours = opened.gpu_hours / closed.gpu_hours - 1
            cells.append(f"{100 * (opened.attainment - closed.attainment):+.2f} points, {100 * hours:+.1f} %")
        spent_s = time.process_time() - began
        print(f"| {name} | {' | '.join(cells)} |  <!-- {spent_s:.0f} s -->", flush=True)


def measures(run: object) -> list[str]:
    """Hit rate of the prefix caches, and the share of sessions with every request good."""
    from sagescale.sim.result import run_document

    document = run_document(run, "")
    prefix, sessions = document.engines.prefix, document.sessions
    return [f"{prefix.hit_rate:.1%}", f"{sessions.attainment:.1%} of {sessions.total:,}"]


if __name__ == "__main__":
    main()
