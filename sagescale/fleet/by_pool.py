"""One entry a pool, in fleet order and by name: sizes, and instances by state."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

T = TypeVar("T")

DISAGGREGATED = ("prefill", "decode")
"""The pools that the flat keys of the configuration describe, where prefill and decode are apart."""

AGGREGATED = ("aggregated",)
"""The pool that they describe where each instance does both."""


class ByPool(tuple[T, ...]):  # noqa: SLOT001  # a tuple of any length has no room for slots
    """A tuple aligned with the pools of a fleet, which knows their names.

    It compares, unpacks and zips as the tuple it is; ``sizes["decode"]`` and ``sizes.decode`` are the entry
    of a pool by name.

    Args:
        values: an entry a pool.
        names: the pools; by default those of the flat keys.

    Raises:
        ValueError: there are not as many entries as names.
    """

    names: tuple[str, ...]

    def __new__(cls, *values: T, names: Iterable[str] = DISAGGREGATED) -> Self:  # noqa: D102  # see the class
        made = super().__new__(cls, values)
        made.names = tuple(names)
        if len(made.names) != len(made):
            raise ValueError(f"{len(values)} entries for the pools {', '.join(made.names)}")
        return made

    @classmethod
    def aligned(cls, values: Iterable[T], names: tuple[str, ...]) -> Self:
        """Make one of as many entries as names: what comes of one that was checked needs no check."""
        made = tuple.__new__(cls, values)
        made.names = names
        return made

    @classmethod
    def of(cls, entries: Mapping[str, T]) -> Self:
        """Make one of entries by name, in their order."""
        return cls(*entries.values(), names=entries)

    def __getnewargs_ex__(self) -> tuple[tuple[T, ...], dict[str, tuple[str, ...]]]:
        return tuple(self), {"names": self.names}

    def __getitem__(self, pool: object) -> T:  # type: ignore[override]  # a slice of it would have no names
        if isinstance(pool, str):
            if pool not in self.names:
                raise KeyError(f"no pool {pool!r}; expected one of {', '.join(self.names)}")
            pool = self.names.index(pool)
        return super().__getitem__(pool)  # type: ignore[no-any-return, call-overload]

    @property
    def prefill(self) -> T:
        """The entry of the pool that prefills: ``prefill``, or an aggregated service's one pool."""
        if self.names is DISAGGREGATED:
            return tuple.__getitem__(self, 0)
        return self["aggregated" if self.names == AGGREGATED else "prefill"]

    @property
    def decode(self) -> T:
        """The entry of the pool that decodes: ``decode``, or an aggregated service's one pool."""
        if self.names is DISAGGREGATED:
            return tuple.__getitem__(self, 1)
        return self["aggregated" if self.names == AGGREGATED else "decode"]

    def __repr__(self) -> str:
        entries = ", ".join(f"{name}={value!r}" for name, value in self.items())
        return f"{type(self).__name__}({entries})"

    def items(self) -> Iterable[tuple[str, T]]:
        """Return name and entry of each pool."""
        return zip(self.names, self, strict=True)

    def as_dict(self) -> dict[str, T]:
        """Return the entries by name, as documents have them."""
        return dict(self.items())

    def map(self, function: Callable[..., T], *others: Iterable[object]) -> Self:
        """Return what a function makes of each entry and those of others in its place."""
        return self.aligned([function(*entries) for entries in zip(self, *others, strict=True)], self.names)


class Sizes(ByPool[int]):
    """Instances a pool."""

    def __str__(self) -> str:
        """Say them in words: "prefill 3 and decode 4"."""
        *others, last = (f"{name} {size}" for name, size in self.items())
        return " and ".join(filter(None, (", ".join(others), last)))


@dataclass(frozen=True, slots=True)
class PoolCounts:
    """The instances of one pool by state.

    ``waiting`` are launches already asked for that have not begun (no GPUs free yet, or a crashed
    instance not yet replaced): they take no GPU, but belong to what the pool is meant to be.
    """

    ready: int
    starting: int = 0
    draining: int = 0
    waiting: int = 0

    @property
    def asked(self) -> int:
        """The size the pool is meant to have: everything asked for and not on its way out."""
        return self.ready + self.starting + self.waiting

    @property
    def present(self) -> int:
        """Instances that take GPUs."""
        return self.ready + self.starting + self.draining


STATES = tuple(state.name for state in fields(PoolCounts))
"""The states of instances, in their order."""


class Pools(ByPool[PoolCounts]):
    """The instances of each pool by state."""

    @property
    def asked(self) -> Sizes:
        """The sizes the pools are meant to have."""
        return Sizes.aligned([pool.asked for pool in self], self.names)

    @property
    def present(self) -> Sizes:
        """How many instances of each take GPUs."""
        return Sizes.aligned([pool.present for pool in self], self.names)
