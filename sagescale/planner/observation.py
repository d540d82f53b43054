"""What the planner is told: one window of metrics and the instances there are."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sagescale.fleet import Pools

__all__ = ["Observation"]


@dataclass(frozen=True, slots=True)
class Observation:
    """The window ``(time_s - window_s, time_s]``; ``None`` is unknown, which is never zero.

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
        kv_usage: Share of the decode pool's KV memory in use now, 0 to 1.
        prefix_hit_rate: Share of prompt tokens that came from the prefix cache, 0 to 1.
        ttft_attainment: Share of the first tokens that came within ``target_ttft_ms``.
        itl_attainment: Share of the completed requests whose ITL was within ``target_itl_ms``.
        lengths: (ISL, OSL) of completed requests, a sample.
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
    lengths: tuple[tuple[int, int], ...] | None = None
    requests_unserved: float | None = None

    def to_dict(self) -> dict[str, object]:
        """Return it in plain JSON types, pools by name."""
        plain = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return plain | {"pools": {name: dataclasses.asdict(pool) for name, pool in self.pools.items()}}
