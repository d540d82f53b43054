"""The status that the user's guide documents, with exactly its keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from sagescale.planner.config import AutoscalerConfig
    from sagescale.planner.decision import Corrections


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


def autoscaler_status(
    config: AutoscalerConfig,
    corrections: Corrections,
    last_adjustment_time: float | None,
    *,
    enabled: bool,
    running: bool,
) -> AutoscalerStatus:
    """Put the status together."""
    return {
        "enabled": enabled,
        "running": running,
        "config": {
            "target_ttft_ms": config.target_ttft_ms,
            "target_itl_ms": config.target_itl_ms,
            "adjustment_interval_sec": config.adjustment_interval_sec,
        },
        "correction_factors": {"prefill": corrections.prefill, "decode": corrections.decode},
        "last_adjustment_time": last_adjustment_time,
    }
