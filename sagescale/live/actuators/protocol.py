"""What an actuator is given to carry out, and what it reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from sagescale.errors import SagescaleError
from sagescale.fleet import DISAGGREGATED, STATES, PoolCounts, Pools
from sagescale.json_guard import BadJsonError, parse_json
from sagescale.live.secret import foreign_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sagescale.fleet import Sizes

MAX_INSTANCES = 100_000
"""Of one pool and state. More is no pool but a mistake, and sizes are computed with."""


class ActuatorError(SagescaleError):
    """The pools could not be scaled, or their state not be read; the message says why."""

    def __init__(self, message: str) -> None:
        super().__init__(foreign_text(message, 500))


@dataclass(frozen=True, slots=True)
class PoolStates:
    """The pools as the actuator finds them.

    Attributes:
        pools: The instances of each by state.
        counted: Whether somebody counted the instances; else it is what they were set to by our own account.
        rollout: Which pods are being replaced by those of another revision, in words; empty where none are.
        draining_seen: Whether instances on their way out are counted.
    """

    pools: Pools
    counted: bool = True
    rollout: str = ""
    draining_seen: bool = True

    @property
    def asked(self) -> Sizes:
        """The sizes the pools are meant to have."""
        return self.pools.asked


@dataclass(frozen=True, slots=True)
class Order:
    """Sizes that the pools are to have from now on.

    Attributes:
        key: The same for every attempt at one order: whoever carries it out twice does it once.
        current: The sizes before.
        decision: The decision behind it, in plain JSON types.
    """

    key: str
    sizes: Sizes
    current: Sizes
    decision: Mapping[str, object]

    def to_dict(self) -> dict[str, object]:
        """Return the order in plain JSON types, as commands and webhooks are given it."""
        return {
            "schema": "sagescale.order/v1",
            "key": self.key,
            "targets": self.sizes.as_dict(),
            "current": self.current.as_dict(),
            "decision": dict(self.decision),
        }


class Actuator(Protocol):
    """Carries orders out. Calls return or raise within ``actuator_timeout_s``."""

    @property
    def target(self) -> str:
        """What it scales, for people and for the lock: two planners of one target must not run."""

    def states(self) -> PoolStates | None:
        """Return the pools as they are; ``None`` if it has no way to know.

        Raises:
            ActuatorError: it should know but cannot find out.
        """

    def carry_out(self, order: Order) -> None:
        """Set the sizes.

        Raises:
            ActuatorError: it failed, or it is not known whether it succeeded.
        """

    def close(self) -> None:
        """Let go of connections."""


def parse_pool_states(text: bytes, source: str, names: Sequence[str] = DISAGGREGATED) -> PoolStates:
    """Read what a state command or URL answers: ``pool_states`` of a JSON text.

    Raises:
        ActuatorError: it is something else.
    """
    try:
        document = parse_json(text)
    except BadJsonError as error:
        raise ActuatorError(f"{source}: its answer is not JSON: {error}") from None
    return pool_states(document, source, names)


def pool_states(document: object, source: str, names: Sequence[str] = DISAGGREGATED) -> PoolStates:
    """Read ``{"prefill": {"ready": 2, ...}, "decode": {...}}``; counts left out are 0, ``ready`` is needed.

    Raises:
        ActuatorError: it is something else.
    """
    counts = []
    for pool in names:
        entry = document.get(pool) if isinstance(document, dict) else None
        if not isinstance(entry, dict) or "ready" not in entry:
            raise ActuatorError(f'{source}: no {pool} pool in it; expected {{"{pool}": {{"ready": N, ...}}}}')
        values = [entry.get(name, 0) for name in STATES]
        if not all(type(value) is int and 0 <= value <= MAX_INSTANCES for value in values):
            raise ActuatorError(
                f"{source}: the counts of {pool} are {repr(values)[:100]}; "
                f"expected integers from 0 to {MAX_INSTANCES}"
            )
        counts.append(PoolCounts(*values))
    return PoolStates(Pools(*counts, names=names))
