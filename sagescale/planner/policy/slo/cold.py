"""What instances are worth whose prefix caches are cold."""

from __future__ import annotations

from collections import deque

__all__ = ["ColdCaches"]

_GAIN = 0.3
"""What one start of instances says of the next."""

_ENOUGH = 0.05
"""Hit rates are compared where new instances would lower them by so much if they were cold for long."""

_MOST = 2.0
"""For each new instance so many more at most: those are cold as well, and what all of them have to compute is
no more for it, the contexts of those who are there."""


class ColdCaches:
    """How many more instances a pool needs while those that are new have yet to compute what others hold.

    Cold when they begin and warm when their first window ends: half cold, until starts have been seen. Then
    as cold as the hit rate of the windows after a start says, which falls by as much as instances without a
    hit would make it fall, or by a part of that.
    """

    def __init__(self) -> None:
        self.hit_rate = 0.0
        self._coldness = 0.5
        self._before = 0.0
        self._ready: deque[int] = deque(maxlen=3)

    def observe(self, ready: int, hit_rate: float | None) -> None:
        """Take in a window's end: instances that serve, and the share of prompt tokens found in caches."""
        self._ready.append(ready)
        if hit_rate is None:
            return
        self.hit_rate = hit_rate
        if len(self._ready) < 3 or max(self._ready) <= self._ready[0]:
            self._before = hit_rate
            return
        new = self._ready[1] - self._ready[0]  # in the window before this one: cold in all of this
        fall = self._before * new / max(self._ready)
        if fall >= _ENOUGH:
            seen = min(max((self._before - hit_rate) / fall, 0.0), 1.0)
            self._coldness += _GAIN * (seen - self._coldness)

    def enough(self, size: int, ready: int, answer: float, prompt: float) -> int:
        """Return how many do the work of ``size`` warm ones, to the nearest.

        Args:
            size: instances needed if all were warm.
            ready: those that serve.
            answer: the work of a request's answer.
            prompt: that of its prompt, all of it computed.
        """
        warm_work = answer + prompt * (1.0 - self.hit_rate)
        if size <= ready or warm_work <= 0.0:
            return size
        slower = 1.0 + min(self._coldness * prompt * self.hit_rate / warm_work, _MOST)
        return ready + int((size - ready) * slower + 0.5)
