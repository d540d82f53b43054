"""Carries a goal out under the budget: shrink, wait until the GPUs are free, then grow.

Nothing here waits: ``advance`` does what can be done now and is called again. So a move that takes
long, or never ends, holds up no later decision: a new goal replaces the old one.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sagescale.errors import SagescaleError
from sagescale.live.actuators.protocol import Order, PoolStates
from sagescale.planner import PoolCounts, Sizes
from sagescale.planner.constraints import launches

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sagescale.live.actuators.protocol import Actuator
    from sagescale.planner import AutoscalerConfig

__all__ = ["Move", "Mover", "next_sizes"]


@dataclass(frozen=True, slots=True)
class Move:
    """Something that happened on the way: an order given, refused, or a wait given up."""

    kind: str
    text: str
    order: Order | None = None


@dataclass(slots=True)
class _Books:
    """What the pools should be by our own account, for an actuator that cannot say.

    What was removed is taken to hold its GPUs for ``drain_wait_s``.
    """

    drain_wait_s: float
    sizes: Sizes | None = None
    leaving: list[tuple[float, Sizes]] = field(default_factory=list)

    def states(self, now_s: float) -> PoolStates | None:
        if self.sizes is None:
            return None
        prefill, decode = map(PoolCounts, self.sizes)
        pools = PoolStates(prefill, decode, counted=False, draining_seen=False)
        return self.with_leaving(pools, now_s)

    def with_leaving(self, found: PoolStates, now_s: float) -> PoolStates:
        self.leaving = [item for item in self.leaving if item[0] > now_s]
        prefill, decode = (
            dataclasses.replace(pool, draining=pool.draining + sum(gone[at] for _, gone in self.leaving))
            for at, pool in enumerate((found.prefill, found.decode))
        )
        return dataclasses.replace(found, prefill=prefill, decode=decode)

    def set(self, sizes: Sizes, before: Sizes, now_s: float) -> None:
        gone = Sizes(*(max(0, was - to) for was, to in zip(before, sizes, strict=True)))
        self.leaving = [item for item in self.leaving if item[0] > now_s]
        if any(gone):
            self.leaving.append((now_s + self.drain_wait_s, gone))
        self.sizes = sizes


def next_sizes(goal: Sizes, states: PoolStates, config: AutoscalerConfig) -> Sizes:
    """Return how far towards a goal the pools may go now.

    A pool above its goal shrinks at once. A pool below it grows by what fits beside everything that
    holds GPUs now: ready, starting, draining, and what has just been told to go.
    """
    gpus = Sizes(config.prefill_gpus_per_instance, config.decode_gpus_per_instance)
    asked = states.asked
    held = sum(
        size * (pool.ready + pool.starting + pool.draining + pool.waiting)
        for size, pool in zip(gpus, (states.prefill, states.decode), strict=True)
    )
    stay = Sizes(*map(min, asked, goal))
    missing = Sizes(goal.prefill - stay.prefill, goal.decode - stay.decode)
    more = launches(missing, goal, gpus, config.max_gpu_budget - held)
    return Sizes(stay.prefill + more.prefill, stay.decode + more.decode)


class Mover:
    """Moves one target towards the latest goal.

    Args:
        actuator: Who acts.
        config: Budget and GPUs an instance.
        drain_wait_s: See ``LiveConfig``.
        scale_up_timeout_s: See ``LiveConfig``.
    """

    def __init__(
        self, actuator: Actuator, config: AutoscalerConfig, *, drain_wait_s: float, scale_up_timeout_s: float
    ) -> None:
        self.actuator = actuator
        self.goal: Sizes | None = None
        self.pending = Sizes(0, 0)
        self._config = config
        self._books = _Books(drain_wait_s)
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
        if self._books.sizes is None:
            self._books.sizes = sizes

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
        return dataclasses.replace(
            found,
            prefill=_with_waiting(found.prefill, self.pending.prefill),
            decode=_with_waiting(found.decode, self.pending.decode),
        )

    def begin(self, goal: Sizes, decision: Mapping[str, object], key: str) -> None:
        """Take on a goal in place of the one before; nothing is ordered yet."""
        if goal != self.goal:
            self._growing_since_s, self._stuck = None, False
        self.goal, self._decision, self._key, self._orders = goal, decision, key, 0
        self._failed = None
        self.pending = Sizes(0, 0)

    def release(self) -> None:
        """Forget the goal: the pools are left as they are (paused, or a dry run)."""
        self.goal, self._failed, self.pending = None, None, Sizes(0, 0)
        self._growing_since_s = None

    def advance(self, now_s: float) -> tuple[list[Move], Sizes | None]:
        """Do what can be done now; failures are moves too, and are tried again on the next call.

        Returns:
            What happened, and what the pools are meant to be from now on: what was ordered and what is still
            to be. ``None`` where that is not known.
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
        sizes = found.asked if self.rollout else next_sizes(self.goal, found, self._config)
        if sizes != found.asked:
            moves.append(self._order(sizes, found.asked, now_s))
        else:
            self._failed = None
        reached = found.asked if self._failed is not None else sizes
        self.pending = Sizes(*(max(0, to - at) for to, at in zip(self.goal, reached, strict=True)))
        moves.extend(self._watch_growth(found, sizes, now_s))
        return moves, Sizes(*(at + left for at, left in zip(reached, self.pending, strict=True)))

    def _found(self, now_s: float) -> PoolStates | None:
        found = self.actuator.states()
        if found is None:
            return self._books.states(now_s)
        if found.rollout != self._rollout[0]:
            self._rollout = (found.rollout, now_s)
        self.rollout = found.rollout if now_s - self._rollout[1] < self._timeout_s else ""
        return found if found.draining_seen else self._books.with_leaving(found, now_s)

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
        self._books.set(sizes, current, now_s)
        return Move(
            "order",
            f"prefill {current.prefill} -> {sizes.prefill}, decode {current.decode} -> {sizes.decode}",
            order,
        )

    def _watch_growth(self, found: PoolStates, sizes: Sizes, now_s: float) -> list[Move]:
        growing = any(self.pending) or any(
            pool.starting + pool.waiting > 0 or size > pool.asked
            for pool, size in zip((found.prefill, found.decode), sizes, strict=True)
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
            for pool, counts, size in (
                ("prefill", found.prefill, self.goal.prefill if self.goal else sizes.prefill),
                ("decode", found.decode, self.goal.decode if self.goal else sizes.decode),
            )
        )
        self.goal, self.pending = sizes, Sizes(0, 0)
        return [Move("scale_up_stuck", f"not complete after {self._timeout_s:g} s: {missing}")]


def _with_waiting(pool: PoolCounts, more: int) -> PoolCounts:
    return PoolCounts(pool.ready, pool.starting, pool.draining, pool.waiting + more)
