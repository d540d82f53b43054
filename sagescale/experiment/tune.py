"""Tuning: the configuration that keeps an attainment at the least GPU-hours, judged on data it never saw.

Three rounds on the earlier part of a trace. First every policy with every predictor, each with its headroom
set, on the trace as it is: the race. Then the best of them on replicates as well. Then what depends on one
another (interval, floors, stabilisation, headroom) together. What holds at the least GPU-hours is chosen, and
then judged on the later part.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sagescale.experiment.knob import Answer, cheapest_reaching, search_all
from sagescale.experiment.tune_refine import refine, worth
from sagescale.experiment.tune_space import HEADROOMS, Candidate, candidate_of
from sagescale.experiment.tune_trials import Interrupted, Trial
from sagescale.planner.policy import uses_forecast

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sagescale.experiment.tune_space import Space
    from sagescale.experiment.tune_trials import Trials

__all__ = ["LEVELS", "Goal", "Judged", "Tuned", "expected_simulations", "tune"]

LEVELS = (0.95, 0.96, 0.97, 0.98, 0.985, 0.99, 0.995, 0.999)
"""Attainments of the trade-off curve."""

_FINALISTS = 4
"""Combinations of policy and predictor that get past the race."""
_SHOWN = 6


@dataclass(frozen=True, slots=True)
class Goal:
    """What is asked.

    Attributes:
        attainment: share of requests that must meet both targets.
        replicates: copies of the trace that candidates are tried on.
        refinements: candidates tried in the last round.
        seed: of whatever is drawn in choosing candidates.
    """

    attainment: float
    replicates: int
    refinements: int
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Judged:
    """A candidate on the earlier part and on the later one; None where it was not judged."""

    earlier: Trial
    later: Trial | None


@dataclass(frozen=True, slots=True)
class Tuned:
    """What tuning found.

    Attributes:
        chosen: what holds on the earlier part at the least GPU-hours; where nothing does, what comes
            nearest. None where nothing was tried.
        configured: the configuration as it was given.
        others: the best of the other combinations, by what they cost.
        tried: everything tried on all replicates.
        curve: for each of ``LEVELS`` the cheapest tried that reaches it on the earlier part.
        interrupted: the user did; this is what was known by then.
    """

    chosen: Judged | None
    configured: Judged | None
    others: tuple[Judged, ...]
    tried: tuple[Trial, ...]
    curve: tuple[Trial | None, ...]
    interrupted: bool


def tune(earlier: Trials, later: Trials, space: Space, goal: Goal) -> Tuned:
    """Search on the earlier part, judge on the later.

    Args:
        earlier: tries candidates on what they are chosen by.
        later: tries them on what they are judged by.
        space: the values to choose from; its floors are raised to the fixed pair that holds.
        goal: what is asked.
    """
    replicates = range(goal.replicates)
    config = earlier.config
    configured = candidate_of(config, config.policy, config.load_predictor_type)
    interrupted = False
    try:
        _search(earlier, space, goal, configured)
    except Interrupted:
        interrupted = True
    tried = earlier.tried(replicates)
    ranked = _ranked(tried, goal.attainment)
    if interrupted and not ranked:  # the race was not over: what it knows is better than nothing
        ranked = _ranked(earlier.tried(range(1)), goal.attainment)
    others = [
        trial
        for number, trial in enumerate(ranked)
        if trial.candidate.name not in {before.candidate.name for before in ranked[:number]}
    ][1:_SHOWN]
    own = next((trial for trial in ranked if trial.candidate == configured), None)
    shown = [trial for trial in (*ranked[:1], own, *others) if trial is not None]
    judged: dict[Candidate, Trial] = {}
    if not interrupted:
        try:
            judged = later.try_all((trial.candidate for trial in shown), replicates)
        except Interrupted:
            interrupted = True
    both = {trial.candidate: Judged(trial, judged.get(trial.candidate)) for trial in shown}
    return Tuned(
        chosen=both[ranked[0].candidate] if ranked else None,
        configured=None if own is None else both[own.candidate],
        others=tuple(both[trial.candidate] for trial in others),
        tried=tuple(tried),
        curve=tuple(_cheapest(tried, level) for level in LEVELS),
        interrupted=interrupted,
    )


def expected_simulations(space: Space, goal: Goal) -> int:
    """About how many simulations the search will take, for a progress bar."""
    raced = sum(
        len(space.predictors) if uses_forecast(policy) else 1
        for policy in space.policies
        if policy != "static"
    )
    searched = 9 * raced + 5 * _FINALISTS * goal.replicates
    return searched + goal.refinements * (goal.replicates + 1) // 2 + 10 * goal.replicates


def _search(trials: Trials, space: Space, goal: Goal, configured: Candidate) -> None:
    replicates = range(goal.replicates)
    static = None
    if "static" in space.policies:
        static = trials.cheapest_static(goal.attainment, configured)
    if static is not None and static.static is not None:
        floor = tuple(map(max, space.most_floor, static.static))
        space = dataclasses.replace(space, most_floor=(floor[0], floor[1]))
    config = trials.config
    starts = [
        candidate_of(config, policy, predictor)
        for policy in space.policies
        if policy != "static"
        for predictor in (space.predictors if uses_forecast(policy) else (config.load_predictor_type,))
    ]
    raced = _with_headroom_set(trials, starts, goal, replicates[:1])
    finalists = [trial.candidate for trial in _ranked(raced, goal.attainment)[:_FINALISTS]]
    trials.try_all([configured, *([] if static is None else [static])], replicates)
    final = _with_headroom_set(trials, finalists, goal, replicates)
    refine(
        trials,
        space,
        [trial.candidate for trial in final],
        asked=goal.attainment,
        replicates=replicates,
        count=goal.refinements,
        seed=goal.seed,
    )
    best = _ranked(trials.tried(replicates), goal.attainment)
    if best and best[0].candidate.static is None:
        _draw_curve(trials, best[0].candidate, replicates)


def _with_headroom_set(
    trials: Trials, starts: Sequence[Candidate], goal: Goal, replicates: Sequence[int]
) -> list[Trial]:
    """Each with the cheapest headroom that holds, searched from its own."""
    searches = {
        start: cheapest_reaching(len(HEADROOMS), start.headroom, goal.attainment, 1) for start in starts
    }

    def answer(asked: Sequence[tuple[Candidate, int]]) -> dict[tuple[Candidate, int], Answer]:
        candidates = {
            (start, position): dataclasses.replace(start, headroom=position) for start, position in asked
        }
        known = trials.try_all(candidates.values(), replicates)
        return {
            place: Answer(known[candidate].attainment, known[candidate].gpu_hours)
            for place, candidate in candidates.items()
            if candidate in known
        }

    found = search_all(searches, answer)
    tuned = (dataclasses.replace(start, headroom=position) for start, position in found.items())
    return [trial for candidate in tuned if (trial := trials.trial(candidate, replicates)) is not None]


def _draw_curve(trials: Trials, best: Candidate, replicates: Sequence[int]) -> None:
    """Try the best with more and less headroom until it spans the levels of the curve."""
    for step in (-1, 1):
        at, trial = best, trials.trial(best, replicates)
        while trial is not None and LEVELS[0] <= trial.attainment < (LEVELS[-1] if step > 0 else 2.0):
            if not 0 <= at.headroom + step < len(HEADROOMS):
                break
            at = dataclasses.replace(at, headroom=at.headroom + step)
            trial = trials.try_all([at], replicates).get(at)


def _ranked(trials: Sequence[Trial], asked: float) -> list[Trial]:
    """What holds by GPU-hours, then what does not by how near it comes; of equal ones the first tried."""
    return sorted(trials, key=lambda trial: worth(trial, asked))


def _cheapest(trials: Sequence[Trial], level: float) -> Trial | None:
    return min(
        (trial for trial in trials if trial.attainment >= level), key=lambda t: t.gpu_hours, default=None
    )
