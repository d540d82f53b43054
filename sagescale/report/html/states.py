"""The pools between two ticks: what a decision made of the instances its tick found.

A timeline holds counts from just before each decision, in which an instance that starts within one interval
is never seen starting. What holds until the next tick follows from the rules of scaling: growing launches,
as far as GPUs are free; shrinking withdraws what waits, then cancels what starts, then drains what is ready.
A drained instance may stop at any time before the next tick, at once if it is idle.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Pool", "resized"]


@dataclass(frozen=True, slots=True)
class Pool:
    """Instances by state."""

    ready: int
    starting: int = 0
    draining: int = 0
    waiting: int = 0

    @property
    def holding(self) -> int:
        """Instances that hold GPUs."""
        return self.ready + self.starting + self.draining


def resized(pool: Pool, target: int, room: float) -> Pool:
    """Return the pool just after it was told its size.

    Args:
        pool: as found.
        target: instances it is to have, ready, starting and waiting.
        room: instances that free GPUs suffice for.
    """
    change = target - (pool.ready + pool.starting + pool.waiting)
    if change >= 0:
        started = max(0, int(min(room, change + pool.waiting)))
        return Pool(pool.ready, pool.starting + started, pool.draining, pool.waiting + change - started)
    surplus = -change
    withdrawn = min(pool.waiting, surplus)
    cancelled = min(pool.starting, surplus - withdrawn)
    drained = min(pool.ready, surplus - withdrawn - cancelled)
    return Pool(
        pool.ready - drained, pool.starting - cancelled, pool.draining + drained, pool.waiting - withdrawn
    )
