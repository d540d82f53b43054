"""Whether to believe what was learned: a measured profile is only left for a difference that is plain."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from sagescale.perf.learn.factors import LARGEST_STEP, SignedFactors, within_step

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["ESTIMATED", "MEASURED", "Belief", "Trust"]

_PERSISTENT = 3

_SCATTER_MEMORY = 0.9
_WIDER = 1.5
"""The dead band in mean absolute misses."""


@dataclass(frozen=True, slots=True)
class Trust:
    """How far a profile is trusted: relative standard deviations of each part of both pools' times.

    Prefill: fixed, by token. Decode: fixed, by request, by KV token.

    Within ``dead_band``, relative, what was learned is not used: there it is the noise of windows, and the
    error of reading a window's mean as a point of the surface. Where windows scatter more than that, the
    band is as wide as they scatter. What was learned is used from the third window in a row beyond, until
    the third in a row within half of it.

    Factors start at 1 and ``caution`` deviations: too few instances leave a backlog that is served for longer
    than it takes to learn that one instance too many may go.

    ``most_each``: see :func:`~sagescale.perf.learn.waiting.mean_ttft`.
    """

    prefill: tuple[float, float]
    decode: tuple[float, float, float]
    dead_band: float
    caution: float
    most_each: float


MEASURED = Trust(prefill=(0.15, 0.15), decode=(0.15, 0.15, 0.15), dead_band=0.12, caution=0.0, most_each=1.0)
ESTIMATED = Trust(prefill=(1.0, 0.3), decode=(0.3, 0.3, 0.8), dead_band=0.0, caution=1.0, most_each=0.4)
"""Arithmetic knows the work of a token better than what an engine adds to it, and memory better than KV
kernels: how far estimates are from measured profiles is in docs/profiles.md. What is learned is used at
once."""


@dataclass(slots=True)
class Belief:
    """The factors of one pool's times: those learned, and those in use."""

    prior: tuple[float, ...]
    dead_band: float
    caution: float
    windows: int = 0
    used: bool = field(init=False)
    factors: NDArray[np.float64] = field(init=False)
    _learned: SignedFactors = field(init=False)
    _against: int = 0
    _scatter: float = 0.0

    def __post_init__(self) -> None:
        self._learned = SignedFactors(self.prior, self.caution)
        self.factors = self._learned.values.copy()
        self.used = self.dead_band == 0.0

    @property
    def learned(self) -> NDArray[np.float64]:
        """The factors learned, in use or not."""
        return self._learned.values

    def update(self, slopes: Sequence[float], miss: float, noise: float) -> None:
        """Take in one observation, see :meth:`SignedFactors.update`; factors in use move as slowly."""
        self._learned.update(slopes, miss, noise)
        self.windows += 1
        kept = min(_SCATTER_MEMORY, 1.0 - 1.0 / self.windows)
        self._scatter = kept * self._scatter + (1.0 - kept) * min(abs(miss), LARGEST_STEP)
        x = np.asarray(slopes)
        self._decide(float(x @ self.learned) / float(x.sum()) - 1.0)
        aim = self.learned if self.used else np.ones(len(self.prior))
        self.factors = within_step(aim, self.factors)

    def _decide(self, difference: float) -> None:
        if self.dead_band == 0.0:
            return
        band = max(self.dead_band, _WIDER * self._scatter)
        wrong = abs(difference) > band if not self.used else abs(difference) < band / 2.0
        self._against = self._against + 1 if wrong else 0
        if self._against >= _PERSISTENT:
            self.used, self._against = not self.used, 0
