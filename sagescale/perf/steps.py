"""What a step of an engine that prefills and decodes takes, as plain arithmetic and as arrays."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sagescale.perf.surfaces import DecodeTable, compile_decode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sagescale.perf.profile import AggregatedProfile


@dataclass(frozen=True, slots=True, eq=False)
class StepModel:
    """Step times of an aggregated instance, compiled from a profile's section; every one is above 0.

    With n requests decoding that hold K tokens before the step, the longest of them ``longest``, and chunks
    of c tokens of prompts of which p tokens are there already (C = sum c):

        no chunk   table(n, K) + spread_ms[n] * (n * longest - K) / n
        chunks     tokens_ms(n + C) + running_ms * n + kv_ms * K + cross_ms * sum(c p)
                   + square_ms * (sum(c c) / 2) + longest_ms * max(longest, p + c of every chunk)

    summed from left to right; sums of tokens and the bracket are integers. ``tokens_ms(x)`` is, with i the
    last knot at or before x (but one that has a successor), ``tokens_ms[i] + token_slope_ms[i] * (x -
    tokens[i])``: straight between knots, straight on after the last; before the first it is ``tokens_ms[0]``.

    Attributes:
        table: Decode steps of equal contexts, and ``spread_ms``, for n = 1..max_num_seqs.
        tokens: Knots of ``tokens_ms``, shape (knots,), tokens; ``tokens_ms`` likewise, ms.
        token_slope_ms: Shape (knots - 1,), ms per token.
        running_ms: Per decoding request, ms.
        kv_ms: Per KV token of decoding requests, ms; ``longest_ms`` per token of the longest context.
        cross_ms: Per pair of a chunk's token and one before the chunk, ms; ``square_ms`` per pair within it.
        gpus: GPUs of an instance.
        max_num_seqs: Requests it may run at once.
        max_kv_tokens: KV tokens it can hold; None is unlimited.
        max_batched_tokens: Tokens of a step that the engine was measured (or is assumed) to run with.
        estimated: Whether steps with chunks were made from other surfaces instead of measured.
    """

    table: DecodeTable
    tokens: NDArray[np.float64]
    tokens_ms: NDArray[np.float64]
    token_slope_ms: NDArray[np.float64]
    running_ms: float
    kv_ms: float
    cross_ms: float
    square_ms: float
    longest_ms: float
    gpus: int
    max_num_seqs: int
    max_kv_tokens: int | None
    max_batched_tokens: int
    estimated: bool

    def step_ms(self, n: int, kv_tokens: int, longest: int, chunks: Sequence[tuple[int, int]] = ()) -> float:
        """Time in ms of one step.

        Args:
            n: Requests decoding, 0 to ``max_num_seqs``.
            kv_tokens: What they hold before the step.
            longest: The most that one of them holds; 0 where none decodes.
            chunks: (tokens computed, tokens of the prompt already there) of each prompt in the step.

        Raises:
            ValueError: nothing runs, or more decode than there are slots.
        """
        if not 0 <= n <= self.max_num_seqs or not (n or chunks):
            raise ValueError(f"a step needs chunks or 1 to {self.max_num_seqs} requests decoding, not {n}")
        if not chunks:
            return self.table.unequal_step_ms(n, kv_tokens, longest)
        return self.mixed_ms(
            n,
            kv_tokens,
            sum(c for c, _ in chunks),
            sum(c * p for c, p in chunks),
            sum(c * c for c, _ in chunks),
            max(longest, *(c + p for c, p in chunks)),
        )

    def mixed_ms(
        self, n: float, kv_tokens: float, tokens: float, cross: float, square: float, longest: float
    ) -> float:
        """Time in ms of a step with chunks.

        Of all chunks, ``tokens`` is sum(c), ``cross`` sum(c p) and ``square`` sum(c c); ``longest`` is the
        longest context of the whole step.
        """
        return (
            self.of_tokens_ms(n + tokens)
            + self.running_ms * n
            + self.kv_ms * kv_tokens
            + self.cross_ms * cross
            + self.square_ms * (square / 2.0)
            + self.longest_ms * longest
        )

    def of_tokens_ms(self, tokens: float) -> float:
        """``tokens_ms`` at any number of tokens."""
        last = len(self.token_slope_ms) - 1
        i = min(max(bisect_right(self.tokens, tokens) - 1, 0), last)
        return float(self.tokens_ms[i] + self.token_slope_ms[i] * max(tokens - self.tokens[i], 0.0))

    def tokens_table_ms(self, most: int) -> NDArray[np.float64]:
        """Return ``tokens_ms`` at every whole number 0..most, to the bit as ``of_tokens_ms`` gives it."""
        x = np.arange(most + 1, dtype=np.float64)
        i = np.clip(np.searchsorted(self.tokens, x, side="right") - 1, 0, len(self.token_slope_ms) - 1)
        table: NDArray[np.float64] = self.tokens_ms[i] + self.token_slope_ms[i] * np.maximum(
            x - self.tokens[i], 0.0
        )
        return table


def compile_steps(section: AggregatedProfile) -> StepModel:
    """Compile a profile's aggregated section."""
    tokens = np.asarray(section.tokens, dtype=np.float64)
    tokens_ms = np.asarray(section.tokens_ms, dtype=np.float64)
    slope = np.diff(tokens_ms) / np.diff(tokens)
    for array in (tokens, tokens_ms, slope):
        array.setflags(write=False)
    return StepModel(
        table=compile_decode(section),
        tokens=tokens,
        tokens_ms=tokens_ms,
        token_slope_ms=slope,
        running_ms=section.running_ms,
        kv_ms=section.kv_ms,
        cross_ms=section.cross_ms,
        square_ms=section.square_ms,
        longest_ms=section.longest_ms,
        gpus=section.gpus_per_instance,
        max_num_seqs=section.max_num_seqs,
        max_kv_tokens=section.max_kv_tokens,
        max_batched_tokens=section.max_batched_tokens,
        estimated=section.estimated,
    )
