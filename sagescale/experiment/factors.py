"""The few physical factors by which an engine under load differs from its profile."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sagescale.perf import Profile


@dataclass(frozen=True, slots=True)
class Factors:
    """What calibration fits: five to six numbers and two yes-or-no questions.

    Attributes:
        prefill_scale: Multiplies every prefill time.
        decode_scale: Multiplies every decode step, and what unequal contexts add to it.
        join_ms_per_1k_tokens, latency_ms, ms_per_1k_tokens, decode_steps, blocks_prefill: As in the
            profile: what a joining prompt adds to a step, the three terms of a hand-off, and whether
            the prefill instance waits for it.
        padded_batch_sizes: Sizes that decode batches are padded to; empty for none.
    """

    prefill_scale: float
    decode_scale: float
    join_ms_per_1k_tokens: float
    latency_ms: float
    ms_per_1k_tokens: float
    decode_steps: float
    blocks_prefill: bool
    padded_batch_sizes: tuple[int, ...]


def apply_factors(profile: Profile, factors: Factors) -> Profile:
    """Return the profile of the engine as it serves.

    Points measured alone stay as they were measured; errors of a fit to them would mean nothing now
    and are dropped.
    """
    prefill, decode = profile.prefill, profile.decode
    slow, step = factors.prefill_scale, factors.decode_scale
    return dataclasses.replace(
        profile,
        prefill=dataclasses.replace(
            prefill,
            ttft_ms=tuple(ms * slow for ms in prefill.ttft_ms),
            quadratic_ms=prefill.quadratic_ms * slow,
            floor_ms=None if prefill.floor_ms is None else prefill.floor_ms * slow,
            fit_error=None,
            batch_error=None,
        ),
        decode=dataclasses.replace(
            decode,
            itl_ms=tuple(tuple(ms * step for ms in row) for row in decode.itl_ms),
            spread_ms=tuple(ms * step for ms in decode.spread_ms),
            padded_batch_sizes=factors.padded_batch_sizes,
            fit_error=None,
        ),
        kv_transfer=dataclasses.replace(
            profile.kv_transfer,
            latency_ms=factors.latency_ms,
            ms_per_1k_tokens=factors.ms_per_1k_tokens,
            decode_steps=factors.decode_steps,
            blocks_prefill=factors.blocks_prefill,
            assumed=False,
        ),
        join_ms_per_1k_tokens=factors.join_ms_per_1k_tokens,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Prior:
    """Where the six numbers are expected, how firmly, and where they must lie.

    A point is six numbers z, one a factor, in standard deviations from what the profile says; scales and a
    measured transfer rate are logarithmic. The sum of z² is what a point costs.
    """

    profile: Profile
    center: NDArray[np.float64]
    spread: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    def bounds(self) -> list[tuple[float, float]]:
        """Bounds of z."""
        low, high = (self.low - self.center) / self.spread, (self.high - self.center) / self.spread
        return list(zip(low.tolist(), high.tolist(), strict=True))

    def point(self, factors: Factors) -> NDArray[np.float64]:
        """Return the z of some factors."""
        rate = factors.ms_per_1k_tokens
        values = np.array(
            [
                math.log(factors.prefill_scale),
                math.log(factors.decode_scale),
                factors.join_ms_per_1k_tokens,
                factors.latency_ms,
                math.log(rate / self._rate) if self._measured else rate,
                factors.decode_steps,
            ]
        )
        return np.asarray((values - self.center) / self.spread)

    def factors(self, z: NDArray[np.float64], *, blocks: bool, padded: tuple[int, ...]) -> Factors:
        """Return the factors at a point, within their bounds."""
        x = np.clip(self.center + np.asarray(z) * self.spread, self.low, self.high).tolist()
        return Factors(
            prefill_scale=math.exp(x[0]),
            decode_scale=math.exp(x[1]),
            join_ms_per_1k_tokens=x[2],
            latency_ms=x[3],
            ms_per_1k_tokens=self._rate * math.exp(x[4]) if self._measured else x[4],
            decode_steps=x[5],
            blocks_prefill=blocks,
            padded_batch_sizes=padded,
        )

    @property
    def _rate(self) -> float:
        return self.profile.kv_transfer.ms_per_1k_tokens

    @property
    def _measured(self) -> bool:
        return not self.profile.kv_transfer.assumed and self._rate > 0


def profile_prior(profile: Profile) -> Prior:
    """Expect what the profile says.

    Times measured alone are expected to hold within 5 %; a measured transfer rate within 30 %; a
    latency within a few ms; what no lone measurement can show (join cost, waits for a decode step) may
    be anything an engine plausibly does.
    """
    kv = profile.kv_transfer
    measured = not kv.assumed and kv.ms_per_1k_tokens > 0
    log2 = math.log(2.0)
    rate = (0.0, 0.3, -2.0, 2.0) if measured else (kv.ms_per_1k_tokens, 5.0, 0.0, 200.0)
    rows = [
        # center, spread, low, high
        (0.0, 0.05, -log2, log2),  # log of prefill_scale
        (0.0, 0.05, -log2, log2),  # log of decode_scale
        (profile.join_ms_per_1k_tokens, 3.0, 0.0, 50.0),
        (kv.latency_ms, 1.0 if measured else 5.0, 0.0, 200.0),
        rate,
        (kv.decode_steps, 0.5, 0.0, 5.0),
    ]
    center, spread, low, high = (np.array(column) for column in zip(*rows, strict=True))
    return Prior(profile, center, spread, low, high)
