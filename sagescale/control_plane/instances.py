"""What is registered: engines that serve requests, the phase each serves, and which are on their way out."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from sagescale.declare import check, setting
from sagescale.errors import InputError, did_you_mean
from sagescale.live.config import check_url
from sagescale.live.metrics.scrape import ScrapeTarget

PoolName = Literal["prefill", "decode"]


class ExecutionInstanceType(Enum):
    """The phase an instance serves; ``GENERAL`` serves both, where prefill and decode are not separated."""

    GENERAL = "general"
    PREFILLING = "prefilling"
    DECODING = "decoding"

    @property
    def pool(self) -> PoolName | None:
        """The pool it belongs to; ``None`` for ``GENERAL``."""
        return next((pool for pool, kind in TYPES.items() if kind is self), None)


TYPES: dict[PoolName, ExecutionInstanceType] = {
    "prefill": ExecutionInstanceType.PREFILLING,
    "decode": ExecutionInstanceType.DECODING,
}
"""The instances of each pool."""


@dataclass(frozen=True, slots=True)
class PDSeparationConfig:
    """Separate prefill and decode pools.

    Raises:
        InputError: a value is refused; the message names the key, the value and what is accepted.
    """

    first_token: Literal["prefill", "decode"] = setting(
        "prefill", doc="Which pool streams the first token: where TTFT is measured."
    )

    def __post_init__(self) -> None:
        check(self)


@dataclass(eq=False)
class ExecutionInstance:
    """One engine.

    Attributes:
        instance_id: Its name, unique among those registered.
        model_name: The model it serves; for people.
        host: Where it listens.
        port: Where it listens.
        instance_type: The phase it serves.
        gpu_count: GPUs it takes; ``None`` takes the configuration's for its type.
        metrics_path: Its metric page, read where metrics are collected directly.
        max_concurrent_requests: Requests given to it at once; ``None`` leaves the queueing to the engine.
        is_available: Set to ``False`` to have it given no request and not counted as ready.
        is_healthy: Likewise, for whoever checks its health.

    Raises:
        InputError: the id is empty, or host and port are no address.
    """

    instance_id: str
    model_name: str = ""
    host: str = "127.0.0.1"
    port: int = 8000
    instance_type: ExecutionInstanceType = ExecutionInstanceType.GENERAL
    gpu_count: int | None = None
    metrics_path: str = "/metrics"
    max_concurrent_requests: int | None = None
    is_available: bool = True
    is_healthy: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.instance_id, str) or not self.instance_id:
            raise InputError(f"instance_id is {self.instance_id!r}; expected a name")
        if not isinstance(self.instance_type, ExecutionInstanceType):
            raise InputError(
                f"instance_type of {self.instance_id} is {self.instance_type!r}; "
                "expected an ExecutionInstanceType"
            )
        if self.max_concurrent_requests is not None and self.max_concurrent_requests < 1:
            raise InputError(
                f"max_concurrent_requests of {self.instance_id} is {self.max_concurrent_requests}; "
                "expected at least 1, or None"
            )
        check_url(f"the address of {self.instance_id}", self.metrics_url)

    @property
    def metrics_url(self) -> str:
        """The page its metrics are read from."""
        return f"http://{self.host}:{self.port}{self.metrics_path}"

    @property
    def serves(self) -> bool:
        """Whether it can be given requests."""
        return self.is_available and self.is_healthy


@dataclass(eq=False, slots=True)
class Entry:
    """One registered instance.

    Attributes:
        instance: The instance.
        number: Counts up; the newest has the highest.
        made_here: A callback of ours has just created it: all it ever counted is of this run.
        draining: It is given nothing new and goes when it has finished.
        outstanding: Tokens of what the manager has given it and it has not finished.
        running: Requests of those.
    """

    instance: ExecutionInstance
    number: int
    made_here: bool
    draining: bool = False
    outstanding: float = 0.0
    running: int = 0

    @property
    def ready(self) -> bool:
        """Whether it can be given requests."""
        return self.instance.serves and not self.draining


class Registry:
    """The instances by id, oldest first; safe to use from any thread.

    ``lock`` guards every entry as well: take it to read several, or to change one.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.ever = False
        self._entries: dict[str, Entry] = {}
        self._count = 0

    def add(self, instance: ExecutionInstance, *, made_here: bool = False) -> Entry:
        """Register an instance; the same one twice is one.

        Raises:
            InputError: another instance has its id.
        """
        with self.lock:
            found = self._entries.get(instance.instance_id)
            if found is None:
                self._count += 1
                self.ever = True
                found = Entry(instance, self._count, made_here)
                self._entries[instance.instance_id] = found
            elif found.instance is not instance:
                raise InputError(
                    f"instance '{instance.instance_id}' is registered already; expected an id of its own"
                )
            return found

    def remove(self, instance_id: str) -> ExecutionInstance:
        """Forget an instance.

        Raises:
            InputError: there is none of this id.
        """
        with self.lock:
            entry = self._entries.pop(instance_id, None)
            if entry is None:
                raise InputError(
                    f"instance '{instance_id}' is not registered{did_you_mean(instance_id, self._entries)}"
                )
            return entry.instance

    def find(self, instance: ExecutionInstance) -> Entry | None:
        """Return the entry of an instance, if it is registered."""
        with self.lock:
            found = self._entries.get(instance.instance_id)
            return found if found is not None and found.instance is instance else None

    def entries(self, pool: PoolName | None = None) -> list[Entry]:
        """Return those of a pool, or all, oldest first."""
        with self.lock:
            return [
                entry
                for entry in self._entries.values()
                if pool is None or entry.instance.instance_type.pool == pool
            ]

    def scrape_targets(self) -> list[ScrapeTarget]:
        """Return the metric pages of both pools, those of draining instances included."""
        return [
            ScrapeTarget(
                pool, entry.instance.metrics_url, entry.instance.instance_id, has_history=not entry.made_here
            )
            for entry in self.entries()
            if (pool := entry.instance.instance_type.pool) is not None
        ]
