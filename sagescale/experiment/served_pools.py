"""Separate pools as a log saw them: what is fitted, and what the log's own stages say of it."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, NamedTuple

from sagescale.experiment.decode_time import fit_decode_time
from sagescale.experiment.factors import Factors, apply_factors, profile_prior
from sagescale.experiment.served import stage_times

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sagescale.experiment.replay import Replayed
    from sagescale.experiment.served import ServedLog
    from sagescale.perf import DecodeProfile, Profile

_DECODE_TOLERANCE, _JOIN_TOLERANCE_MS = 0.01, 0.5
"""What the log says of decode steps holds their scale and the join cost so firmly."""


class PoolsKind(NamedTuple):
    """The yes-or-no questions: does a hand-off hold the prefill instance, and are batches padded to what?"""

    blocks: bool
    padded: tuple[int, ...]


class ServedPools:
    """One prefill and one decode pool; see ``ServedEngine`` in ``calibrate``."""

    starts: tuple[tuple[float, ...], ...] = ((0.0, 0.0, 0.3, 0.0, 0.0, 0.5), (0.0, 0.0, 0.9, 1.0, 0.0, 0.4))
    """Two places to start from (z of ``Prior``): what a step loses to joining prompts and what it loses
    always can be distinguished only where the load changes, so the search begins on both sides."""
    strides: tuple[float, ...] = (0.6, 0.6, 0.4, 0.7, 0.5, 0.2)

    def __init__(
        self,
        profile: Profile,
        log: ServedLog,
        part: slice,
        paddings: tuple[tuple[int, ...], ...],
        *,
        alone: bool,
    ) -> None:
        """Read the part's stages; ``alone`` says that one decode instance served it, so who ran is known."""
        self._prior = profile_prior(profile)
        self.kinds = tuple(PoolsKind(blocks, padded) for blocks in (True, False) for padded in paddings)
        self._stages = stage_times(log, profile, part)
        self._profiles: dict[tuple[int, ...], Profile] = {}
        self._decode = {}
        for padded in paddings:
            own = dataclasses.replace(
                profile, decode=dataclasses.replace(profile.decode, padded_batch_sizes=padded)
            )
            found = fit_decode_time(log, own, part) if alone else None
            if found is not None:
                self._decode[padded] = found
                own = dataclasses.replace(own, decode=found.applied(own.decode))
            self._profiles[padded] = own

    def bounds(self) -> list[tuple[float, float]]:
        """Bounds of z."""
        return self._prior.bounds()

    def factors(self, z: NDArray[np.float64], kind: PoolsKind) -> Factors:
        """Return the factors at a point."""
        return self._prior.factors(z, blocks=kind.blocks, padded=kind.padded)

    def applied(self, factors: Factors) -> Profile:
        """Return the profile of the engine as it serves."""
        return apply_factors(self._profiles[factors.padded_batch_sizes], factors)

    def contradicted(self, factors: Factors, run: Replayed) -> float:
        """How badly the log's own stages contradict factors and a run with them, in squared tolerances."""
        cost = self._stages.cost(factors, run.handoff_ms)
        steps = self._decode.get(factors.padded_batch_sizes)
        if steps is not None:
            cost += (math.log(factors.decode_scale / steps.scale) / _DECODE_TOLERANCE) ** 2
            off = factors.join_ms_per_1k_tokens - steps.join_ms_per_1k_tokens
            cost += (off / _JOIN_TOLERANCE_MS) ** 2
        return cost

    def at_bounds(self, factors: Factors) -> tuple[str, ...]:
        """Names of the factors that lie at a bound other than "nothing of the kind"."""
        prior = self._prior
        values = prior.center + prior.point(factors) * prior.spread
        names = [name for name in Factors.__slots__ if name not in {"blocks_prefill", "padded_batch_sizes"}]
        width = prior.high - prior.low
        return tuple(
            name
            for name, value, low, high, span in zip(names, values, prior.low, prior.high, width, strict=True)
            if value > high - 1e-3 * span or (low < 0 and value < low + 1e-3 * span)
        )

    @staticmethod
    def words(kind: PoolsKind) -> str:
        """Say a kind."""
        hand_off = "blocking" if kind.blocks else "free"
        return f"{hand_off} hand-off, {'padded' if kind.padded else 'no'} batch sizes"

    @staticmethod
    def lines(factors: Factors, profile: Profile) -> list[tuple[str, str]]:
        """Return the factors as words and values, in the order of the model."""
        return [
            ("prefill time", f"x {factors.prefill_scale:.4f}"),
            ("decode step time", f"x {factors.decode_scale:.4f}"),
            *unequal_lines(profile.decode),
            ("join cost", f"{factors.join_ms_per_1k_tokens:.4g} ms per 1000 tokens"),
            (
                "hand-off",
                f"{factors.latency_ms:.4g} ms + {factors.ms_per_1k_tokens:.4g} ms per 1000 tokens + "
                f"{factors.decode_steps:.4g} decode steps, "
                + ("holding the prefill instance" if factors.blocks_prefill else "beside the next prefill"),
            ),
            ("padded batch sizes", " ".join(map(str, factors.padded_batch_sizes)) or "none"),
        ]


def unequal_lines(decode: DecodeProfile) -> list[tuple[str, str]]:
    """Say what unequal contexts cost; nothing where that is not known."""
    if not decode.spread_ms:
        return []
    costs = ", ".join(
        f"{ms * 1e3:.3g} ({n:g})" for n, ms in zip(decode.spread_requests, decode.spread_ms, strict=True)
    )
    return [("unequal contexts", f"{costs} ms per 1000 tokens (with so many requests)")]
