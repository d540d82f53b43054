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
from sagescale.errors import InputError
from sagescale.experiment.misses import counterfactuals, split_misses
from sagescale.experiment.searches import Answer, cheapest_reaching, highest, search_all
from sagescale.experiment.tasks import (
    ClairvoyantTask,
    PartBoundTask,
    PartTask,
    RunTask,
    StaticSearchTask,
    fixed_sizes,
)
from sagescale.experiment.workload import Workload
from sagescale.planner.policy import default_predictor, uses_forecast
from sagescale.sim.part import Part
from sagescale.sim.startup import StartupDelay
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
TRUE_LOAD, INSTANT = "with the true load", "with instant starts"


@dataclass(frozen=True)
class Entry:
    """Somebody to judge.

    Attributes:
        kind: "default" (slo as it comes), "candidate" (knob set on the first part), "variant" (the champion
            with the true load, or with instant starts), "reference" (knows the future, or is chosen in
            hindsight).
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


def compete(scenario, worker, entrants, champion):
    """Run the protocol on a scenario.

    Args:
        entrants: "policy" or "policy/predictor"; "static" is the cheapest pair that holds on the first part.
        champion: the one of them that is compared with all others. Its policy runs with its knob as it comes,
            everybody else with the knob set.
    """
    whole = Workload(scenario.recorded(), scenario.transforms, scenario.engines(), block_s=scenario.block_s)
    cut_s = scenario.cut_s
    first = dataclasses.replace(whole, until_s=cut_s)
    if cut_s <= WARM_UP_S:
        raise InputError(
            f"scenario {scenario.name}: knobs are set on the first {cut_s:.0f} s of {scenario.trace}, and "
            f"{WARM_UP_S:.0f} s are warm-up; expected a longer trace"
        )
    to_set, to_judge = Part(WARM_UP_S), Part(cut_s)
    worker.forget_forecasts()
    budget = MAX_GPU_BUDGET
    if scenario.budget_share is not None:
        budget = _tight_budget(scenario, whole, worker)
    config = scenario.config(budget)
    outcome = Outcome(scenario, budget)

    # -- knobs, on the first part
    simulator = scenario.simulator(scenario.first_seed)
    runs = {name: _run(config, name, simulator) for name in entrants if name != "static"}
    own = champion.partition("/")[0]
    chosen = _set_knobs(
        scenario, first, to_set, worker, [run for run in runs.values() if run.config.policy != own]
    )
    entries = []
    for name, run in runs.items():
        policy, predictor = _who(name)
        if policy == own:
            entries.append(Entry(name, policy, predictor, "default", 1.0, run))
        elif run in chosen:
            headroom = GRID[chosen[run]]
            entries.append(
                Entry(name, policy, predictor, "candidate", headroom, _with_headroom(run, headroom))
            )
    if champion in runs:
        entries += _variants(champion, runs[champion])
    entries += _fixed(outcome, config, first, to_set, whole, to_judge, worker, entrants)

    # -- everybody on the rest
    outcome.judged = [Judged(entry, []) for entry in entries]
    _judge(outcome, whole, to_judge, worker)
    outcome.champion = outcome.by_name(champion)
    if outcome.champion is not None:
        _foresee(outcome, config, whole, to_judge, worker)
    if not scenario.first_seed:
        _split_misses(outcome, whole, to_judge, worker)
    return outcome


def _who(name):
    """Policy and predictor of an entrant; "" is the predictor that the policy comes with."""
    policy, _, predictor = name.partition("/")
    return policy, predictor


def _run(config, name, simulator):
    policy, predictor = _who(name)
    predictor = predictor or default_predictor(policy)
    changes = {"load_predictor_type": predictor} if predictor else {}
    return RunTask(dataclasses.replace(config, policy=policy, **changes), simulator)


def _variants(champion, run):
    """The champion with the true load in place of forecasts, and with starts that take no time."""
    policy, predictor = _who(champion)
    at_once = dataclasses.replace(run.simulator, startup_delay_s=StartupDelay("constant", (0.0,)))
    made = [Entry(INSTANT, policy, predictor, "variant", 1.0, dataclasses.replace(run, simulator=at_once))]
    if uses_forecast(policy):
        made.append(
            Entry(TRUE_LOAD, policy, predictor, "variant", 1.0, dataclasses.replace(run, load="true"))
        )
    return made


def _with_headroom(run, headroom):
    return dataclasses.replace(run, config=dataclasses.replace(run.config, load_headroom=headroom))


def _on_seed(run, seed):
    """The same on another copy of the requests, with other startup draws."""
    simulator = dataclasses.replace(run.simulator, simulation_seed=seed)
    return dataclasses.replace(run, simulator=simulator, replicate=seed)


def highest_attainment(count, stride):
    """Find the position of highest attainment: every ``stride``-th, then all around the best of them."""
    known = {}
    known.update((yield range(0, count, stride)))
    best = highest(known)
    near = range(max(0, best - stride + 1), min(count, best + stride))
    known.update((yield [position for position in near if position not in known]))
    return highest(known)


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


def _fixed(outcome, config, first, to_set, whole, to_judge, worker, entrants):
    """Fixed pairs chosen on the first part and in hindsight; and what no schedule can beat."""
    scenario = outcome.scenario
    simulator = scenario.simulator(0)
    entries = []
    pair_first = StaticSearchTask(config, simulator, ASKED, to_set)
    pair_later = StaticSearchTask(config, simulator, ASKED, to_judge)
    bound = PartBoundTask(RunTask(config, simulator, load="true"), to_judge)
    pairs = {}
    if "static" in entrants:
        pairs = worker.answers(first, [pair_first], f"{scenario.name} fixed pair")
        pairs |= worker.answers(whole, [pair_later], f"{scenario.name} fixed pair in hindsight")
    outcome.lower_bound_gpu_hours = worker.answers(whole, [bound], f"{scenario.name} bound").get(bound)
    for search, name, kind in (
        (pair_first, "static", "candidate"),
        (pair_later, "static (hindsight)", "reference"),
    ):
        pair = pairs.get(search)
        if pair is not None and pair.sizes is not None:
            run = RunTask(*fixed_sizes(config, scenario.simulator(scenario.first_seed), pair.sizes))
            size = f"{pair.sizes.prefill}+{pair.sizes.decode}"
            entries.append(Entry(f"{name} {size}", "static", "", kind, None, run))
    return entries


def _foresee(outcome, config, whole, part, worker):
    """The schedule that knows the future, solved on each seed at the attainment the champion had on it."""
    scenario = outcome.scenario
    seeds = _seeds(scenario)[: scenario.foreseen]
    searches = {
        seed: ClairvoyantTask(config, scenario.simulator(seed), result.attainment, part, replicate=seed)
        for seed, result in zip(seeds, outcome.champion.series, strict=False)
    }
    found = worker.answers(whole, list(searches.values()), f"{scenario.name} clairvoyant")
    runs = {
        seed: PartTask(
            _on_seed(RunTask(config, scenario.simulator(seed), load="true", schedule=found[search]), seed),
            part,
        )
        for seed, search in searches.items()
        if found.get(search) is not None
    }
    answers = worker.answers(whole, list(runs.values()), f"{scenario.name} clairvoyant judged")
    if runs and len(runs) == len(searches):
        entry = Entry("clairvoyant", "clairvoyant", "", "reference", None, runs[scenario.first_seed].run)
        outcome.judged.append(Judged(entry, [answers[run].result for run in runs.values()]))


def _seeds(scenario):
    return range(scenario.first_seed, scenario.first_seed + scenario.seeds)


def _tight_budget(scenario, whole, worker):
    """A share of the most GPUs that the clairvoyant schedule for the whole trace holds without a budget."""
    config, simulator, part = scenario.config(MAX_GPU_BUDGET), scenario.simulator(0), Part(WARM_UP_S)
    search = ClairvoyantTask(config, simulator, ASKED, part)
    schedule = worker.answers(whole, [search], f"{scenario.name} peak")[search]
    run = PartTask(RunTask(config, simulator, load="true", schedule=schedule), part)
    peak = worker.answers(whole, [run], f"{scenario.name} peak")[run].max_gpus
    return math.floor(scenario.budget_share * peak)


def _judge(outcome, whole, part, worker):
    scenario, judged = outcome.scenario, outcome.judged
    looks = sorted({min(scenario.look, scenario.seeds), scenario.seeds})
    done = 0
    for look in looks:
        going = [one for one in judged if one.stopped is None]
        seeds = _seeds(scenario)[done:look]
        tasks = {
            (one.entry.name, seed): PartTask(_on_seed(one.entry.run, seed), part)
            for seed in seeds
            for one in going
        }
        words = f"{scenario.name} judged, seeds {seeds[0]} to {seeds[-1]}" if seeds else scenario.name
        answers = worker.answers(whole, list(tasks.values()), words)
        for one in going:
            for seed in seeds:
                task = tasks[one.entry.name, seed]
                if task in answers:
                    one.series.append(answers[task].result)
                else:
                    one.stopped = "failed"
        done = look
        if look < scenario.seeds:
            for one in going:
                if one.entry.kind == "variant":
                    one.stopped = one.stopped or "enough"
            _stop_losing(outcome)
    outcome.judged = [one for one in judged if one.series]


def _stop_losing(outcome):
    """Stop candidates that lose on every seed so far, by a margin that the seeds left would not undo."""
    going = [one for one in outcome.judged if one.entry.kind == "candidate" and one.stopped is None]
    tight = outcome.scenario.budget_share is not None
    holding = [
        one
        for one in outcome.judged
        if one.entry.kind not in {"reference", "variant"}
        and one.series
        and all(p.attainment >= ASKED for p in one.series)
    ]
    best = max(
        (
            min(p.attainment for p in one.series)
            for one in outcome.judged
            if one.entry.kind not in {"reference", "variant"} and one.series
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
