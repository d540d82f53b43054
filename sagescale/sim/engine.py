"""A cluster in simulated time: the kernel with room made for it, steered from outside.

``FleetCluster`` owns the arrays and grows them before the kernel needs more; a ``Cluster`` is one service's
part of it and answers in the nouns of the field. Neither knows of planners: the caller advances, looks, and
sets targets.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar

import numpy as np

from sagescale.errors import SagescaleError
from sagescale.fleet import PoolCounts, Pools
from sagescale.fleet.by_pool import DISAGGREGATED
from sagescale.sim import kernel
from sagescale.sim.state import (
    ADAPTIVE,
    DECODE_ROLE,
    DRAINING,
    FIFO,
    FREE,
    HANDOFF_ENTRY,
    INSTANCE,
    LIFE,
    NOT_READY,
    PLACE,
    POOL,
    POOL_SHIFT,
    PREFILL_ROLE,
    PRIORITY,
    PROGRESS,
    READY,
    REQUEST,
    REQUEST_BITS,
    SERVICE,
    SLO_AWARE,
    SLOT,
    STAGE,
    STARTING,
    STEP_SEGMENT,
    STOCK,
    State,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from sagescale.sim.config import RoutingStrategy, SchedulingPolicy

__all__ = [
    "Cluster", "Counters", "EnginePool", "FleetCluster", "Gauges", "Launch", "Pool", "ServiceLoad", "World",
    "disaggregated", "no_delay",
]  # fmt: skip

Pool = Literal["prefill", "decode", "aggregated"]

T = TypeVar("T", bound=np.generic)

_UNLIMITED = 1 << 60
_SCHEDULING: dict[SchedulingPolicy, int] = {
    "fifo": FIFO, "priority": PRIORITY, "slo_aware": SLO_AWARE, "adaptive": ADAPTIVE
}  # fmt: skip
_ROLES = {"prefill": PREFILL_ROLE, "decode": DECODE_ROLE}
_NUMBER = (1 << POOL_SHIFT) - 1


@dataclass(frozen=True, slots=True)
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
        target_ttft_s, target_itl_s: what slo_aware and adaptive take a token's deadline from.
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
        role: which phase it serves.
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


@dataclass(frozen=True, slots=True, eq=False)
class ServiceLoad:
    """A service with its pools and the requests it is to serve.

    Attributes:
        name: within the fleet.
        pools: all of prefill, then all of decode.
        initial: instances of each READY at time 0.
        arrival_s: sorted arrival times, float64[n].
        isl: prompt lengths, int32[n].
        prompt: tokens that prefill computes (isl less the cached ones), int32[n].
        osl: output lengths, int32[n], at least 1.
        startup_s: draws the startup delays of the next ``count`` launches of a pool.
        priority: the lowest is served first where the policy asks for it, int32[n]; None is all alike.
    """

    name: str
    pools: tuple[EnginePool, ...]
    initial: tuple[int, ...]
    arrival_s: NDArray[np.float64]
    isl: NDArray[np.int32]
    prompt: NDArray[np.int32]
    osl: NDArray[np.int32]
    startup_s: Callable[[str, int], NDArray[np.float64]]
    priority: NDArray[np.int32] | None = None


class Launch(NamedTuple):
    """An instance that was launched: the ``instance``-th of its pool, counted from 0."""

    pool: Pool
    instance: int
    launch_s: float


def disaggregated(world: World, gpu_type: str) -> tuple[EnginePool, ...]:
    """Return the two pools of a service with one kind of engine: ``prefill`` and ``decode``."""
    return (
        EnginePool("prefill", "prefill", world, world.prefill_gpus, gpu_type),
        EnginePool("decode", "decode", world, world.decode_gpus, gpu_type),
    )


def no_delay(pool: str, count: int) -> NDArray[np.float64]:
    """Draw startup delays of zero."""
    del pool
    return np.zeros(count)


def _read_only(column: NDArray[T]) -> NDArray[T]:
    """A view that cannot be written: the kernel is compiled for just that."""
    view = np.ascontiguousarray(column).view()
    view.setflags(write=False)
    return view


def _joined(columns: Sequence[NDArray[T]]) -> NDArray[T]:
    """One column of several services' requests; a single one's is used as it is."""
    return _read_only(columns[0] if len(columns) == 1 else np.concatenate(columns))


class _Tables:
    """The engines' tables, each once however many pools use it, one after the other."""

    def __init__(self, pools: Sequence[EnginePool]) -> None:
        self.prefill_at: dict[int, int] = {}
        self.steps_at: dict[int, int] = {}
        prefill, steps = [], []
        at = 0
        for pool in pools:
            table = pool.engine.prefill_s
            if id(table) not in self.prefill_at:
                self.prefill_at[id(table)] = at
                prefill.append(np.ascontiguousarray(table, np.float64))
                at += len(table)
        at = 0
        for pool in pools:
            world = pool.engine
            if id(world.base_s) not in self.steps_at:
                self.steps_at[id(world.base_s)] = at
                segments = np.zeros(world.base_s.shape, STEP_SEGMENT)
                segments["edge"], segments["base_s"], segments["slope_s"] = (
                    world.breaks[:, 1:], world.base_s, world.slope_s
                )  # fmt: skip
                steps.append(segments.reshape(-1))
                at += segments.size
        self.prefill_s = prefill[0] if len(prefill) == 1 else np.concatenate(prefill)
        self.steps = steps[0] if len(steps) == 1 else np.concatenate(steps)


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
        tables = _Tables(self._pools)
        services, stages, pools = _described(loads, list(self.stock), tables)
        records = np.empty(requests, REQUEST)
        kernel.clear_requests(records)
        progress = np.zeros(1, PROGRESS)
        progress["watch_launches"] = watch_launches
        progress["timeouts"] = bool((services["request_timeout_s"] < np.inf).any())
        amounts = np.zeros(len(self.stock), STOCK)
        amounts["gpus"] = list(self.stock.values())
        halves = [sum(pool.role == role for pool in self._pools) for role in ("decode", "prefill")]
        self._blocks = 2 << (max(halves) - 1).bit_length()  # of both halves; a power of two
        half = {"decode": 0, "prefill": self._blocks // 2}
        self._block = np.zeros(len(self._pools), np.int64)
        for index, pool in enumerate(self._pools):
            self._block[index] = half[pool.role]
            half[pool.role] += 1
        pools["root"] = self._blocks + self._block
        self.state = State(
            progress=progress,
            services=services,
            stages=stages,
            pools=pools,
            stock=amounts,
            arrival_s=_joined([load.arrival_s for load in loads]),
            isl=_joined([load.isl for load in loads]),
            prompt=_joined([load.prompt for load in loads]),
            osl=_joined([load.osl for load in loads]),
            priority=_joined(priorities),
            requests=records,
            produced=np.zeros(requests, np.int32),  # memory that nobody touches is not taken
            places=np.zeros(requests if ordered else 0, PLACE),
            completed=np.empty(requests, np.int32),
            prefill_s=tables.prefill_s,
            steps=tables.steps,
            slots=np.zeros(0, SLOT),
            instances=np.zeros(0, INSTANCE),
            finish=np.zeros(0, np.int64),
            handoff=np.zeros(1024, HANDOFF_ENTRY),
            startup_s=np.zeros(0),
            life=np.zeros(0, LIFE),
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
        arrive = services[services["next_arrival"] < services["end_request"]]["next_arrival"]
        progress["next_arrival_s"] = self.state.arrival_s[arrive].min(initial=np.inf)
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
        while (reached := kernel.advance(self.state, until_s)) == kernel.MORE_HANDOFFS:
            self.grow_handoffs()
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
        grown = np.zeros(2 * len(self.state.handoff) + instant, HANDOFF_ENTRY)
        grown[: len(self.state.handoff)] = self.state.handoff
        self.state = self.state._replace(handoff=grown)

    def _grow_lives(self, launches: int) -> None:
        begun = int(self.state.progress["lives"][0])
        if len(self.state.life) < begun + launches:
            life = np.zeros(2 * len(self.state.life) + launches, LIFE)
            for column in ("ready_s", "drain_s", "stop_s"):
                life[column] = np.nan
            life[: len(self.state.life)] = self.state.life
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
        self.state = state._replace(slots=slots, instances=grown, finish=np.concatenate(finish))


def _described(
    loads: Sequence[ServiceLoad], types: Sequence[str], tables: _Tables
) -> tuple[NDArray[np.void], NDArray[np.void], NDArray[np.void]]:
    """The records of services, stages and pools, as before anything has happened."""
    services = np.zeros(len(loads), SERVICE)
    stages = np.zeros(2 * len(loads), STAGE)
    pools = np.zeros(sum(len(load.pools) for load in loads), POOL)
    request = first = 0
    for index, (load, service) in enumerate(zip(loads, services, strict=True)):
        world = load.pools[0].engine
        service["request_timeout_s"] = np.inf if world.request_timeout_s is None else world.request_timeout_s
        service["target_ttft_s"], service["target_itl_s"] = world.target_ttft_s, world.target_itl_s
        service["scheduling"] = _SCHEDULING[world.scheduling_policy]
        service["max_gpus"] = world.max_gpus
        service["round_robin"] = world.routing_strategy == "round_robin"
        service["decode_first"] = world.first_token == "decode"
        for name in ("first_request", "next_arrival", "next_deadline", "oldest"):
            service[name] = request
        request += len(load.arrival_s)
        service["end_request"] = request
        for role, at in (("prefill", index), ("decode", len(loads) + index)):
            mine = [number for number, pool in enumerate(load.pools, first) if pool.role == role]
            service[f"{role}_stage"] = at
            stage = stages[at]
            stage["service"], stage["first_pool"], stage["end_pool"] = index, mine[0], mine[-1] + 1
            stage["queue_head"] = stage["queue_tail"] = -1
            for number in mine:
                _describe_pool(pools[number], load.pools[number - first], index, at, types, tables)
        service["max_kv_tokens"] = max(
            pool["max_kv_tokens"]
            for pool in pools[first : first + len(load.pools)]
            if pool["role"] == DECODE_ROLE
        )
        first += len(load.pools)
    return services, stages, pools


def _describe_pool(
    record: np.void, pool: EnginePool, service: int, stage: int, types: Sequence[str], tables: _Tables
) -> None:
    engine = pool.engine
    record["role"], record["service"], record["stage"] = _ROLES[pool.role], service, stage
    record["stock"], record["gpus"], record["capacity"] = types.index(pool.gpu_type), pool.gpus, pool.capacity
    record["prefill_table"] = tables.prefill_at[id(engine.prefill_s)]
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
    def alone(
        cls,
        world: World,
        arrival_s: NDArray[np.float64],
        isl: NDArray[np.int32],
        prompt: NDArray[np.int32],
        osl: NDArray[np.int32],
        *,
        prefill: int,
        decode: int,
        startup_s: Callable[[str, int], NDArray[np.float64]],
        priority: NDArray[np.int32] | None = None,
        watch_launches: bool = False,
    ) -> Cluster:
        """Make a fleet of one service with a prefill and a decode pool; see ``ServiceLoad``."""
        pools = disaggregated(world, "gpu")
        load = ServiceLoad(
            "service", pools, (prefill, decode), arrival_s, isl, prompt, osl, startup_s, priority
        )
        fleet = FleetCluster([load], {"gpu": world.max_gpus}, watch_launches=watch_launches)
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
        """REQUEST records of the service's requests by arrival."""
        record = self._record
        return self.state.requests[record["first_request"] : record["end_request"]]

    @property
    def produced(self) -> NDArray[np.int32]:
        """Tokens each of the service's requests had when a crash last threw it back."""
        record = self._record
        return self.state.produced[record["first_request"] : record["end_request"]]

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
        if service["next_arrival"] < service["end_request"]:
            return float(state.arrival_s[service["next_arrival"]])
        mine = np.flatnonzero(state.pools["service"] == self._index)
        due_s = state.slots["event_s"][np.isin(state.instances["pool"], mine)].min()
        under_way = state.handoff[: state.progress["handoffs"][0]]
        own = np.isin(state.instances["pool"][state.requests["bound"][under_way["request"]]], mine)
        return float(min(due_s, under_way["time_s"][own].min(initial=np.inf)))

    @property
    def settled(self) -> bool:
        """Whether every request has arrived and been completed, rejected or given up."""
        g = self._record
        return bool(g["completed"] + g["rejected"] + g["timed_out"] == g["end_request"] - g["first_request"])

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

    def handoffs(self) -> tuple[int, float]:
        """Hand-offs begun so far, and the seconds they last in all."""
        return int(self._record["handoffs"]), float(self._record["handoff_sum_s"])

    def kv_tokens(self) -> int:
        """KV tokens that the running requests of all decode instances hold now."""
        return self.gauges().kv_tokens

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
