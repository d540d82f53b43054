"""Prefill time over prompt length, and of a batch of prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sagescale.perf.curve import MonotoneCurve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sagescale.perf.profile import PrefillProfile

__all__ = ["PrefillCurve"]


class PrefillCurve:
    """TTFT of a prompt measured alone: PCHIP through the knots, straight outside, above a floor.

    Below the first knot the line is never below the proportional one through it (time per token never
    falls because a prompt is shorter), so a steep first segment cannot make short prompts free.
    """

    __slots__ = ("_curve", "_first_isl", "_first_ttft", "floor_ms", "quadratic_ms")

    def __init__(self, prefill: PrefillProfile) -> None:
        self._curve = MonotoneCurve(prefill.isl_tokens, prefill.ttft_ms)
        self._first_isl = float(prefill.isl_tokens[0])
        self._first_ttft = float(prefill.ttft_ms[0])
        self.quadratic_ms = float(prefill.quadratic_ms)
        self.floor_ms = 0.0
        self.floor_ms = self.ttft_ms(1.0) if prefill.floor_ms is None else float(prefill.floor_ms)

    def ttft_ms(self, isl: float) -> float:
        """Prefill time in ms of one prompt of ``isl`` tokens."""
        value = self._curve.at(isl)
        if isl < self._first_isl:
            value = max(value, self._first_ttft * (isl / self._first_isl))
        return max(value, self.floor_ms)

    def table_ms(self, max_tokens: int) -> NDArray[np.float64]:
        """Return ``ttft_ms`` at 0..max_tokens tokens; entry 0 is 0."""
        tokens = np.arange(max_tokens + 1, dtype=np.float64)
        table = self._curve(tokens)
        below = tokens < self._first_isl
        table[below] = np.maximum(table[below], self._first_ttft * (tokens[below] / self._first_isl))
        table = np.maximum(table, self.floor_ms)
        table[0] = 0.0
        return table

    def batch_ms(self, tokens: Sequence[int]) -> float:
        """Time of one batch of prompts: attention is quadratic within a prompt, not across prompts.

        ``max(floor, ttft(S) - b*(S^2 - sum(n_i^2)))`` with S the batch's tokens. Raises ValueError for an
        empty batch or a prompt below one token.
        """
        if not tokens or min(tokens) < 1:
            raise ValueError(f"a prefill batch needs prompts of at least one token, not {list(tokens)!r}")
        total = sum(tokens)
        across = total * total - sum(n * n for n in tokens)
        return max(self.floor_ms, self.ttft_ms(total) - self.quadratic_ms * across)
