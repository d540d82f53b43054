"""What a grid is too large for: interval, floors and stabilisation together with the headroom they change.

Tree-structured Parzen estimators (optuna; Bergstra et al. 2011), begun from everything that has been tried.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sagescale.experiment.tune_space import HEADROOMS, Candidate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from optuna.distributions import BaseDistribution

    from sagescale.experiment.tune_space import Space
    from sagescale.experiment.tune_trials import Trial, Trials

__all__ = ["refine", "worth"]

_BATCH = 4
"""Asked for at once, however many processes there are: so results do not depend on their number."""
_AROUND = 10
"""Headrooms tried beyond those of the starting points, 5 % each."""
_DEARER, _SHORT = 1.15, 0.02
"""What is so much dearer than the best on its first replicate, or so far short, is not tried on others."""
_SHORTFALL = 1e9
"""Ranks whatever falls short behind whatever holds; the estimators look at ranks only."""


def worth(trial: Trial, asked: float) -> float:
    """What is to be small: GPU-hours where it holds; behind all those, how much it falls short."""
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
    """Try ``count`` more candidates near some starting points; what came of them is in ``trials``.

    Args:
        trials: tries them, and knows what has been tried.
        space: the values to choose from.
        starts: one for each policy and predictor worth refining; all tried on all replicates.
        asked: the attainment to reach.
        replicates: what promising candidates are tried on; the first one sorts out the others.
        count: how many.
        seed: of the estimators.

    Raises:
        Interrupted: the user did.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    who = {start.name: start for start in starts}
    if not who or count <= 0:
        return
    distributions = _distributions(space, who)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed, multivariate=True))
    for trial in trials.tried(replicates):
        params = _params(trial.candidate)
        if (
            params is not None
            and all(name in distributions for name in params)
            and _inside(params, distributions)
        ):
            study.add_trial(
                optuna.trial.create_trial(
                    params=params, distributions=distributions, value=worth(trial, asked)
                )
            )
    best = min(
        (trial.gpu_hours for trial in trials.tried(replicates) if trial.attainment >= asked), default=None
    )
    for _ in range(-(-count // _BATCH)):
        asks = [study.ask(distributions) for _ in range(_BATCH)]
        candidates = [_candidate(ask.params, who) for ask in asks]
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
            study.tell(ask, worth(known_trial, asked))
            if known_trial.attainment >= asked and known_trial.replicates == len(replicates):
                best = known_trial.gpu_hours if best is None else min(best, known_trial.gpu_hours)


def _distributions(space: Space, who: dict[str, Candidate]) -> dict[str, BaseDistribution]:
    from optuna.distributions import CategoricalDistribution, IntDistribution

    headrooms = [start.headroom for start in who.values()]
    any_start = next(iter(who.values()))
    return {
        "who": CategoricalDistribution(tuple(who)),
        "interval_s": CategoricalDistribution(tuple(space.intervals_s)),
        "down_window_s": CategoricalDistribution(tuple(space.down_windows_s)),
        "headroom": IntDistribution(
            max(0, min(headrooms) - _AROUND), min(len(HEADROOMS) - 1, max(headrooms) + _AROUND)
        ),
        "min_prefill": IntDistribution(
            any_start.min_prefill, max(any_start.min_prefill, space.most_floor[0])
        ),
        "min_decode": IntDistribution(any_start.min_decode, max(any_start.min_decode, space.most_floor[1])),
    }


def _params(candidate: Candidate) -> dict[str, object] | None:
    if candidate.static is not None:
        return None
    return {
        "who": candidate.name,
        "interval_s": candidate.interval_s,
        "down_window_s": candidate.down_window_s,
        "headroom": candidate.headroom,
        "min_prefill": candidate.min_prefill,
        "min_decode": candidate.min_decode,
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


def _candidate(params: dict[str, object], who: dict[str, Candidate]) -> Candidate:
    start = who[str(params["who"])]
    return Candidate(
        start.policy,
        start.predictor,
        int(params["interval_s"]),  # type: ignore[call-overload]  # all but "who" are whole numbers
        int(params["headroom"]),  # type: ignore[call-overload]
        int(params["min_prefill"]),  # type: ignore[call-overload]
        int(params["min_decode"]),  # type: ignore[call-overload]
        int(params["down_window_s"]),  # type: ignore[call-overload]
    )
