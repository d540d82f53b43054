"""Rolling back-tests: every predictor at every cutoff of a trace, and which one wins."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sagescale.document import BacktestDocument, BacktestScore, SeriesCharacter
from sagescale.experiment.workload import true_load
from sagescale.planner.forecast import make_predictor
from sagescale.planner.forecast.scores import bias, coverage, if_known, mape, pinball, wape
from sagescale.planner.forecast.season import find_period
from sagescale.sim.result import trace_info

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from sagescale.experiment.workload import TrueLoad
    from sagescale.trace import Trace

SERIES = ("requests", "isl", "osl")
DEMANDS = {"prefill_tokens": ("requests", "isl"), "decode_tokens": ("requests", "osl")}
"""What the pools are sized by: products of the series' forecasts."""

_QUANTILE = 0.9
_SEASONS_S = (7 * 86_400.0, 86_400.0, 3_600.0)


@dataclass(frozen=True, slots=True, eq=False)
class Rolling:
    """One predictor on one series: what it said at every cutoff.

    Row k is what was forecast after window k had been seen, column h for h + 1 windows ahead; NaN where there
    was no forecast. float64[windows, horizon] each.
    """

    series: str
    predictor: str
    mean: NDArray[np.float64]
    high: NDArray[np.float64]
    cadence: str
    refits: int


@dataclass(frozen=True, slots=True, eq=False)
class BackTest:
    """All predictors on the three series of a trace, one interval a window."""

    load: TrueLoad
    horizon: int
    warm_up: int
    rolled: tuple[Rolling, ...]


def series_of(load: TrueLoad) -> dict[str, NDArray[np.float64]]:
    """The three series and the two demands; windows without arrivals have no lengths, and no demand."""
    known = dict(load.series())
    for name, (count, length) in DEMANDS.items():
        known[name] = known[count] * np.where(known[count] > 0, np.nan_to_num(known[length]), 0.0)
    return known


def back_test(
    trace: Trace,
    predictors: Sequence[str],
    *,
    interval_s: float,
    horizon: int,
    season_s: float | None = None,
    window_size: int | None = None,
    warm_up: int = 10,
    progress: Callable[[int, int], None] | None = None,
) -> BackTest:
    """Show each predictor the trace window by window and keep what it forecasts after each.

    A last window that the trace cuts short is left out. OSL is that of the arrivals in the window; a planner
    sees it later, when they complete.

    Args:
        trace: the requests.
        predictors: names.
        interval_s: length of a window, s.
        horizon: windows ahead.
        season_s: the load's period, for predictors with a season; None leaves it to be found.
        window_size: history in windows; None is each predictor's own.
        warm_up: first windows after which no forecast is scored.
        progress: called with series done and series in all.
    """
    load = true_load(trace, interval_s).first(int(trace.duration_s // interval_s))
    rolled = []
    total = len(predictors) * len(SERIES)
    for name in predictors:
        for series, values in load.series().items():
            rolled.append(_roll(name, series, values, interval_s, horizon, season_s, window_size))
            if progress is not None:
                progress(len(rolled), total)
    return BackTest(load, horizon, min(warm_up, max(0, len(load) - 2)), tuple(rolled))


def _roll(
    name: str,
    series: str,
    values: NDArray[np.float64],
    interval_s: float,
    horizon: int,
    season_s: float | None,
    window_size: int | None,
) -> Rolling:
    predictor = make_predictor(name, interval_s=interval_s, season_s=season_s, window_size=window_size)
    mean = np.full((len(values), horizon), np.nan)
    high = mean.copy()
    last: float | None = None
    for window, value in enumerate(values.tolist()):
        if math.isfinite(value):
            last = value
        # As the planner does: lengths of a window without arrivals repeat the last known ones.
        predictor.observe(last)
        forecast = predictor.forecast(horizon)
        if forecast is not None:
            mean[window] = forecast.mean
            high[window] = [forecast.quantile(_QUANTILE, step) for step in range(horizon)]
    return Rolling(series, name, mean, high, predictor.cadence, predictor.refits)


def long_table(test: BackTest) -> dict[str, list[object]]:
    """One row a predictor, series, cutoff and step, as columns.

    ``cutoff_s`` is the end of the last window seen, ``window_end_s`` that of the window forecast; ``actual``
    is None where nothing arrived that has a length, or after the end.
    """
    columns: dict[str, list[object]] = {
        name: []
        for name in ("series", "predictor", "cutoff_s", "step", "window_end_s", "actual", "forecast", "p90")
    }
    known = test.load.series()
    windows = len(test.load)
    for rolled in test.rolled:
        actual = known[rolled.series]
        for cutoff in range(windows):
            for step in range(1, test.horizon + 1):
                target = cutoff + step
                if target >= windows or math.isnan(rolled.mean[cutoff, step - 1]):
                    continue
                truth = float(actual[target])
                row = (
                    rolled.series,
                    rolled.predictor,
                    (cutoff + 1) * test.load.interval_s,
                    step,
                    (target + 1) * test.load.interval_s,
                    if_known(truth),
                    float(rolled.mean[cutoff, step - 1]),
                    float(rolled.high[cutoff, step - 1]),
                )
                for column, value in zip(columns.values(), row, strict=True):
                    column.append(value)
    return columns


def backtest_document(trace: Trace, test: BackTest) -> BacktestDocument:
    """Score a back-test at its horizon, and say which predictor wins and why."""
    known = series_of(test.load)
    step = test.horizon - 1
    by = {(rolled.predictor, rolled.series): rolled for rolled in test.rolled}
    predictors = list(dict.fromkeys(rolled.predictor for rolled in test.rolled))
    scores: list[BacktestScore] = []
    forecasts: dict[str, dict[str, list[float | None]]] = {}
    for predictor in predictors:
        for series in SERIES:
            rolled = by[predictor, series]
            mean, high = rolled.mean[:, step], rolled.high[:, step]
            actual, shown, upper = _aligned(known[series], mean, high, test)
            scores.append(_score(series, predictor, actual, shown, upper, rolled))
            forecasts.setdefault(series, {})[predictor] = _shown(shown, len(test.load) - len(shown))
        for demand, (first, second) in DEMANDS.items():
            product = by[predictor, first].mean[:, step] * by[predictor, second].mean[:, step]
            actual, shown, _ = _aligned(known[demand], product, product, test)
            scores.append(_score(demand, predictor, actual, shown, None, None))
    ranking, sentence = _winner(scores, predictors, known["requests"], test)
    return BacktestDocument(
        trace=trace_info(trace),
        interval_s=test.load.interval_s,
        windows=len(test.load),
        horizon=test.horizon,
        warm_up=test.warm_up,
        scores=scores,
        ranking=ranking,
        winner=ranking[0],
        verdict=sentence,
        character=_character(known["requests"], test.load.interval_s),
        actual={name: _shown(known[name], 0) for name in SERIES},
        forecasts=forecasts,
    )


def _aligned(
    actual: NDArray[np.float64], mean: NDArray[np.float64], high: NDArray[np.float64], test: BackTest
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Actual values from the first scored window on, and what was forecast for them ``horizon`` before."""
    start = test.warm_up
    return actual[start + test.horizon :], mean[start : -test.horizon], high[start : -test.horizon]


def _score(
    series: str,
    predictor: str,
    actual: NDArray[np.float64],
    mean: NDArray[np.float64],
    high: NDArray[np.float64] | None,
    rolled: Rolling | None,
) -> BacktestScore:
    return BacktestScore(
        series=series,
        predictor=predictor,
        mape=if_known(mape(actual, mean)),
        wape=if_known(wape(actual, mean)),
        bias=if_known(bias(actual, mean)),
        pinball_p90=None if high is None else if_known(pinball(actual, high, _QUANTILE)),
        coverage_p90=None if high is None else if_known(coverage(actual, high)),
        refits=0 if rolled is None else rolled.refits,
        cadence="" if rolled is None else rolled.cadence,
    )


def _winner(
    scores: Sequence[BacktestScore], predictors: Sequence[str], requests: NDArray[np.float64], test: BackTest
) -> tuple[list[str], str]:
    """Order predictors by their error in what pools are sized by: the mean WAPE of both demands."""

    def error(predictor: str) -> float:
        known = [
            score.wape
            for score in scores
            if score.predictor == predictor and score.series in DEMANDS and score.wape is not None
        ]
        return math.fsum(known) / len(known) if known else math.inf

    ranking = sorted(predictors, key=error)
    best = ranking[0]
    if math.isinf(error(best)):
        return ranking, "No window has traffic to forecast."
    ahead = "one window" if test.horizon == 1 else f"{test.horizon} windows"
    text = (
        f"{best} wins: {ahead} ahead it is off by {100 * error(best):.1f} % of the tokens that the pools are "
        "sized by"
    )
    if len(ranking) > 1:
        reference = "constant" if best != "constant" and "constant" in predictors else ranking[1]
        text += f" ({reference}: {100 * error(reference):.1f} %)"
    return ranking, f"{text}. {_reason(_character(requests, test.load.interval_s))}"


def _reason(character: SeriesCharacter) -> str:
    season, memory = character.season_s, character.change_autocorrelation
    words = []
    if season is not None:
        words.append(f"the load repeats every {season / 3600:g} h")
    if memory is None:
        words.append("the load hardly changes")
    elif memory < -0.33:
        words.append(
            f"what one window adds the next takes back (autocorrelation of changes {memory:+.2f}): the load "
            "scatters around a level, and averages beat the last value"
        )
    elif memory < -0.1:
        words.append(
            f"part of each change is taken back (autocorrelation of changes {memory:+.2f}): a little "
            "smoothing helps"
        )
    elif memory <= 0.1:
        words.append(
            f"changes do not foretell one another (autocorrelation {memory:+.2f}): the last value is hard "
            "to beat"
        )
    else:
        words.append(f"changes go on (autocorrelation {memory:+.2f}): what follows a trend gains")
    text = "; ".join(words)
    return f"{text[0].upper()}{text[1:]}."


def _character(values: NDArray[np.float64], interval_s: float) -> SeriesCharacter:
    """What a series is like, from windows to their changes: why predictors do well or badly on it."""
    changes = np.diff(values)
    changes = changes - changes.mean() if len(changes) else changes
    power = float(np.sum(changes * changes))
    memory = float(np.sum(changes[1:] * changes[:-1])) / power if power > 0 and len(changes) > 2 else None
    season = find_period(values, interval_s, _SEASONS_S)
    mean = float(values.mean())
    return SeriesCharacter(
        mean=mean,
        variation=float(values.std()) / mean if mean > 0 else None,
        change_autocorrelation=memory,
        season_s=None if season is None else season * interval_s,
    )


def _shown(values: NDArray[np.float64], before: int) -> list[float | None]:
    """A column a window, None where unknown and for the ``before`` windows there is nothing for."""
    shown: list[float | None] = [None] * before
    return shown + [if_known(value) for value in values.tolist()]
