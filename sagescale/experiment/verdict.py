"""Who wins a comparison, in what order the others follow, and why, in a sentence or two."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sagescale.document import Interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sagescale.document import RunDocument

CONFIDENCE = 0.95


def mean_interval(values: Sequence[float]) -> Interval:
    """Mean and half width of Student's interval, ``t(0.975, n - 1) s / sqrt(n)``; one value has no width."""
    n = len(values)
    mean = math.fsum(values) / n
    if n < 2:
        return Interval(mean=mean, half_width=None)
    from scipy.special import stdtrit  # the t quantile, without importing scipy.stats

    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    quantile = float(stdtrit(n - 1, 0.5 + CONFIDENCE / 2.0))
    return Interval(mean=mean, half_width=quantile * deviation / math.sqrt(n))


_CAUSES = {
    "faults": ("faults", "instances to spare: load_headroom or higher minima"),
    "forecast": ("its forecasts", "another predictor or some load_headroom"),
    "startup": ("instances still starting", "looking further ahead, a shorter startup or some load_headroom"),
    "whole_instances": ("sizes short by less than an instance", "a little load_headroom"),
    "policy": (
        "sizes too small even for the true load",
        "more load_headroom, wider limits or another policy",
    ),
}


_SAME = 1.0005
"""GPU-hours this near to one another are the same."""


def rank(runs: Sequence[RunDocument], asked: float) -> tuple[list[RunDocument], list[str]]:
    """Order runs: those that reach the attainment by GPU-hours, then the others by attainment.

    Returns:
        The runs in order, and the names of those that reach it. Ties stay in the order given.
    """
    reaching = [run for run in runs if run.judged_attainment.mean >= asked]
    others = [run for run in runs if run.judged_attainment.mean < asked]
    reaching.sort(key=lambda run: (run.judged_gpu_hours.mean, -run.judged_attainment.mean))
    others.sort(key=lambda run: (-run.judged_attainment.mean, run.judged_gpu_hours.mean))
    return [*reaching, *others], [run.name for run in reaching]


def verdict(ranked: Sequence[RunDocument], reaching: int, asked: float) -> tuple[str | None, str]:
    """Name the winner, the first candidate that reaches the attainment, and say why it wins.

    Args:
        ranked: as :func:`rank` orders them.
        reaching: how many of them reach it.
        asked: the attainment asked.
    """
    good = [run for run in ranked[:reaching] if run.kind != "hindsight"]
    tried = [run for run in ranked if run.kind != "hindsight"]
    if not tried:
        return None, "No candidate was run."
    if not good:
        return None, _none_reaches(tried[0], asked)
    winner = good[0]
    hours = winner.judged_gpu_hours.mean
    against = (
        [f"{hours / winner.lower_bound_gpu_hours:.2f} × the lower bound"]
        if winner.lower_bound_gpu_hours > 0
        else []
    )
    regret = winner.regret_gpu_hours
    if regret is not None and (reference := winner.gpu_hours.total - regret) > 0:
        against.append(f"{winner.gpu_hours.total / reference:.2f} × the cheapest schedule found in hindsight")
    which = (
        f"the cheapest of the {len(good)} of {len(tried)} candidates that reach"
        if len(good) > 1
        else f"the only one of {len(tried)} candidates that reaches"
    )
    text = (
        f"{winner.name} is {which} {100 * asked:g} %: "
        f"{hours:.2f} GPU-hours at {percent(winner.judged_attainment.mean)}"
        + (f", {' and '.join(against)}" if against else "")
        + ". "
    )
    return winner.name, text + (_why(winner, good[1:]) if len(good) > 1 else _alone(winner, tried))


def closed_loop_runs(runs: Sequence[RunDocument]) -> list[RunDocument]:
    """Leave out the open-loop runs of a comparison of both ways: they show the error, and cannot win."""
    return [run for run in runs if run.config.get("open_loop") is not True]


def open_loop_error(runs: Sequence[RunDocument], winner: str | None) -> str:
    """Say what replaying turns as recorded makes of a run: of the winner, or of the first there is.

    Empty where a comparison is not of both ways.
    """
    closed = sorted(closed_loop_runs(runs), key=lambda run: (run.kind == "hindsight", run.name != winner))
    for run in closed:
        keys = {**run.config, "open_loop": True}
        for other in runs:
            if (other.policy, other.predictor, other.config) != (run.policy, run.predictor, keys):
                continue
            shown, true = other.judged_attainment.mean, run.judged_attainment.mean
            hours, real = other.judged_gpu_hours.mean, run.judged_gpu_hours.mean
            part = f" ({100 * (hours / real - 1):+.1f} %)" if real > 0 else ""
            return (
                f" With turns replayed at their recorded times, {other.name} seems to reach "
                f"{percent(shown)} at {hours:.2f} GPU-hours: {100 * (shown - true):+.2f} points of "
                f"attainment and {hours - real:+.3g} GPU-hours{part} beside the closed loop."
            )
    return ""


def _none_reaches(best: RunDocument, asked: float) -> str:
    causes = best.misses
    text = (
        f"No candidate reaches {100 * asked:g} %; {best.name} comes nearest with "
        f"{percent(best.judged_attainment.mean)} at {best.judged_gpu_hours.mean:.2f} GPU-hours."
    )
    if causes is None or not causes.total:
        return text
    cause = max(_CAUSES, key=lambda name: getattr(causes, name))
    words, remedy = _CAUSES[cause]
    missed = getattr(causes, cause)
    spared = missed - causes.total
    come = f"{100 * missed / causes.total:.0f} % of its misses come from {words}"
    if spared > 0:  # another cause helped
        come = f"{missed} misses come from {words}, {spared} of which other causes hid"
    return f"{text} {come}: try {remedy}."


def _why(winner: RunDocument, others: Sequence[RunDocument]) -> str:
    """What the next one costs more, after those that cost the same."""
    hours = winner.judged_gpu_hours.mean
    equal = [run for run in others if run.judged_gpu_hours.mean <= hours * _SAME]
    if len(equal) == len(others):
        who = "The other does" if len(others) == 1 else f"The {len(others)} others do"
        return (
            f"{who} as well for the same GPU-hours: it is the simplest, or the best in attainment, of them."
        )
    same = f"{len(equal)} more cost the same. " if equal else ""
    return same + _against(winner, others[len(equal)])


def _against(winner: RunDocument, second: RunDocument) -> str:
    hours = winner.judged_gpu_hours.mean
    gap = second.judged_gpu_hours.mean - hours
    saves = f"{second.name} comes next, {gap:.2f} GPU-hours ({100 * gap / hours:.1f} %) more"
    ours, theirs = winner.replicates, second.replicates
    if ours is not None and theirs is not None:
        # Paired: both ran on the same arrivals.
        pairs = zip(theirs.gpu_hours, ours.gpu_hours, strict=False)
        difference = mean_interval([b - a for a, b in pairs])
        width = difference.half_width
        if width is not None:
            saves += f" (± {width:.2f} over replicates)"
            if abs(difference.mean) <= width:
                saves += ", which these replicates cannot tell from none"
    return f"{saves}: {_difference(winner, second)}."


def _difference(winner: RunDocument, second: RunDocument) -> str:
    """What sets two runs apart that can be read from their measures."""
    if winner.policy == second.policy and winner.predictor != second.predictor:
        ours, theirs = winner.forecast.requests, second.forecast.requests
        if ours.mape is not None and theirs.mape is not None:
            compared = (
                f"the forecasts of requests of {winner.name} are off by {100 * ours.mape:.1f} %, "
                f"those of {second.name} by {100 * theirs.mape:.1f} %"
            )
            if ours.mape <= theirs.mape:
                return compared
            if ours.bias is not None and theirs.bias is not None and ours.bias < theirs.bias:
                return (
                    f"{compared}, but they are on average {theirs.bias - ours.bias:.3g} requests a "
                    f"window lower, and {winner.name} meets the targets all the same"
                )
    alike = second.gpu_hours.pools.keys() == winner.gpu_hours.pools.keys()
    for pool, hours in second.gpu_hours.pools.items() if alike else ():
        saved = hours - winner.gpu_hours.pools[pool]
        total = second.gpu_hours.total - winner.gpu_hours.total
        if total > 0 and saved >= 0.75 * total:
            return f"the difference is in the {pool} pool"
    if not alike:
        return "they are served in different ways"
    return f"{winner.name} keeps fewer instances waiting for load that does not come"


def _alone(winner: RunDocument, tried: Sequence[RunDocument]) -> str:
    others = [run for run in tried if run is not winner]
    if not others:
        return "It is the only candidate."
    best = max(others, key=lambda run: run.judged_attainment.mean)
    return f"The next best in attainment, {best.name}, reaches {percent(best.judged_attainment.mean)}."


def percent(share: float) -> str:
    """A share in per cent, never rounded up to the 100 % it is not."""
    return f"{min(100.0 * share, 99.99 if share < 1.0 else 100.0):.2f} %"
