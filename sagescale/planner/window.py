"""One window's metrics after the lies are taken out: what is not a possible value is unknown."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sagescale.planner.decision import Reason, ReasonCode

if TYPE_CHECKING:
    from sagescale.planner.observation import Observation

__all__ = ["Window", "read_window"]

_LARGEST = 1e12
"""No window has more requests, tokens or milliseconds; the square is still far from overflow."""


class Window(NamedTuple):
    """The metrics the planner computes with, every one possible or ``None``.

    ``requests`` are those of one interval, scaled where the window observed was longer or shorter;
    ``reached`` those of them that reached the pools.
    """

    interval_s: float
    requests: float | None
    isl: float | None
    osl: float | None
    ttft_ms: float | None
    itl_ms: float | None
    duration_s: float | None
    reached: float | None = None
    prefix_hit_rate: float | None = None

    @property
    def computed_isl(self) -> float | None:
        """Mean prompt tokens to compute: of a prompt that is all in the cache the last one still is."""
        if self.isl is None:
            return None
        return max(min(1.0, self.isl), self.isl * (1.0 - (self.prefix_hit_rate or 0.0)))


def read_window(observation: Observation, interval_s: float, reasons: list[Reason]) -> Window:
    """Read an observation: a count is at least zero, a mean above zero, neither absurdly large.

    A mean of zero is an average over nothing (no prompt has no tokens, no latency is none), reported
    as a number by a source that had none: it is unknown.
    """
    requests = observation.requests
    if requests is not None and not 0 <= requests < _LARGEST:
        reasons.append(_refused("requests", requests))
        requests = None
    unserved = observation.requests_unserved or 0.0
    reached = None if requests is None or not abs(unserved) < _LARGEST else max(0.0, requests - unserved)
    if observation.window_s != interval_s:
        requests, reached = (
            count
            if not count
            else (count * interval_s / observation.window_s if observation.window_s > 0 else None)
            for count in (requests, reached)
        )
    return Window(
        interval_s,
        requests,
        _mean("isl_mean", observation.isl_mean, reasons),
        _mean("osl_mean", observation.osl_mean, reasons),
        _mean("ttft_ms_mean", observation.ttft_ms_mean, reasons),
        _mean("itl_ms_mean", observation.itl_ms_mean, reasons),
        _mean("duration_s_mean", observation.duration_s_mean, reasons),
        reached,
        _share("prefix_hit_rate", observation.prefix_hit_rate, reasons),
    )


def _mean(name: str, value: float | None, reasons: list[Reason]) -> float | None:
    if value is None or 0 < value < _LARGEST:
        return value
    if value != 0:
        reasons.append(_refused(name, value))
    return None


def _share(name: str, value: float | None, reasons: list[Reason]) -> float | None:
    if value is None or 0 <= value <= 1:
        return value
    reasons.append(_refused(name, value))
    return None


def _refused(name: str, value: float) -> Reason:
    return Reason(ReasonCode.INVALID_METRIC, f"{name} was reported as {value}: taken as unknown")
