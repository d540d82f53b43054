"""Which part of the past a tick sees: metrics may be old, frozen or missing.

Metrics of age ``a`` at the tick at t describe the window ``(t - T - a, t - a]``, and the gauges at its end.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, NamedTuple

from sagescale.sim.outages import Outages

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sagescale.sim.config import SimulatorConfig
    from sagescale.sim.faults import Faults
    from sagescale.sim.outages import Span

__all__ = ["BEFORE", "Seen", "Visibility"]

BEFORE = -1.0
"""Stands for the instant before 0: no arrival yet, not even those at 0."""


class Seen(NamedTuple):
    """The window ``(start_s, end_s]``, either end perhaps :data:`BEFORE`."""

    start_s: float
    end_s: float


class Visibility:
    """What a planner that decides every ``interval_s`` gets to see. It depends on nothing that runs do.

    Args:
        interval_s: seconds between ticks.
        simulator: says how old metrics are, and when there are none.
        faults: says when they vanish, freeze or lag besides.
    """

    def __init__(self, interval_s: float, simulator: SimulatorConfig, faults: Faults) -> None:
        self._interval_s = interval_s
        self._delay_s = simulator.scrape_delay_s
        self._outage_s = simulator.metric_outage_s
        seed = simulator.simulation_seed
        self._vanish = Outages("metrics_vanish", faults, seed)
        self._freeze = Outages("metrics_freeze", faults, seed)
        self._lag = Outages("metrics_lag", faults, seed)

    @property
    def oldest_s(self) -> float:
        """The greatest age that metrics can have."""
        return self._delay_s + self._lag.longest_lag_s

    def window(self, tick: int) -> Seen:
        """The window that tick number ``tick`` sees where nothing hides it; the first begins before all."""
        end_s = tick * self._interval_s
        age_s = self._delay_s + max((span.lag_s for span in self._lag.at(end_s)), default=0.0)
        start_s = (tick - 1) * self._interval_s - age_s
        end_s -= age_s
        return Seen(start_s if start_s >= 0.0 and tick > 1 else BEFORE, end_s if end_s >= 0.0 else BEFORE)

    def at(self, tick: int) -> Seen | Literal["unknown", "frozen"]:
        """What a tick sees: a window, nothing, or whatever was last seen once more."""
        time_s = tick * self._interval_s
        if time_s in self._outage_s or self._vanish.at(time_s):
            return "unknown"
        if self._freeze.at(time_s):
            return "frozen"
        window = self.window(tick)
        return "unknown" if window.end_s == BEFORE else window  # nothing is that old yet

    def current(self, time_s: float) -> bool:
        """Whether metrics are to be had at an instant, and are of that instant."""
        return not (
            self._delay_s
            or time_s in self._outage_s
            or any(outages.at(time_s) for outages in (self._vanish, self._freeze, self._lag))
        )

    def edges(self, tick: int) -> list[float]:
        """The instants after tick ``tick - 1``, up to tick ``tick``, at which some window begins or ends."""
        start_s, end_s = (tick - 1) * self._interval_s, tick * self._interval_s
        ahead = 1 + math.ceil(self.oldest_s / self._interval_s)
        edges = {edge for later in range(tick, tick + ahead + 1) for edge in self.window(later)}
        return sorted(edge for edge in edges if (start_s < edge or tick == 1) and 0.0 <= edge <= end_s)

    def outages(self, horizon_s: float) -> Iterable[tuple[Outages, Span]]:
        """The metrics faults that began by the horizon."""
        for outages in (self._vanish, self._freeze, self._lag):
            for span in outages.begun_by(horizon_s):
                yield outages, span
