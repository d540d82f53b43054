"""Carries orders out on registered instances, through the two callbacks its user gives."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from sagescale.control_plane.instances import TYPES, ExecutionInstance, ExecutionInstanceType, PoolName
from sagescale.errors import SagescaleError
from sagescale.fleet import PoolCounts, resize

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping

    from sagescale.control_plane.instances import Entry, Registry

    CreateInstance = Callable[[ExecutionInstanceType], ExecutionInstance | Awaitable[ExecutionInstance]]
    RemoveInstance = Callable[
        [ExecutionInstance], Awaitable[ExecutionInstance | None] | ExecutionInstance | None
    ]

logger = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class _Launch:
    """An instance being created; one that is no longer wanted goes as soon as it is there."""

    pool: PoolName
    wanted: bool = True


class InstancePools:
    """The function and the ``states`` of a ``CallbackActuator``: two pools of registered instances.

    Orders come from the loop's thread; the user's callbacks run on the event loop, plain functions in a
    thread of their own. A removal that fails is tried again; a creation that fails is left to the next
    decision.

    Args:
        registry: The instances.
        create: Creates an instance of a type and returns it once it is ready.
        remove: Drains an instance and removes it; returns once its GPUs are free.
        loop: The event loop.
        idle: Waits until the manager's own requests have left an instance.
        retry_s: How long after a failed removal the next is tried.
        patience_s: How long a registry without any instance yet is unknown, not empty.
    """

    def __init__(
        self,
        registry: Registry,
        create: CreateInstance | None,
        remove: RemoveInstance | None,
        loop: asyncio.AbstractEventLoop,
        idle: Callable[[Entry], Awaitable[None]],
        *,
        retry_s: float,
        patience_s: float,
    ) -> None:
        self._registry = registry
        self._create = create
        self._remove = remove
        self._loop = loop
        self._idle = idle
        self._retry_s = retry_s
        self._until_s = time.monotonic() + patience_s
        self._launches: list[_Launch] = []
        self._tasks: set[asyncio.Task[None]] = set()

    # --- what the actuator calls, from its thread -------------------------------------------------

    def __call__(self, order: Mapping[str, Any]) -> None:
        """Begin what brings both pools to the order's sizes; it goes on after this returns."""
        with self._registry.lock:
            for pool in TYPES:
                self._resize(pool, int(order["targets"][pool]))

    def states(self) -> dict[str, dict[str, int]]:
        """Count both pools as an actuator reports them.

        Instances that are unavailable or unhealthy have their GPUs but serve no request: like draining ones.

        Raises:
            SagescaleError: no instance has been registered yet.
        """
        with self._registry.lock:
            if not self._registry.ever and not self._launches and time.monotonic() < self._until_s:
                raise SagescaleError("no instance has been registered yet")
            return {
                pool: {"ready": found.ready, "starting": found.starting, "draining": found.draining}
                for pool in TYPES
                for found in [self._counts(pool)]
            }

    def _counts(self, pool: PoolName) -> PoolCounts:
        entries = self._registry.entries(pool)
        launches = [launch for launch in self._launches if launch.pool == pool]
        ready = sum(entry.ready for entry in entries)
        starting = sum(launch.wanted for launch in launches)
        return PoolCounts(ready, starting, len(entries) - ready + len(launches) - starting)

    def _resize(self, pool: PoolName, target: int) -> None:
        """Start what is missing; let go of those still starting first, then of the least busy."""
        change = resize(self._counts(pool), target)
        ready = [entry for entry in self._registry.entries(pool) if entry.ready]
        starting = [launch for launch in self._launches if launch.pool == pool and launch.wanted]
        for _ in range(change.launch):
            launch = _Launch(pool)
            self._begin(partial(self._launch, launch))
            self._launches.append(launch)  # seen by its task only once the lock is released
        for launch in starting[len(starting) - change.cancel :]:
            launch.wanted = False
        ready.sort(key=lambda entry: (entry.outstanding, -entry.number))
        for entry in ready[: change.drain]:
            self._begin(partial(self._retire, entry))
            entry.draining = True

    def _begin(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        def start() -> None:
            task = self._loop.create_task(work())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        self._loop.call_soon_threadsafe(start)

    # --- what runs on the event loop --------------------------------------------------------------

    async def settle(self) -> None:
        """Wait until everything under way has come to its end."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _launch(self, launch: _Launch) -> None:
        assert self._create is not None
        kind = TYPES[launch.pool]
        entry = None
        try:
            instance = _made(await _call(self._create, kind), kind)
            with self._registry.lock:
                self._launches.remove(launch)
                entry = self._registry.add(instance, made_here=True)
                entry.draining = not launch.wanted
        except Exception as error:  # noqa: BLE001  # anybody's code
            logger.warning("create_instance (%s) failed: %s: %s", launch.pool, type(error).__name__, error)
        finally:
            with self._registry.lock:
                if launch in self._launches:
                    self._launches.remove(launch)
        if entry is not None:
            logger.info("created %s instance %s", launch.pool, entry.instance.instance_id)
            if entry.draining:
                await self._retire(entry)

    async def _retire(self, entry: Entry) -> None:
        assert self._remove is not None
        name = entry.instance.instance_id
        await self._idle(entry)
        while True:
            try:
                gone = await _call(self._remove, entry.instance)
                break
            except Exception as error:  # noqa: BLE001  # anybody's code
                logger.warning("remove_instance (%s) failed: %s: %s", name, type(error).__name__, error)
                await asyncio.sleep(self._retry_s)
        entry = self._went(entry, gone)
        logger.info("removed instance %s", entry.instance.instance_id)

    def _went(self, meant: Entry, returned: object) -> Entry:
        """Forget the instance that has gone; where it was to stay, one that was to go stays instead."""
        with self._registry.lock:
            gone = meant
            if isinstance(returned, ExecutionInstance):
                gone = self._registry.find(returned) or meant
            if not gone.draining:
                draining = [
                    entry
                    for entry in self._registry.entries(gone.instance.instance_type.pool)
                    if entry.draining
                ]
                spared = meant if meant in draining else next(iter(draining), None)
                if spared is not None:
                    spared.draining = False
            if self._registry.find(gone.instance) is not None:
                self._registry.remove(gone.instance.instance_id)
            return gone


def _made(returned: object, kind: ExecutionInstanceType) -> ExecutionInstance:
    if not isinstance(returned, ExecutionInstance) or returned.instance_type is not kind:
        raise SagescaleError(f"it returned {returned!r}; expected an ExecutionInstance of type {kind.name}")
    return returned


async def _call(function: Callable[..., Any], *given: object) -> Any:  # noqa: ANN401  # what a user's code returns
    """Call a function of the user's: a coroutine function here, a plain one in a thread."""
    if inspect.iscoroutinefunction(function):
        return await function(*given)
    result = await asyncio.to_thread(function, *given)
    return await result if inspect.isawaitable(result) else result
