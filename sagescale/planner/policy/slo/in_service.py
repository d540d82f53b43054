"""The load of requests that stay: what came earlier is still worked off."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["InService"]


class InService:
    """Tokens/s that requests in service make: they build up as a load comes, and stay when it is gone.

    How many are in service follows the arrivals averaged over the time that requests in service have yet to
    go, in the mean E[S^2] / 2 E[S] where they stay for S (Eick, Massey & Whitt 1993, of queues with enough
    servers). The average is taken with exponential weights. What is counted in service knows how long
    those requests are that are there; it is of one moment, so it is believed as far as what was there before
    would still be.

    Attributes:
        to_go_s: that mean time; 0 where nothing stays.
        load: tokens/s now; 0 before anything came.
    """

    def __init__(self) -> None:
        self.to_go_s = 0.0
        self.load = 0.0
        self._begun = False
        self._unseen_s = 0.0

    def pass_unseen(self, lasts_s: float) -> None:
        """Let time pass of which it is not known what came: what is in service then is known for less."""
        self._unseen_s += lasts_s

    def observe(self, lasts_s: float, load: float, counted: float | None = None) -> float:
        """Take in what came in the last seconds, and what those in service make now, as far as it is known.

        Args:
            lasts_s: for so long.
            load: what came, tokens/s.
            counted: what requests counted in service make, tokens/s.

        Returns:
            The load in service.
        """
        lasts_s, self._unseen_s = lasts_s + self._unseen_s, 0.0
        self.load = self.after(lasts_s, (load,))[0] if self._begun else load
        self._begun = True
        if counted is not None:
            self.load += self._left(lasts_s) * (counted - self.load)
        return self.load

    def after(self, lasts_s: float, loads: Sequence[float]) -> tuple[float, ...]:
        """Return the load in service after each of the loads, tokens/s, that come for so long one by one."""
        in_service, left, each = self.load, self._left(lasts_s), []
        for load in loads:
            in_service = load + left * (in_service - load)
            each.append(in_service)
        return tuple(each)

    def common(self, lasts_s: float, windows: int) -> float:
        """Return the error of the load in service after so many windows, where each one's is the same 1."""
        return 1.0 - self._left(lasts_s * windows)

    def by_chance(self, lasts_s: float, windows: int) -> float:
        """Return its deviation, where each window's is 1 and has nothing to do with another's."""
        left = self._left(lasts_s)
        if left >= 1.0:
            return 0.0
        return (1.0 - left) * math.sqrt((1.0 - left ** (2 * windows)) / (1.0 - left * left))

    def _left(self, lasts_s: float) -> float:
        """What is left after so long of what is in service."""
        return math.exp(-lasts_s / self.to_go_s) if self.to_go_s > 0.0 else 0.0
