"""A cluster in simulated time: the kernel with room made for it, steered from outside.

``FleetCluster`` owns the arrays and grows them before the kernel needs more; a ``Cluster`` is one service's
part of it and answers in the nouns of the field. Neither knows of planners: the caller advances, looks, and
sets targets.
"""

from __future__ import annotations

import functools
import zlib
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from sagescale.errors import InputError, SagescaleError
from sagescale.fleet import PoolCounts, Pools
from sagescale.fleet.by_pool import DISAGGREGATED
from sagescale.sim import kernel
from sagescale.sim.run import MeasuredGaps, SteppedRun
from sagescale.sim.state import (
    ADAPTIVE,
    AGES,
    AGGREGATED_ROLE,
    CACHE_ENTRY,
    DECODE_ROLE,
    DONE,
    DRAINING,
    ENGINE,
    FIFO,
    FREE,
    GAP_BINS,
    GAPS_OF_INSTANCE,
    GAPS_OF_REQUEST,
    HANDOFF_ENTRY,
    HITS,
    INSTANCE,
    KV_AWARE,
    LEAST_TOKENS,
    LIFE,
    LOAD_BALANCED,
    MAX,
    MEAN,
    MEMBER,
    NODE,
    NOT_READY,
    P99,
    PLACE,
    POOL,
    POOL_SHIFT,
    PREFILL_ROLE,
    PREFIX_AFFINITY,
    PRIORITY,
    PROGRESS,
    READY,
    REQUEST,
    REQUEST_BITS,
    ROUND_ROBIN,
    SERVICE,
    SESSION_AFFINITY,
    SGLANG,
    SLO_AWARE,
    SLOT,
    STAGE,
    STARTING,
    STEP_SEGMENT,
    STEPPED_REQUEST,
    STOCK,
    UNIT_RUN,
    VIEW,
    VLLM,
    Gaps,
    Homes,
    State,
    Stepped,
    joined,
    read_only,
)
from sagescale.sim.turns import kernel_turns

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from sagescale.sim.config import ItlStatistic, RoutingStrategy, ScaleDownChoice, SchedulingPolicy
    from sagescale.trace import Prefixes, Turns

Pool = Literal["prefill", "decode", "aggregated"]

_UNLIMITED = 1 << 60
_SCHEDULING: dict[SchedulingPolicy, int] = {
    "fifo": FIFO, "priority": PRIORITY, "slo_aware": SLO_AWARE, "adaptive": ADAPTIVE
}  # fmt: skip
_STATISTICS: dict[ItlStatistic, int] = {"mean": MEAN, "p99": P99, "max": MAX}
_ROLES = {"prefill": PREFILL_ROLE, "decode": DECODE_ROLE, "aggregated": AGGREGATED_ROLE}
_SCHEDULERS = {"vllm": VLLM, "sglang": SGLANG}
_ROUTING: dict[RoutingStrategy, int] = {
    "load_balanced": LOAD_BALANCED, "round_robin": ROUND_ROBIN, "least_tokens": LEAST_TOKENS,
    "kv_aware": KV_AWARE, "prefix_affinity": PREFIX_AFFINITY, "session_affinity": SESSION_AFFINITY,
}  # fmt: skip
_NUMBER = (1 << POOL_SHIFT) - 1


@dataclass(frozen=True, slots=True, eq=False)
class Stepping:
    """An engine that takes one step after the other (ENGINES.md 1-4, 8), in seconds and tokens.

    Attributes:
        scheduler: what it forms its steps by.
        block_tokens: of a block of KV memory.
        blocks: of an instance; None is unlimited.
        max_batched_tokens: of a step.
        long_prefill_token_threshold: the most of one prompt in a step; 0 is no limit.
        chunked_prefill: whether a prompt may take several steps.
        mixed_chunk: sglang: whether a step with prompts also decodes.
        reserve_full_isl: vllm: whether blocks for a whole prompt must be free to admit it.
        prefix_cache: whether prompts are found that have been computed before.
        tokens_s: time of a step by its tokens, float64, for at least max_batched_tokens; on from its last two
            in a straight line.
        running_s, kv_s, cross_s, square_s, longest_s: what else a step with chunks takes.
    """

    scheduler: Literal["vllm", "sglang"]
    block_tokens: int
    blocks: int | None
    max_batched_tokens: int
    tokens_s: NDArray[np.float64]
    running_s: float = 0.0
    kv_s: float = 0.0
    cross_s: float = 0.0
    square_s: float = 0.0
    longest_s: float = 0.0
    long_prefill_token_threshold: int = 0
    chunked_prefill: bool = True
    mixed_chunk: bool = False
    reserve_full_isl: bool = True
    prefix_cache: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """What the modelled engines can do, in seconds and tokens.

    Attributes:
        prefill_s: time of a lone prompt at every token count 0..len-1; beyond it, linear at prefill_slope_s.
        quadratic_s: attention coefficient b of DESIGN 4 (seconds per token²).
        prefill_floor_s: no batch is faster.
        breaks, base_s, slope_s: for n running requests holding K tokens a decode step lasts
            ``base_s[n, i] + slope_s[n, i] * K`` where ``breaks[n, i] <= K < breaks[n, i + 1]``.
        max_kv_tokens: KV memory of a decode instance; None is unlimited.
        max_gpus: the budget, never exceeded, draining and starting included.
        request_timeout_s: a request without its first token by then gives up; None is never.
        scheduling_policy: in which order an instance serves those that wait for it.
        routing_strategy: which READY instance a request goes to.
        target_ttft_s, target_itl_s: what is counted as met, and slo_aware and adaptive take a token's
            deadline from.
        itl_statistic: which of a request's gaps the ITL target binds.
        measure_gaps: whether gaps between tokens are measured where no engine steps; they are in any case
            where the ITL target binds any but the mean.
        overlap_credit, prefill_load_scale, router_temperature: of kv_aware (ENGINES.md 5).
        router_staleness_s: how old what a router knows may be; 0 is not at all (ENGINES.md 5).
        scale_down_choice: which READY instance is drained first where prompts are cached.
        affinity_max_load: of session_affinity: how much more than the mean an instance may be loaded.
        spread_s: by running requests, what each token by which they are unequal adds to a decode step
            (ENGINES.md 8); None is nothing.
        stepping: of an engine that takes one step after the other; None forms batches (DESIGN 5.3-5.5).
    """

    prefill_s: NDArray[np.float64]
    prefill_slope_s: float
    quadratic_s: float
    prefill_floor_s: float
    breaks: NDArray[np.float64]
    base_s: NDArray[np.float64]
    slope_s: NDArray[np.float64]
    max_batch_tokens: int
    max_num_seqs: int
    max_kv_tokens: int | None
    kv_latency_s: float
    kv_s_per_token: float
    kv_decode_steps: float
    kv_blocks_prefill: bool
    join_s_per_token: float
    first_token: Literal["prefill", "decode"]
    request_timeout_s: float | None
    prefill_gpus: int
    decode_gpus: int
    max_gpus: int
    scheduling_policy: SchedulingPolicy = "fifo"
    routing_strategy: RoutingStrategy = "load_balanced"
    target_ttft_s: float = float("inf")
    target_itl_s: float = float("inf")
    itl_statistic: ItlStatistic = "mean"
    measure_gaps: bool = False
    overlap_credit: float = 1.0
    prefill_load_scale: float = 1.0
    router_temperature: float = 0.0
    router_staleness_s: float = 0.0
    scale_down_choice: ScaleDownChoice = "least_outstanding"
    affinity_max_load: float = 1.5
    spread_s: NDArray[np.float64] | None = None
    stepping: Stepping | None = None


class Counters(NamedTuple):
    """Totals since the start of the run; the difference of two is a window."""

    time_s: float
    arrived: int
    isl_sum: int
    cached_sum: int
    first_tokens: int
    ttft_sum_s: float
    completed: int
    osl_sum: int
    duration_sum_s: float
    itl_count: int
    itl_sum_s: float
    ttft_met: int
    itl_met: int
    rejected: int
    timed_out: int


_COUNTED = itemgetter(
    *((SERVICE.names or ()).index(name) for name in ("first_request", "next_arrival", *Counters._fields[2:]))
)


class Gauges(NamedTuple):
    """A service at one instant.

    Attributes:
        pools: its instances by state.
        queued: requests waiting for prefill and for decode, in instances' queues and the stages' own.
        running: requests inside prefill batches, and inside decode batches.
        kv_tokens: that the running requests of all decode instances hold.
    """

    pools: Pools
    queued: tuple[int, int]
    running: tuple[int, int]
    kv_tokens: int


@dataclass(frozen=True, slots=True)
class EnginePool:
    """A pool of one service: instances of one engine on one kind of GPU.

    Attributes:
        name: within its service.
        role: which phase it serves, or both.
        engine: what an instance can do.
        gpus: how many GPUs an instance takes.
        gpu_type: of which stock.
        capacity: of an instance, beside those of other pools of the role: they are compared by load over it.
    """

    name: str
    role: Pool
    engine: World
    gpus: int
    gpu_type: str = "gpu"
    capacity: float = 1.0


def no_delay(pool: str, count: int) -> NDArray[np.float64]:
    """Draw startup delays of zero."""
    del pool
    return np.zeros(count)


@dataclass(frozen=True, slots=True, eq=False)
class ServiceLoad:
    """A service with its pools and the requests it is to serve.

    Attributes:
        name: within the fleet.
        pools: all of prefill, then all of decode; or aggregated ones.
        initial: instances of each READY at time 0.
        arrival_s: sorted arrival times, float64[n].
        isl: prompt lengths, int32[n].
        prompt: tokens that prefill computes (isl less the cached ones), int32[n].
        osl: output lengths, int32[n], at least 1.
        startup_s: draws the startup delays of the next ``count`` launches of a pool.
        priority: the lowest is served first where the policy asks for it, int32[n]; None is all alike.
        prefixes: the hashes of the prompts' blocks; None without.
        session: of each request, numbered from 0, int32[n]; None without: each is then routed by itself.
        turns: which requests wait for answers; None: all arrive by the clock. Needs sessions. Requests are
            then numbered by arrival as it came, here and in the kernel; ``Cluster.rows`` says which they are.
        concurrent_sessions: with turns, how many sessions are alive at a time: the first begin at 0, each
            later one as one ends. None: they begin by the clock.
        seed: of what a router draws.
    """

    name: str
    pools: tuple[EnginePool, ...]
    initial: tuple[int, ...]
    arrival_s: NDArray[np.float64]
    isl: NDArray[np.int32]
    prompt: NDArray[np.int32]
    osl: NDArray[np.int32]
    startup_s: Callable[[str, int], NDArray[np.float64]] = no_delay
    priority: NDArray[np.int32] | None = None
    prefixes: Prefixes | None = None
    session: NDArray[np.int32] | None = None
    turns: Turns | None = None
    concurrent_sessions: int | None = None
    seed: int = 0


class Launch(NamedTuple):
    """An instance that was launched: the ``instance``-th of its pool, counted from 0."""

    pool: Pool
    instance: int
    launch_s: float


def disaggregated(world: World, gpu_type: str = "gpu") -> tuple[EnginePool, ...]:
    """Return the two pools of a service with one kind of engine: ``prefill`` and ``decode``."""
    return (
        EnginePool("prefill", "prefill", world, world.prefill_gpus, gpu_type),
        EnginePool("decode", "decode", world, world.decode_gpus, gpu_type),
    )


def _laid_out(tables: Sequence[NDArray[np.float64] | None]) -> tuple[dict[int, int], NDArray[np.float64]]:
    """Tables one after the other, each once: where each begins by its identity, and all of them."""
    at: dict[int, int] = {}
    found = [np.zeros(0)]
    for table in tables:
        if table is not None and id(table) not in at:
            at[id(table)] = sum(map(len, found))
            found.append(np.ascontiguousarray(table, np.float64))
    return at, np.concatenate(found)


class _Tables:
    """The engines' tables, each once however many pools use it, in one row; nothing writes to them."""

    def __init__(self, engines: Sequence[World]) -> None:
        self.steps_at: dict[int, int] = {}
        steps = []
        at = 0
        for world in engines:
            if id(world.base_s) not in self.steps_at:
                self.steps_at[id(world.base_s)] = at
                segments = np.zeros(world.base_s.shape, STEP_SEGMENT)
                segments["edge"], segments["base_s"], segments["slope_s"] = (
                    world.breaks[:, 1:], world.base_s, world.slope_s
                )  # fmt: skip
                steps.append(segments.reshape(-1))
                at += segments.size
        self.at, self.tables_s = _laid_out(
            [world.prefill_s for world in engines]
            + [world.spread_s for world in engines]
            + [None if world.stepping is None else world.stepping.tokens_s for world in engines]
        )
        self.steps = steps[0] if len(steps) == 1 else np.concatenate(steps)


_tables = functools.lru_cache(maxsize=4)(_Tables)
"""A planner's twin tries the same few engines again and again."""


class FleetCluster:
    """Several services on one stock of GPUs, paused between calls.

    Args:
        loads: the services.
        stock: GPUs by type; never exceeded, draining and starting included.
        watch_launches: ``advance`` stops at each instant that launches something.

    Raises:
        SagescaleError: more requests than the kernel can address.
    """

    def __init__(
        self, loads: Sequence[ServiceLoad], stock: Mapping[str, int], *, watch_launches: bool = False
    ) -> None:
        requests = sum(len(load.arrival_s) for load in loads)
        if requests >= 1 << REQUEST_BITS:
            raise SagescaleError(f"{requests} requests: the simulator addresses at most {1 << REQUEST_BITS}")
        self.stock = dict(stock)
        self._pools = [pool for load in loads for pool in load.pools]
        self._draws = [(load.startup_s, pool.name) for load in loads for pool in load.pools]
        ordered = any(load.pools[0].engine.scheduling_policy != "fifo" for load in loads)
        priorities = [
            np.zeros(len(load.arrival_s) if ordered else 0, np.int32)
            if load.priority is None or not ordered
            else load.priority
            for load in loads
        ]
        tables = _tables(tuple(pool.engine for pool in self._pools))
        services, stages, pools = _described(loads, list(self.stock), tables)
        records = np.empty(requests, REQUEST)
        kernel.clear_requests(records)
        progress = np.zeros(1, PROGRESS)
        progress["watch_launches"] = watch_launches
        progress["steps_hand_over"] = bool(((pools["role"] == PREFILL_ROLE) & (pools["scheduler"] > 0)).any())
        progress["next_look_s"] = services["next_look_s"].min()
        progress["timeouts"] = bool((services["request_timeout_s"] < np.inf).any())
        amounts = np.zeros(len(self.stock), STOCK)
        amounts["gpus"] = list(self.stock.values())
        halves = [pool.role == "prefill" and pool.engine.stepping is None for pool in self._pools]
        self._blocks = 2 << (max(sum(halves), len(halves) - sum(halves)) - 1).bit_length()  # a power of two
        next_block = [0, self._blocks // 2]
        self._block = np.zeros(len(self._pools), np.int64)
        for index, half in enumerate(halves):
            self._block[index] = next_block[half]
            next_block[half] += 1
        pools["root"] = self._blocks + self._block
        stepped = _stepped(loads, requests)
        # With engines that step, or turns, they are always there: one kernel to compile, whatever the router.
        closed = any(load.turns is not None for load in loads)
        homes = _homes(loads) if stepped is not None or closed or services["considers"].any() else None
        columns = (
            joined([load.arrival_s for load in loads]),
            joined([load.isl for load in loads]),
            joined([load.prompt for load in loads]),
            joined([load.osl for load in loads]),
        )
        priority = joined(priorities)
        turns = kernel_turns(
            loads,
            columns,
            priority,
            read_only(np.zeros(0, np.int32) if stepped is None else stepped.requests["leaf"]),
            read_only(np.zeros(0, np.int32) if homes is None else homes.session.copy()),
        )
        if turns is not None:  # they are written as requests come
            arrival_s, *others = columns
            columns = (np.empty_like(arrival_s), *map(np.empty_like, others))  # type: ignore[assignment]  # a map
            priority = np.empty_like(priority)
        self.state = State(
            progress=progress,
            services=services,
            stages=stages,
            pools=pools,
            stock=amounts,
            arrival_s=columns[0],
            isl=columns[1],
            prompt=columns[2],
            osl=columns[3],
            priority=priority,
            requests=records,
            produced=np.zeros(requests, np.int32),  # memory that nobody touches is not taken
            places=np.zeros(requests if ordered else 0, PLACE),
            completed=np.empty(requests, np.int32),
            tables_s=tables.tables_s,
            steps=tables.steps,
            slots=np.zeros(0, SLOT),
            instances=np.zeros(0, INSTANCE),
            finish=np.zeros(0, np.int64),
            handoff=np.zeros(1024, HANDOFF_ENTRY),
            startup_s=np.zeros(0),
            life=np.zeros(0, LIFE),
            homes=homes,
            stepped=stepped,
            gaps=_gaps(loads, requests),
            turns=turns,
        )
        # The initial instances are READY before the first arrival and take no startup delay.
        initial = np.array([size for load in loads for size in load.initial], np.int64)
        self._grow_slots(max(2, int(initial.max())))
        self._grow_lives(int(initial.sum()))
        self.state = self.state._replace(startup_s=np.zeros(int(initial.sum())))
        pools["startups"] = np.cumsum(initial) - initial
        pools["target"] = initial
        for service in range(len(loads)):
            kernel.scale(self.state, service, 0.0)
        kernel.make_ready(self.state, 0.0)
        self.state = self.state._replace(startup_s=np.zeros(0))
        pools["startups"] = 0
        self._delays_end = np.zeros(len(self._pools), np.int64)
        if turns is None:
            arrive = services[services["next_arrival"] < services["end_request"]]["next_arrival"]
            progress["next_arrival_s"] = self.state.arrival_s[arrive].min(initial=np.inf)
        else:
            kernel.begin_populations(self.state)
        self.services = tuple(Cluster(self, index, load) for index, load in enumerate(loads))

    @property
    def now_s(self) -> float:
        """The instant up to which everything has happened."""
        return float(self.state.progress["now_s"][0])

    @property
    def next_event_s(self) -> float:
        """When something happens next if nobody interferes; inf when nothing can."""
        return float(kernel.next_event_s(self.state))

    def advance(self, until_s: float) -> bool:
        """Process every instant up to and including ``until_s``.

        Returns:
            Whether it got there: where launches are watched it stops after an instant with a launch.
        """
        grow = {
            kernel.MORE_HANDOFFS: self.grow_handoffs,
            kernel.MORE_ENTRIES: self._grow_entries,
            kernel.MORE_TURNS: self._grow_turns,
        }
        while (reached := kernel.advance(self.state, until_s)) in grow:
            grow[reached]()
        return bool(reached == kernel.REACHED)

    def make_room(self, targets: NDArray[np.int64]) -> None:
        """Grow whatever the launches of these targets could need: slots, delays, lifetimes."""
        pools = self.state.pools
        short = pools["free"] < targets
        if short.any():
            self._grow_slots(int((pools["slots"] + targets)[short].max()))
        self._grow_lives(int(targets.sum()))
        if (self._delays_end - pools["startups"] < targets).any():
            self._draw_delays(targets)

    def grow_handoffs(self, *, if_needed: bool = False) -> None:
        """Make room for the hand-offs that an instant could add."""
        g = self.state.progress[0]
        instant = int(g["in_service"] + g["queued_decode"]) + len(self.state.instances)
        if if_needed and g["handoffs"] + instant <= len(self.state.handoff):
            return
        self.state = self.state._replace(handoff=_grown(self.state.handoff, instant))

    def _grow_entries(self) -> None:
        """Make room for what the prefix caches could take up within an instant."""
        stepped = self.state.stepped
        assert stepped is not None
        margin = _margin(self._pools, self.state)
        g = self.state.progress[0]
        g["spare_entries"] = margin
        entries, g["free_entry"] = _chained(stepped.entries, g["free_entry"], margin, "chain")
        g["free_entries"] += len(entries) - len(stepped.entries)
        runs, g["free_run"] = _chained(stepped.private_runs, g["free_run"], margin, "next")
        g["free_runs"] += len(runs) - len(stepped.private_runs)
        stepped = stepped._replace(entries=entries, private_runs=runs)
        self.state = self.state._replace(stepped=stepped)

    def _grow_turns(self) -> None:
        """Make room for the turns that the answers of an instant could bring."""
        turns = self.state.turns
        g = turns.progress[0]
        coming = _grown(turns.coming, int(g["due"] + 2 * g["populations"]))
        self.state = self.state._replace(turns=turns._replace(coming=coming))

    def _grow_lives(self, launches: int) -> None:
        begun = int(self.state.progress["lives"][0])
        if len(self.state.life) < begun + launches:
            life = _grown(self.state.life, launches)
            for column in ("ready_s", "drain_s", "stop_s"):
                life[column][len(self.state.life) :] = np.nan
            self.state = self.state._replace(life=life)

    def _draw_delays(self, targets: NDArray[np.int64]) -> None:
        """Draw delays for pools that have too few left; each pool's are one sequence, however often drawn."""
        stretches = []
        for (draw, name), target, start, end in zip(
            self._draws, targets.tolist(), self.state.pools["startups"], self._delays_end, strict=True
        ):
            left = self.state.startup_s[start:end]
            short = target - len(left)
            stretches.append(left if short <= 0 else np.concatenate([left, draw(name, short + 64)]))
        lengths = np.array([len(stretch) for stretch in stretches])
        self._delays_end = np.cumsum(lengths)
        self.state.pools["startups"] = self._delays_end - lengths
        self.state = self.state._replace(startup_s=np.concatenate(stretches))

    def _grow_slots(self, need: int) -> None:
        """Give every pool as many slots, at least ``need``; what is there moves with its block."""
        state, old = self.state, self.state.instances
        before = len(old) // self._blocks
        size = max(2, 1 << (need - 1).bit_length())
        self._check_memory(size)
        added = size - before
        grown = np.zeros(self._blocks * size, INSTANCE)
        slots = np.zeros(len(grown), SLOT)
        slots["event_s"] = np.inf
        slots["key"] = NOT_READY
        for name in ("head", "tail", "batch", "cursor", "joined"):
            grown[name] = -1

        def moved(slots: NDArray[np.int32]) -> NDArray[np.int32]:
            return slots // before * size + slots % before

        heaps = 0
        finish = []
        for index, block in enumerate(self._block.tolist()):
            pool, first, was = state.pools[index : index + 1], block * size, block * before
            mine = grown[first : first + size]
            mine[:before] = old[was : was + before]
            mine["pool"] = index
            slots[first : first + before] = state.slots[was : was + before]
            if self._pools[index].role == "decode":
                each = int(pool["max_num_seqs"][0])
                mine["finish"] = heaps + each * np.arange(size)
                heap = np.zeros(size * each, np.int64)
                was_at = old["finish"][was] if before else 0
                heap[: before * each] = state.finish[was_at : was_at + before * each]
                finish.append(heap)
                heaps += len(heap)
            # New slots lie under the old free ones on the stack, so that low slots are taken first.
            free = int(pool["free"][0])
            mine["free_slot"][:added] = first + np.arange(size - 1, before - 1, -1)
            if free:
                mine["free_slot"][added : added + free] = moved(old["free_slot"][was : was + free])
            pool["free"], pool["slots"], pool["first_slot"] = free + added, size, first
        g = state.progress[0]
        for half, count in ((0, int(g["dirty_decode"])), (1, int(g["dirty_prefill"]))):
            if count:
                start = half * len(old) // 2
                grown["dirty_slot"][half * len(grown) // 2 :][:count] = moved(
                    old["dirty_slot"][start : start + count]
                )
        if before:
            for service in state.services:
                window = state.requests["bound"][service["oldest"] : service["next_arrival"]]
                window[window >= 0] = moved(window[window >= 0])
            source = state.handoff["source"][: g["handoffs"]]
            source[source >= 0] = moved(source[source >= 0])
        kernel.tree_build(slots)
        self.state = state._replace(
            slots=slots, instances=grown, finish=np.concatenate([np.zeros(0, np.int64), *finish])
        )
        if state.gaps is not None:
            gaps = self._moved(state.gaps.instances, before, size)
            self.state = self.state._replace(gaps=state.gaps._replace(instances=gaps))
        if np.isfinite(g["next_look_s"]):
            views = self._moved(state.homes.views, before, size)
            self.state = self.state._replace(homes=state.homes._replace(views=views))
        if state.stepped is not None:
            self._grow_engines(state.stepped, before, size)

    def _check_memory(self, size: int) -> None:
        """Refuse pools of that many slots where they would fill this machine's memory."""
        taken = _bytes_of(self._pools, self._blocks, size)
        if taken > _MOST_BYTES:
            slots = max(pool.engine.max_num_seqs for pool in self._pools)
            raise InputError(
                f"up to {size:,} instances in a pool, of {slots:,} requests each (max_num_seqs), would take "
                f"{taken / 1e9:.3g} GB; expected at most {_MOST_BYTES / 1e9:g} GB: lower the pools' limits, "
                "max_gpu_budget or max_num_seqs"
            )

    def _moved(self, old: NDArray[np.void], before: int, size: int) -> NDArray[np.void]:
        """Records slot by slot, each pool's block as it moves."""
        grown = np.zeros(self._blocks * size, old.dtype)
        for block in self._block.tolist():
            grown[block * size : block * size + before] = old[block * before : (block + 1) * before]
        return grown

    def _grow_engines(self, old: Stepped, before: int, size: int) -> None:
        """The same for engines that step."""
        engines = np.zeros(self._blocks * size, ENGINE)
        members, phases = [], []
        members_at = phases_at = 0
        for index, block in enumerate(self._block.tolist()):
            stepping = self._pools[index].engine.stepping
            if stepping is None:
                continue
            mine = engines[block * size : (block + 1) * size]
            was = slice(block * before, (block + 1) * before)
            mine[:before] = old.engines[was]
            seqs, tokens = int(self.state.pools["max_num_seqs"][index]), stepping.block_tokens
            mine["members"] = members_at + seqs * np.arange(size)
            mine["phases"] = phases_at + tokens * np.arange(size)
            new_members, new_phases = np.zeros(size * seqs, MEMBER), np.zeros(size * tokens, np.int64)
            if before:
                at = int(old.engines["members"][block * before])
                new_members[: before * seqs] = old.members[at : at + before * seqs]
                at = int(old.engines["phases"][block * before])
                new_phases[: before * tokens] = old.phases[at : at + before * tokens]
            members.append(new_members)
            phases.append(new_phases)
            members_at, phases_at = members_at + size * seqs, phases_at + size * tokens
        if before:
            for slots in (old.entries["slot"], old.requests["source"]):
                used = slots >= 0
                slots[used] = slots[used] // before * size + slots[used] % before
            evicted = old.entries["slot"] < -1  # of slot 0 is -1, as unused ones are, and stays so
            was_at = -1 - old.entries["slot"][evicted]
            old.entries["slot"][evicted] = -1 - (was_at // before * size + was_at % before)
        self.state = self.state._replace(
            stepped=old._replace(
                engines=engines,
                members=np.concatenate(members),
                phases=np.concatenate(phases),
            )
        )
        if any(pool.engine.stepping and pool.engine.stepping.prefix_cache for pool in self._pools):
            self._grow_entries()


def _gaps(loads: Sequence[ServiceLoad], requests: int) -> Gaps | None:
    """What the gaps between tokens are measured in; None where nobody needs them."""
    engines = [pool.engine for load in loads for pool in load.pools]
    if not any(
        one.measure_gaps or one.stepping is not None or one.itl_statistic != "mean" for one in engines
    ):
        return None
    return Gaps(
        histogram=np.zeros(len(loads) * GAP_BINS, np.int64),
        requests=np.zeros(requests, GAPS_OF_REQUEST),
        instances=np.zeros(0, GAPS_OF_INSTANCE),
    )


def _homes(loads: Sequence[ServiceLoad]) -> Homes:
    kept = any(map(_keeps_sessions, loads))
    return Homes(
        np.concatenate([_sessions(load) for load in loads]) if kept else np.zeros(0, np.int32),
        np.full(2 * sum(map(_session_count, loads)), -1, np.int64),
        np.zeros(0, VIEW),
    )


def _keeps_sessions(load: ServiceLoad) -> bool:
    """Whether its router asks where a session was."""
    return load.pools[0].engine.routing_strategy == "session_affinity"


def _session_count(load: ServiceLoad) -> int:
    return int(_sessions(load).max(initial=-1)) + 1 if _keeps_sessions(load) else 0


def _sessions(load: ServiceLoad) -> NDArray[np.int32]:
    """The session of each request, all one where no router asks; each by itself where nobody knows."""
    if not _keeps_sessions(load):
        return np.zeros(len(load.arrival_s), np.int32)
    if load.session is None:
        return np.arange(len(load.arrival_s), dtype=np.int32)
    return load.session


def _grown(records: NDArray[np.void], more: int) -> NDArray[np.void]:
    """Room for twice as many records and some, with those there are."""
    grown = np.zeros(2 * len(records) + more, records.dtype)
    grown[: len(records)] = records
    return grown


def _chained(records: NDArray[np.void], free: int, more: int, link: str) -> tuple[NDArray[np.void], int]:
    """Twice as many records and some; the new ones lead the chain of those not in use, with its first."""
    grown = _grown(records, more)
    new = np.arange(len(records), len(grown))
    grown[link][new] = np.append(new[1:], free)
    if "slot" in (records.dtype.names or ()):
        grown["slot"][new] = -1
    return grown, len(records)


_MOST_BYTES = 4_000_000_000
"""Of all that is kept by slot; 1,024 instances with prefix caches, of 256 requests each, take 75 MB."""


def _bytes_of(pools: Sequence[EnginePool], blocks: int, size: int) -> int:
    """Memory of that many slots in every block; lists by request are joined as they grow, so there twice."""
    each = INSTANCE.itemsize + SLOT.itemsize + GAPS_OF_INSTANCE.itemsize + VIEW.itemsize
    taken = blocks * size * each
    for pool in pools:
        stepping, seqs = pool.engine.stepping, pool.engine.max_num_seqs
        if pool.role == "decode":
            taken += 2 * size * seqs * np.dtype(np.int64).itemsize
        if stepping is not None:
            taken += 2 * size * (seqs * MEMBER.itemsize + stepping.block_tokens * np.dtype(np.int64).itemsize)
            taken += size * (ENGINE.itemsize + _margin_of(pool) * (CACHE_ENTRY.itemsize + UNIT_RUN.itemsize))
    return taken


def _margin(pools: Sequence[EnginePool], state: State) -> int:
    """The most entries that all instances could add within an instant."""
    return sum(_margin_of(pool) * int(slots) for pool, slots in zip(pools, state.pools["slots"], strict=True))


def _margin_of(pool: EnginePool) -> int:
    """The most entries that an instance could add within an instant."""
    stepping = pool.engine.stepping
    if stepping is None or not stepping.prefix_cache:
        return 0
    return stepping.max_batched_tokens // stepping.block_tokens + 2 * pool.engine.max_num_seqs + 2


def _stepped(loads: Sequence[ServiceLoad], requests: int) -> Stepped | None:
    """What only engines that step need; None without any."""
    if all(pool.engine.stepping is None for load in loads for pool in load.pools):
        return None
    records = np.zeros(requests, STEPPED_REQUEST)
    records["own"] = records["source"] = records["private"] = -1
    nodes, units = _tree(loads, records["leaf"])
    return Stepped(
        engines=np.zeros(0, ENGINE),
        members=np.zeros(0, MEMBER),
        phases=np.zeros(0, np.int64),
        requests=records,
        nodes=nodes,
        entries=np.zeros(0, CACHE_ENTRY),
        first_entry=np.full(units, -1, np.int32),
        lost=np.zeros(units, np.bool_),
        hits_by_age=np.zeros(len(loads) * AGES, HITS),
        private_runs=np.zeros(0, UNIT_RUN),
        path=np.zeros(2 * (int(nodes["depth"].max(initial=0)) + 1), np.int32),
    )


def _tree(loads: Sequence[ServiceLoad], leaf: NDArray[np.int32]) -> tuple[NDArray[np.void], int]:
    """The prefixes of all services, one after the other, and the number of ids; ``leaf`` is written."""
    leaf[:] = -1
    nodes = np.zeros(sum(0 if load.prefixes is None else len(load.prefixes.parent) for load in loads), NODE)
    request = node = units = 0
    for load in loads:
        end = request + len(load.arrival_s)
        prefixes = load.prefixes
        if prefixes is not None:
            mine = nodes[node : node + len(prefixes.parent)]
            leaf[request:end] = np.where(prefixes.leaf < 0, -1, prefixes.leaf + node)
            mine["parent"] = np.where(prefixes.parent < 0, -1, prefixes.parent + node)
            mine["unit"] = prefixes.unit + units
            mine["depth"] = prefixes.depth
            here = np.arange(node, node + len(mine))
            mine["stretch"] = np.maximum.accumulate(np.where(mine["parent"] == here - 1, 0, here))
            node += len(mine)
            units += int(prefixes.unit.max(initial=-1)) + 1
        request = end
    return nodes, units


def _described(
    loads: Sequence[ServiceLoad], types: Sequence[str], tables: _Tables
) -> tuple[NDArray[np.void], NDArray[np.void], NDArray[np.void]]:
    """The records of services, stages and pools, as before anything has happened."""
    services = np.zeros(len(loads), SERVICE)
    stages = np.zeros(2 * len(loads), STAGE)
    pools = np.zeros(sum(len(load.pools) for load in loads), POOL)
    request = first = homes = 0
    for index, (load, service) in enumerate(zip(loads, services, strict=True)):
        world = load.pools[0].engine
        service["request_timeout_s"] = np.inf if world.request_timeout_s is None else world.request_timeout_s
        service["target_ttft_s"], service["target_itl_s"] = world.target_ttft_s, world.target_itl_s
        service["itl_statistic"] = _STATISTICS[world.itl_statistic]
        service["scheduling"] = _SCHEDULING[world.scheduling_policy]
        service["max_gpus"] = world.max_gpus
        service["routing"] = _ROUTING[world.routing_strategy]
        service["round_robin"] = world.routing_strategy == "round_robin"
        service["decode_first"] = world.first_token == "decode"
        for name in ("overlap_credit", "prefill_load_scale", "router_temperature", "affinity_max_load"):
            service[name] = getattr(world, name)
        late = world.router_staleness_s > 0 and world.routing_strategy != "round_robin"
        service["staleness_s"] = world.router_staleness_s if late else 0.0
        service["next_look_s"] = 0.0 if late else np.inf
        service["considers"] = late or _ROUTING[world.routing_strategy] >= LEAST_TOKENS
        service["keeps_hits"] = world.scale_down_choice == "least_cache_hits"
        service["unit_tokens"] = 1 << 40 if load.prefixes is None else load.prefixes.block_tokens
        service["seed"], service["name_crc"] = load.seed % (1 << 64), zlib.crc32(load.name.encode())
        for name in ("first_request", "next_arrival", "next_deadline", "oldest"):
            service[name] = request
        request += len(load.arrival_s)
        service["end_request"] = request
        for role, at in (("prefill", index), ("decode", len(loads) + index)):
            mine = [
                number for number, pool in enumerate(load.pools, first) if pool.role in (role, "aggregated")
            ]
            if load.pools[0].role == "aggregated":
                at = index  # noqa: PLW2901  # one stage does it all
            service[f"{role}_stage"] = at
            stage = stages[at]
            stage["service"], stage["first_pool"], stage["end_pool"] = index, mine[0], mine[-1] + 1
            stage["queue_head"] = stage["queue_tail"] = -1
            stage["homes"] = homes + (role == "decode") * _session_count(load)
            for number in mine:
                _describe_pool(pools[number], load.pools[number - first], index, at, types, tables)
        own = pools[first : first + len(load.pools)]
        homes += 2 * _session_count(load)
        held = own["max_kv_tokens"][own["role"] != PREFILL_ROLE].max()
        steps = own["max_kv_tokens"][(own["role"] == PREFILL_ROLE) & (own["scheduler"] > 0)]
        service["max_kv_tokens"] = min(held, steps.max(initial=0) or _UNLIMITED)
        service["max_whole_tokens"] = min(map(_max_whole_tokens, load.pools))
        first += len(load.pools)
    return services, stages, pools


def _max_whole_tokens(pool: EnginePool) -> int:
    """The longest request (ISL + OSL) whose prompt fits a step where it cannot be cut (ENGINES 2.2)."""
    stepping = pool.engine.stepping
    if stepping is None or stepping.chunked_prefill:
        return _UNLIMITED
    if 0 < stepping.long_prefill_token_threshold <= stepping.max_batched_tokens:
        return _UNLIMITED
    return stepping.max_batched_tokens + 1


def _describe_pool(
    record: np.void, pool: EnginePool, service: int, stage: int, types: Sequence[str], tables: _Tables
) -> None:
    engine = pool.engine
    record["role"], record["service"], record["stage"] = _ROLES[pool.role], service, stage
    record["stock"], record["gpus"], record["capacity"] = types.index(pool.gpu_type), pool.gpus, pool.capacity
    record["prefill_table"] = tables.at[id(engine.prefill_s)]
    record["prefill_top"] = len(engine.prefill_s) - 1
    record["step_table"] = tables.steps_at[id(engine.base_s)]
    record["step_segments"] = engine.base_s.shape[1]
    for name in (
        "quadratic_s", "prefill_floor_s", "prefill_slope_s", "max_batch_tokens", "max_num_seqs",
        "kv_latency_s", "kv_s_per_token", "kv_decode_steps", "join_s_per_token",
    ):  # fmt: skip
        record[name] = getattr(engine, name)
    record["max_kv_tokens"] = _UNLIMITED if engine.max_kv_tokens is None else engine.max_kv_tokens
    record["blocks_prefill"] = engine.kv_blocks_prefill
    record["spread"] = -1 if engine.spread_s is None else tables.at[id(engine.spread_s)]
    stepping = engine.stepping
    if stepping is not None:
        record["scheduler"] = _SCHEDULERS[stepping.scheduler]
        for name in (
            "block_tokens", "max_batched_tokens", "chunked_prefill", "mixed_chunk", "reserve_full_isl",
            "prefix_cache", "running_s", "kv_s", "cross_s", "square_s", "longest_s",
        ):  # fmt: skip
            record[name] = getattr(stepping, name)
        record["long_prefill_tokens"] = stepping.long_prefill_token_threshold or _UNLIMITED
        record["blocks"] = _UNLIMITED if stepping.blocks is None else stepping.blocks
        record["max_kv_tokens"] = (
            _UNLIMITED if stepping.blocks is None else stepping.blocks * stepping.block_tokens
        )
        table = stepping.tokens_s
        record["tokens_table"] = tables.at[id(table)]
        record["tokens_top"], record["tokens_slope_s"] = len(table) - 1, table[-1] - table[-2]


class Cluster:
    """One service of a ``FleetCluster``: its pools and requests. Made by that, or by ``alone``."""

    def __init__(self, fleet: FleetCluster, index: int, load: ServiceLoad) -> None:
        self.fleet = fleet
        self.load = load
        names = tuple(pool.name for pool in load.pools)
        self.pool_names: tuple[str, ...] = DISAGGREGATED if names == DISAGGREGATED else names
        self._found = np.zeros(5 * len(load.pools) + 5, np.int64)
        self._index = index
        first = int(np.flatnonzero(fleet.state.pools["service"] == index)[0])
        self._mine = slice(first, first + len(load.pools))
        self._targets = tuple(load.initial)

    @classmethod
    def alone(cls, load: ServiceLoad, *, watch_launches: bool = False) -> Cluster:
        """Make a fleet of one service on GPUs of one type, as many as its engines say."""
        pool = load.pools[0]
        fleet = FleetCluster([load], {pool.gpu_type: pool.engine.max_gpus}, watch_launches=watch_launches)
        return fleet.services[0]

    @property
    def world(self) -> World:
        """The engines of the first pool, and what holds for the whole service."""
        return self.load.pools[0].engine

    @property
    def state(self) -> State:
        """The whole fleet's arrays."""
        return self.fleet.state

    @property
    def requests(self) -> NDArray[np.void]:
        """REQUEST records of the service's requests by arrival; with turns, of those that have come."""
        return self.state.requests[self._requests]

    @property
    def produced(self) -> NDArray[np.int32]:
        """Tokens each of them had when a crash last threw it back."""
        return self.state.produced[self._requests]

    @property
    def arrival_s(self) -> NDArray[np.float64]:
        """When each of them came."""
        return self.state.arrival_s[self._requests]

    @property
    def isl(self) -> NDArray[np.int32]:
        """Prompt tokens of each of them."""
        return self.state.isl[self._requests]

    @property
    def osl(self) -> NDArray[np.int32]:
        """Tokens that each of them asked for."""
        return self.state.osl[self._requests]

    @property
    def prompt(self) -> NDArray[np.int32]:
        """Prompt tokens that each of them has computed."""
        return self.state.prompt[self._requests]

    @property
    def _requests(self) -> slice:
        record = self._record
        last = "end_request" if self.state.turns is None else "next_arrival"
        return slice(int(record["first_request"]), int(record[last]))

    @property
    def _record(self) -> np.void:
        record: np.void = self.fleet.state.services[self._index]
        return record

    def advance(self, until_s: float) -> bool:
        """Let the whole fleet go on; see ``FleetCluster.advance``."""
        return self.fleet.advance(until_s)

    def scale(self, *targets: int) -> None:
        """Set the pools' targets now; DESIGN 5.6 says which instances start, wait, are cancelled or drain."""
        if targets == self._targets:
            return
        self._targets = targets
        pools = self.state.pools
        pools["target"][self._mine] = targets
        self.fleet.make_room(pools["target"])
        kernel.scale(self.fleet.state, self._index, self.now_s)

    def crash(self, pool: str, instance: int) -> bool:
        """Lose an instance now (DESIGN 5.12); unless it was DRAINING another launch replaces it.

        Its requests are queued again; what can begin at this instant begins when ``advance`` is called.

        Returns:
            Whether there was such an instance.
        """
        if self._slot(pool, instance) is None:
            return False
        room = self.state.pools["target"].copy()
        room[self._mine.start + self.pool_names.index(pool)] += 1
        self.fleet.make_room(room)
        self.fleet.grow_handoffs(if_needed=True)
        kernel.crash(self.state, self._slot(pool, instance), self.now_s)
        return True

    def ready_at(self, pool: str, instance: int, ready_s: float) -> None:
        """Let a STARTING instance become READY at another time, not before now; inf is never."""
        slot = self._slot(pool, instance)
        if slot is not None:
            assert self.state.instances["status"][slot] == STARTING
            self.state.slots["event_s"][slot] = ready_s
            kernel.event_update(self.state.slots, slot)

    def ready_due_s(self, pool: str, instance: int) -> float:
        """When a STARTING instance becomes READY; inf for one that is not starting."""
        slot = self._slot(pool, instance)
        if slot is None or self.state.instances["status"][slot] != STARTING:
            return float("inf")
        return float(self.state.slots["event_s"][slot])

    def chill(self, pool: str, instance: int, extra_s: float) -> None:
        """Let the next batch or step of an instance take longer."""
        slot = self._slot(pool, instance)
        if slot is not None:
            self.state.instances["cold_s"][slot] = extra_s

    def hold_launches(self, *, held: bool) -> None:
        """Let no launch begin while held, whatever GPUs are free; released, those that fit begin now."""
        self.state.services["launches_held"][self._index] = held
        if not held:
            kernel.launch_waiting(self.state, self.now_s)

    def launches(self, since: int = 0) -> list[Launch]:
        """Every launch of the service so far, the initial instances first, from the ``since``-th on."""
        life = self._lives()[since:]
        return [
            Launch(
                self.load.pools[row["pool"] - self._mine.start].name,
                int(row["number"]),
                float(row["launch_s"]),
            )
            for row in life
        ]

    def ready_instances(self, pool: str) -> list[int]:
        """READY instances of a pool, the one with the most outstanding tokens first, ties by lowest id."""
        instances, numbers = self.instances(pool), self.numbers(pool)
        ready = instances["status"] == READY
        order = np.lexsort((numbers[ready], -instances["load"][ready]))
        found: list[int] = numbers[ready][order].tolist()
        return found

    def slots(self, pool: str) -> slice:
        """Where a pool's slots are among those of the fleet."""
        record = self.state.pools[self._mine.start + self.pool_names.index(pool)]
        return slice(int(record["first_slot"]), int(record["first_slot"] + record["slots"]))

    def instances(self, pool: str) -> NDArray[np.void]:
        """The slots of a pool, INSTANCE records, free ones included."""
        return self.state.instances[self.slots(pool)]

    def numbers(self, pool: str) -> NDArray[np.int64]:
        """The number in its pool of the instance in each slot, int64; of free slots the last one's."""
        found: NDArray[np.int64] = self.state.slots["id"][self.slots(pool)] & _NUMBER
        return found

    @property
    def numbers_by_slot(self) -> NDArray[np.int64]:
        """``numbers`` of all slots of the fleet: what a request's ``bound`` refers to."""
        found: NDArray[np.int64] = self.state.slots["id"] & _NUMBER
        return found

    @property
    def now_s(self) -> float:
        """The instant up to which everything has happened."""
        return self.fleet.now_s

    @property
    def next_event_s(self) -> float:
        """When something happens to this service next if nobody interferes; inf when nothing can."""
        if len(self.fleet.services) == 1:
            return self.fleet.next_event_s
        state, service = self.state, self._record
        if state.turns is None and service["next_arrival"] < service["end_request"]:
            return float(state.arrival_s[service["next_arrival"]])
        if state.turns is not None and (coming_s := self._coming_s()) < np.inf:
            return coming_s
        mine = np.flatnonzero(state.pools["service"] == self._index)
        due_s = state.slots["event_s"][np.isin(state.instances["pool"], mine)].min()
        under_way = state.handoff[: state.progress["handoffs"][0]]
        own = np.isin(state.instances["pool"][state.requests["bound"][under_way["request"]]], mine)
        return float(min(due_s, under_way["time_s"][own].min(initial=np.inf)))

    @property
    def settled(self) -> bool:
        """Whether every request that can come has come, and has been completed, rejected or given up."""
        g = self._record
        closed = self.state.turns is not None
        if closed and self._coming_s() < np.inf:
            return False
        last = g["next_arrival" if closed else "end_request"]
        return bool(g["completed"] + g["rejected"] + g["timed_out"] == last - g["first_request"])

    @property
    def turns_to_come(self) -> bool:
        """Whether requests may still arrive that do not arrive by the clock."""
        if self.load.turns is None:
            return False
        return self._coming_s() < np.inf or bool(self.state.turns.progress["due"][0])

    def _coming_s(self) -> float:
        """With turns: when one of the service's requests may arrive next, as far as it is known."""
        state, service = self.state, self._record
        if len(self.fleet.services) == 1:
            return float(state.progress["next_arrival_s"][0])
        turns = state.turns
        g = turns.progress[0]
        by_clock = turns.roots[g["next_root"] : g["end_root"]]
        rows = np.concatenate([by_clock, turns.coming["seq"][: g["coming"]]])
        times_s = np.concatenate([turns.arrival_s[by_clock], turns.coming["time_s"][: g["coming"]]])
        mine = (rows >= service["first_request"]) & (rows < service["end_request"])
        mine &= ~turns.sessions["ended"][turns.session[rows]]
        return float(times_s[mine].min(initial=np.inf))

    @property
    def last_session_s(self) -> float:
        """When the last session that has begun in a closed population did; 0 without such."""
        turns = self.state.turns
        if turns is None or not turns.populations["sessions"][self._index]:
            return 0.0
        return float(turns.sessions["began_s"][turns.populations["next_session"][self._index] - 1])

    @property
    def arrived(self) -> int:
        """Requests that have come so far."""
        return int(self._record["next_arrival"] - self._record["first_request"])

    @property
    def rows(self) -> NDArray[np.int32] | None:
        """Which request of the trace each is that has come, int32[arrived]; None without turns."""
        if self.state.turns is None:
            return None
        record = self._record
        first = record["first_request"]
        rows: NDArray[np.int32] = self.state.turns.row[first : record["next_arrival"]]
        return rows - np.int32(first) if first else rows

    @property
    def last_completion_s(self) -> float:
        """Time of the latest completion so far, 0 before the first."""
        return float(self._record["last_done_s"])

    @property
    def max_gpus_used(self) -> int:
        """The most GPUs the service used at any instant so far, starting and draining included."""
        return int(self._record["max_gpus_used"])

    def counters(self) -> Counters:
        """Return the totals as of now."""
        first, arrived, *totals = _COUNTED(self._record.item())
        return Counters(self.now_s, arrived - first, *totals)

    @property
    def completed(self) -> NDArray[np.int32]:
        """The completed requests so far, in order of completion, counted from the service's first."""
        first = self._record["first_request"]
        done = self.state.completed[first : first + self._record["completed"]]
        return done - np.int32(first) if first else done

    def completed_lengths(self, since: int, until: int, most: int) -> tuple[tuple[int, int], ...]:
        """(ISL, OSL) of the ``since``-th to the ``until``-th completed request, thinned to ``most``."""
        first = self._record["first_request"]
        which = self.state.completed[first + since : first + until : max(1, -(-(until - since) // most))]
        return tuple(zip(self.state.isl[which].tolist(), self.state.osl[which].tolist(), strict=True))

    def gauges(self) -> Gauges:
        """Return what the service's gauges show now."""
        found = self._found
        kernel.gauges_now(self.fleet.state, self._index, self.now_s, found)
        *counts, prefill_queued, prefill_running, queued, running, kv_tokens = found.tolist()
        pools = (
            PoolCounts(counts[at + READY], counts[at + STARTING], counts[at + DRAINING], counts[at + 4])
            for at in range(0, len(counts), 5)
        )
        return Gauges(
            Pools(*pools, names=self.pool_names),
            (prefill_queued, queued),
            (prefill_running, running),
            kv_tokens,
        )

    def pools(self) -> Pools:
        """Return the pools as they are now."""
        return self.gauges().pools

    def asked_of_caches(
        self, since: int, until: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
        """Of some requests, to engines that step: prompt tokens asked of caches, found there, and if settled.

        Both are 0 until a request is first admitted, and it is settled then, or when it ends without. What
        the trace has as cached counts as found.
        """
        stepped = self.state.stepped
        assert stepped is not None
        first = self._record["first_request"]
        rows = slice(first + since, first + until)
        records = stepped.requests[rows]
        asked = np.where(records["admitted"], self.state.isl[rows], 0).astype(np.int64)
        recorded = self.state.isl[rows] - self.state.prompt[rows]
        found = np.where(records["admitted"], records["hit_tokens"] + recorded, 0).astype(np.int64)
        return asked, found, records["admitted"] | (self.state.requests["state"][rows] >= DONE)

    def handoffs(self) -> tuple[int, float]:
        """Hand-offs begun so far, and the seconds they last in all."""
        return int(self._record["handoffs"]), float(self._record["handoff_sum_s"])

    def kv_tokens(self) -> int:
        """KV tokens that the running requests of all decode instances hold now."""
        return self.gauges().kv_tokens

    def gaps(self) -> MeasuredGaps | None:
        """The gaps between the service's tokens; None where nobody asked for them."""
        found, record = self.state.gaps, self._record
        if found is None:
            return None
        return MeasuredGaps(
            requests=found.requests[self._requests],
            histogram=found.histogram[self._index * GAP_BINS : (self._index + 1) * GAP_BINS],
            largest_s=float(record["gap_most_s"]),
        )

    def itl_misses(self, which: NDArray[np.intp] | slice = slice(None)) -> NDArray[np.bool_]:
        """Which requests of two tokens and more did not meet the ITL target, unfinished ones too, bool[n].

        Of all of them, or of those at some places.
        """
        requests, world, gaps = self.requests[which], self.world, self.gaps()
        osl = self.state.osl[self._requests][which]
        if gaps is None or world.itl_statistic == "mean":
            with np.errstate(invalid="ignore", divide="ignore"):
                itl_s = (requests["done_s"] - requests["first_token_s"]) / (osl - 1)
            late = ~(itl_s <= world.target_itl_s)
        else:
            late = (requests["state"] != DONE) | gaps.itl_misses(world.itl_statistic, osl, which)
        missed: NDArray[np.bool_] = (osl > 1) & late
        return missed

    def stepped(self) -> SteppedRun | None:
        """What those of the service's engines did that step; None without any."""
        found, record = self.state.stepped, self._record
        pools = self.state.pools[self._mine]
        if found is None or not pools["scheduler"].any():
            return None
        return SteppedRun(
            requests=found.requests[self._requests],
            preemptions=int(pools["preemptions"].sum()),
            short_s=self.full_memory_s,
            hits_by_age=found.hits_by_age[self._index * AGES : (self._index + 1) * AGES],
            drained_tokens=int(record["drained_tokens"]),
            asked_again_tokens=int(record["asked_again_tokens"]),
        )

    @property
    def full_memory_s(self) -> float:
        """Time of instances so far in steps for which blocks of KV memory were short."""
        return float(self.state.pools["short_s"][self._mine].sum())

    def _lives(self) -> NDArray[np.void]:
        life = self.state.life[: self.state.progress["lives"][0]]
        if len(self.fleet.services) > 1:
            life = life[(life["pool"] >= self._mine.start) & (life["pool"] < self._mine.stop)]
        return life

    def lifetimes(self, horizon_s: float) -> NDArray[np.void]:
        """Every instance ever launched, a LIFE record each, times cut off at the horizon.

        GPU-hours end at the horizon: what is still up stops there, and what came later has not happened.
        Pools are counted from the service's first.
        """
        life = self._lives()
        life = life[life["launch_s"] <= horizon_s]  # a copy
        life["pool"] -= self._mine.start
        life["stop_s"] = np.fmin(life["stop_s"], horizon_s)
        for column in ("ready_s", "drain_s"):
            life[column][life[column] > horizon_s] = np.nan
        return life

    @property
    def restarts(self) -> int:
        """How often a request has been thrown back by a crash so far."""
        return int(self._record["restarts"])

    def _slot(self, pool: str, instance: int) -> int | None:
        match = (self.numbers(pool) == instance) & (self.instances(pool)["status"] != FREE)
        found = np.flatnonzero(match)
        return int(found[0]) + self.slots(pool).start if len(found) else None
