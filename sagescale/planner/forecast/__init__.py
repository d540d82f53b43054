"""Load forecasting: one protocol, one predictor a file, a registry that others can extend.

A predictor is fed one value a window (`Predictor.observe`) and says what the next windows will be
(`Predictor.forecast`). Nothing here reads a clock: time is the number of windows observed. The same
observations in the same order always give the same forecasts.

Importing this package costs nothing: the libraries of a predictor are imported when it is made.

A package adds a predictor with

    [project.entry-points."sagescale.predictors"]
    my_predictor = "my_package.module:MyPredictor"

where the object is called with one `PredictorOptions` and returns a `Predictor`. Entry points are read
when a name is not built in or when names are listed, never at import. A built-in name cannot be replaced.
"""

from __future__ import annotations

from math import inf

from sagescale.errors import InputError
from sagescale.planner.forecast.protocol import Forecast, Predictor, PredictorOptions
from sagescale.planner.plugins import NO_KEYS, PREDICTORS, PluginKeys

__all__ = [
    "DEFAULT_WINDOW",
    "ENTRY_POINT_GROUP",
    "Forecast",
    "Predictor",
    "PredictorOptions",
    "make_predictor",
    "predictor_names",
]

DEFAULT_WINDOW = 10
"""`prediction_window_size` of the guide: what bounds moving_average and exponential_smoothing, in windows."""

ENTRY_POINT_GROUP = PREDICTORS.group


def predictor_names() -> tuple[str, ...]:
    """Return every name `make_predictor` knows: built-in ones first, then others' in sorted order."""
    return PREDICTORS.names()


def make_predictor(
    name: str,
    *,
    interval_s: float,
    window_size: int | None = None,
    season_s: float | None = None,
    seed: int = 0,
    plugins: PluginKeys = NO_KEYS,
) -> Predictor:
    """Make the predictor called `name`; one serves one series.

    Args:
        name: One of `predictor_names()`.
        interval_s: Length of a window, s.
        window_size: History in windows, only where the user gave one. `None` is 10 for moving_average and
            exponential_smoothing and each fitted predictor's own default.
        season_s: Period of the load, s, where the user knows it; at least two windows.
        seed: For predictors that draw random numbers (none of the built-in ones does).
        plugins: Keys that packages declare for predictors of theirs.

    Raises:
        InputError: The name is unknown, an option is out of range, or another package's predictor does not
            load.
    """
    if not 0.0 < interval_s < inf:
        raise InputError(f"predictor {name}: interval_s is {interval_s}, expected a number > 0")
    if window_size is not None and window_size < 1:
        raise InputError(f"predictor {name}: window_size is {window_size}, expected at least 1 window")
    if season_s is not None and not 2 * interval_s <= season_s < inf:
        raise InputError(
            f"predictor {name}: season_s is {season_s}, expected at least two windows ({2 * interval_s:g} s)"
        )
    options = PredictorOptions(interval_s, window_size, season_s, seed, plugins)
    try:
        made = PREDICTORS.load(name)(options)
    except InputError:
        raise
    except Exception as error:
        raise PREDICTORS.failed(name, error) from error
    if not isinstance(made, Predictor):
        raise InputError(
            f"{PREDICTORS.whose(name)} gives a {type(made).__name__}, expected an object with name, refits, "
            "cadence, observe(value) and forecast(horizon)"
        )
    return made
