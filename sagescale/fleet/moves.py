"""How pools move under limits and stock: each rule once.

The simulator's compiled kernel has ``next_launches`` and ``resize`` again; tests hold it to these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sagescale.fleet.by_pool import PoolCounts, Sizes
    from sagescale.fleet.model import Fleet


def gpus_of(sizes: Sequence[int], fleet: Fleet) -> dict[str, int]:
    """Return the GPUs by type that sizes take."""
    taken = dict.fromkeys(fleet.stock, 0)
    for size, pool in zip(sizes, fleet.pools, strict=True):
        taken[pool.gpu_type] += size * pool.gpus
    return taken


def within_limits(asked: Sizes, fleet: Fleet) -> Sizes:
    """Bring every size between its pool's least and most."""
    return asked.map(lambda size, pool: pool.within(size), fleet.pools)


def fit(asked: Sizes, fleet: Fleet) -> Sizes:
    """Fit sizes that are not below the pools' least into the stock.

    Above the least all pools of a type of GPU shrink in proportion to what they asked for. Instances are
    whole, so they are handed out one by one to the pool that is furthest behind its share (the k-th of the e
    asked for above the least is due at (k - 1/2)/e: Webster's method, which for two pools is largest
    remainder; ties go to the later pool). One that no longer fits is passed over and smaller ones still fill
    the rest. So no pool gets more than it asked for, no GPU lies idle that an asked-for instance would fit
    in, and a larger stock never uses fewer GPUs.
    """
    pools = fleet.pools
    free = _free(asked, fleet)
    if all(left >= 0 for left in free.values()):
        return asked
    got = [pool.least for pool in pools]
    free = _free(got, fleet)
    extra = [size - pool.least for size, pool in zip(asked, pools, strict=True)]

    def due(at: int) -> tuple[float, int]:
        return (2 * (got[at] - pools[at].least) + 1) / extra[at], -at

    while open_pools := [
        at
        for at, pool in enumerate(pools)
        if got[at] - pool.least < extra[at] and pool.gpus <= free[pool.gpu_type]
    ]:
        at = min(open_pools, key=due)
        got[at] += 1
        free[pools[at].gpu_type] -= pools[at].gpus
    return asked.map(lambda _, size: size, got)


def grow(wanted: Sizes, current: Sizes, fleet: Fleet) -> Sizes:
    """Fit sizes into limits and stock without taking an instance that is wanted away for it.

    What is there and wanted stays, limits and stock or not; growth takes what is left (``next_launches``).
    """
    base = current.map(min, wanted)
    goal = base.map(max, within_limits(wanted, fleet))
    more = next_launches(goal.map(int.__sub__, base), goal, fleet, _free(base, fleet))
    return base.map(int.__add__, more)


def next_launches(missing: Sizes, goal: Sizes, fleet: Fleet, free: Mapping[str, int]) -> Sizes:
    """Return how many instances of each pool may be launched with the GPUs that are free now.

    One by one, each for the pool that misses the largest share of its goal, the later one on a tie (so decode
    before prefill); one that does not fit is passed over. This is who gets GPUs first, live and simulated.

    Args:
        missing: instances asked for that have not been launched.
        goal: the sizes the pools are to have, those included.
        fleet: how many GPUs of which type an instance takes.
        free: GPUs by type that are free; below zero nothing is launched.
    """
    pools, free = fleet.pools, dict(free)
    left, begun = list(missing), [0] * len(missing)

    def behind(at: int) -> tuple[float, int]:
        return left[at] / goal[at], at

    while fitting := [
        at for at, pool in enumerate(pools) if left[at] > 0 and pool.gpus <= free[pool.gpu_type]
    ]:
        at = max(fitting, key=behind)
        left[at] -= 1
        begun[at] += 1
        free[pools[at].gpu_type] -= pools[at].gpus
    return missing.map(lambda _, count: count, begun)


class Change(NamedTuple):
    """What a new target makes of a pool: launches asked for, and what of it is to go."""

    launch: int = 0
    withdraw: int = 0
    cancel: int = 0
    drain: int = 0

    def applied(self, pool: PoolCounts, room: int) -> PoolCounts:
        """Return the pool just after, where free GPUs suffice for ``room`` launches."""
        waiting = pool.waiting + self.launch - self.withdraw
        shrinks = self.withdraw or self.cancel or self.drain
        begin = 0 if shrinks else max(0, min(room, waiting))
        return type(pool)(
            pool.ready - self.drain,
            pool.starting - self.cancel + begin,
            pool.draining + self.drain,
            waiting - begin,
        )


def resize(pool: PoolCounts, target: int) -> Change:
    """Return what brings a pool to a target, which counts ready, starting and waiting.

    Shrinking withdraws launches that wait, then cancels what starts (the newest first), then drains what is
    ready (the least busy first).
    """
    surplus = pool.asked - target
    if surplus <= 0:
        return Change(launch=-surplus)
    withdraw = min(pool.waiting, surplus)
    cancel = min(pool.starting, surplus - withdraw)
    return Change(0, withdraw, cancel, min(pool.ready, surplus - withdraw - cancel))


def _free(sizes: Sequence[int], fleet: Fleet) -> dict[str, int]:
    taken = gpus_of(sizes, fleet)
    return {kind: gpus - taken[kind] for kind, gpus in fleet.stock.items()}
