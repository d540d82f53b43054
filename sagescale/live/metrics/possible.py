"""What a window's numbers can be: whatever cannot be true, or not together, is unknown."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from sagescale.live.metrics.window import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_MOST = 1e9
"""More requests or tokens than any window, queue or prompt has."""

_HOUR_MS = 3_600_000.0


class Range(NamedTuple):
    """The least and the most a number can be; what misses it by ``slack`` only is taken for the end.

    ``of_nothing``: 0 is a mean over nothing, reported as a number; it is unknown and no lie.
    """

    low: float
    high: float
    slack: float = 1e-6
    of_nothing: bool = False


_COUNT = Range(0.0, _MOST)
_ARRIVALS = Range(0.0, _MOST, slack=3.0)  # a difference of gauges read at slightly different times
_LENGTH = Range(1.0, _MOST, slack=0.01, of_nothing=True)
_SHARE = Range(0.0, 1.0, slack=0.01)

RANGES: Mapping[str, Range] = {
    "requests": _ARRIVALS,
    "completed": _COUNT,
    "preemptions": _COUNT,
    "isl_mean": _LENGTH,
    "osl_mean": _LENGTH,
    "ttft_ms_mean": Range(0.0, 24 * _HOUR_MS, of_nothing=True),
    "ttft_ms_p99": Range(0.0, 24 * _HOUR_MS),
    "itl_ms_mean": Range(0.0, _HOUR_MS, of_nothing=True),
    "itl_ms_p99": Range(0.0, _HOUR_MS),
    "duration_s_mean": Range(0.0, 7 * 24 * 3600.0, of_nothing=True),
    "queued_prefill": _COUNT,
    "queued_decode": _COUNT,
    "running_prefill": _COUNT,
    "running_decode": _COUNT,
    "kv_usage": _SHARE,
    "prefix_hit_rate": _SHARE,
    "ttft_attainment": _SHARE,
    "itl_attainment": _SHARE,
    "itl_attainment_estimate": _SHARE,
    "requests_shed": _COUNT,
    "requests_queued_gateway": _COUNT,
    "instances_prefill": _COUNT,
    "instances_decode": _COUNT,
    "instances_aggregated": _COUNT,
}
"""What each number of an observation, or of a query of the operator's own, can be."""

LOAD = frozenset(RANGES) - {
    "preemptions",
    "ttft_ms_mean", "ttft_ms_p99", "itl_ms_mean", "itl_ms_p99", "duration_s_mean", "kv_usage",
    "prefix_hit_rate", "ttft_attainment", "itl_attainment", "itl_attainment_estimate", "instances_prefill",
    "instances_decode", "instances_aggregated",
}  # fmt: skip
"""The numbers that the load is made of: where one of them is impossible, the load is unknown."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What else a window says, to compare its numbers with; what is not known is ``None``.

    Attributes:
        in_flight_before: Requests queued and running at the window's start, in both pools.
        in_flight_now: The same at its end, of the instances that are in ``in_flight_before``.
        prefill_before: Those of them in prefill at the start.
        reached_decode: Requests that arrived in decode.
        counted: Tokens a completed request by the token counters, for ``isl_mean`` and ``osl_mean``; only
            where a window has completed so many requests that those under way hardly matter.
    """

    in_flight_before: float | None = None
    in_flight_now: float | None = None
    prefill_before: float | None = None
    reached_decode: float | None = None
    counted: Mapping[str, float] = field(default_factory=dict)


class _Contradiction(NamedTuple):
    """Numbers that cannot both be true: a rule that says so in words, and those it makes doubtful."""

    code: str
    doubtful: tuple[str, ...]
    says: Callable[[Mapping[str, float | None], Evidence], str | None]


_FEW = 10.0
_TWICE = 2.0
"""Requests on their way between the pools, or counted in both of them, are no contradiction."""

_FAR = 8.0
"""Tokens of requests under way, and of very different lengths, are none either."""


def _lost(values: Mapping[str, float | None], also: Evidence) -> str | None:
    """Whatever completed or is in flight now has arrived, or was in flight before."""
    requests, before = values.get("requests"), also.in_flight_before
    if requests is None or before is None:
        return None
    seen = (values.get("completed") or 0.0) + (also.in_flight_now or 0.0)
    if seen <= _TWICE * (requests + before) + _FEW:
        return None
    return (
        f"{seen:.0f} requests completed or are under way, but {requests:.0f} arrived and {before:.0f} were "
        "under way before"
    )


def _idle_prefill(values: Mapping[str, float | None], also: Evidence) -> str | None:
    requests, reached = values.get("requests"), also.reached_decode
    if requests is None or reached is None:
        return None
    if reached <= _TWICE * (requests + (also.prefill_before or 0.0)) + RANGES["requests"].slack:
        return None
    return (
        f"prefill reports {requests:.0f} requests but {reached:.0f} reached decode: its metrics are not "
        "current"
    )


def _miscounted(name: str) -> Callable[[Mapping[str, float | None], Evidence], str | None]:
    def says(values: Mapping[str, float | None], also: Evidence) -> str | None:
        mean, counted = values.get(name), also.counted.get(name)
        if mean is None or counted is None or mean / _FAR <= counted <= mean * _FAR:
            return None
        return f"{name} is {mean:.4g} tokens, but the counters of tokens and requests say {counted:.4g}"

    return says


CONTRADICTIONS = (
    _Contradiction("inconsistent", (), _idle_prefill),
    _Contradiction("invalid_metric", ("completed",), _lost),
    _Contradiction("invalid_metric", ("isl_mean",), _miscounted("isl_mean")),
    _Contradiction("invalid_metric", ("osl_mean",), _miscounted("osl_mean")),
)
"""What cannot be true together; the load of such a window is unknown."""


def keep_possible(values: dict[str, float | None], also: Evidence, problems: list[Problem]) -> None:
    """Make unknown, in place, what cannot be true, and say why; ``requests`` too where the load is doubtful.

    Args:
        values: A window's numbers by field of ``RANGES``; what is missing is left out.
        also: What they are compared with.
        problems: Takes what is wrong.
    """
    doubtful = set()
    # Zero tokens a request are a mean over none, unless requests were answered.
    answered = values.get("requests") and values.get("completed") != 0.0
    for name, may_be in RANGES.items():
        value = values.get(name)
        if value is None:
            continue
        within = min(max(value, may_be.low), may_be.high)
        if may_be.of_nothing and abs(value) <= may_be.slack:
            values[name] = None
            if name in LOAD and answered:
                doubtful.add(name)
                problems.append(
                    Problem("invalid_metric", f"{name} is 0 beside {values['requests']:.0f} requests")
                )
        elif abs(value - within) <= may_be.slack:
            values[name] = within
        else:
            doubtful.add(name)
            problems.append(
                Problem(
                    "invalid_metric",
                    f"{name} was reported as {value:.6g}; expected {may_be.low:g} to {may_be.high:g}: taken "
                    "as unknown",
                )
            )
    for rule in CONTRADICTIONS:
        if (words := rule.says(values, also)) is not None:
            doubtful.update(("requests", *rule.doubtful))
            problems.append(Problem(rule.code, words))
    if doubtful & LOAD:
        doubtful.add("requests")
    values.update(dict.fromkeys(doubtful, None))
