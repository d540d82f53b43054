"""How the time of an emulated trace follows the clock."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Pace"]


@dataclass(frozen=True, slots=True)
class Pace:
    """The trace's time: ``speed`` times the clock's, standing still around the ticks if wished.

    Speed multiplies delays too: at 12x a planner that needs half a second to be asked, to decide and to be
    obeyed comes six seconds late. With ``tick_pause`` the trace stands still from half that share of an
    interval before each multiple of it to half of it after, and makes up for it in between. What is
    scraped, decided and ordered meanwhile is then of the tick's own instant, as in a simulation.

    Attributes:
        speed: seconds of the trace in a second of the clock, on average.
        interval_s: between ticks, in the trace's time.
        tick_pause: share of the interval stood still; 0 is even speed.
    """

    speed: float
    interval_s: float = 60.0
    tick_pause: float = 0.0

    def trace_s(self, clock_s: float) -> float:
        """Return the trace's time so long after its beginning; before it, a time before 0."""
        even_s = clock_s * self.speed
        if self.tick_pause == 0:
            return even_s
        tick, phase_s = divmod(even_s, self.interval_s)
        moving_s = self.interval_s * (1.0 - self.tick_pause)
        moved_s = min(max(phase_s - (self.interval_s - moving_s) / 2, 0.0), moving_s)
        if moved_s == moving_s:
            return (tick + 1) * self.interval_s  # exactly: it is where a simulation ticks
        return tick * self.interval_s + moved_s / (1.0 - self.tick_pause)
