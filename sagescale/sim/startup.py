"""How long an instance takes from launch to READY: a constant, or drawn from a distribution."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_Z90 = 1.2815515655446004
"""The 90th percentile of a standard normal."""

_LONGEST_S = 1e6

_FORMS = {
    "constant": ("s",),
    "uniform": ("low", "high"),
    "lognormal": ("median", "p90"),
}
_EXPECTED = "expected seconds, or uniform:low=A,high=B, or lognormal:median=A,p90=B"


@dataclass(frozen=True, slots=True)
class StartupDelay:
    """A startup delay in seconds: its kind and that kind's parameters, in the order of its text form."""

    kind: str
    parameters: tuple[float, ...]

    @classmethod
    def parse(cls, value: object) -> StartupDelay:
        """Read ``60``, ``uniform:low=30,high=90`` or ``lognormal:median=60,p90=90``.

        Raises:
            ValueError: with what was expected, as one line.
        """
        if isinstance(value, cls):
            return value
        if isinstance(value, int | float) and not isinstance(value, bool):
            text = f"constant:s={value!r}"
        elif isinstance(value, str):
            text = value if ":" in value else f"constant:s={value}"
        else:
            raise ValueError(_EXPECTED)  # noqa: TRY004  # the protocol of settings.setting(parse=...)
        kind, _, rest = text.partition(":")
        given = dict(part.partition("=")[::2] for part in rest.split(","))
        if kind not in _FORMS or set(given) != set(_FORMS[kind]):
            raise ValueError(_EXPECTED)
        try:
            parameters = tuple(float(given[name]) for name in _FORMS[kind])
        except ValueError:
            raise ValueError(_EXPECTED) from None
        if not all(0 <= number <= _LONGEST_S for number in parameters):
            raise ValueError(f"{_EXPECTED}, each from 0 to {_LONGEST_S:g}")
        if len(parameters) == 2 and (
            parameters[0] > parameters[1] or (kind == "lognormal" and not parameters[0])
        ):
            names = _FORMS[kind]
            raise ValueError(f"expected {names[0]} <= {names[1]}, and a median above 0")
        return cls(kind, parameters)

    def draw(self, rng: np.random.Generator, count: int) -> NDArray[np.float64]:
        """Draw ``count`` delays in seconds, float64[count]."""
        if self.kind == "constant":
            return np.full(count, self.parameters[0])
        low, high = self.parameters
        if self.kind == "uniform":
            return rng.uniform(low, high, count)
        drawn = rng.lognormal(math.log(low), math.log(high / low) / _Z90, count)
        return np.minimum(drawn, _LONGEST_S)

    @property
    def typical_s(self) -> float:
        """The median, s."""
        return sum(self.parameters) / 2.0 if self.kind == "uniform" else self.parameters[0]

    def __str__(self) -> str:
        if self.kind == "constant":
            return f"{self.parameters[0]:g}"
        pairs = zip(_FORMS[self.kind], self.parameters, strict=True)
        return f"{self.kind}:" + ",".join(f"{name}={number:g}" for name, number in pairs)


class StartupDraws:
    """Draws startup delays: what an instance draws depends on seed, service, pool and its number there alone.

    Args:
        delay: what they are drawn from.
        seed: of the simulation.
        service: the name of the service whose pools they are.
    """

    def __init__(self, delay: StartupDelay, seed: int, service: str) -> None:
        self._delay = delay
        self._key = seed, zlib.crc32(service.encode())
        self._rngs: dict[str, np.random.Generator] = {}

    def __call__(self, pool: str, count: int) -> NDArray[np.float64]:
        """Draw the delays of the next ``count`` launches of a pool in seconds, float64[count]."""
        if pool not in self._rngs:
            self._rngs[pool] = np.random.default_rng((*self._key, zlib.crc32(pool.encode())))
        return self._delay.draw(self._rngs[pool], count)
