"""What planner and simulator may ask of a performance model, and the one built from a profile."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from sagescale.perf.aggregated import estimate_aggregated
from sagescale.perf.steps import StepModel, compile_steps
from sagescale.perf.surfaces import DecodeTable, PrefillCurve, compile_decode

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sagescale.perf.profile import Profile


@dataclass(frozen=True, slots=True)
class DecodeCapacity:
    """The operating point chosen for a decode instance under an ITL target.

    ``feasible`` is False when no point meets the target; the point is then the fastest there is.
    """

    tokens_per_s_per_gpu: float
    concurrency: int
    itl_ms: float
    feasible: bool


class PerfModel(Protocol):
    """How fast one prefill and one decode instance are; the planner knows nothing else of engines."""

    @property
    def prefill_gpus(self) -> int:
        """GPUs of one prefill instance."""

    @property
    def decode_gpus(self) -> int:
        """GPUs of one decode instance."""

    @property
    def max_num_seqs(self) -> int:
        """Requests a decode instance may run at once."""

    @property
    def max_kv_tokens(self) -> int | None:
        """KV tokens a decode instance can hold; None is unlimited."""

    def ttft_ms(self, isl: float) -> float:
        """Prefill time in ms of one prompt of ``isl`` tokens, alone on an instance."""

    def itl_ms(self, concurrency: float, context_tokens: float) -> float:
        """Time of one decode step in ms with ``concurrency`` requests of ``context_tokens`` each."""

    def prefill_throughput_per_gpu(self, isl: float) -> float:
        """Prompt tokens a second and GPU when prompts of ``isl`` tokens run one at a time."""

    def decode_throughput_per_gpu(self, itl_ms: float, context_tokens: float) -> DecodeCapacity:
        """Return the largest throughput among the points whose ITL is at most ``itl_ms``."""


class ProfileModel:
    """A profile's surfaces, ready to be asked; implements ``PerfModel``.

    Every surface is positive and never falls with more tokens, requests or context.

    Attributes:
        profile: What it was built from.
        kv_transfer: What handing a request's KV cache to a decode instance costs.
        join_ms_per_1k_tokens: How much longer a decode step takes for 1000 prompt tokens that join with it.
        quadratic_ms: The attention coefficient b of prefill, ms per token squared.
        prefill_floor_ms: No prefill batch takes less.
    """

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.kv_transfer = profile.kv_transfer
        self.join_ms_per_1k_tokens = profile.join_ms_per_1k_tokens
        self.prefill_gpus = profile.prefill.gpus_per_instance
        self.decode_gpus = profile.decode.gpus_per_instance
        self.max_num_seqs = profile.decode.max_num_seqs
        self.max_kv_tokens = profile.decode.max_kv_tokens
        self._prefill = PrefillCurve(profile.prefill)
        self.quadratic_ms = self._prefill.quadratic_ms
        self.prefill_floor_ms = self._prefill.floor_ms
        self._table = compile_decode(profile.decode)
        # The same pieces transposed: one contiguous row of all n for each piece, and breaks per request.
        self._n = np.arange(1, self.max_num_seqs + 1, dtype=np.float64)
        self._base = np.ascontiguousarray(self._table.base_ms[1:].T)
        self._slope = np.ascontiguousarray(self._table.slope_ms[1:].T)
        # Where the pieces meet, in tokens a request; padded rows meet at other places, each at its own.
        self._padded = bool(profile.decode.padded_batch_sizes)
        self._context_breaks: list[float] = self._table.breaks[1, 1:-1].tolist()
        self._steps: StepModel | None = None

    def ttft_ms(self, isl: float) -> float:
        """Prefill time in ms of one prompt of ``isl`` tokens, alone. Raises ValueError unless isl > 0."""
        return self._prefill.ttft_ms(_positive("isl", isl))

    def prefill_throughput_per_gpu(self, isl: float) -> float:
        """Prompt tokens a second and GPU, ``isl / ttft(isl) / gpus``. Raises ValueError unless isl > 0."""
        return isl / self.ttft_ms(isl) * 1000.0 / self.prefill_gpus

    def prefill_table_ms(self, max_tokens: int) -> NDArray[np.float64]:
        """Return ``ttft_ms`` at every whole number of tokens 0..max_tokens; entry 0 is 0."""
        return self._prefill.table_ms(max_tokens)

    def itl_ms(self, concurrency: float, context_tokens: float) -> float:
        """Time in ms of one decode step with ``concurrency`` requests of ``context_tokens`` each.

        Concurrency is clamped to [1, max_num_seqs]; between whole numbers of requests it is linear.
        Raises ValueError for a NaN or negative concurrency and unless context_tokens > 0.
        """
        context = _positive("context_tokens", context_tokens)
        if not concurrency >= 0:
            raise ValueError(f"concurrency must be a number >= 0, not {concurrency}")
        clamped = min(max(concurrency, 1.0), float(self.max_num_seqs))
        n = int(clamped)
        if self._padded:
            low = self._table.step_ms(n, n * context)
            # Batches of a fractional mean size run at whole ones, each padded to its own.
            high = low if n == clamped else max(low, self._table.step_ms(n + 1, (n + 1) * context))
            return low + (high - low) * (clamped - n)
        s = bisect_right(self._context_breaks, context)
        low = self._row(s, n, context)
        if n == clamped:
            return low
        high = self._row(s, n + 1, context)
        return low + (high - low) * (clamped - n)

    def decode_throughput_per_gpu(self, itl_ms: float, context_tokens: float) -> DecodeCapacity:
        """Return the largest throughput among whole batches whose ITL is at most ``itl_ms``.

        A batch counts while it fits the slots and the KV memory (one request always does). When none is
        fast enough, the fastest point is returned, ``feasible=False``. Raises ValueError unless both
        arguments are > 0.
        """
        if not itl_ms > 0:
            raise ValueError(f"itl_ms must be a number above 0, not {itl_ms}")
        return best_point(self.decode_steps_ms(context_tokens), itl_ms, self.decode_gpus)

    def decode_steps_ms(self, context_tokens: float) -> NDArray[np.float64]:
        """Return ``itl_ms`` of 1, 2, ... requests, as many as slots and KV memory hold, one at least.

        Raises ValueError unless context_tokens > 0.
        """
        context = _positive("context_tokens", context_tokens)
        fits = self.max_num_seqs
        if self.max_kv_tokens is not None:
            fits = max(1, min(fits, int(self.max_kv_tokens / context)))
        n = self._n[:fits]
        if self._padded:
            kv_tokens = n * context
            pieces = (self._table.breaks[1 : fits + 1, 1:-1] <= kv_tokens[:, None]).sum(axis=1)
            at = np.arange(fits)
            itl: NDArray[np.float64] = self._base[pieces, at] + self._slope[pieces, at] * kv_tokens
        else:
            s = bisect_right(self._context_breaks, context)
            itl = self._base[s, :fits] + self._slope[s, :fits] * (n * context)
        # Rounding may leave a neighbour a last bit lower; the order is what searches rely on.
        np.maximum.accumulate(itl, out=itl)
        return itl

    def prefill_is_extrapolated(self, isl: float) -> bool:
        """Whether ``ttft_ms(isl)`` lies outside the profile's prompt lengths."""
        knots = self.profile.prefill.isl_tokens
        return not knots[0] <= isl <= knots[-1]

    def decode_is_extrapolated(self, concurrency: float, context_tokens: float) -> bool:
        """Whether ``itl_ms`` lies outside what was measured, or outside the grid where no points are stored.

        Between two measured contexts both must have been measured at that concurrency or above.
        """
        grid, rows = self.profile.decode, self.profile.decode.measured
        contexts = grid.context_tokens
        if not contexts[0] <= context_tokens <= contexts[-1]:
            return True
        highest = (
            dict.fromkeys(contexts, 0.0) if rows.itl_ms else dict.fromkeys(contexts, grid.concurrency[-1])
        )
        for n, context, _ in rows.points:
            highest[context] = max(highest.get(context, 0.0), n)
        at = bisect_right(contexts, context_tokens)
        bracket = {contexts[at - 1], contexts[at if contexts[at - 1] < context_tokens else at - 1]}
        clamped = min(max(concurrency, 1.0), float(self.max_num_seqs))
        return not grid.concurrency[0] <= clamped <= min(highest[context] for context in bracket)

    def decode_table(self) -> DecodeTable:
        """Return the compiled step times, one row for each number of running requests."""
        return self._table

    def step_model(self) -> StepModel:
        """Return the steps of an aggregated instance, estimated where the profile has none.

        Raises InputError where they cannot be estimated either: pools of different GPUs.
        """
        if self._steps is None:
            section = self.profile.aggregated or estimate_aggregated(self.profile)
            self._steps = compile_steps(section)
        return self._steps

    def _row(self, s: int, n: int, context: float) -> float:
        return float(self._base[s, n - 1] + self._slope[s, n - 1] * (n * context))


def best_point(steps_ms: NDArray[np.float64], itl_ms: float, gpus: int) -> DecodeCapacity:
    """Return the point with the most tokens a second among batches of 1, 2, ... requests, ITL allowing.

    ``steps_ms`` never falls. When no step is fast enough, the fastest point, ``feasible=False``.
    """
    count = int(steps_ms.searchsorted(itl_ms * (1.0 + 1e-12), side="right"))
    feasible = count > 0
    if not feasible:
        # The fastest point; where several are equally fast, the one that serves most.
        count = int(steps_ms.searchsorted(steps_ms[0], side="right"))
    rates = np.arange(1.0, count + 1.0) / steps_ms[:count]
    best = int(rates.argmax())
    return DecodeCapacity(
        tokens_per_s_per_gpu=float(rates[best]) * 1000.0 / gpus,
        concurrency=best + 1,
        itl_ms=float(steps_ms[best]),
        feasible=feasible,
    )


def _positive(name: str, value: float) -> float:
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{name} must be a number above 0, not {value}")
    return float(value)
