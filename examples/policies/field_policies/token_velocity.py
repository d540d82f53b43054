"""A rule like TokenScale's (arXiv:2512.03416): tokens that arrive over the velocity at which they are done.

Its convertible decoders are a property of engines, not of a policy: this is without them.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from sagescale.declare import check, setting
from sagescale.fleet import Sizes
from sagescale.planner.decision import Reason, ReasonCode
from sagescale.planner.policy import Sizing
from sagescale.planner.policy.classic import whole_instances
from sagescale.planner.stabilisation import PoolStabiliser

from field_policies import check_pools

if TYPE_CHECKING:
    from sagescale.perf import PerfModel
    from sagescale.planner import AutoscalerConfig, Observation
    from sagescale.planner.policy import Situation

_REMEMBERED = 2000
"""Lengths of so many requests, the last ones."""
_EDGES = (1.0 / 3.0, 2.0 / 3.0)
"""Short, medium and long: thirds of what was seen, of prompts and of answers, nine kinds in all."""


@dataclass(frozen=True)
class TokenVelocityKeys:
    """The token velocity rule's key."""

    token_velocity_down_s: float = setting(
        60.0,
        doc="How long less must do before the token_velocity policy gives instances up.",
        unit="s",
        at_least=0,
    )

    def __post_init__(self) -> None:
        check(self)


class TokenVelocityPolicy:
    """Instances = tokens/s that arrive over the tokens/s one instance gets done, a kind of request at a time.

    * Prefill: prompt tokens over ``isl / ttft(isl)``.
    * Decode: tokens of prompt and answer, which hold memory until the last one is made, over the rate at
      which the largest batch within the ITL target gives them back; summed over nine kinds by length.

    The rate is the last window's; between ticks the last burst check's, for more only. Down goes to the
    highest of the last minute. ``load_headroom`` multiplies what arrives.
    """

    name = "token_velocity"
    uses_forecast = False

    def __init__(self, config: AutoscalerConfig, perf_model: PerfModel) -> None:
        check_pools(config)
        self._config = config
        self._perf = perf_model
        down_s = config.plugins.of(TokenVelocityKeys).token_velocity_down_s
        self._stable = PoolStabiliser(0.0, down_s), PoolStabiliser(0.0, down_s)
        self._lengths: deque[tuple[int, int]] = deque(maxlen=_REMEMBERED)
        self._request_s: tuple[float, float] | None = None  # of a prefill and a decode instance

    def size(self, situation: Situation) -> Sizing:
        """Ask for what the arrivals of the window need."""
        seen = situation.observation
        if seen.lengths:
            self._lengths.extend(seen.lengths)
            self._request_s = self._instance_seconds()
        wanted = self._wanted(seen)
        if wanted is None:
            reason = Reason(
                ReasonCode.HOLD_UNKNOWN_TRAFFIC, "no arrivals and lengths are known: the pools hold"
            )
            return Sizing.hold(seen.pools, reason)
        pools = zip(self._stable, seen.pools, wanted, strict=True)
        return Sizing.exactly(
            Sizes(*(stable.stabilise(seen.time_s, pool.asked, size) for stable, pool, size in pools))
        )

    def check(self, seen: Observation) -> Sizing | None:
        """Between ticks the arrivals of the last seconds may ask for more."""
        wanted = self._wanted(seen)
        return None if wanted is None else Sizing.exactly(wanted)

    def _wanted(self, seen: Observation) -> Sizes | None:
        if seen.requests is None or self._request_s is None or seen.window_s <= 0:
            return None
        rate = seen.requests * self._config.load_headroom / seen.window_s
        return Sizes(*(whole_instances(rate * request_s) for request_s in self._request_s))

    def _instance_seconds(self) -> tuple[float, float]:
        """Seconds of a prefill and of a decode instance that a request takes, in the mean of all kinds."""
        kinds = self._kinds()
        prefill_s = math.fsum(share * self._perf.ttft_ms(isl) / 1000.0 for share, isl, _ in kinds)
        return prefill_s, math.fsum(share * self._held_s(isl, osl) for share, isl, osl in kinds)

    def _held_s(self, isl: float, osl: float) -> float:
        """Seconds of an instance for a request of a kind: its tokens over the velocity for its kind."""
        point = self._perf.decode_throughput_per_gpu(self._config.target_itl_ms, isl + osl / 2)
        velocity = point.concurrency * (isl + osl) / (osl * point.itl_ms / 1000.0)
        return (isl + osl) / velocity

    def _kinds(self) -> list[tuple[float, float, float]]:
        """(share, mean ISL, mean OSL) of each kind of request seen."""
        lengths = np.array(self._lengths, dtype=np.float64)
        kind = np.zeros(len(lengths), dtype=np.int64)
        for column in lengths.T:
            edges = np.quantile(column, _EDGES, method="lower")
            kind = 3 * kind + np.searchsorted(edges, column, side="left")
        count = np.bincount(kind, minlength=9)
        isl, osl = (np.bincount(kind, weights=column, minlength=9) for column in lengths.T)
        return [
            (count[k] / len(lengths), isl[k] / count[k], max(osl[k] / count[k], 1.0))
            for k in np.flatnonzero(count).tolist()
        ]
