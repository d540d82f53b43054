"""What the fitted predictors share: history, the cadence of refits, what happens when a fit is no good."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from math import isfinite, nan, sqrt
from typing import TYPE_CHECKING, Protocol

import numpy as np

from sagescale.planner.forecast.constant import ConstantPredictor
from sagescale.planner.forecast.error_spread import ErrorSpread
from sagescale.planner.forecast.protocol import Forecast, checked, checked_horizon

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_GROWTH = 0.25  # a refit waits for a quarter more windows,
_LEAST_GAP = 10  # at least these
_GREATEST_GAP = 720  # and at most these

_GUARD_FADE = 0.95  # one-step errors are compared over about 20 windows
_GUARD_RATIO = 1.25  # the model may be this much worse than the last value
_GUARD_LEAST = 10.0  # absolute errors known before the comparison counts (faded count, at most 20)

_CEILING = 2.0  # no mean above this many times the largest value in the history


class FitError(Exception):
    """A fit that did not give a usable model; the message says why, in a few words."""


class FittedModel(Protocol):
    """A fitted model and its present state, from which any horizon is cheap."""

    note: str

    def update(self, value: float | None) -> None:
        """Advance the state by one window without touching the fitted parameters."""
        ...

    def predict(self, horizon: int) -> Sequence[tuple[float, float]]:
        """Return the mean and variance of each of the next windows."""
        ...


class FittedPredictor(ABC):
    """Fits a model now and then and carries its state from window to window in between.

    Refits happen in `observe`, at counts of windows that depend on nothing else: when the windows seen have
    grown by a quarter since the last fit, by at least 10 and at most 720. A replay
    of stored windows ends in the same state as the live run did.

    Three things stand between a bad model and the planner, each said in the forecast's note:

    * too little history, or a fit that failed without an earlier one: the last value;
    * a fit that failed with an earlier one: that one, its state carried on;
    * a model whose one-step errors over the last 20 windows or so are more than 1.25 times those of the last
      value: the last value, until the model is better again.

    Means are held within 0 and twice the largest value in the history. The deviation has the level of the
    recent one-step errors and the model's own growth over the horizon.
    """

    name: str
    least_windows: int  # known windows before the first fit

    def __init__(self, history_points: int) -> None:
        """Keep at most `history_points` windows."""
        self.history_points = history_points
        self._history: deque[float] = deque(maxlen=history_points)  # NaN where unknown
        self._seen = 0
        self._known = 0  # known windows in the history
        self._refits = 0
        self._next_fit = self.least_windows
        self._model: FittedModel | None = None
        self._fitted_at = 0
        self._failure = ""
        self._peak = 0.0  # largest value in the history at the last fit, or since
        self._last_value = ConstantPredictor()
        self._spread = ErrorSpread()
        self._model_error = self._last_value_error = self._compared = 0.0

    @property
    def refits(self) -> int:
        """See `Predictor.refits`; failed fits count."""
        return self._refits

    @property
    def cadence(self) -> str:
        """See `Predictor.cadence`."""
        return (
            f"first fit after {self.least_windows} known windows, then every {_GROWTH:.0%} more windows "
            f"(at least {_LEAST_GAP}, at most {_GREATEST_GAP}), on the last {self.history_points}"
        )

    @abstractmethod
    def _fit(self, values: NDArray[np.float64], start: int) -> FittedModel:
        """Fit to `values` (NaN where unknown, the first and one more known), window `start` first.

        The model's state is that after the last value. Raises `FitError` with the reason; any other exception
        is taken for a failed fit as well.
        """

    def observe(self, value: float | None) -> None:
        """See `Predictor.observe`."""
        if value is not None:
            self._peak = max(self._peak, checked(value))
        if self._model is not None:
            self._compare(self._model, value)
            self._model.update(value)
        if len(self._history) == self.history_points and isfinite(self._history[0]):
            self._known -= 1
        self._history.append(nan if value is None else value)
        self._known += value is not None
        self._seen += 1
        self._last_value.observe(value)
        if self._seen >= self._next_fit and self._known >= self.least_windows:
            self._refit()

    def forecast(self, horizon: int) -> Forecast | None:
        """See `Predictor.forecast`."""
        checked_horizon(horizon)
        simple = self._last_value.forecast(horizon)
        if simple is None:
            return None
        if self._model is None:
            return Forecast(simple.mean, simple.std, self._why_no_model())
        if self._loses():
            note = f"{self.name} was over {_GUARD_RATIO} times as wrong as the last value lately: last value"
            return Forecast(simple.mean, simple.std, note)
        ahead = self._model.predict(horizon)
        if not all(isfinite(mean) and isfinite(variance) for mean, variance in ahead):
            return Forecast(simple.mean, simple.std, f"{self.name} forecast no finite number: last value")
        ceiling = _CEILING * self._peak
        first = ahead[0][1]
        rms = self._spread.rms
        means = tuple([min(max(mean, 0.0), ceiling) for mean, _ in ahead])
        # A model without noise of its own (a constant history) grows like a random walk.
        deviations = tuple(
            [
                rms * sqrt(max(variance, 0.0) / first if first > 0.0 else step)
                for step, (_, variance) in enumerate(ahead, start=1)
            ]
        )
        return Forecast(means, deviations, "; ".join(filter(None, (self._failure, self._model.note))))

    def _why_no_model(self) -> str:
        if self._failure:
            return self._failure
        if self.history_points < self.least_windows:
            return (
                f"a window size of {self.history_points} is under the {self.least_windows} windows "
                f"{self.name} needs: last value"
            )
        return f"{self._known} of the {self.least_windows} known windows {self.name} needs: last value"

    def _compare(self, model: FittedModel, value: float | None) -> None:
        """Score the model and the last value on the window that just became known."""
        last = self._last_value.last
        if value is None or last is None:
            return
        (mean, _), *_ = model.predict(1)
        if not isfinite(mean):
            mean = last
        error = value - max(mean, 0.0)
        self._spread.add(error)
        self._model_error = _GUARD_FADE * self._model_error + abs(error)
        self._last_value_error = _GUARD_FADE * self._last_value_error + abs(value - last)
        self._compared = _GUARD_FADE * self._compared + 1.0

    def _loses(self) -> bool:
        rounding = 1e-9 * self._peak * self._compared  # two perfect forecasts differ by less
        allowed = _GUARD_RATIO * self._last_value_error + rounding
        return self._compared >= _GUARD_LEAST and self._model_error > allowed

    def _refit(self) -> None:
        self._next_fit = self._seen + round(min(max(_GROWTH * self._seen, _LEAST_GAP), _GREATEST_GAP))
        self._refits += 1
        values = np.array(self._history)
        self._peak = float(np.nanmax(values))
        first = int(np.flatnonzero(np.isfinite(values))[0])
        try:
            model = self._fit(values[first:], self._seen - len(values) + first)
            ((_, variance),) = model.predict(1)
            if not (isfinite(variance) and variance >= 0.0):
                raise FitError("its variance is not a finite number")  # noqa: TRY301  (one place handles it)
        except Exception as error:  # noqa: BLE001  (the optimisers raise whatever they like; none is swallowed)
            reason = str(error) if isinstance(error, FitError) else f"{type(error).__name__}: {error}"
            reason = " ".join(reason.split())[:120]
            kept = "last value" if self._model is None else f"the fit of window {self._fitted_at} is kept"
            self._failure = f"{self.name} fit at window {self._seen} failed ({reason}): {kept}"
        else:
            self._model, self._fitted_at, self._failure = model, self._seen, ""
            self._spread.seed(variance)
