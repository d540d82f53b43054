"""Policies that only an experiment can have: a schedule made in advance, and one instance more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sagescale.planner.policy import PoolSize, QuickPolicy, Sizing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sagescale.planner import Observation, Sizes
    from sagescale.planner.policy import Policy, Situation

__all__ = ["OneMorePolicy", "SchedulePolicy"]


class OneMorePolicy:
    """Another policy, and one instance more in each pool than it asks for while it asks for any."""

    name = "one_more"

    def __init__(self, inner: Policy) -> None:
        self._inner = inner

    @property
    def check(self) -> Callable[[Observation], Sizing | None] | None:
        """The other policy's look between ticks, if it has one: what is added then is counted already."""
        return self._inner.check if isinstance(self._inner, QuickPolicy) else None

    def size(self, situation: Situation) -> Sizing:
        """Ask for one more; a pool that holds keeps the one it has."""
        pools, reasons = self._inner.size(situation)
        return Sizing(pools.map(_one_more), reasons)


def _one_more(size: PoolSize | None) -> PoolSize | None:
    if size is None or size.instances == 0:
        return size
    return PoolSize(size.instances + 1, size.demand + 1.0)


class SchedulePolicy:
    """Sizes laid down in advance for every tick; the last ones hold after the end.

    Args:
        sizes: entry k is asked for at time ``k * interval_s``; entry 0 is the initial size.
        interval_s: time between ticks.
    """

    name = "schedule"

    def __init__(self, sizes: Sequence[Sizes], interval_s: float) -> None:
        self._sizes = sizes
        self._interval_s = interval_s

    def size(self, situation: Situation) -> Sizing:
        """Ask for this tick's entry."""
        tick = round(situation.observation.time_s / self._interval_s)
        return Sizing.exactly(self._sizes[min(tick, len(self._sizes) - 1)])
