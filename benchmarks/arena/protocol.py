"""One scenario, from setting the knobs on its first part to judging everybody on the rest.

Runs are continuous: a judged run begins with the trace and serves all of it, so that forecasters have their
history and pools the size they grew to, and is measured on the requests that arrive in the judged part and on
the GPU time from its beginning on. A run that sets a knob ends where the first part ends; it never sees the
rest.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import estimates
from sagescale.experiment.misses import counterfactuals, split_misses
from sagescale.experiment.searches import Answer, cheapest_reaching, highest_attainment, search_all
from sagescale.experiment.tasks import (
    ClairvoyantTask,
    PartBoundTask,
    PartTask,
    RunTask,
    StaticSearchTask,
    fixed_sizes,
)
from sagescale.experiment.workload import Workload
from sagescale.planner.policy import uses_forecast
from sagescale.sim.part import Part
from scenarios import MAX_GPU_BUDGET, WARM_UP_S

if TYPE_CHECKING:
    from sagescale.document import MissSplit

ASKED = 0.99
GRID = tuple(round(1.05**step, 4) for step in range(-14, 58))
"""Values of load_headroom, the same for everybody: 0.505 to 16.1, 5 % apart."""
NEUTRAL = GRID.index(1.0)
COARSE = 4
"""Where attainment is all that counts, every fourth value is tried first."""
LOSING_GPU_HOURS = 1.25
LOSING_ATTAINMENT = 0.01


@dataclass(frozen=True)
class Entry:
    """Somebody to judge.

    Attributes:
        kind: "default" (slo as it comes), "candidate" (knob set on the first part), "reference" (knows
            the future, or is chosen in hindsight).
        headroom: the knob; None where there is none.
    """

    name: str
    policy: str
    predictor: str
    kind: str
    headroom: float | None
    run: RunTask


@dataclass
class Judged:
    """An entry and what came of it: a PartResult for each seed done."""

    entry: Entry
    series: list
    stopped: str | None = None
    misses: MissSplit | None = None


@dataclass
class Outcome:
    """A scenario's judged entries, in no order; ``champion`` is the one that is to beat the others."""

    scenario: object
    budget: int
    judged: list[Judged] = field(default_factory=list)
    champion: Judged | None = None
    lower_bound_gpu_hours: float | None = None

    def by_name(self, name):
        return next((one for one in self.judged if one.entry.name == name), None)


def compete(scenario, worker, policies, predictors, champion):
    """Run the protocol on a scenario.

    Args:
        champion: "policy/predictor" of the one compared with all others. The policy runs with its knob as
            it comes, everybody else with the knob set.
    """
    whole = Workload(scenario.recorded(), scenario.transforms, scenario.engines(), block_s=None)
    cut_s = scenario.cut_s
    first = dataclasses.replace(whole, until_s=cut_s)
    to_set, to_judge = Part(WARM_UP_S), Part(cut_s)
    worker.forget_forecasts()
    budget = MAX_GPU_BUDGET
    if scenario.budget_share is not None:
        budget = _tight_budget(scenario, whole, worker)
    config = scenario.config(budget)
    outcome = Outcome(scenario, budget)

    # -- knobs, on the first part
    combinations = [
        _run(config, policy, predictor, scenario.simulator(0))
        for policy in policies
        if policy != "static"
        for predictor in (*(predictors if uses_forecast(policy) else ()), "oracle")
        if uses_forecast(policy) or predictor == "oracle"
    ]
    own = champion.partition("/")[0]
    chosen = _set_knobs(
        scenario, first, to_set, worker, [run for run in combinations if run.config.policy != own]
    )
    entries = []
    for run in combinations:
        policy, predictor = _who(run)
        kind = "reference" if predictor == "oracle" else "candidate"
        name = f"{policy}/{predictor}" if predictor != "none" else policy
        if policy == own:
            default = "default" if kind == "candidate" else kind
            entries.append(Entry(name, policy, predictor, default, 1.0, run))
        elif run in chosen:
            headroom = GRID[chosen[run]]
            entries.append(Entry(name, policy, predictor, kind, headroom, _with_headroom(run, headroom)))
    entries += _fixed_and_foreseen(outcome, config, first, to_set, whole, to_judge, worker, policies)

    # -- everybody on the rest
    _judge(outcome, entries, whole, to_judge, worker)
    _split_misses(outcome, whole, to_judge, worker)
    outcome.champion = outcome.by_name(champion)
    return outcome


def _run(config, policy, predictor, simulator):
    named = predictor if predictor != "oracle" and uses_forecast(policy) else "constant"
    load = "true" if predictor == "oracle" and uses_forecast(policy) else "named"
    return RunTask(
        dataclasses.replace(config, policy=policy, load_predictor_type=named), simulator, load=load
    )


def _who(run):
    if not uses_forecast(run.config.policy):
        return run.config.policy, "none"
    return run.config.policy, "oracle" if run.load == "true" else run.config.load_predictor_type


def _with_headroom(run, headroom):
    return dataclasses.replace(run, config=dataclasses.replace(run.config, load_headroom=headroom))


def _on_seed(run, seed):
    """The same on another copy of the requests, with other startup draws."""
    simulator = dataclasses.replace(run.simulator, simulation_seed=seed)
    return dataclasses.replace(run, simulator=simulator, replicate=seed)


def _set_knobs(scenario, first, part, worker, combinations):
    """The position on the grid for every combination, all searches side by side."""
    if scenario.budget_share is None:
        searches = {
            run: cheapest_reaching(len(GRID), NEUTRAL, ASKED, scenario.around) for run in combinations
        }
    else:
        searches = {run: highest_attainment(len(GRID), COARSE) for run in combinations}
    seeds = range(scenario.knob_seeds)

    def answer(asked):
        tasks = {
            (run, position): [
                PartTask(_on_seed(_with_headroom(run, GRID[position]), seed), part) for seed in seeds
            ]
            for run, position in asked
        }
        every = [task for group in tasks.values() for task in group]
        found = worker.answers(first, every, f"{scenario.name} knobs")
        return {
            place: Answer(
                math.fsum(found[task].result.attainment for task in group) / len(group),
                math.fsum(found[task].result.gpu_hours for task in group) / len(group),
            )
            for place, group in tasks.items()
            if all(task in found for task in group)
        }

    return search_all(searches, answer)


def _fixed_and_foreseen(outcome, config, first, to_set, whole, to_judge, worker, policies):
    """Fixed pairs chosen on the first part and in hindsight, and the schedule that knows the future."""
    scenario = outcome.scenario
    simulator = scenario.simulator(0)
    entries = []
    pair_first = StaticSearchTask(config, simulator, ASKED, to_set)
    pair_later = StaticSearchTask(config, simulator, ASKED, to_judge)
    foreseen = ClairvoyantTask(config, simulator, ASKED, to_judge)
    bound = PartBoundTask(RunTask(config, simulator, load="true"), to_judge)
    found = worker.answers(first, [pair_first], f"{scenario.name} fixed pair")
    found |= worker.answers(whole, [foreseen, pair_later, bound], f"{scenario.name} references")
    outcome.lower_bound_gpu_hours = found.get(bound)
    for search, name, kind in (
        (pair_first, "static", "candidate"),
        (pair_later, "static (hindsight)", "reference"),
    ):
        pair = found.get(search)
        if "static" in policies and pair is not None and pair.sizes is not None:
            run = RunTask(*fixed_sizes(config, simulator, pair.sizes))
            size = f"{pair.sizes.prefill}+{pair.sizes.decode}"
            entries.append(Entry(f"{name} {size}", "static", "none", kind, None, run))
    if (schedule := found.get(foreseen)) is not None:
        run = RunTask(config, simulator, load="true", schedule=schedule)
        entries.append(Entry("clairvoyant", "clairvoyant", "none", "reference", None, run))
    return entries


def _tight_budget(scenario, whole, worker):
    """A share of the most GPUs that the clairvoyant schedule for the whole trace holds without a budget."""
    config, simulator, part = scenario.config(MAX_GPU_BUDGET), scenario.simulator(0), Part(WARM_UP_S)
    search = ClairvoyantTask(config, simulator, ASKED, part)
    schedule = worker.answers(whole, [search], f"{scenario.name} peak")[search]
    run = PartTask(RunTask(config, simulator, load="true", schedule=schedule), part)
    peak = worker.answers(whole, [run], f"{scenario.name} peak")[run].max_gpus
    return math.floor(scenario.budget_share * peak)


def _judge(outcome, entries, whole, part, worker):
    scenario = outcome.scenario
    judged = [Judged(entry, []) for entry in entries]
    outcome.judged = judged
    looks = sorted({min(scenario.look, scenario.seeds), scenario.seeds})
    done = 0
    for look in looks:
        going = [one for one in judged if one.stopped is None]
        tasks = {
            (one.entry.name, seed): PartTask(_on_seed(one.entry.run, seed), part)
            for seed in range(done, look)
            for one in going
        }
        answers = worker.answers(
            whole, list(tasks.values()), f"{scenario.name} judged, seeds {done} to {look - 1}"
        )
        for one in going:
            for seed in range(done, look):
                task = tasks[one.entry.name, seed]
                if task in answers:
                    one.series.append(answers[task].result)
                else:
                    one.stopped = "failed"
        done = look
        if look < scenario.seeds:
            _stop_losing(outcome)
    outcome.judged = [one for one in judged if one.series]


def _stop_losing(outcome):
    """Stop candidates that lose on every seed so far, by a margin that the seeds left would not undo."""
    going = [one for one in outcome.judged if one.entry.kind == "candidate" and one.stopped is None]
    tight = outcome.scenario.budget_share is not None
    holding = [
        one
        for one in outcome.judged
        if one.entry.kind != "reference" and one.series and all(p.attainment >= ASKED for p in one.series)
    ]
    best = max(
        (
            min(p.attainment for p in one.series)
            for one in outcome.judged
            if one.entry.kind != "reference" and one.series
        ),
        default=0.0,
    )
    for one in going:
        if not one.series:
            continue
        asked = best if tight else ASKED
        if all(part.attainment < asked - LOSING_ATTAINMENT for part in one.series):
            one.stopped = "attainment"
        elif not tight and any(
            all(
                mine.gpu_hours > LOSING_GPU_HOURS * theirs.gpu_hours
                for mine, theirs in zip(one.series, other.series, strict=False)
            )
            for other in holding
            if other is not one
        ):
            one.stopped = "GPU-hours"


def _split_misses(outcome, whole, part, worker):
    chains = {
        one.entry.name: {
            cause: PartTask(dataclasses.replace(task, document=False), part)
            for cause, task in counterfactuals(_on_seed(one.entry.run, 0)).items()
        }
        for one in outcome.judged
        if one.stopped is None
    }
    answers = worker.answers(
        whole,
        [task for chain in chains.values() for task in chain.values()],
        f"{outcome.scenario.name} misses by cause",
    )
    for one in outcome.judged:
        if one.entry.name in chains:
            left = {
                cause: answers[task].result.misses
                for cause, task in chains[one.entry.name].items()
                if task in answers
            }
            one.misses = split_misses(
                one.series[0].misses,
                true_load=left.get("true_load"),
                no_startup=left.get("no_startup"),
                one_more=left.get("one_more"),
            )


def estimate(one, scenario):
    """(attainment, GPU-hours) with their intervals."""
    resampled = scenario.hours_resampled
    return (
        estimates.attainment(one.series, resampled=resampled),
        estimates.gpu_hours(one.series, resampled=resampled),
    )
