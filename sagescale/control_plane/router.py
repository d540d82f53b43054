"""Who is served next, and where: scheduling policies and routing over the registered instances.

The simulator's rules (docs/simulator.md), with one queue a pool, in the manager, instead of one an instance.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sagescale.control_plane.instances import ExecutionInstanceType
from sagescale.errors import InputError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from sagescale.control_plane.instances import Entry, ExecutionInstance, Registry
    from sagescale.planner import AutoscalerConfig
    from sagescale.sim.config import SimulatorConfig

_CHECK_S = 0.5
"""An instance may become healthy without notice: requests that wait check this often."""


@dataclass(frozen=True, slots=True)
class Request:
    """What scheduling needs to know of a request.

    Attributes:
        isl: Prompt tokens.
        osl: Output tokens expected, or allowed.
        priority: The lowest is served first.
        arrival_s: When it arrived, by ``time.monotonic``; made now unless given.

    Raises:
        InputError: a length is none.
    """

    isl: int
    osl: int = 1
    priority: int = 0
    arrival_s: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        for name in ("isl", "osl"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; expected at least 1 token")


@dataclass(eq=False, slots=True)
class _Waiting:
    request: Request
    joined: int
    joined_s: float
    turn: asyncio.Future[Entry]


class Router:
    """Hands registered instances out to requests; everything happens on one event loop.

    Args:
        registry: The instances.
        rules: ``scheduling_policy`` and ``routing_strategy``; ``first_token``, whose pool has the deadline of
            the first token; ``max_batch_tokens`` that may wait, an instance, before ``adaptive`` looks at
            deadlines.
        targets: The latency targets.
        ttft_ms: Expected prefill time of a prompt of so many tokens.
    """

    def __init__(
        self,
        registry: Registry,
        rules: SimulatorConfig,
        targets: AutoscalerConfig,
        ttft_ms: Callable[[float], float],
    ) -> None:
        self._registry = registry
        self._rules = rules
        self._targets = targets
        self._ttft_ms = ttft_ms
        self._waiting: dict[ExecutionInstanceType, list[_Waiting]] = {
            kind: [] for kind in ExecutionInstanceType
        }
        self._count = itertools.count()
        self._turns: dict[Entry, int] = {}
        self._left: dict[Entry, asyncio.Event] = {}

    @asynccontextmanager
    async def instance_for(
        self, request: Request, kind: ExecutionInstanceType
    ) -> AsyncIterator[ExecutionInstance]:
        """Wait for the request's turn; it has a place on the instance while the context lasts."""
        entry = await self._turn(request, kind)
        try:
            yield entry.instance
        finally:
            self._give_back(entry, request, kind)

    def waiting(self, kind: ExecutionInstanceType) -> int:
        """Return how many requests wait for an instance of a type."""
        return len(self._waiting[kind])

    async def idle(self, entry: Entry) -> None:
        """Wait until no request has a place on an instance."""
        if entry.running:
            await self._left.setdefault(entry, asyncio.Event()).wait()

    def hand_out(self, kind: ExecutionInstanceType) -> None:
        """Give those who wait what is free, in their order."""
        waiting = self._waiting[kind]
        while waiting and (entry := self._free(kind)) is not None:
            chosen = self._next(waiting, kind)
            waiting.remove(chosen)
            if not chosen.turn.done():  # its task may have been cancelled
                with self._registry.lock:
                    entry.running += 1
                    entry.outstanding += _tokens(chosen.request, kind)
                self._turns[entry] = next(self._count)
                chosen.turn.set_result(entry)

    async def _turn(self, request: Request, kind: ExecutionInstanceType) -> Entry:
        me = _Waiting(
            request, next(self._count), time.monotonic(), asyncio.get_running_loop().create_future()
        )
        self._waiting[kind].append(me)
        try:
            while not me.turn.done():
                self.hand_out(kind)
                await asyncio.wait([me.turn], timeout=_CHECK_S)
        except asyncio.CancelledError:
            if me in self._waiting[kind]:
                self._waiting[kind].remove(me)
            elif me.turn.done():
                self._give_back(me.turn.result(), request, kind)
            raise
        return me.turn.result()

    def _give_back(self, entry: Entry, request: Request, kind: ExecutionInstanceType) -> None:
        with self._registry.lock:
            entry.running -= 1
            entry.outstanding -= _tokens(request, kind)
        if not entry.running:
            if not entry.ready:
                self._turns.pop(entry, None)
            if (left := self._left.pop(entry, None)) is not None:
                left.set()
        self.hand_out(kind)

    def _free(self, kind: ExecutionInstanceType) -> Entry | None:
        """Return the instance the next request goes to: least loaded, or longest without a turn."""
        free = [
            entry
            for entry in self._registry.entries()
            if entry.instance.instance_type is kind and entry.ready and _has_room(entry)
        ]
        if self._rules.routing_strategy == "round_robin":
            return min(free, key=lambda entry: (self._turns.get(entry, -1), entry.number), default=None)
        return min(free, key=lambda entry: (entry.outstanding, entry.number), default=None)

    def _next(self, waiting: list[_Waiting], kind: ExecutionInstanceType) -> _Waiting:
        """Return who is first in the policy's order; ties go to who joined first."""
        policy = self._rules.scheduling_policy
        now_s = time.monotonic()
        much = policy == "adaptive" and self._much_waits(waiting, kind)

        def rank(item: _Waiting) -> tuple[float, ...]:
            if policy == "fifo":
                return (item.joined,)
            if policy == "slo_aware":
                return (self._start_by_s(item, kind, now_s), item.joined)
            if much:
                start_by_s = self._start_by_s(item, kind, now_s)
                late = math.isinf(start_by_s)
                return (late, item.request.priority, 0.0 if late else start_by_s, item.joined)
            return (item.request.priority, item.joined)

        return min(waiting, key=rank)

    def _much_waits(self, waiting: list[_Waiting], kind: ExecutionInstanceType) -> bool:
        """Whether more than a batch an instance waits for prefill."""
        if kind is ExecutionInstanceType.DECODING:
            return False
        ready = sum(entry.ready for entry in self._registry.entries() if entry.instance.instance_type is kind)
        return sum(item.request.isl for item in waiting) > self._rules.max_batch_tokens * max(1, ready)

    def _start_by_s(self, item: _Waiting, kind: ExecutionInstanceType, now_s: float) -> float:
        """The latest start in time for the next token; infinite for who can only be late with the first."""
        request = item.request
        first_due_s = request.arrival_s + self._targets.target_ttft_ms / 1000.0
        if kind is not ExecutionInstanceType.DECODING:
            start_by_s = first_due_s - self._ttft_ms(request.isl) / 1000.0
            return math.inf if start_by_s < now_s else start_by_s
        if self._rules.first_token == "prefill":
            return item.joined_s + self._targets.target_itl_ms / 1000.0
        return math.inf if first_due_s < item.joined_s else first_due_s


def _tokens(request: Request, kind: ExecutionInstanceType) -> int:
    """What a request adds to an instance's load: prompt tokens in prefill, reserved KV tokens elsewhere."""
    return request.isl if kind is ExecutionInstanceType.PREFILLING else request.isl + request.osl


def _has_room(entry: Entry) -> bool:
    limit = entry.instance.max_concurrent_requests
    return limit is None or entry.running < limit
