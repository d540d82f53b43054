"""What the planner and the simulator may know of a performance model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

__all__ = ["DecodeCapacity", "PerfModel"]


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
