"""What ``tune`` chooses between: one candidate, and the configuration it stands for."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sagescale.planner.policy import uses_forecast

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sagescale.planner import AutoscalerConfig

__all__ = ["HEADROOMS", "NEUTRAL", "TUNED_KEYS", "Candidate", "Space", "candidate_of", "with_candidate"]

HEADROOMS = tuple(round(1.05**step, 4) for step in range(-14, 58))
"""What the configured ``load_headroom`` is multiplied by: 0.5 to 16, 5 % apart."""

NEUTRAL = HEADROOMS.index(1.0)

TUNED_KEYS = (
    "policy",
    "target_attainment",
    "load_predictor_type",
    "adjustment_interval_sec",
    "load_headroom",
    "min_prefill_instances",
    "min_decode_instances",
    "scale_down_stabilization_window_sec",
    "static_prefill",
    "static_decode",
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """The keys that are tuned; the other keys stay as they are configured.

    Attributes:
        headroom: position in ``HEADROOMS``.
        static: the sizes of the static policy, None for every other.
    """

    policy: str
    predictor: str
    interval_s: int
    headroom: int
    min_prefill: int
    min_decode: int
    down_window_s: int
    static: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        """Policy and predictor, as comparisons write them."""
        if self.static is not None:
            return f"static {self.static[0]}+{self.static[1]}"
        return f"{self.policy}/{self.predictor}" if uses_forecast(self.policy) else self.policy


@dataclass(frozen=True, slots=True)
class Space:
    """Which values may be chosen, in the order in which they are tried.

    Attributes:
        intervals_s, down_windows_s: the configured value is the first of each.
        most_floor: the highest minimum of each pool, prefill and decode.
    """

    policies: Sequence[str]
    predictors: Sequence[str]
    intervals_s: Sequence[int]
    down_windows_s: Sequence[int]
    most_floor: tuple[int, int]


def candidate_of(config: AutoscalerConfig, policy: str, predictor: str) -> Candidate:
    """Take a configuration's own values but for policy and predictor."""
    return Candidate(
        policy,
        predictor,
        config.adjustment_interval_sec,
        NEUTRAL,
        config.min_prefill_instances,
        config.min_decode_instances,
        config.scale_down_stabilization_window_sec,
    )


def with_candidate(config: AutoscalerConfig, candidate: Candidate) -> AutoscalerConfig:
    """Return the configuration with the tuned keys set."""
    static = candidate.static or (None, None)
    return dataclasses.replace(
        config,
        policy=candidate.policy,
        load_predictor_type=candidate.predictor,
        adjustment_interval_sec=candidate.interval_s,
        load_headroom=round(config.load_headroom * HEADROOMS[candidate.headroom], 4),
        min_prefill_instances=candidate.min_prefill,
        min_decode_instances=candidate.min_decode,
        scale_down_stabilization_window_sec=candidate.down_window_s,
        static_prefill=static[0],
        static_decode=static[1],
    )
