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

    ``requests`` are those of one interval, scaled where the window observed was longer or shorter.
    """

    interval_s: float
    requests: float | None
    isl: float | None
    osl: float | None
    ttft_ms: float | None
    itl_ms: float | None
    duration_s: float | None


def read_window(observation: Observation, interval_s: float, reasons: list[Reason]) -> Window:
    """Read an observation: a count is at least zero, a mean above zero, neither absurdly large.

    A mean of zero is an average over nothing (no prompt has no tokens, no latency is none), reported
    as a number by a source that had none: it is unknown.
    """
    requests = observation.requests
    if requests is not None and not 0 <= requests < _LARGEST:
        reasons.append(_refused("requests", requests))
        requests = None
    if requests and observation.window_s != interval_s:
        requests = requests * interval_s / observation.window_s if observation.window_s > 0 else None
    return Window(
        interval_s,
        requests,
        _mean("isl_mean", observation.isl_mean, reasons),
        _mean("osl_mean", observation.osl_mean, reasons),
        _mean("ttft_ms_mean", observation.ttft_ms_mean, reasons),
        _mean("itl_ms_mean", observation.itl_ms_mean, reasons),
        _mean("duration_s_mean", observation.duration_s_mean, reasons),
    )


def _mean(name: str, value: float | None, reasons: list[Reason]) -> float | None:
    if value is None or 0 < value < _LARGEST:
        return value
    if value != 0:
        reasons.append(_refused(name, value))
    return None


def _refused(name: str, value: float) -> Reason:
    return Reason(ReasonCode.INVALID_METRIC, f"{name} was reported as {value}: taken as unknown")
