"""How far the world is from the profile: the guide's two correction factors, and their memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sagescale.planner.decision import Corrections, Reason, ReasonCode

if TYPE_CHECKING:
    from sagescale.perf import PerfModel
    from sagescale.planner.window import Window

__all__ = ["CorrectionTracker"]


@dataclass(slots=True)
class CorrectionTracker:
    """Keeps both factors: 1 at first, held while an input is unknown, bounded always."""

    perf: PerfModel
    bounds: tuple[float, float]
    factors: Corrections = field(default_factory=Corrections)

    def update(self, window: Window, decode_ready: int, reasons: list[Reason]) -> Corrections:
        """Take in one window and return the factors to use.

        Prefill is observed TTFT over the profile's at the window's ISL; decode is observed ITL over
        the profile's at the concurrency that Little's law gives, requests / instances * duration / T.
        Only instances that are ready count: one still starting serves nobody.
        """
        prefill, decode = self.factors
        isl = window.isl
        if window.ttft_ms is not None and isl is not None:
            prefill = self._bounded("prefill", window.ttft_ms, self.perf.ttft_ms(isl), prefill, reasons)
        if window.itl_ms is not None and isl is not None and window.osl is not None:
            if decode_ready < 1:
                reasons.append(
                    Reason(
                        ReasonCode.NO_DECODE_READY,
                        f"no decode instance is ready: the decode correction stays {decode:.3f}",
                    )
                )
            elif window.reached and window.duration_s is not None:
                concurrency = window.reached / decode_ready * window.duration_s / window.interval_s
                expected = self.perf.itl_ms(concurrency, isl + window.osl / 2)
                decode = self._bounded("decode", window.itl_ms, expected, decode, reasons)
        self.factors = Corrections(prefill, decode)
        return self.factors

    def _bounded(
        self, pool: str, observed_ms: float, expected_ms: float, before: float, reasons: list[Reason]
    ) -> float:
        if not expected_ms > 0:
            return before
        low, high = self.bounds
        factor = observed_ms / expected_ms
        if low <= factor <= high:
            return factor
        bounded = low if factor < low else high
        reasons.append(
            Reason(
                ReasonCode.CORRECTION_BOUNDED,
                f"{pool} correction {factor:.3f} ({observed_ms:.1f} ms observed, {expected_ms:.1f} ms "
                f"expected) bounded to {bounded:g}",
            )
        )
        return bounded
