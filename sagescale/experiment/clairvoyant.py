"""A startup-aware schedule made with the future known: what a planner could at best have done, nearly."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from sagescale.experiment.load import true_load
from sagescale.fleet import Sizes, fit, within_limits
from sagescale.planner.policy.classic import ClassicPolicy, whole_instances

if TYPE_CHECKING:
    from collections.abc import Callable

    from sagescale.perf import PerfModel
    from sagescale.planner import AutoscalerConfig
    from sagescale.sim.config import SimulatorConfig
    from sagescale.trace import Trace

__all__ = ["Schedule", "find_schedule", "schedule_sizes"]

_LEAST, _MOST = 0.5, 4.0
_HALVINGS = 4


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule by its two headrooms: what the true demand of each pool is multiplied by."""

    prefill_headroom: float
    decode_headroom: float


def schedule_sizes(
    trace: Trace, model: PerfModel, config: AutoscalerConfig, simulator: SimulatorConfig, schedule: Schedule
) -> list[Sizes]:
    """Lay down the sizes for every tick, entry 0 for the start.

    A tick at t decides what is ready from ``t + startup`` on, and at once what is given up. It asks for the
    most that any window from t to ``t + startup + T`` needs: the classic formulas on the window's true
    load, corrections 1, times the headroom of the pool; within limits and budget.
    """
    interval_s = float(config.adjustment_interval_sec)
    load = true_load(trace, interval_s)
    classic = ClassicPolicy(replace(config, load_headroom=1.0), model)
    demands = np.zeros((2, len(load)))
    for window in range(len(load)):
        requests = float(load.requests[window])
        if requests > 0:
            sizing = classic.size_for(requests, float(load.isl[window]), float(load.osl[window]))
            demands[:, window] = [0.0 if size is None else size.demand for size in sizing.pools]
    demands[0] *= schedule.prefill_headroom
    demands[1] *= schedule.decode_headroom
    ahead = 1 + math.ceil(simulator.startup_delay_s.parameters[-1] / interval_s)
    padded = np.concatenate([demands, np.zeros((2, ahead))], axis=1)
    needed = np.lib.stride_tricks.sliding_window_view(padded, ahead, axis=1).max(axis=2)
    fleet = config.fleet
    return [
        fit(within_limits(Sizes(*map(whole_instances, demand)), fleet), fleet) for demand in needed.T.tolist()
    ]


def find_schedule(reaches: Callable[[Schedule], bool]) -> Schedule | None:
    """Find small headrooms that reach the attainment asked; None where even a fourfold one does not.

    First one for both pools by bisection, then each pool's own below that. Attainment is taken to grow with
    headroom; what is returned has been simulated and reaches it.

    Args:
        reaches: whether a schedule reaches the attainment.
    """

    def smallest(low: float, high: float, schedule: Callable[[float], Schedule]) -> float:
        """Bisect the ratio; ``high`` is known to reach it."""
        if reaches(schedule(low)):
            return low
        for _ in range(_HALVINGS):
            middle = math.sqrt(low * high)
            if reaches(schedule(middle)):
                high = middle
            else:
                low = middle
        return high

    if reaches(Schedule(1.0, 1.0)):
        both = smallest(_LEAST, 1.0, lambda ratio: Schedule(ratio, ratio))
    elif reaches(Schedule(_MOST, _MOST)):
        both = smallest(1.0, _MOST, lambda ratio: Schedule(ratio, ratio))
    else:
        return None
    prefill = smallest(both * _LEAST, both, lambda ratio: Schedule(ratio, both))
    decode = smallest(both * _LEAST, both, lambda ratio: Schedule(prefill, ratio))
    return Schedule(prefill, decode)
