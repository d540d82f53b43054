"""A cluster in simulated time: the kernel with room made for it, steered from outside.

``Cluster`` owns the arrays, grows them before the kernel needs more, and answers in the nouns of the
field. It knows nothing of planners: the caller advances it, looks, and sets targets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar

import numpy as np

from sagescale.errors import SagescaleError
from sagescale.sim import kernel
from sagescale.sim.state import (
    ADAPTIVE,
    DECODE_INSTANCE,
    DRAINING,
    FIFO,
    FREE,
    HANDOFF_ENTRY,
    LIFE,
    NOT_READY,
    PLACE,
    PREFILL_INSTANCE,
    PRIORITY,
    PROGRESS,
    READY,
    REQUEST,
    REQUEST_BITS,
    SLO_AWARE,
    STARTING,
    STEP_SEGMENT,
    WORLD,
    State,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from sagescale.sim.policies import RoutingStrategy, SchedulingPolicy

__all__ = ["Cluster", "Counters", "Launch", "Pool", "PoolView", "World"]

Pool = Literal["prefill", "decode"]

T = TypeVar("T", bound=np.generic)

_UNLIMITED = 1 << 60
_SCHEDULING: dict[SchedulingPolicy, int] = {
    "fifo": FIFO, "priority": PRIORITY, "slo_aware": SLO_AWARE, "adaptive": ADAPTIVE
}  # fmt: skip


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


@dataclass(frozen=True, slots=True)
class PoolView:
    """A pool at one instant: instances by state, and launches that wait for GPUs."""

    ready: int
    starting: int
    draining: int
    waiting: int


@dataclass(frozen=True, slots=True)
class Counters:
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


class Launch(NamedTuple):
    """An instance that was launched: the ``instance``-th of its pool, counted from 0."""

    pool: Pool
    instance: int
    launch_s: float


def _empty_pool(dtype: np.dtype[np.void], size: int) -> NDArray[np.void]:
    """Slots with nothing in them; the stack of free slots hands out slot 0 first."""
    pool = np.zeros(size, dtype)
    pool["event_s"] = np.inf
    pool["key"] = NOT_READY
    for name in ("head", "tail", "batch", "cursor", "joined"):
        if name in (dtype.names or ()):
            pool[name] = -1
    pool["free_slot"] = np.arange(size - 1, -1, -1)
    return pool


def _read_only(column: NDArray[T]) -> NDArray[T]:
    """A view that cannot be written: the kernel is compiled for just that."""
    view = np.ascontiguousarray(column).view()
    view.setflags(write=False)
    return view


class Cluster:
    """The two pools serving one trace, paused between calls.

    Args:
        world: the engines' abilities.
        arrival_s: sorted arrival times, float64[n].
        isl: prompt lengths, int32[n].
        prompt: tokens that prefill computes (isl less the cached ones), int32[n].
        osl: output lengths, int32[n], at least 1.
        priority: the lowest is served first where the policy asks for it, int32[n]; None is all alike.
        prefill: instances READY at time 0.
        decode: instances READY at time 0.
        startup_s: draws the startup delays of the next ``count`` launches, in launch order.
        watch_launches: ``advance`` stops at each instant that launches something.

    Raises:
        SagescaleError: more requests than the kernel can address.
    """

    def __init__(
        self,
        world: World,
        arrival_s: NDArray[np.float64],
        isl: NDArray[np.int32],
        prompt: NDArray[np.int32],
        osl: NDArray[np.int32],
        *,
        prefill: int,
        decode: int,
        startup_s: Callable[[int], NDArray[np.float64]],
        priority: NDArray[np.int32] | None = None,
        watch_launches: bool = False,
    ) -> None:
        requests = len(arrival_s)
        if requests >= 1 << REQUEST_BITS:
            raise SagescaleError(f"{requests} requests: the simulator addresses at most {1 << REQUEST_BITS}")
        self.world = world
        self._draw_startup_s = startup_s
        constants = np.zeros(1, WORLD)
        for name in (
            "quadratic_s", "prefill_floor_s", "prefill_slope_s", "max_batch_tokens", "max_num_seqs",
            "kv_latency_s", "kv_s_per_token", "kv_decode_steps", "join_s_per_token", "prefill_gpus",
            "decode_gpus", "max_gpus", "target_ttft_s", "target_itl_s",
        ):  # fmt: skip
            constants[name] = getattr(world, name)
        constants["max_kv_tokens"] = _UNLIMITED if world.max_kv_tokens is None else world.max_kv_tokens
        constants["request_timeout_s"] = (
            np.inf if world.request_timeout_s is None else world.request_timeout_s
        )
        constants["scheduling"] = _SCHEDULING[world.scheduling_policy]
        constants["round_robin"] = world.routing_strategy == "round_robin"
        constants["blocks_prefill"] = world.kv_blocks_prefill
        constants["decode_first"] = world.first_token == "decode"
        constants["watch_launches"] = watch_launches
        progress = np.zeros(1, PROGRESS)
        for name in ("prefill_queue_head", "prefill_queue_tail", "decode_queue_head", "decode_queue_tail"):
            progress[name] = -1
        records = np.empty(requests, REQUEST)
        kernel.clear_requests(records)
        ordered = 0 if world.scheduling_policy == "fifo" else requests
        if priority is None or not ordered:
            priority = np.zeros(ordered, np.int32)
        steps = np.zeros(world.base_s.shape, STEP_SEGMENT)
        steps["edge"], steps["base_s"], steps["slope_s"] = world.breaks[:, 1:], world.base_s, world.slope_s
        self.state = State(
            world=constants,
            progress=progress,
            arrival_s=_read_only(arrival_s),
            isl=_read_only(isl),
            prompt=_read_only(prompt),
            osl=_read_only(osl),
            priority=_read_only(priority),
            requests=records,
            produced=np.zeros(requests, np.int32),  # memory that nobody touches is not taken
            places=np.zeros(ordered, PLACE),
            completed=np.empty(requests, np.int32),
            prefill_s=np.ascontiguousarray(world.prefill_s, np.float64),
            steps=steps,
            prefill=_empty_pool(PREFILL_INSTANCE, 2),
            decode=_empty_pool(DECODE_INSTANCE, 2),
            finish=np.zeros(2 * world.max_num_seqs, np.int64),
            handoff=np.zeros(1024, HANDOFF_ENTRY),
            startup_s=np.zeros(0),
            life=np.zeros(0, LIFE),
        )
        for pool in (self.state.prefill, self.state.decode):
            kernel.tree_build(pool)
        progress["prefill_free"] = progress["decode_free"] = 2
        # The initial instances are READY before the first arrival and take no startup delay.
        self._draw_startup_s = np.zeros
        self._make_room(prefill, decode)
        kernel.scale(self.state, prefill, decode, 0.0)
        kernel.make_ready(self.state, 0.0)
        progress["startups"] = 0
        self._draw_startup_s = startup_s
        self.state = self.state._replace(startup_s=np.zeros(0))

    def advance(self, until_s: float) -> bool:
        """Process every instant up to and including ``until_s``.

        Returns:
            Whether it got there: where launches are watched it stops after an instant with a launch.
        """
        while (reached := kernel.advance(self.state, until_s)) == kernel.MORE_HANDOFFS:
            self._grow_handoffs()
        return bool(reached == kernel.REACHED)

    def scale(self, prefill: int, decode: int) -> None:
        """Set both targets now; DESIGN 5.6 says which instances start, wait, are cancelled or drain."""
        self._make_room(prefill, decode)
        kernel.scale(self.state, prefill, decode, self.now_s)

    def crash(self, pool: Pool, instance: int) -> bool:
        """Lose an instance now (DESIGN 5.12); unless it was DRAINING another launch replaces it.

        Its requests are queued again; what can begin at this instant begins when ``advance`` is called.

        Returns:
            Whether there was such an instance.
        """
        slot = self._slot(pool, instance)
        if slot is None:
            return False
        g = self.state.progress[0]
        self._make_room(int(g["prefill_waiting"]) + 1, int(g["decode_waiting"]) + 1)
        if g["handoffs"] + self._in_flight() > len(self.state.handoff):
            self._grow_handoffs()
        kernel.crash(self.state, pool == "prefill", slot, self.now_s)
        return True

    def ready_at(self, pool: Pool, instance: int, ready_s: float) -> None:
        """Let a STARTING instance become READY at another time, not before now; inf is never."""
        slot = self._slot(pool, instance)
        if slot is not None:
            instances = getattr(self.state, pool)
            assert instances["status"][slot] == STARTING
            instances["event_s"][slot] = ready_s
            kernel.event_update(instances, slot)

    def ready_due_s(self, pool: Pool, instance: int) -> float:
        """When a STARTING instance becomes READY; inf for one that is not starting."""
        slot = self._slot(pool, instance)
        instances = getattr(self.state, pool)
        if slot is None or instances["status"][slot] != STARTING:
            return float("inf")
        return float(instances["event_s"][slot])

    def chill(self, pool: Pool, instance: int, extra_s: float) -> None:
        """Let the next batch or step of an instance take longer."""
        slot = self._slot(pool, instance)
        if slot is not None:
            getattr(self.state, pool)["cold_s"][slot] = extra_s

    def hold_launches(self, *, held: bool) -> None:
        """Let no launch begin while held, whatever the budget allows; released, those that fit begin now."""
        self.state.world["max_gpus"] = 0 if held else self.world.max_gpus
        if not held:
            prefill, decode = self.pools()
            self.scale(
                prefill.ready + prefill.starting + prefill.waiting,
                decode.ready + decode.starting + decode.waiting,
            )

    def launches(self, since: int = 0) -> list[Launch]:
        """Every launch so far, the initial instances first, from the ``since``-th on."""
        life = self.state.life[since : self.state.progress["lives"][0]]
        return [
            Launch("prefill" if row["prefill"] else "decode", int(row["id"]), float(row["launch_s"]))
            for row in life
        ]

    def ready_instances(self, pool: Pool) -> list[int]:
        """READY instances of a pool, the one with the most outstanding tokens first, ties by lowest id."""
        instances = getattr(self.state, pool)
        instances = instances[instances["status"] == READY]
        order = np.lexsort((instances["id"], -instances["load"]))
        return [int(instance) for instance in instances["id"][order]]

    @property
    def now_s(self) -> float:
        """The instant up to which everything has happened."""
        return float(self.state.progress["now_s"][0])

    @property
    def next_event_s(self) -> float:
        """When something happens next if nobody interferes; inf when nothing can."""
        return float(kernel.next_event_s(self.state))

    @property
    def settled(self) -> bool:
        """Whether every request has arrived and been completed, rejected or given up."""
        g = self.state.progress[0]
        return bool(g["completed"] + g["rejected"] + g["timed_out"] == len(self.state.requests))

    @property
    def last_completion_s(self) -> float:
        """Time of the latest completion so far, 0 before the first."""
        return float(self.state.progress["last_done_s"][0])

    @property
    def max_gpus_used(self) -> int:
        """The most GPUs in use at any instant so far, starting and draining included."""
        return int(self.state.progress["max_gpus_used"][0])

    def counters(self) -> Counters:
        """Return the totals as of now."""
        g = self.state.progress[0].item()
        at = dict(zip(PROGRESS.names or (), g, strict=True))
        return Counters(
            time_s=at["now_s"],
            arrived=at["next_arrival"],
            isl_sum=at["isl_sum"],
            cached_sum=at["cached_sum"],
            first_tokens=at["first_tokens"],
            ttft_sum_s=at["ttft_sum_s"],
            completed=at["completed"],
            osl_sum=at["osl_sum"],
            duration_sum_s=at["duration_sum_s"],
            itl_count=at["itl_count"],
            itl_sum_s=at["itl_sum_s"],
            ttft_met=at["ttft_met"],
            itl_met=at["itl_met"],
            rejected=at["rejected"],
            timed_out=at["timed_out"],
        )

    def completed_lengths(self, since: int, until: int, most: int) -> tuple[tuple[int, int], ...]:
        """(ISL, OSL) of the ``since``-th to the ``until``-th completed request, thinned to ``most``."""
        which = self.state.completed[since : until : max(1, -(-(until - since) // most))]
        return tuple(zip(self.state.isl[which].tolist(), self.state.osl[which].tolist(), strict=True))

    def pools(self) -> tuple[PoolView, PoolView]:
        """Return the prefill and the decode pool as they are now."""
        g = self.state.progress[0]
        views = []
        for instances, waiting in (
            (self.state.prefill, g["prefill_waiting"]),
            (self.state.decode, g["decode_waiting"]),
        ):
            by_status = np.bincount(instances["status"], minlength=4).tolist()
            views.append(PoolView(by_status[READY], by_status[STARTING], by_status[DRAINING], int(waiting)))
        return views[0], views[1]

    def handoffs(self) -> tuple[int, float]:
        """Hand-offs begun so far, and the seconds they last in all."""
        g = self.state.progress[0]
        return int(g["handoff_seq"]), float(g["handoff_sum_s"])

    def queued(self) -> tuple[int, int]:
        """Requests waiting for prefill and for decode, in instances' queues and the pools' own."""
        g = self.state.progress[0]
        return (
            int(self.state.prefill["queued"].sum() + g["prefill_queue_len"]),
            int(self.state.decode["queued"].sum() + g["decode_queue_len"]),
        )

    def running(self) -> tuple[int, int]:
        """Requests inside prefill batches, and inside decode batches."""
        return int(self.state.progress["in_service"][0]), int(self.state.decode["running"].sum())

    def kv_tokens(self) -> int:
        """KV tokens that the running requests of all decode instances hold now."""
        return int(kernel.kv_tokens_now(self.state, self.now_s))

    def lifetimes(self, horizon_s: float) -> NDArray[np.void]:
        """Every instance ever launched, a LIFE record each, times cut off at the horizon.

        GPU-hours end at the horizon: what is still up stops there, and what came later has not happened.
        """
        life = self.state.life[: self.state.progress["lives"][0]]
        life = life[life["launch_s"] <= horizon_s]  # a copy
        life["stop_s"] = np.fmin(life["stop_s"], horizon_s)
        for column in ("ready_s", "drain_s"):
            life[column][life[column] > horizon_s] = np.nan
        return life

    @property
    def restarts(self) -> int:
        """How often a request has been thrown back by a crash so far."""
        return int(self.state.progress["restarts"][0])

    def _slot(self, pool: Pool, instance: int) -> int | None:
        instances = getattr(self.state, pool)
        found = np.flatnonzero((instances["id"] == instance) & (instances["status"] != FREE))
        return int(found[0]) if len(found) else None

    def _grow_handoffs(self) -> None:
        grown = np.zeros(2 * len(self.state.handoff) + self._in_flight(), HANDOFF_ENTRY)
        grown[: len(self.state.handoff)] = self.state.handoff
        self.state = self.state._replace(handoff=grown)

    def _in_flight(self) -> int:
        """How many hand-offs one instant could add."""
        g = self.state.progress[0]
        return int(g["in_service"] + g["decode_queue_len"]) + len(self.state.prefill)

    def _make_room(self, prefill: int, decode: int) -> None:
        """Grow whatever the launches of these targets could need: slots, delays, lifetimes."""
        g = self.state.progress[0]
        if g["prefill_free"] < prefill:
            self._grow_pool("prefill", len(self.state.prefill) + prefill)
        if g["decode_free"] < decode:
            self._grow_pool("decode", len(self.state.decode) + decode)
        launches = prefill + decode
        if len(self.state.life) < g["lives"] + launches:
            life = np.zeros(2 * len(self.state.life) + launches, LIFE)
            for column in ("ready_s", "drain_s", "stop_s"):
                life[column] = np.nan
            life[: len(self.state.life)] = self.state.life
            self.state = self.state._replace(life=life)
        short = int(g["startups"]) + launches - len(self.state.startup_s)
        if short > 0:
            drawn = self._draw_startup_s(short + 64)
            self.state = self.state._replace(startup_s=np.concatenate([self.state.startup_s, drawn]))

    def _grow_pool(self, pool: str, need: int) -> None:
        old = getattr(self.state, pool)
        grown = _empty_pool(old.dtype, 1 << (need - 1).bit_length())
        free = int(self.state.progress[f"{pool}_free"][0])
        added = len(grown) - len(old)
        stack = np.concatenate([grown["free_slot"][:added], old["free_slot"][:free]])
        grown[: len(old)] = old
        # New slots lie under the old free ones on the stack, so that low slots are taken first.
        grown["free_slot"][: len(stack)] = stack
        self.state.progress[f"{pool}_free"] = len(stack)
        if pool == "prefill":
            self.state = self.state._replace(prefill=grown)
        else:
            finish = np.zeros(len(grown) * self.world.max_num_seqs, np.int64)
            finish[: len(self.state.finish)] = self.state.finish
            self.state = self.state._replace(decode=grown, finish=finish)
        kernel.tree_build(grown)
