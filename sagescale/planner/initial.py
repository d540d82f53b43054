"""The size to begin with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sagescale.fleet import Sizes, fit, within_limits
from sagescale.planner.policy.classic import ClassicPolicy

if TYPE_CHECKING:
    from sagescale.perf import PerfModel
    from sagescale.planner.config import AutoscalerConfig

__all__ = ["initial_targets"]


def initial_targets(
    config: AutoscalerConfig,
    perf_model: PerfModel,
    requests: float | None,
    isl: float | None,
    osl: float | None,
) -> Sizes:
    """Size for a known load by the classic formulas with corrections 1, whatever the policy.

    Args:
        config: Its limits, budget and ``load_headroom`` apply.
        perf_model: The profile sized with.
        requests: Requests in one adjustment interval.
        isl: Their mean prompt tokens.
        osl: Their mean output tokens.

    Returns:
        Sizes within every constraint; a pool about whose load nothing is known starts at its minimum.
    """
    sizing = ClassicPolicy(config, perf_model).size_for(requests, isl, osl)
    asked = Sizes(*(0 if size is None else size.instances for size in sizing.pools))
    return fit(within_limits(asked, config.fleet), config.fleet)
