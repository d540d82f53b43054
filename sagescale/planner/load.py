"""The load: three predictors, of requests, ISL and OSL, fed together and asked together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sagescale.declare import declared
from sagescale.planner.config import AutoscalerConfig
from sagescale.planner.decision import LoadForecast

if TYPE_CHECKING:
    from sagescale.planner.forecast import Forecast, Predictor
    from sagescale.planner.observation import Window

_AVERAGES = frozenset({"moving_average", "exponential_smoothing"})
"""The predictors that ``prediction_window_size`` bounds whether or not it was given."""


@dataclass(slots=True)
class LoadPredictors:
    """Forecasts requests an interval, mean ISL and mean OSL.

    An unknown ISL or OSL repeats the last known one; unknown requests reach their predictor as unknown.
    What has never been known is not forecast at all. Policies that look further ahead than one
    interval ask the predictors themselves.
    """

    requests: Predictor
    isl: Predictor
    osl: Predictor
    last_isl: float | None = None
    last_osl: float | None = None

    def observe(self, window: Window) -> None:
        """Take in the next window."""
        if window.isl is not None:
            self.last_isl = window.isl
        if window.osl is not None:
            self.last_osl = window.osl
        self.requests.observe(window.requests)
        self.isl.observe(self.last_isl)
        self.osl.observe(self.last_osl)

    def forecast(self, horizon: int = 1) -> LoadForecast:
        """Return what is expected ``horizon`` intervals ahead; it changes nothing."""
        series = {"requests": self.requests, "isl": self.isl, "osl": self.osl}
        found = {name: predictor.forecast(horizon) for name, predictor in series.items()}
        requests, isl, osl = (_expected(forecast) for forecast in found.values())
        return LoadForecast(
            requests=requests[0],
            # A request has a token each way at least; a trend that ends below is no forecast.
            isl=self.last_isl if isl[0] is None or isl[0] < 1 else isl[0],
            osl=self.last_osl if osl[0] is None or osl[0] < 1 else osl[0],
            notes=tuple(f"{name}: {one.note}" for name, one in found.items() if one and one.note),
            chosen=tuple(f"{name}: {one.chosen}" for name, one in found.items() if one and one.chosen),
            requests_p90=requests[1],
            isl_p90=isl[1],
            osl_p90=osl[1],
        )


def make_load_predictors(config: AutoscalerConfig) -> LoadPredictors:
    """Build the three predictors that a configuration names.

    ``prediction_window_size`` bounds the averages. Fitted predictors keep ``history_points`` windows if
    given, else ``prediction_window_size`` where it is not the default (a bound that nobody set is none),
    else what each needs.

    Raises:
        InputError: the predictor is unknown or cannot be made.
    """
    from sagescale.planner.forecast import make_predictor

    name = config.load_predictor_type
    window: int | None = config.prediction_window_size
    if name not in _AVERAGES:
        bounded = window != declared(AutoscalerConfig)["prediction_window_size"].default
        window = config.history_points or (window if bounded else None)
    requests, isl, osl = (
        make_predictor(
            name,
            interval_s=float(config.adjustment_interval_sec),
            window_size=window,
            season_s=config.season_sec,
            plugins=config.plugins,
        )
        for _ in range(3)
    )
    return LoadPredictors(requests, isl, osl)


_UNKNOWN: tuple[float | None, float | None] = (None, None)


def _expected(forecast: Forecast | None) -> tuple[float | None, float | None]:
    """Mean and 90th percentile of one series, of the last window forecast."""
    return _UNKNOWN if forecast is None else (forecast.mean[-1], forecast.quantile(0.9))
