"""How wrong the one-window-ahead forecasts have lately been."""

from __future__ import annotations

from math import sqrt


class ErrorSpread:
    """Root mean square of the latest one-step errors, older ones fading by `memory` windows.

    Every predictor takes the level of its standard deviation from what it really got wrong lately, and only
    the growth over the horizon from its model: load changes its variance with its level, and a deviation
    estimated once over the whole past is too narrow at the peak and too wide at night.
    """

    __slots__ = ("_fade", "_squares", "_weight")

    def __init__(self, memory: int = 30) -> None:
        self._fade = 1.0 - 1.0 / memory
        self._squares = 0.0
        self._weight = 0.0

    def seed(self, variance: float, weight: float = 10.0) -> None:
        """Start from a model's own variance, counted as `weight` errors, unless errors are known already."""
        if self._weight == 0.0:
            self._squares, self._weight = variance * weight, weight

    def add(self, error: float) -> None:
        """Take one error, in the unit of the series."""
        self._squares = self._fade * self._squares + error * error
        self._weight = self._fade * self._weight + 1.0

    @property
    def known(self) -> bool:
        """Whether any error has been taken."""
        return self._weight > 0.0

    @property
    def rms(self) -> float:
        """The present root mean square, 0 while no error is known."""
        return sqrt(self._squares / self._weight) if self._weight else 0.0
