"""The registered instances, and which of them are on their way out."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sagescale.errors import InputError, did_you_mean
from sagescale.live.metrics.scrape import ScrapeTarget

if TYPE_CHECKING:
    from sagescale.control_plane.instance import ExecutionInstance, PoolName

__all__ = ["Entry", "Registry"]


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

    ``lock`` guards every entry as well: hold it to look at several, or to change one.
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
