"""When made-up requests arrive.

All but ``Bursty`` are Poisson processes whose rate changes with time, drawn by thinning (Lewis and Shedler,
1979): candidates at the highest rate, each kept with probability rate(t) / highest. ``Bursty`` is a renewal
process with gamma or Weibull gaps, the two families that fit production arrivals where Poisson does not
(BurstGPT, KDD 2025: gamma; ServeGen, NSDI 2026: gamma or Weibull, neither everywhere).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from sagescale.errors import InputError
from sagescale.trace.transforms import check_number

if TYPE_CHECKING:
    from numpy.typing import NDArray

_DAY_S = 86_400.0
_WEEKEND_DAYS = (5, 6)  # day 0 is a Monday


class Pattern(Protocol):
    """A way for requests to arrive."""

    @property
    def peak_rps(self) -> float:
        """The highest rate it reaches, in requests a second."""

    def arrivals(self, duration_s: float, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draw arrival times in ``[0, duration_s)``, sorted, in seconds."""


@dataclass(frozen=True, slots=True)
class Steady:
    """A constant rate."""

    rps: float

    def __post_init__(self) -> None:
        check_number("--rps", self.rps)

    @property
    def peak_rps(self) -> float:
        """The rate."""
        return self.rps

    def arrivals(self, duration_s: float, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draw a homogeneous Poisson process."""
        return _poisson(self.rps, duration_s, rng)


class _Poisson:
    """Arrivals whose rate changes with time, drawn by thinning."""

    __slots__ = ()

    @property
    def peak_rps(self) -> float:
        raise NotImplementedError

    def _rate_rps(self, times_s: NDArray[np.float64], duration_s: float) -> NDArray[np.float64]:
        """Return the rate at each of the times."""
        raise NotImplementedError

    def _check_lasts(self, duration_s: float) -> None:
        """Refuse a duration too short for what the pattern is named after to come."""

    def arrivals(self, duration_s: float, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draw by thinning."""
        self._check_lasts(duration_s)
        times_s = _poisson(self.peak_rps, duration_s, rng)
        rate_rps = self._rate_rps(times_s, duration_s)
        return times_s[rng.uniform(0.0, self.peak_rps, len(times_s)) < rate_rps]


@dataclass(frozen=True, slots=True)
class Ramp(_Poisson):
    """A rate that goes from ``rps`` to ``end_rps`` in a straight line."""

    rps: float
    end_rps: float

    def __post_init__(self) -> None:
        check_number("--rps", self.rps, zero=True)
        check_number("--end-rps", self.end_rps, zero=True)

    @property
    def peak_rps(self) -> float:
        """The rate at the higher end."""
        return max(self.rps, self.end_rps)

    def _rate_rps(self, times_s: NDArray[np.float64], duration_s: float) -> NDArray[np.float64]:
        return self.rps + (self.end_rps - self.rps) * times_s / duration_s


@dataclass(frozen=True, slots=True)
class Step(_Poisson):
    """``rps`` before ``at_s``, ``end_rps`` from then on."""

    rps: float
    end_rps: float
    at_s: float

    def __post_init__(self) -> None:
        check_number("--rps", self.rps, zero=True)
        check_number("--end-rps", self.end_rps, zero=True)
        check_number("--at-s", self.at_s)

    @property
    def peak_rps(self) -> float:
        """The higher of the two rates."""
        return max(self.rps, self.end_rps)

    def _check_lasts(self, duration_s: float) -> None:
        if self.at_s >= duration_s:
            raise InputError(
                f"--at-s {self.at_s:g}: the step would never come; expected less than --duration-s "
                f"{duration_s:g}"
            )

    def _rate_rps(self, times_s: NDArray[np.float64], duration_s: float) -> NDArray[np.float64]:  # noqa: ARG002
        return np.where(times_s < self.at_s, self.rps, self.end_rps)


@dataclass(frozen=True, slots=True)
class Diurnal(_Poisson):
    """A cosine over the day, lower at weekends; time 0 is Monday, 00:00.

    ``rate(t) = rps * (1 + amplitude * cos(2 pi (hour - peak_hour) / 24))``, and on days 5 and 6 that times
    ``weekend_factor``: ``rps`` is the mean of a weekday.
    """

    rps: float
    amplitude: float = 0.5
    peak_hour: float = 14.0
    weekend_factor: float = 1.0

    def __post_init__(self) -> None:
        check_number("--rps", self.rps)
        check_number("--weekend-factor", self.weekend_factor, zero=True)
        if not 0 <= self.amplitude <= 1:
            raise InputError(f"--amplitude {self.amplitude:g}: expected a number from 0 to 1")
        if not 0 <= self.peak_hour < 24:
            raise InputError(f"--peak-hour {self.peak_hour:g}: expected an hour, 0 or more and less than 24")

    @property
    def peak_rps(self) -> float:
        """The rate at the peak of the busier kind of day."""
        return self.rps * (1 + self.amplitude) * max(1.0, self.weekend_factor)

    def _rate_rps(self, times_s: NDArray[np.float64], duration_s: float) -> NDArray[np.float64]:  # noqa: ARG002
        phase = 2 * math.pi * (times_s / _DAY_S - self.peak_hour / 24)
        rate_rps = self.rps * (1 + self.amplitude * np.cos(phase))
        rate_rps[np.isin((times_s // _DAY_S) % 7, _WEEKEND_DAYS)] *= self.weekend_factor
        return rate_rps


@dataclass(frozen=True, slots=True)
class Spikes(_Poisson):
    """A constant rate, with ``spike_rps`` instead for ``spike_s`` in every ``every_s``.

    The first spike begins half a period in, so that a replay has settled before it.
    """

    rps: float
    spike_rps: float
    every_s: float
    spike_s: float

    def __post_init__(self) -> None:
        check_number("--rps", self.rps, zero=True)
        check_number("--spike-rps", self.spike_rps)
        check_number("--every-s", self.every_s)
        check_number("--spike-s", self.spike_s)
        if self.spike_s > self.every_s / 2:
            raise InputError(
                f"--spike-s {self.spike_s:g}: expected at most half of --every-s ({self.every_s / 2:g} s)"
            )

    @property
    def peak_rps(self) -> float:
        """The higher of the two rates."""
        return max(self.rps, self.spike_rps)

    def _check_lasts(self, duration_s: float) -> None:
        if self.every_s / 2 >= duration_s:
            raise InputError(
                f"--every-s {self.every_s:g}: the first spike, half of that in, would never come; expected "
                f"less than twice --duration-s {duration_s:g}"
            )

    def _rate_rps(self, times_s: NDArray[np.float64], duration_s: float) -> NDArray[np.float64]:  # noqa: ARG002
        since_spike_s = (times_s - self.every_s / 2) % self.every_s
        spiking = (since_spike_s < self.spike_s) & (times_s >= self.every_s / 2)
        return np.where(spiking, self.spike_rps, self.rps)


@dataclass(frozen=True, slots=True)
class Bursty:
    """Gaps drawn independently from a gamma or Weibull distribution with mean ``1 / rps``.

    ``cv`` is the gaps' standard deviation over their mean: 1 is Poisson, above it requests come in bursts.
    """

    rps: float
    cv: float
    family: Literal["gamma", "weibull"] = "gamma"

    def __post_init__(self) -> None:
        check_number("--rps", self.rps)
        if not 0.05 <= self.cv <= 20:
            raise InputError(f"--cv {self.cv:g}: expected a number from 0.05 to 20")

    @property
    def peak_rps(self) -> float:
        """The mean rate: a renewal process has no other."""
        return self.rps

    def arrivals(self, duration_s: float, rng: np.random.Generator) -> NDArray[np.float64]:
        """Sum gaps until they pass the duration."""
        parts: list[NDArray[np.float64]] = []
        now_s = 0.0
        while now_s < duration_s:
            expected = (duration_s - now_s) * self.rps
            gaps_s = self._gaps(rng, math.ceil(expected + 4 * self.cv * math.sqrt(expected) + 16))
            times_s = now_s + np.cumsum(gaps_s)
            parts.append(times_s)
            now_s = float(times_s[-1])
        times_s = np.concatenate(parts)
        return times_s[: np.searchsorted(times_s, duration_s)]

    def _gaps(self, rng: np.random.Generator, count: int) -> NDArray[np.float64]:
        if self.family == "gamma":
            # Gamma(k, scale): mean k*scale, cv 1/sqrt(k).
            return rng.gamma(self.cv**-2, self.cv**2 / self.rps, count)
        shape = _weibull_shape(self.cv)
        return rng.weibull(shape, count) / (self.rps * math.gamma(1 + 1 / shape))


def _weibull_shape(cv: float) -> float:
    """Solve ``cv^2 + 1 = G(1 + 2/k) / G(1 + 1/k)^2`` for the shape k by bisection (it falls with k)."""
    wanted = math.log1p(cv**2)
    low, high = 0.05, 100.0
    for _ in range(100):
        middle = (low + high) / 2
        if math.lgamma(1 + 2 / middle) - 2 * math.lgamma(1 + 1 / middle) > wanted:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _poisson(rps: float, duration_s: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw a homogeneous Poisson process: a Poisson count of sorted uniform times."""
    times_s = rng.uniform(0.0, duration_s, rng.poisson(rps * duration_s))
    times_s.sort()
    return times_s
