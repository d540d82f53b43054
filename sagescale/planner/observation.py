"""What the planner is shown: one window of metrics, and what of them can be true."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from sagescale.planner.decision import Reason, ReasonCode

if TYPE_CHECKING:
    from sagescale.fleet import Pools

_LARGEST = 1e12
"""No window has more requests, tokens or milliseconds; the square is still far from overflow."""


@dataclass(frozen=True, slots=True)
class Observation:
    """The window ``(time_s - window_s, time_s]``; ``None`` is unknown, which is never zero.

    An aggregated instance's requests are either waiting (``queued_prefill``) or running (``running_decode``,
    those whose prompt is being computed included); the other two gauges are 0.

    Arrivals and ISL are counted at arrival; OSL, duration and ITL over the requests completed in the
    window; TTFT over its first tokens. "No traffic" is ``requests == 0``, observed.

    Attributes:
        pools: The instances of each pool at the end of the window, by state.
        requests: Requests that arrived, whether or not they reached a pool.
        requests_unserved: Those of them that a gateway turned away, and what its queue grew by (below zero
            where it drained): the pools saw ``requests - requests_unserved``.
        completed: Requests that finished.
        isl_mean: Mean prompt tokens of the arrivals.
        osl_mean: Mean output tokens of the completions.
        duration_s_mean: Mean time from arrival to completion.
        queued_prefill: Requests waiting for prefill now.
        queued_decode: Requests waiting for a place in a decode instance now, hand-off included.
        running_prefill: Requests in a prefill batch now.
        running_decode: Requests being decoded now.
        kv_usage: Share of the KV memory of the pool that decodes in use now, 0 to 1.
        prefix_hit_rate: Share of prompt tokens that came from the prefix cache, 0 to 1.
        ttft_attainment: Share of the first tokens that came within ``target_ttft_ms``.
        itl_attainment: Share of the completed requests whose ITL was within ``target_itl_ms``.
        itl_attainment_estimate: The same where only gaps between tokens are counted, not requests.
        lengths: (ISL, OSL) of completed requests, a sample.
        preemptions: Requests that lost their KV memory to others and are computed again.
    """

    time_s: float
    window_s: float
    pools: Pools
    requests: float | None = None
    completed: float | None = None
    isl_mean: float | None = None
    osl_mean: float | None = None
    ttft_ms_mean: float | None = None
    ttft_ms_p99: float | None = None
    itl_ms_mean: float | None = None
    itl_ms_p99: float | None = None
    duration_s_mean: float | None = None
    queued_prefill: float | None = None
    queued_decode: float | None = None
    running_prefill: float | None = None
    running_decode: float | None = None
    kv_usage: float | None = None
    prefix_hit_rate: float | None = None
    ttft_attainment: float | None = None
    itl_attainment: float | None = None
    itl_attainment_estimate: float | None = None
    lengths: tuple[tuple[int, int], ...] | None = None
    requests_unserved: float | None = None
    preemptions: float | None = None

    def itl_attained(self, target_attainment: float) -> float | None:
        """Return the share of requests within the ITL target to go by, or None.

        Where it is not measured the estimate counts, if it is below ``target_attainment``: it may make a
        policy more careful, and never less.
        """
        estimate = self.itl_attainment_estimate
        if self.itl_attainment is not None or estimate is None:
            return self.itl_attainment
        return estimate if estimate < target_attainment else None

    @property
    def work_waits(self) -> bool:
        """Whether any request was seen that may not have been served yet; unknown is no evidence."""
        gauges = (
            self.requests,
            self.queued_prefill,
            self.running_prefill,
            self.queued_decode,
            self.running_decode,
        )
        return any(gauge is not None and gauge > 0 for gauge in gauges)

    def to_dict(self) -> dict[str, object]:
        """Return it in plain JSON types, pools by name."""
        plain = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return plain | {"pools": {name: dataclasses.asdict(pool) for name, pool in self.pools.items()}}


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
