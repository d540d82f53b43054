"""Load forecasting: one protocol, one predictor a file, a registry that others can extend.

A predictor is fed one value a window (`Predictor.observe`) and says what the next windows will be
(`Predictor.forecast`). Nothing here reads a clock: time is the number of windows observed. The same
observations in the same order always give the same forecasts.

Importing this package costs nothing: the libraries of a predictor are imported when it is made.
"""

from __future__ import annotations

from sagescale.planner.forecast.protocol import Forecast, Predictor, PredictorOptions
from sagescale.planner.forecast.registry import (
    DEFAULT_WINDOW,
    ENTRY_POINT_GROUP,
    make_predictor,
    predictor_names,
)

__all__ = [
    "DEFAULT_WINDOW",
    "ENTRY_POINT_GROUP",
    "Forecast",
    "Predictor",
    "PredictorOptions",
    "make_predictor",
    "predictor_names",
]
