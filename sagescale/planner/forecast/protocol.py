"""What a predictor is, what it is made from, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import inf
from typing import Protocol, runtime_checkable

from sagescale.planner.plugins import NO_KEYS, PluginKeys


@dataclass(frozen=True, slots=True)
class Forecast:
    """The next windows of one series, as a normal distribution a window, cut off at zero.

    `mean` and `std` have one entry a window ahead, in the unit of the series. `note` is empty, or says
    why a simpler method than the one named was used; `chosen` is who answers where the name leaves that open.

    Raises:
        ValueError: A mean or std is negative, NaN or infinite, or their lengths differ: a predictor's bug,
            stopped here so that no such number reaches a sizing formula.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    note: str = ""
    chosen: str = ""

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not self.mean:
            raise ValueError(f"a forecast of {len(self.mean)} means and {len(self.std)} deviations")
        for value in self.mean:
            if not 0.0 <= value < inf:
                raise ValueError(f"a forecast mean of {value}: expected a finite number >= 0")
        for value in self.std:
            if not 0.0 <= value < inf:
                raise ValueError(f"a forecast standard deviation of {value}: expected a finite number >= 0")

    @property
    def horizon(self) -> int:
        """Number of windows ahead."""
        return len(self.mean)

    def quantile(self, q: float, step: int = -1) -> float:
        """Return the value that window `step` stays at or under with probability `q`.

        `max(0, mean + z(q) std)`, z the standard normal quantile: never negative, never NaN, monotone in
        `q`, and the mean at 0.5.

        Args:
            q: Probability, strictly between 0 and 1.
            step: Index into `mean`: 0 is the next window, -1 the last one forecast.

        Raises:
            ValueError: `q` is not strictly between 0 and 1.
            IndexError: `step` lies outside the horizon.
        """
        if not 0.0 < q < 1.0:
            raise ValueError(f"a quantile of {q}: expected a probability strictly between 0 and 1")
        return max(0.0, self.mean[step] + _normal_quantile(q) * self.std[step])


@cache
def _normal_quantile(q: float) -> float:
    """Return the standard normal quantile; a planner asks for few of them, again and again."""
    from statistics import NormalDist  # 10 ms of imports that a mean-only policy never pays

    return NormalDist().inv_cdf(q)


@runtime_checkable
class Predictor(Protocol):
    """Forecasts one series from its past, one value a window.

    Implementations hold plain data (they can be copied and pickled), read no clock and use no global
    randomness.
    """

    @property
    def name(self) -> str:
        """The registered name."""
        ...

    @property
    def refits(self) -> int:
        """How many times a model has been fitted so far (0 for predictors that fit nothing)."""
        ...

    @property
    def cadence(self) -> str:
        """When it refits, in words, for reports."""
        ...

    def observe(self, value: float | None) -> None:
        """Take the value of the window just ended; windows come in time order, none left out.

        Args:
            value: Finite and >= 0; zero is a value. `None` is a window that was not measured.

        Raises:
            ValueError: The value is negative, NaN or infinite.
        """
        ...

    def forecast(self, horizon: int) -> Forecast | None:
        """Forecast the next `horizon` windows; `None` while no value at all is known.

        Changes nothing that a later call could see: two calls agree, and calling or not calling it
        leaves later forecasts the same.

        Raises:
            ValueError: `horizon` is under 1.
        """
        ...


@dataclass(frozen=True, slots=True)
class PredictorOptions:
    """What every predictor is made from; each takes what it needs.

    Attributes:
        interval_s: Length of a window, s.
        window_size: History in windows where the user gave one; `None` takes the predictor's own default.
        season_s: Period of the load where known, s; `None` lets the predictor look for one.
        seed: For predictors that draw random numbers.
        plugins: Keys that packages declare for predictors of theirs.
    """

    interval_s: float
    window_size: int | None = None
    season_s: float | None = None
    seed: int = 0
    plugins: PluginKeys = NO_KEYS

    def season_windows(self) -> int | None:
        """Return the given season in whole windows, rounded."""
        return None if self.season_s is None else max(2, round(self.season_s / self.interval_s))


def checked(value: float) -> float:
    """Return `value`, refused unless finite and not negative (unknown is `None`, never NaN)."""
    if not 0.0 <= value < inf:
        raise ValueError(f"an observation of {value}: expected a finite number >= 0, or None for unknown")
    return value


def checked_horizon(horizon: int) -> int:
    """Return `horizon`, refused under 1."""
    if horizon < 1:
        raise ValueError(f"a horizon of {horizon} windows: expected at least 1")
    return horizon
