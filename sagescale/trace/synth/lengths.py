"""How many tokens made-up requests bring and ask for.

Every distribution is a function of a standard normal variable. So two of them are correlated by correlating
their normals (a Gaussian copula): the marginals stay exactly what was asked.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from sagescale.errors import InputError, did_you_mean
from sagescale.trace.read import read_lengths
from sagescale.trace.readers.fields import MAX_TOKENS

if TYPE_CHECKING:
    from numpy.typing import NDArray

PAIRS: Literal["pairs"] = "pairs"
"""The correlation that an empirical file has: its (ISL, OSL) rows are drawn together."""

_Z99 = 2.3263478740408408
_SPECS = (
    "lognormal:mean=1024,p99=8000 (any two of mean, median, sigma, p99; also min, max), "
    "constant:512, empirical:FILE"
)


class Lengths(Protocol):
    """A distribution of token counts."""

    def from_normal(self, z: NDArray[np.float64]) -> NDArray[np.int32]:
        """Turn standard normal draws into token counts >= 1 by the quantile function."""


@dataclass(frozen=True, slots=True)
class Constant:
    """Always the same."""

    tokens: int

    def from_normal(self, z: NDArray[np.float64]) -> NDArray[np.int32]:
        """Ignore the draws."""
        return np.full(len(z), self.tokens, dtype=np.int32)


@dataclass(frozen=True, slots=True)
class LogNormal:
    """``exp(mu + sigma z)``, rounded to whole tokens and held within ``[low, high]``."""

    mu: float
    sigma: float
    low: int = 1
    high: int = MAX_TOKENS

    def from_normal(self, z: NDArray[np.float64]) -> NDArray[np.int32]:
        """Apply the quantile function."""
        # Held within its bounds before exp: that of a wild sigma would overflow.
        exponent = np.minimum(self.mu + self.sigma * z, math.log(self.high))
        return np.clip(np.rint(np.exp(exponent)), self.low, self.high).astype(np.int32)


@dataclass(frozen=True, slots=True, eq=False)
class Empirical:
    """The token counts of one column of another trace.

    Attributes:
        path: the trace.
        rows: int32[n], the column in file order, so that two columns of one trace can be drawn in pairs.
    """

    path: str
    rows: NDArray[np.int32]

    def from_normal(self, z: NDArray[np.float64]) -> NDArray[np.int32]:
        """Take the order statistic at the draw's probability."""
        from scipy.special import ndtr

        at = np.minimum((ndtr(z) * len(self.rows)).astype(np.int64), len(self.rows) - 1)
        return np.sort(self.rows)[at]


def parse_lengths(option: Literal["--isl", "--osl", "--growth"], text: str) -> Lengths:
    """Parse ``lognormal:...``, ``constant:N`` or ``empirical:FILE``.

    Args:
        option: names the option in messages, and which column of an empirical file is meant.
        text: the specification.

    Raises:
        InputError: it cannot be understood or met; or the empirical file cannot be read.
    """
    kind, _, rest = text.partition(":")
    if kind == "constant":
        return Constant(_tokens(f"{option} {text}", rest))
    if kind == "empirical" and rest:
        lengths = read_lengths(rest)
        return Empirical(lengths.path, lengths.osl if option == "--osl" else lengths.isl)
    if kind == "lognormal" and rest:
        return _log_normal(f"{option} {text}", rest)
    near = did_you_mean(kind, ("lognormal", "constant", "empirical"))
    raise InputError(f"{option} {text}: expected one of {_SPECS}{near}")


def parse_correlation(text: str) -> float | Literal["pairs"]:
    """Parse ``pairs`` or a number in [-1, 1].

    Raises:
        InputError: it is neither.
    """
    if text == PAIRS:
        return PAIRS
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not -1 <= value <= 1:
        raise InputError(f"--correlation {text}: expected a number from -1 to 1, or 'pairs'")
    return value


def log_normal_of(where: str, text: str) -> tuple[float, float]:
    """Return mu and sigma of a lognormal's logarithm, by any two of mean, median, sigma and p99.

    Raises:
        InputError: they cannot be understood or met, or there are bounds besides; names ``where``.
    """
    found = _log_normal(where, text)
    if (found.low, found.high) != (1, MAX_TOKENS):
        raise InputError(f"{where}: min and max are of tokens; leave them out")
    return found.mu, found.sigma


def _log_normal(where: str, text: str) -> LogNormal:
    given: dict[str, float] = {}
    for item in text.split(","):
        name, _, value = item.partition("=")
        name = name.strip()
        if name in given or name not in ("mean", "median", "sigma", "p99", "min", "max"):
            near = did_you_mean(name, ("mean", "median", "sigma", "p99", "min", "max"))
            raise InputError(f"{where}: '{item}' is unknown or repeated; expected {_SPECS}{near}")
        given[name] = _tokens(where, value) if name in ("min", "max") else _number(where, item, value)
    low, high = int(given.pop("min", 1)), int(given.pop("max", MAX_TOKENS))
    if low > high:
        raise InputError(f"{where}: min {low} is above max {high}")
    if len(given) != 2:
        raise InputError(f"{where}: expected exactly two of mean, median, sigma and p99")
    mu, sigma = _solve(where, given)
    return LogNormal(mu, sigma, low, high)


def _solve(where: str, given: dict[str, float]) -> tuple[float, float]:
    """Find mu and sigma from mean = exp(mu + sigma^2/2), median = exp(mu), p99 = exp(mu + z sigma)."""
    logs = {name: math.log(value) for name, value in given.items() if name != "sigma"}
    match sorted(given):
        case ["mean", "sigma"]:
            return logs["mean"] - given["sigma"] ** 2 / 2, given["sigma"]
        case ["median", "sigma"]:
            return logs["median"], given["sigma"]
        case ["p99", "sigma"]:
            return logs["p99"] - _Z99 * given["sigma"], given["sigma"]
        case ["mean", "median"]:
            square = 2 * (logs["mean"] - logs["median"])
            if square < 0:
                raise InputError(f"{where}: a lognormal's mean is not below its median")
            return logs["median"], math.sqrt(square)
        case ["median", "p99"]:
            if logs["p99"] < logs["median"]:
                raise InputError(f"{where}: p99 is below the median")
            return logs["median"], (logs["p99"] - logs["median"]) / _Z99
        case _:
            # z sigma - sigma^2/2 = ln(p99/mean): the smaller root is the one with the lighter tail.
            ratio = logs["p99"] - logs["mean"]
            if not 0 <= ratio <= _Z99**2 / 2:
                raise InputError(
                    f"{where}: no lognormal has this p99 and mean; expected p99 between 1 and "
                    f"{math.exp(_Z99**2 / 2):.1f} times the mean"
                )
            sigma = _Z99 - math.sqrt(_Z99**2 - 2 * ratio)
            return logs["mean"] - sigma**2 / 2, sigma


def _number(where: str, item: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"{where}: '{item}': expected a finite number above 0")
    return value


def _tokens(where: str, text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if not 1 <= value <= MAX_TOKENS:
        raise InputError(f"{where}: expected a whole number of tokens from 1 to {MAX_TOKENS}, found '{text}'")
    return value
