"""Carries a goal out under the budget: shrink, wait until the GPUs are free, then grow.

Nothing here waits: ``advance`` does what can be done now and is called again. So a move that takes
long, or never ends, delays no later decision: a new goal replaces the old one.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sagescale.errors import SagescaleError
from sagescale.fleet import PoolCounts, Pools, Sizes, gpus_of, next_launches
from sagescale.live.actuators.protocol import Order, PoolStates

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sagescale.fleet import Fleet
    from sagescale.live.actuators.protocol import Actuator


@dataclass(frozen=True, slots=True)
class Move:
    """Something that happened on the way: an order given, refused, or a wait given up."""

    kind: str
    text: str
    order: Order | None = None


@dataclass(slots=True)
class _Removed:
    """Instances ordered to go, for an actuator that does not see them drain.

    They are taken to occupy their GPUs for ``drain_wait_s``.
    """

    drain_wait_s: float
    until: list[tuple[float, Sizes]] = field(default_factory=list)

    def beside(self, found: PoolStates, now_s: float) -> PoolStates:
        """Return the pools found with those instances, draining."""
        self.until = [item for item in self.until if item[0] > now_s]
        gone = [sum(sizes) for sizes in zip(*(sizes for _, sizes in self.until), strict=True)]
        if not gone:
            return found
        pools = found.pools.map(
            lambda pool, more: dataclasses.replace(pool, draining=pool.draining + more), gone
        )
        return dataclasses.replace(found, pools=pools)

    def add(self, before: Sizes, sizes: Sizes, now_s: float) -> None:
        """Take note of an order."""
        gone = before.map(lambda was, to: max(0, was - to), sizes)
        self.until = [item for item in self.until if item[0] > now_s]
        if any(gone):
            self.until.append((now_s + self.drain_wait_s, gone))


def next_sizes(goal: Sizes, pools: Pools, fleet: Fleet) -> Sizes:
    """Return how far towards a goal the pools may go now.

    A pool above its goal shrinks at once. A pool below it grows by what fits beside everything that
    occupies GPUs now: ready, starting, draining, and what has just been ordered to go.
    """
    occupied = gpus_of(pools.present.map(int.__add__, (pool.waiting for pool in pools)), fleet)
    free = {kind: gpus - occupied[kind] for kind, gpus in fleet.stock.items()}
    stay = pools.asked.map(min, goal)
    return stay.map(int.__add__, next_launches(goal.map(int.__sub__, stay), goal, fleet, free))


class Mover:
    """Moves one target towards the latest goal, and remembers what was last ordered.

    The planner is told, and the journal keeps goals for the next run.

    Args:
        actuator: Who acts.
        fleet: The pools it moves, and the GPUs there are.
        drain_wait_s: See ``LiveConfig``.
        scale_up_timeout_s: See ``LiveConfig``.
    """

    def __init__(
        self, actuator: Actuator, fleet: Fleet, *, drain_wait_s: float, scale_up_timeout_s: float
    ) -> None:
        self.actuator = actuator
        self.goal: Sizes | None = None
        self._fleet = fleet
        self._nothing = Sizes(*(0 for _ in fleet.pools), names=(pool.name for pool in fleet.pools))
        self.pending = self._nothing
        self.last_set: Sizes | None = None
        """What was last ordered or, where the actuator cannot say, assumed; None before that."""
        self._removed = _Removed(drain_wait_s)
        self._timeout_s = scale_up_timeout_s
        self._decision: Mapping[str, object] = {}
        self._key = ""
        self._orders = 0
        self._failed: Order | None = None
        self._growing_since_s: float | None = None
        self._stuck = False
        self._rollout = ("", 0.0)  # as last found, and since when
        self.rollout = ""
        """The rollout that is under way, in words; one that stands still for the timeout is none."""

    @property
    def moving(self) -> bool:
        """Whether part of the goal is still to be ordered."""
        return self.goal is not None and (any(self.pending) or self._failed is not None)

    def assume(self, sizes: Sizes) -> None:
        """Take the pools to have these sizes, where the actuator cannot say and nothing was ordered yet."""
        if self.last_set is None:
            self.last_set = sizes

    def states(self, now_s: float) -> PoolStates | None:
        """Return the pools, what we still mean to order counted as waiting.

        Returns:
            ``None`` where neither the actuator nor our own account knows.

        Raises:
            ActuatorError: the actuator should know but cannot find out.
        """
        found = self._found(now_s)
        if found is None:
            return None
        pools = found.pools.map(
            lambda pool, more: dataclasses.replace(pool, waiting=pool.waiting + more), self.pending
        )
        return dataclasses.replace(found, pools=pools)

    def begin(self, goal: Sizes, decision: Mapping[str, object], key: str) -> None:
        """Take on a goal in place of the one before; nothing is ordered yet."""
        if goal != self.goal:
            self._growing_since_s, self._stuck = None, False
        self.goal = goal
        self._decision, self._key, self._orders = decision, key, 0
        self._failed = None
        self.pending = self._nothing

    def release(self) -> None:
        """Forget the goal: the pools are left as they are (paused, or a dry run)."""
        self.goal, self._failed, self.pending = None, None, self._nothing
        self._growing_since_s = None

    def advance(self, now_s: float) -> tuple[list[Move], Sizes | None]:
        """Do what can be done now.

        Returns:
            What happened (failures too, which are tried again on the next call), and what the pools are to
            be from now on, ordered or still to be; None where only others know.
        """
        if self.goal is None:
            return [], None
        try:
            found = self._found(now_s)
        except SagescaleError as error:
            return [Move("state_unknown", str(error))], None
        if found is None:
            return [Move("state_unknown", f"{self.actuator.target} cannot say what there is")], None
        moves: list[Move] = []
        # A rollout may take GPUs that no count shows yet, and what it replaces is not ours to remove.
        sizes = found.asked if self.rollout else next_sizes(self.goal, found.pools, self._fleet)
        if sizes != found.asked:
            moves.append(self._order(sizes, found.asked, now_s))
        else:
            self._failed = None
        reached = found.asked if self._failed is not None else sizes
        self.pending = self.goal.map(lambda to, at: max(0, to - at), reached)
        moves.extend(self._watch_growth(found, sizes, now_s))
        return moves, reached.map(int.__add__, self.pending)

    def _found(self, now_s: float) -> PoolStates | None:
        found = self.actuator.states()
        if found is None:
            if self.last_set is None:
                return None
            pools = Pools(*map(PoolCounts, self.last_set), names=self.last_set.names)
            return self._removed.beside(PoolStates(pools, counted=False, draining_seen=False), now_s)
        if found.rollout != self._rollout[0]:
            self._rollout = (found.rollout, now_s)
        self.rollout = found.rollout if now_s - self._rollout[1] < self._timeout_s else ""
        return found if found.draining_seen else self._removed.beside(found, now_s)

    def _order(self, sizes: Sizes, current: Sizes, now_s: float) -> Move:
        order = self._failed
        if order is None or order.sizes != sizes:
            self._orders += 1
            order = Order(f"{self._key}-{self._orders}", sizes, current, self._decision)
        try:
            self.actuator.carry_out(order)
        except SagescaleError as error:
            self._failed = order
            return Move("order_failed", str(error), order)
        self._failed = None
        self._removed.add(current, sizes, now_s)
        self.last_set = sizes
        return Move(
            "order",
            ", ".join(
                f"{pool} {was} -> {to}" for (pool, was), to in zip(current.items(), sizes, strict=True)
            ),
            order,
        )

    def _watch_growth(self, found: PoolStates, sizes: Sizes, now_s: float) -> list[Move]:
        growing = any(self.pending) or any(
            pool.starting + pool.waiting > 0 or size > pool.asked
            for pool, size in zip(found.pools, sizes, strict=True)
        )
        if not growing:
            self._growing_since_s, self._stuck = None, False
            return []
        if self._growing_since_s is None:
            self._growing_since_s = now_s
        if self._stuck or now_s - self._growing_since_s < self._timeout_s:
            return []
        self._stuck = True
        missing = ", ".join(
            f"{pool} {counts.ready} of {size} ready"
            for (pool, counts), size in zip(found.pools.items(), self.goal or sizes, strict=True)
        )
        self.goal, self.pending = sizes, self._nothing
        return [Move("scale_up_stuck", f"not complete after {self._timeout_s:g} s: {missing}")]
