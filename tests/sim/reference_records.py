"""What goes into the reference simulator and what comes out of it.

Rules are numbered as in DESIGN section 5. Times are seconds, sizes are tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

State = Literal["unfinished", "done", "rejected", "timed_out"]


@dataclass(frozen=True, slots=True)
class Request:
    """One line of the trace (rule 1)."""

    arrival_s: float
    isl: int
    osl: int
    cached_tokens: int = 0
    priority: int = 0  # the lowest is served first, where the policy asks for it


@dataclass(frozen=True, slots=True)
class World:
    """What the modelled cluster is made of; nothing here changes during a run."""

    prefill_batch_s: Callable[[list[int]], float]  # computed prompt tokens of each request -> batch time
    step_s: Callable[[int, int], float]  # (requests running, KV tokens they hold at its start) -> step time
    max_batch_tokens: int
    max_num_seqs: int
    max_kv_tokens: int | None  # None: unlimited
    kv_latency_s: float
    kv_s_per_token: float
    kv_decode_steps: float
    kv_blocks_prefill: bool
    join_s_per_token: float
    first_token: Literal["prefill", "decode"]
    request_timeout_s: float | None
    startup_delays_s: list[float]  # the k-th launch of a pool takes element k % len
    prefill_gpus: int
    decode_gpus: int
    max_gpus: int
    scheduling_policy: Literal["fifo", "priority", "slo_aware", "adaptive"] = "fifo"
    routing_strategy: Literal["load_balanced", "round_robin"] = "load_balanced"
    target_ttft_s: float = math.inf
    target_itl_s: float = math.inf


@dataclass(frozen=True, slots=True)
class RequestOutcome:
    """What became of one request; the ids are those of the instances it was given to, if it got so far."""

    state: State
    first_token_s: float | None
    done_s: float | None
    prefill_id: int | None
    decode_id: int | None
    restarts: int = 0  # how often a crash threw it back (rule 12)


@dataclass(frozen=True, slots=True)
class Lifetime:
    """One instance, as far as the horizon: what had not happened by then is None."""

    pool: str
    id: int
    launch_s: float
    ready_s: float | None
    drain_s: float | None
    stop_s: float | None
    end_s: float  # min(stop, horizon): GPU time runs from launch_s to here


@dataclass(frozen=True, slots=True)
class PoolCounts:
    """The instances of one pool by phase, and the launches that wait for GPUs."""

    ready: int
    starting: int
    draining: int
    waiting: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a planner could see at one instant: counters since 0, then gauges (rule 7)."""

    time_s: float
    arrived: int  # rejected ones too
    isl_sum: int  # of those
    first_tokens: int
    ttft_sum: float
    completed: int
    osl_sum: int
    duration_sum: float
    itl_count: int  # completed with osl > 1
    itl_sum: float
    queued_prefill: int
    in_prefill: int
    in_hand_off: int  # bound and not yet delivered: those whose turn has not come (blocking mode) too
    queued_decode: int
    running_decode: int
    kv_tokens: int  # held by the running ones
    prefill: PoolCounts
    decode: PoolCounts


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run."""

    requests: list[RequestOutcome]
    lifetimes: list[Lifetime]  # prefill pool, then decode pool, by id
    horizon_s: float
    max_gpus_used: int
    snapshots: list[Snapshot]
