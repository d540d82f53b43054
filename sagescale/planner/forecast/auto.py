"""The predictor that has lately been best, a series and a horizon at a time."""

from __future__ import annotations

from collections import deque
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from sagescale.planner.forecast.arima import ArimaPredictor
from sagescale.planner.forecast.constant import ConstantPredictor
from sagescale.planner.forecast.kalman import KalmanPredictor
from sagescale.planner.forecast.protocol import Forecast, checked, checked_horizon
from sagescale.planner.forecast.seasonal_naive import SeasonalNaivePredictor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sagescale.planner.forecast.protocol import Predictor, PredictorOptions

_QUANTILE = 0.95  # what is sized for is a high quantile: a forecast too low costs requests, too high GPUs
_MEMORY_S = 7_200.0  # a loss counts 1/e after so long,
_LEAST_MEMORY = 10  # and not sooner than after so many windows
_MOST_LOSS = 5.0  # a loss counts as so many times the usual one at most: one burst does not settle two hours
_LEAST_SCORED = 5  # windows scored before losses are believed
_FURTHEST = 16  # windows ahead that are scored; who is best there is taken to be best beyond
_FIT_AFTER_S = 1_800.0  # arima begins late: until then a fit finds little, and ticks stay quick


class AutoPredictor:
    """Asks `constant`, `kalman`, `arima` and `seasonal_naive`, and answers as the best of them.

    At every window, each one's 95th percentiles of that window, as forecast 1 to 16 windows before, get their
    pinball loss (Koenker & Bassett 1978). `n` windows ahead the answer is that of the predictor with the
    least losses over the last two hours (older ones fade) at 1 to `n` windows ahead; the first named wins a
    tie. A loss counts as five times the usual one at most: one burst does not settle two hours. Beyond 16
    windows it is whoever is best at 16. Until five windows have been scored it is the last value, and says
    so; `arima` is fitted after half an hour and is the last value before.

    Choosing beats averaging here: which predictor is good depends on the series, and a bad one's errors are
    large.
    """

    name = "auto"

    def __init__(self, options: PredictorOptions) -> None:
        """Pass the options on to each predictor."""
        late = round(_FIT_AFTER_S / options.interval_s)
        self._members: tuple[Predictor, ...] = (
            ConstantPredictor(),
            KalmanPredictor(options),
            ArimaPredictor(options, least_windows=max(ArimaPredictor.least_windows, late)),
            SeasonalNaivePredictor(options),
        )
        self._fade = 1.0 - 1.0 / max(_LEAST_MEMORY, _MEMORY_S / options.interval_s)
        self._losses = np.zeros((len(self._members), _FURTHEST))  # faded sums, by windows ahead,
        self._counts = np.zeros(_FURTHEST)  # of so many losses, faded as they are
        self._scored = 0
        # Percentiles forecast after each of the latest windows, newest first; None while none were.
        self._asked: deque[NDArray[np.float64] | None] = deque(maxlen=_FURTHEST)

    @property
    def refits(self) -> int:
        """See `Predictor.refits`: those of all it asks."""
        return sum(member.refits for member in self._members)

    @property
    def cadence(self) -> str:
        """See `Predictor.cadence`."""
        (arima,) = (member for member in self._members if isinstance(member, ArimaPredictor))
        return f"who is best is found at every window; arima: {arima.cadence}"

    def observe(self, value: float | None) -> None:
        """See `Predictor.observe`."""
        if value is not None:
            self._score(checked(value))
        for member in self._members:
            member.observe(value)
        self._asked.appendleft(self._percentiles())

    def forecast(self, horizon: int) -> Forecast | None:
        """See `Predictor.forecast`."""
        checked_horizon(horizon)
        best = self._best(horizon)
        answers: dict[int, Forecast] = {}
        for at in set(best):
            answer = self._members[at].forecast(horizon)
            if answer is None:
                return None
            answers[at] = answer
        return Forecast(
            tuple([answers[at].mean[step] for step, at in enumerate(best)]),
            tuple([answers[at].std[step] for step, at in enumerate(best)]),
            self._note(answers),
            self._chosen(best),
        )

    def _best(self, horizon: int) -> list[int]:
        """Return who answers for each of the next windows, as places among the members."""
        if self._scored < _LEAST_SCORED:
            return [0] * horizon
        best: list[int] = self._losses.cumsum(axis=1).argmin(axis=0).tolist()
        return best[:horizon] + best[-1:] * (horizon - _FURTHEST)

    def _score(self, value: float) -> None:
        """Add each member's losses at this window to its sums."""
        forecast = {ahead: asked[:, ahead] for ahead, asked in enumerate(self._asked) if asked is not None}
        if not forecast:
            return
        known = list(forecast)
        gaps = value - np.column_stack(list(forecast.values()))
        losses = np.maximum(_QUANTILE * gaps, (_QUANTILE - 1.0) * gaps)
        if self._scored >= _LEAST_SCORED:
            usual = self._losses[:, known].mean(axis=0) / np.maximum(self._counts[known], 1e-300)
            losses = np.minimum(losses, np.where(usual > 0.0, _MOST_LOSS * usual, np.inf))
        self._losses *= self._fade
        self._counts *= self._fade
        self._losses[:, known] += losses
        self._counts[known] += 1.0
        self._scored += 1

    def _percentiles(self) -> NDArray[np.float64] | None:
        """Return the 95th percentiles that the members forecast now: (members, windows ahead)."""
        rows = []
        for member in self._members:
            ahead = member.forecast(_FURTHEST)
            if ahead is None:
                return None
            rows.append([ahead.quantile(_QUANTILE, step) for step in range(_FURTHEST)])
        return np.array(rows)

    def _chosen(self, best: list[int]) -> str:
        """Say who answers for which windows."""
        if self._scored < _LEAST_SCORED:
            return f"last value: {self._scored} of the {_LEAST_SCORED} windows scored that choosing needs"
        runs = []
        first = 1
        for at, run in groupby(best):
            last = first + len(list(run)) - 1
            windows = f"window {first}" if first == last else f"windows {first} to {last}"
            runs.append(f"{self._members[at].name} for {windows}")
            first = last + 1
        return ", ".join(runs)

    def _note(self, answers: dict[int, Forecast]) -> str:
        """Say what each of those who answer has to say of itself."""
        return "; ".join(
            f"{self._members[at].name}: {one.note}" for at, one in sorted(answers.items()) if one.note
        )
