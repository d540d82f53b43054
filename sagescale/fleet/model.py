"""A fleet is a value: services, their pools, and the GPUs they share."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntFlag
from typing import TYPE_CHECKING

from sagescale.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Role(IntFlag):
    """Which phases of a request an engine serves."""

    PREFILL = 1
    DECODE = 2
    AGGREGATED = PREFILL | DECODE


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """A pool: instances of one engine on one type of GPU.

    Attributes:
        name: within its service.
        role: which phases its engines serve.
        gpus: GPUs an instance takes.
        least, most: instances it may have.
        gpu_type: which stock they are taken from.
        profile: what its engines can do, by name; "" where that is given otherwise.
    """

    name: str
    role: Role
    gpus: int
    least: int
    most: int
    gpu_type: str = "gpu"
    profile: str = ""

    def within(self, size: int) -> int:
        """Bring a size between the least and the most."""
        return min(max(size, self.least), self.most)


@dataclass(frozen=True, slots=True)
class Service:
    """A model that is served: its pools and what it owes.

    Attributes:
        name: within the fleet.
        pools: all of prefill, then all of decode; or aggregated ones.
        target_ttft_ms, target_itl_ms: what it owes.
    """

    name: str
    pools: tuple[PoolSpec, ...]
    target_ttft_ms: float
    target_itl_ms: float

    @property
    def pool_names(self) -> tuple[str, ...]:
        """Its pools in order."""
        return tuple(pool.name for pool in self.pools)


def check_names(what: str, names: Sequence[str]) -> None:
    """Refuse names of which two are the same.

    Raises:
        InputError: says which.
    """
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two {what} are called {name!r}; expected names that differ")


@dataclass(frozen=True, slots=True)
class Fleet:
    """Services that share a stock of GPUs.

    Attributes:
        services: in the order that decides ties.
        stock: GPUs by type; never exceeded, draining and starting included.

    Raises:
        InputError: names that are not one of a kind, a type of GPU there is none of, or minima beyond the
            stock.
    """

    services: tuple[Service, ...]
    stock: Mapping[str, int] = field(default_factory=dict)
    pools: tuple[PoolSpec, ...] = field(init=False, repr=False, compare=False)
    """All pools in fleet order."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "pools", tuple(pool for service in self.services for pool in service.pools))
        for what, names in (
            ("services", [service.name for service in self.services]),
            *((f"pools of service {one.name!r}", one.pool_names) for one in self.services),
        ):
            check_names(what, names)
        least = dict.fromkeys(self.stock, 0)
        for pool in self.pools:
            if pool.gpu_type not in least:
                known = ", ".join(map(repr, self.stock))
                raise InputError(
                    f"pool {pool.name!r} is on GPUs of type {pool.gpu_type!r}; expected one of {known}"
                )
            least[pool.gpu_type] += pool.least * pool.gpus
        for kind, gpus in least.items():
            if gpus > self.stock[kind]:
                raise InputError(
                    f"the minima need {gpus} GPUs of type {kind!r}; expected at most the stock, "
                    f"{self.stock[kind]}"
                )
