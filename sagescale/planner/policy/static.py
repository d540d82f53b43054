"""Pools of a fixed size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sagescale.planner.policy.protocol import Sizing

if TYPE_CHECKING:
    from sagescale.perf import PerfModel
    from sagescale.planner.config import AutoscalerConfig
    from sagescale.planner.policy.protocol import Situation


class StaticPolicy:
    """Keeps ``static_prefill`` and ``static_decode``, or ``static_instances``, whatever happens.

    A pool whose size is not given keeps the one found at the first decision. Instances that are lost are
    replaced. What every autoscaler has to beat.
    """

    name = "static"
    keys = ("static_prefill", "static_decode", "static_instances")
    uses_forecast = False
    uses_model = False
    uses_lengths = False

    def __init__(self, config: AutoscalerConfig, perf_model: PerfModel) -> None:
        del perf_model  # a fixed size needs no model
        self._given: tuple[int | None, ...] = config.static_sizes
        self._asked: Sizing | None = None

    def size(self, situation: Situation) -> Sizing:
        """Ask for the same sizes every time."""
        if self._asked is None:
            found = situation.current
            self._asked = Sizing.exactly(
                found.map(lambda size, given: size if given is None else given, self._given)
            )
        return self._asked
