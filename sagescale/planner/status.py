"""The status that the user's guide documents, with exactly its keys."""

from __future__ import annotations

from typing import TypedDict

__all__ = ["AutoscalerStatus", "CorrectionStatus", "TargetStatus"]


class TargetStatus(TypedDict):
    """The three configuration values that the status repeats."""

    target_ttft_ms: float
    target_itl_ms: float
    adjustment_interval_sec: int


class CorrectionStatus(TypedDict):
    """Factors in use."""

    prefill: float
    decode: float


class AutoscalerStatus(TypedDict):
    """``last_adjustment_time`` is the end of the last window decided on, ``None`` before the first."""

    enabled: bool
    running: bool
    config: TargetStatus
    correction_factors: CorrectionStatus
    last_adjustment_time: float | None
