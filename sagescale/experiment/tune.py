"""Tuning: the configuration that keeps an attainment at the least GPU-hours, judged on data it never saw.

Three rounds on the earlier part of a trace. First every policy with every predictor, each with its headroom
set, on the trace as it is: the race. Then the best of them on replicates as well. Then what depends on one
another (interval, floors, stabilisation, headroom) together. What keeps the attainment
at the least GPU-hours is chosen, and then judged on the later part.
"""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sagescale.document import (
    SCHEMA_VERSION,
    Choice,
    ComparisonTiming,
    TuneDocument,
    TunePoint,
    TuneRow,
    TuneScore,
)
from sagescale.experiment.answer import answer, gpu_hour_price
from sagescale.experiment.searches import Answer, cheapest_reaching, search_all
from sagescale.experiment.tune_trials import (
    HEADROOMS,
    NEUTRAL,
    Candidate,
    Interrupted,
    candidate_of,
    least_headroom,
    tuned_keys,
    with_candidate,
)
from sagescale.experiment.verdict import percent
from sagescale.planner.policy import uses_forecast
from sagescale.sim.result import trace_info
from sagescale.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from optuna.distributions import BaseDistribution

    from sagescale.experiment.tune_trials import Space, Trial, Trials
    from sagescale.planner import AutoscalerConfig

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


def tune(earlier: Trials, later: Trials, space: Space, goal: Goal, validation: str) -> TuneDocument:
    """Search on the earlier part, judge on the later.

    Args:
        earlier: tries candidates on what they are chosen by.
        later: tries them on what they are judged by.
        space: the values to choose from; its floors are raised to the fixed pair that keeps the attainment.
        goal: what is asked.
        validation: what the later part is, in words.

    Returns:
        What was found; where the user interrupted, what was known by then. Where nothing keeps the attainment
        on the earlier part, what comes nearest is chosen.
    """
    began = time.perf_counter()
    replicates = range(goal.replicates)
    config, asked = earlier.config, goal.attainment
    configured = candidate_of(config, config.policy, config.load_predictor_type)
    interrupted, fixed = False, None
    try:
        fixed = earlier.cheapest_static(asked, configured)
        _search(earlier, space, goal, configured, fixed if "static" in space.policies else None)
    except Interrupted:
        interrupted = True
    tried = earlier.tried(replicates)
    order = ranked(tried, asked)
    if interrupted and not order:  # the race was not over: what it knows is better than nothing
        order = ranked(earlier.tried(range(1)), asked)
    others = [
        trial
        for number, trial in enumerate(order)
        if trial.candidate.name not in {before.candidate.name for before in order[:number]}
    ][1:_SHOWN]
    given = [trial for trial in order if trial.candidate == configured]
    shown = [*order[:1], *given, *others]
    judged: dict[Candidate, Trial] = {}
    if not interrupted:
        try:
            judged = later.try_all((trial.candidate for trial in shown), replicates)
        except Interrupted:
            interrupted = True
    safer: list[Trial] = []
    if not interrupted and order:
        # Fixed sizes that hold on both parts are what everything is held against. Where the choice failed,
        # what was further from failing on the earlier part is judged too, so that something can be named.
        if not _holds(order[0], judged, asked):
            found = (_cheapest(tried, level) for level in LEVELS if level > asked)
            safer = [trial for trial in found if trial is not None]
        try:
            fixed = _larger(fixed, later.cheapest_static(asked, configured))
            if fixed is not None:
                safer += earlier.try_all([fixed], replicates).values()
            judged |= later.try_all((trial.candidate for trial in safer), replicates)
        except Interrupted:
            interrupted = True
    shown += [trial for trial in safer if trial not in shown]
    rows = {trial.candidate: _row(config, trial, judged.get(trial.candidate)) for trial in shown}
    chosen, own = rows[order[0].candidate] if order else None, rows.get(configured)
    nearest = min(
        (trial for trial in shown if _holds(trial, judged, asked)),
        key=lambda trial: (judged[trial.candidate].gpu_hours, -judged[trial.candidate].attainment),
        default=None,
    )
    holding = None if nearest is None else rows[nearest.candidate]
    price = gpu_hour_price(earlier.simulator, earlier.workload.profile)
    known = judged or {trial.candidate: trial for trial in shown}
    why = "interrupted" if interrupted else ""
    what = None
    if order:
        choices = _choices(config, order[0], fixed, known, asked)
        what = answer(
            config, asked, *choices,
            price=price, not_searched=why, itl_statistic=earlier.simulator.itl_statistic,
        )  # fmt: skip
    other_rows = [rows[trial.candidate] for trial in others]
    trace = dataclasses.replace(earlier.workload, until_s=math.inf).trace()
    failures = dict.fromkeys((*earlier.failures, *later.failures))
    return TuneDocument(
        schema_version=SCHEMA_VERSION,
        sagescale=__version__,
        trace=trace_info(trace),
        validation=validation,
        profile=earlier.workload.profile.name,
        attainment_asked=asked,
        replicates=goal.replicates,
        simulations=earlier.simulated + later.simulated,
        chosen=chosen,
        configured=own,
        others=other_rows,
        holds=None if chosen is None or chosen.later is None else chosen.later.attainment >= asked,
        gpu_hour_price=price,
        answer=what,
        nearest_holding=None if chosen is None or _failure(chosen, asked) is None else holding,
        verdict=_verdict(chosen, own, holding, list(rows.values()), asked),
        curve=[
            TunePoint(attainment=level, reached=None if trial is None else _row(config, trial, None))
            for level in LEVELS
            for trial in [_cheapest(tried, level)]
        ],
        tried=[(trial.candidate.name, trial.attainment, trial.gpu_hours) for trial in tried],
        warnings=[*trace.warnings, *(f"not tried: {failure}" for failure in failures)],
        interrupted=interrupted,
        timing=ComparisonTiming(wall_s=time.perf_counter() - began),
    )


def _choices(
    config: AutoscalerConfig,
    best: Trial,
    fixed: Candidate | None,
    known: Mapping[Candidate, Trial],
    asked: float,
) -> tuple[Choice | None, Choice | None]:
    """Return the fixed sizes and the best autoscaled candidate, as judged; what holds comes first."""
    sizes = None if fixed is None else known.get(fixed)
    scaled = sorted(
        (trial for candidate, trial in known.items() if candidate.static is None),
        key=lambda trial: (trial.attainment < asked, trial.candidate != best.candidate, trial.gpu_hours),
    )
    return tuple(  # type: ignore[return-value]  # one for each of the two
        None
        if trial is None
        else Choice(
            name=trial.candidate.name,
            sizes={pool.name: list(size) for pool, size in zip(config.pools, trial.sizes, strict=True)},
            attainment=trial.attainment,
            gpu_hours=trial.gpu_hours,
        )
        for trial in (sizes, scaled[0] if scaled else None)
    )


def _larger(one: Candidate | None, other: Candidate | None) -> Candidate | None:
    """The fixed sizes with the larger of both of each pool; None where a part has none that hold."""
    if one is None or other is None or one.static is None or other.static is None:
        return None
    return dataclasses.replace(one, static=tuple(map(max, one.static, other.static)))


def _holds(trial: Trial, judged: Mapping[Candidate, Trial], asked: float) -> bool:
    """Whether it keeps the attainment on both parts."""
    later = judged.get(trial.candidate)
    return trial.attainment >= asked and later is not None and later.attainment >= asked


def failure(document: TuneDocument) -> str | None:
    """Why the chosen configuration is not to be handed over, None where no part was seen to fail."""
    chosen = document.chosen
    return "nothing was tried to the end" if chosen is None else _failure(chosen, document.attainment_asked)


def _failure(chosen: TuneRow, asked: float) -> str | None:
    for part, score in (("earlier", chosen.earlier), ("later", chosen.later)):
        if score is not None and score.attainment < asked:
            reached = f"{percent(score.attainment)} of {percent(asked)} asked"
            return f"{chosen.name} reaches {reached} on the {part} part"
    return None


def expected_simulations(space: Space, goal: Goal) -> int:
    """About how many simulations the search will take, for a progress bar."""
    raced = sum(
        len(space.predictors) if uses_forecast(policy) else 1
        for policy in space.policies
        if policy != "static"
    )
    searched = 9 * raced + 5 * _FINALISTS * goal.replicates
    return searched + goal.refinements * (goal.replicates + 1) // 2 + 10 * goal.replicates


def _row(config: AutoscalerConfig, earlier: Trial, later: Trial | None) -> TuneRow:
    resolved = with_candidate(config, earlier.candidate)
    keys = {name: getattr(resolved, name) for name in tuned_keys(config)}
    return TuneRow(
        name=earlier.candidate.name,
        config={name: value for name, value in keys.items() if value is not None},
        earlier=_score(earlier),
        later=None if later is None else _score(later),
    )


def _score(trial: Trial) -> TuneScore:
    return TuneScore(
        attainment=trial.attainment,
        gpu_hours=trial.gpu_hours,
        worst_5_min_attainment=trial.worst_attainment,
    )


def _verdict(
    chosen: TuneRow | None,
    own: TuneRow | None,
    holding: TuneRow | None,
    rows: Sequence[TuneRow],
    asked: float,
) -> str:
    """Say whether the chosen configuration holds, and what it saves against the one that was given."""
    if chosen is None:
        return "Nothing was tried to the end."
    earlier, later = chosen.earlier, chosen.later
    if earlier.attainment < asked:
        return (
            f"Nothing tried reaches {percent(asked)} on the earlier part; {chosen.name} comes nearest "
            f"with {percent(earlier.attainment)}: wider limits, a looser target, a faster startup or a "
            "larger budget would have to help."
        )
    if later is None:
        return f"{chosen.name} holds on the earlier part at the least GPU-hours; it was not judged further."
    if later.attainment < asked:
        text = (
            f"{chosen.name} does NOT hold on the later part: {percent(later.attainment)} of "
            f"{percent(asked)} asked. The earlier part is too short or too calm to tell: tune on a longer "
            "trace, or for a higher --attainment."
        )
        if holding is None or holding.later is None:
            best = max((row for row in rows if row.later is not None), key=_later_attainment)
            return (
                f"{text} Nothing that was judged holds on both parts; {_described(best)} comes nearest "
                f"there, with {percent(_later_attainment(best))}."
            )
        return (
            f"{text} The cheapest that holds on both parts is {_described(holding)}, at "
            f"{holding.later.gpu_hours:.2f} GPU-hours and {percent(holding.later.attainment)}."
        )
    text = f"{chosen.name} holds on the later part: {percent(later.attainment)}"
    if own is None or own.later is None:
        return f"{text}."
    if own is chosen:
        return f"{text}, as configured."
    hours = f"{later.gpu_hours:.2f} GPU-hours; as configured {own.later.gpu_hours:.2f}"
    return f"{text}, at {hours} and {percent(own.later.attainment)}."


def _later_attainment(row: TuneRow) -> float:
    return 0.0 if row.later is None else row.later.attainment


def _described(row: TuneRow) -> str:
    """A configuration in a few words, by which it can be asked for again."""
    if row.name.startswith("static "):
        return row.name
    return f"{row.name} with load_headroom {row.config['load_headroom']:g}"


def _search(
    trials: Trials, space: Space, goal: Goal, configured: Candidate, static: Candidate | None
) -> None:
    replicates = range(goal.replicates)
    if static is not None and static.static is not None:
        space = dataclasses.replace(space, most_floor=tuple(map(max, space.most_floor, static.static)))
    config = trials.config
    starts = [
        candidate_of(config, policy, predictor)
        for policy in space.policies
        if policy != "static"
        for predictor in (space.predictors if uses_forecast(policy) else (config.load_predictor_type,))
    ]
    raced = _with_headroom_set(trials, starts, goal, replicates[:1])
    finalists = [trial.candidate for trial in ranked(raced, goal.attainment)[:_FINALISTS]]
    trials.try_all([configured, *([] if static is None else [static])], replicates)
    final = _with_headroom_set(trials, finalists, goal, replicates)
    # Less headroom that saves nothing is only nearer to failing: the configured one is tried beside it.
    trials.try_all(
        (
            dataclasses.replace(one.candidate, headroom=NEUTRAL)
            for one in final
            if one.candidate.headroom < NEUTRAL
        ),
        replicates,
    )
    refine(
        trials,
        space,
        [trial.candidate for trial in final],
        asked=goal.attainment,
        replicates=replicates,
        count=goal.refinements,
        seed=goal.seed,
    )
    best = ranked(trials.tried(replicates), goal.attainment)
    if best and best[0].candidate.static is None:
        _draw_curve(trials, best[0].candidate, replicates)


def _with_headroom_set(
    trials: Trials, starts: Sequence[Candidate], goal: Goal, replicates: Sequence[int]
) -> list[Trial]:
    """Each with the cheapest headroom that keeps the attainment, searched from its own."""
    searches = {
        start: cheapest_reaching(
            len(HEADROOMS), start.headroom, goal.attainment, 1, least_headroom(trials.config, start.policy)
        )
        for start in starts
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
            if not least_headroom(trials.config, at.policy) <= at.headroom + step < len(HEADROOMS):
                break
            at = dataclasses.replace(at, headroom=at.headroom + step)
            trial = trials.try_all([at], replicates).get(at)


def ranked(trials: Sequence[Trial], asked: float) -> list[Trial]:
    """What keeps the attainment by GPU-hours, then the rest by how near they come.

    Of equal ones the one that is furthest from failing comes first: the higher attainment, the better worst
    five minutes, no less headroom than configured, the policy that sizes for the attainment itself; then
    the one whose headroom is nearest to the configured one.
    """

    def place(trial: Trial) -> tuple[float, float, float, bool, bool, int]:
        candidate = trial.candidate
        return (
            round(objective(trial, asked), 6),
            -trial.attainment,
            -trial.worst_attainment,
            candidate.headroom < NEUTRAL,
            candidate.policy != "slo",
            abs(candidate.headroom - NEUTRAL),
        )

    return sorted(trials, key=place)


def _cheapest(trials: Sequence[Trial], level: float) -> Trial | None:
    return min(
        (trial for trial in trials if trial.attainment >= level), key=lambda t: t.gpu_hours, default=None
    )


_BATCH = 4
"""Asked for at once, however many processes there are: so results do not depend on their number."""
_AROUND = 10
"""Headrooms tried beyond those of the starting points, 5 % each."""
_DEARER, _SHORT = 1.15, 0.02
"""What is so much dearer than the best on its first replicate, or so far short, is not tried on others."""
_SHORTFALL = 1e9
"""Ranks whatever falls short behind whatever does not; the estimators use ranks only."""


def objective(trial: Trial, asked: float) -> float:
    """What is minimised: GPU-hours where the attainment is reached; behind those, what is missing of it."""
    return trial.gpu_hours if trial.attainment >= asked else _SHORTFALL * (1.0 + asked - trial.attainment)


def refine(
    trials: Trials,
    space: Space,
    starts: Sequence[Candidate],
    *,
    asked: float,
    replicates: Sequence[int],
    count: int,
    seed: int,
) -> None:
    """Try ``count`` more candidates near some starting points; their results are in ``trials``.

    Args:
        trials: tries them, and knows what has been tried.
        space: the values to choose from.
        starts: one for each policy and predictor to refine; all tried on all replicates.
        asked: the attainment to reach.
        replicates: what promising candidates are tried on; the first one sorts out the others.
        count: how many.
        seed: of the estimators.

    Raises:
        Interrupted: the user did.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    by_name = {start.name: start for start in starts}
    if not by_name or count <= 0:
        return
    distributions = _distributions(trials.config, space, by_name)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed, multivariate=True))
    for trial in trials.tried(replicates):
        params = _params(trials.config, trial.candidate)
        if (
            params is not None
            and all(name in distributions for name in params)
            and _inside(params, distributions)
        ):
            study.add_trial(
                optuna.trial.create_trial(
                    params=params, distributions=distributions, value=objective(trial, asked)
                )
            )
    best = min(
        (trial.gpu_hours for trial in trials.tried(replicates) if trial.attainment >= asked), default=None
    )
    for _ in range(-(-count // _BATCH)):
        asks = [study.ask(distributions) for _ in range(_BATCH)]
        candidates = [_candidate(trials.config, ask.params, by_name) for ask in asks]
        first = trials.try_all(candidates, replicates[:1])
        promising = [
            candidate
            for candidate, trial in first.items()
            if trial.attainment >= asked - _SHORT and (best is None or trial.gpu_hours <= _DEARER * best)
        ]
        known = first | trials.try_all(promising, replicates)
        for ask, candidate in zip(asks, candidates, strict=True):
            known_trial = known.get(candidate)
            if known_trial is None:
                study.tell(ask, state=optuna.trial.TrialState.FAIL)
                continue
            study.tell(ask, objective(known_trial, asked))
            if known_trial.attainment >= asked and known_trial.replicates == len(replicates):
                best = known_trial.gpu_hours if best is None else min(best, known_trial.gpu_hours)


def _distributions(
    config: AutoscalerConfig, space: Space, starts: dict[str, Candidate]
) -> dict[str, BaseDistribution]:
    from optuna.distributions import CategoricalDistribution, IntDistribution

    headrooms = [start.headroom for start in starts.values()]
    any_start = next(iter(starts.values()))
    return {
        "start": CategoricalDistribution(tuple(starts)),
        "interval_s": CategoricalDistribution(tuple(space.intervals_s)),
        "down_window_s": CategoricalDistribution(tuple(space.down_windows_s)),
        "headroom": IntDistribution(
            max(0, min(headrooms) - _AROUND), min(len(HEADROOMS) - 1, max(headrooms) + _AROUND)
        ),
        **{
            f"min_{pool.name}": IntDistribution(least, max(least, most))
            for pool, least, most in zip(config.pools, any_start.floors, space.most_floor, strict=True)
        },
    }


def _params(config: AutoscalerConfig, candidate: Candidate) -> dict[str, object] | None:
    if candidate.static is not None:
        return None
    return {
        "start": candidate.name,
        "interval_s": candidate.interval_s,
        "down_window_s": candidate.down_window_s,
        "headroom": candidate.headroom,
        **{f"min_{pool.name}": least for pool, least in zip(config.pools, candidate.floors, strict=True)},
    }


def _inside(params: dict[str, object], distributions: dict[str, BaseDistribution]) -> bool:
    for name, value in params.items():
        distribution = distributions[name]
        choices = getattr(distribution, "choices", None)
        if choices is not None:
            if value not in choices:
                return False
        elif not distribution.low <= value <= distribution.high:  # type: ignore[attr-defined]  # an IntDistribution
            return False
    return True


def _candidate(
    config: AutoscalerConfig, params: dict[str, object], starts: dict[str, Candidate]
) -> Candidate:
    start = starts[str(params["start"])]
    return Candidate(
        start.policy,
        start.predictor,
        int(params["interval_s"]),  # type: ignore[call-overload]  # all but "start" are whole numbers
        max(int(params["headroom"]), least_headroom(config, start.policy)),  # type: ignore[call-overload]
        tuple(int(params[f"min_{pool.name}"]) for pool in config.pools),  # type: ignore[call-overload]
        int(params["down_window_s"]),  # type: ignore[call-overload]
    )
