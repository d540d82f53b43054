"""When something is not to be had: spans that were scripted, and others drawn as time goes on."""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from sagescale.sim.faults import Faults, OutageKind

__all__ = ["Outages", "Span"]

_KINDS: tuple[OutageKind, ...] = ("no_gpus", "metrics_vanish", "metrics_freeze", "metrics_lag")


class Span(NamedTuple):
    """A half-open span ``[from_s, to_s)``; ``lag_s`` means something to lagging metrics only."""

    from_s: float
    to_s: float
    lag_s: float = 0.0


class Outages:
    """All outages of one kind. Drawn ones come at exponential intervals, each after the end of the last."""

    def __init__(self, kind: OutageKind, faults: Faults, simulation_seed: int) -> None:
        self.kind = kind
        self._scripted = [
            Span(outage.from_s, outage.to_s, outage.lag_s) for outage in faults.outages if outage.kind == kind
        ]
        self._lag_s = faults.rates.metrics_lag_by_s
        per_hour, self._each_s = faults.rates.outage(kind)
        self._rate = per_hour / 3600.0
        self._rng = np.random.default_rng((faults.seed, simulation_seed, 2, _KINDS.index(kind)))
        self._drawn: list[Span] = []

    def begun_by(self, time_s: float) -> list[Span]:
        """Every span that begins at ``time_s`` or before, scripted ones first."""
        self._draw_beyond(time_s)
        return [span for span in (*self._scripted, *self._drawn) if span.from_s <= time_s]

    def at(self, time_s: float) -> list[Span]:
        """The spans that cover an instant: scripted ones, and of the drawn ones the last at most."""
        self._draw_beyond(time_s)
        begun = bisect.bisect_right(self._drawn, (time_s, float("inf"), float("inf")))
        near = (*self._scripted, *self._drawn[begun - 1 : begun])
        return [span for span in near if span.from_s <= time_s < span.to_s]

    def next_edge_s(self, after_s: float) -> float:
        """The first instant after ``after_s`` at which a span begins or ends; inf if none does."""
        self._draw_beyond(after_s)
        begun = bisect.bisect_right(self._drawn, (after_s, float("inf"), float("inf")))
        near = (*self._scripted, *self._drawn[max(0, begun - 1) :])
        edges = [edge for span in near for edge in (span.from_s, span.to_s)]
        return min((edge for edge in edges if edge > after_s), default=float("inf"))

    @property
    def longest_lag_s(self) -> float:
        """The most that any span can lag by."""
        return max((self._lag_s if self._rate else 0.0, *(span.lag_s for span in self._scripted)))

    def _draw_beyond(self, time_s: float) -> None:
        while self._rate and (not self._drawn or self._drawn[-1].from_s <= time_s):
            free_s = self._drawn[-1].to_s if self._drawn else 0.0
            start_s = free_s + float(self._rng.exponential(1.0 / self._rate))
            self._drawn.append(Span(start_s, start_s + self._each_s, self._lag_s))
