"""Aggregated instances as a log saw them: the few factors by which their steps under load differ."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sagescale.experiment.served_pools import unequal_lines
from sagescale.perf import estimate_aggregated

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sagescale.experiment.replay import Replayed
    from sagescale.perf import Profile

_SCALES = np.array([0.05, 0.05, 0.2])
"""One standard deviation of the logarithm of each factor: times measured alone hold within 5 %."""

_MOST = math.log(2.0)


@dataclass(frozen=True, slots=True)
class StepFactors:
    """What calibration fits of an aggregated engine.

    Attributes:
        chunk_scale: Multiplies steps with prompt chunks.
        decode_scale: Multiplies steps without.
        spread_scale: Multiplies what unequal contexts add to those, beside ``decode_scale``.
        padded_batch_sizes: Sizes that steps without chunks are padded to; empty for none.
    """

    chunk_scale: float
    decode_scale: float
    spread_scale: float
    padded_batch_sizes: tuple[int, ...]


class StepsKind(NamedTuple):
    """The yes-or-no question: to what sizes are decode steps padded?"""

    padded: tuple[int, ...]


def apply_step_factors(profile: Profile, factors: StepFactors) -> Profile:
    """Return the profile of the engine as it serves; one without an aggregated section gets an estimated one.

    Errors of the fit to isolated steps would mean nothing now and are dropped.
    """
    section = profile.aggregated or estimate_aggregated(profile)
    chunk, step = factors.chunk_scale, factors.decode_scale
    spread = step * factors.spread_scale
    changed = dataclasses.replace(
        section,
        itl_ms=tuple(tuple(ms * step for ms in row) for row in section.itl_ms),
        spread_ms=tuple(ms * spread for ms in section.spread_ms),
        padded_batch_sizes=factors.padded_batch_sizes,
        tokens_ms=tuple(ms * chunk for ms in section.tokens_ms),
        running_ms=section.running_ms * chunk,
        kv_ms=section.kv_ms * chunk,
        cross_ms=section.cross_ms * chunk,
        square_ms=section.square_ms * chunk,
        longest_ms=section.longest_ms * chunk,
        fit_error=None,
        step_errors=(),
    )
    return dataclasses.replace(profile, aggregated=changed)


class ServedSteps:
    """One aggregated pool; see ``ServedEngine`` in ``calibrate``."""

    starts: tuple[tuple[float, ...], ...] = ((0.0, 0.0, 0.0),)
    strides: tuple[float, ...] = (0.6, 0.6, 0.5)

    def __init__(self, profile: Profile, paddings: tuple[tuple[int, ...], ...]) -> None:
        self._profile = profile
        section = profile.aggregated or estimate_aggregated(profile)
        self._knows_spread = bool(section.spread_ms)
        self.kinds = tuple(map(StepsKind, paddings))

    def bounds(self) -> list[tuple[float, float]]:
        """Bounds of z."""
        widest = (_MOST / _SCALES).tolist()
        if not self._knows_spread:
            widest[2] = 0.0  # nothing to scale
        return [(-most, most) for most in widest]

    def factors(self, z: NDArray[np.float64], kind: StepsKind) -> StepFactors:
        """Return the factors at a point."""
        chunk, step, spread = np.exp(np.clip(z * _SCALES, -_MOST, _MOST)).tolist()
        return StepFactors(chunk, step, spread, kind.padded)

    def applied(self, factors: StepFactors) -> Profile:
        """Return the profile of the engine as it serves."""
        return apply_step_factors(self._profile, factors)

    def contradicted(self, factors: StepFactors, run: Replayed) -> float:  # noqa: ARG002 -- as of other engines
        """Nothing: such a log has no stages."""
        return 0.0

    def at_bounds(self, factors: StepFactors) -> tuple[str, ...]:
        """Names of the factors that ended at twice or half of what was measured."""
        scales = {name: getattr(factors, name) for name in ("chunk_scale", "decode_scale", "spread_scale")}
        return tuple(name for name, scale in scales.items() if abs(math.log(scale)) > 0.999 * _MOST)

    @staticmethod
    def words(kind: StepsKind) -> str:
        """Say a kind."""
        return f"{'padded' if kind.padded else 'no'} batch sizes"

    @staticmethod
    def lines(factors: StepFactors, profile: Profile) -> list[tuple[str, str]]:
        """Return the factors as words and values."""
        section = profile.aggregated
        assert section is not None  # of the profile calibrated
        return [
            ("steps with chunks", f"x {factors.chunk_scale:.4f}"),
            ("decode step time", f"x {factors.decode_scale:.4f}"),
            ("unequal contexts", f"x {factors.decode_scale * factors.spread_scale:.4f}"),
            *unequal_lines(section),
            ("padded batch sizes", " ".join(map(str, factors.padded_batch_sizes)) or "none"),
        ]
