"""How long a step lasts (ENGINES section 8), as the reference asks for it: an ``Engine.step_s``."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class StepTimes:
    """Section 8's form, in seconds."""

    itl_s: Callable[[int, int], float]  # (running, KV tokens they hold) -> pure decode step
    tokens_s: tuple[tuple[int, float], ...]  # (tokens, time), rising; straight between, before and beyond
    running_s: float = 0.0
    kv_s: float = 0.0
    cross_s: float = 0.0
    square_s: float = 0.0
    longest_s: float = 0.0
    spread_s: Callable[[int], float] = lambda running: 0.0  # of a pure decode step of unequal contexts

    def __call__(self, n: int, kv: int, longest: int, chunks: list[tuple[int, int]]) -> float:
        """``chunks`` are (tokens c, computed before p)."""
        if not chunks:
            return self.itl_s(n, kv) + self.spread_s(n) * (n * longest - kv) / n
        return (
            self.curve_s(n + sum(c for c, _ in chunks))
            + self.running_s * n
            + self.kv_s * kv
            + self.cross_s * sum(c * p for c, p in chunks)
            + self.square_s * sum(c * c for c, _ in chunks) / 2
            + self.longest_s * longest
        )

    def curve_s(self, tokens: int) -> float:
        knots = self.tokens_s
        if len(knots) == 1:
            return knots[0][1]
        right = min(max(1, bisect_right([x for x, _ in knots], tokens)), len(knots) - 1)
        (x0, y0), (x1, y1) = knots[right - 1], knots[right]
        return y0 + (y1 - y0) / (x1 - x0) * (tokens - x0)
