"""What goes into the reference simulator and what comes out of it.

Rules are numbered as in DESIGN section 5, sections are those of ENGINES. Times are seconds, sizes are tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

State = Literal["unfinished", "done", "rejected", "timed_out", "never_arrived"]
RoutingStrategy = Literal[
    "load_balanced", "least_tokens", "round_robin", "kv_aware", "prefix_affinity", "session_affinity"
]


@dataclass(frozen=True, slots=True)
class Request:
    """One line of the trace (rule 1)."""

    arrival_s: float  # where it waits for answers and the loop is closed: a place in the order, no more
    isl: int
    osl: int
    cached_tokens: int = 0
    priority: int = 0  # the lowest is served first, where the policy asks for it
    hash_ids: tuple[
        int, ...
    ] = ()  # of each ``World.hash_block_tokens`` prompt tokens, the last of fewer perhaps
    session_id: int | None = None
    after: tuple[int, ...] = ()  # places of the requests that are to be answered first (section 6)
    think_s: float = 0.0  # from the last of those answers on


@dataclass(frozen=True, slots=True)
class Engine:
    """What an instance of a pool with a step scheduler is (sections 1-4)."""

    scheduler: Literal["vllm", "sglang"]
    # (decodes, KV tokens they hold, longest context, (tokens, computed before) of each chunk) -> step time
    step_s: Callable[[int, int, int, list[tuple[int, int]]], float]
    max_num_seqs: int
    max_batched_tokens: int
    max_kv_tokens: int | None  # None: unlimited
    block_tokens: int = 16
    long_prefill_token_threshold: int = 0
    chunked_prefill: bool = True
    mixed_chunk: bool = False
    reserve_full_isl: bool = True
    prefix_cache: bool = False


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
    routing_strategy: RoutingStrategy = "load_balanced"
    target_ttft_s: float = math.inf
    target_itl_s: float = math.inf
    engines: Mapping[str, Engine] = field(default_factory=dict)  # of the pools with a step scheduler, by name
    aggregated_gpus: int = 1
    spread_s: Callable[[int], float] = lambda running: 0.0  # of a ``batch`` decode step (section 8)
    hash_block_tokens: int = 16
    overlap_credit: float = 1.0
    prefill_load_scale: float = 1.0
    router_temperature: float = 0.0
    router_staleness_s: float = 0.0
    affinity_max_load: float = 1.5
    scale_down_choice: Literal["least_outstanding", "least_cache_hits"] = "least_outstanding"
    seed: int = 0
    service: str = ""
    closed_loop: bool = False  # turns wait for answers (section 6)
    concurrent_sessions: int | None = (
        None  # a closed population of so many; None: sessions start by the clock
    )

    @property
    def pool_names(self) -> tuple[str, ...]:
        """A service has one aggregated pool, or two."""
        return ("aggregated",) if "aggregated" in self.engines else ("prefill", "decode")


@dataclass(frozen=True, slots=True)
class RequestOutcome:
    """What became of one request; the ids are those of the instances it was given to, if it got so far."""

    state: State
    first_token_s: float | None
    done_s: float | None
    prefill_id: int | None  # in the aggregated pool, where that is what there is
    decode_id: int | None
    arrival_s: float | None = None  # as it came; None: it never did
    missed_s: float | None = None  # when it was rejected or gave up
    restarts: int = 0  # how often a crash threw it back (rule 12)
    preemptions: int = 0
    recomputed_tokens: int = 0  # lost in pre-emptions and not hit when it resumed
    hit_tokens: int = 0  # of its first admission to an instance with a prefix cache
    gaps_s: tuple[float, ...] = ()  # between its tokens, in order

    @property
    def max_gap_s(self) -> float | None:
        return max(self.gaps_s, default=None)

    def itl_s(self, statistic: Literal["mean", "p99", "max"]) -> float | None:
        """What the ITL target binds (section 7); p99 is the nearest rank. None: one token meets any."""
        if not self.gaps_s:
            return None
        if statistic == "mean":
            return math.fsum(self.gaps_s) / len(self.gaps_s)
        if statistic == "max":
            return max(self.gaps_s)
        return sorted(self.gaps_s)[-(-99 * len(self.gaps_s) // 100) - 1]

    def is_good(self, ttft_s: float, itl_s: float, statistic: Literal["mean", "p99", "max"]) -> bool:
        """DESIGN 5: done, its first token in time, and the chosen one of its gaps."""
        if self.state != "done" or self.first_token_s is None or self.arrival_s is None:
            return False
        return self.first_token_s - self.arrival_s <= ttft_s and (self.itl_s(statistic) or 0.0) <= itl_s


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
    hits_by_age: tuple[tuple[float, int, int], ...] = ()  # age when asked, tokens asked of its cache, hit
    full_memory_s: float = 0.0  # in steps in which an allocation failed or the head was refused for blocks


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
    in_hand_off: int  # bound and not yet delivered: those whose turn has not come (blocking mode) too
    kv_tokens: int  # held by those that run in the decode pool
    queued: tuple[int, ...]  # of each pool: waiting there, pre-empted ones included
    running: tuple[int, ...]  # of each pool: in a batch, or admitted
    pools: tuple[PoolCounts, ...]

    @property
    def queued_prefill(self) -> int:
        return self.queued[0]

    @property
    def in_prefill(self) -> int:
        return self.running[0]

    @property
    def queued_decode(self) -> int:
        return self.queued[1]

    @property
    def running_decode(self) -> int:
        return self.running[1]

    @property
    def prefill(self) -> PoolCounts:
        return self.pools[0]

    @property
    def decode(self) -> PoolCounts:
        return self.pools[1]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run."""

    requests: list[RequestOutcome]
    lifetimes: list[Lifetime]  # pool by pool, by id
    horizon_s: float
    max_gpus_used: int
    snapshots: list[Snapshot]
