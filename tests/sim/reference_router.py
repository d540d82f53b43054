"""Where a request goes (DESIGN 5.2, ENGINES section 5): the READY instance of a pool whose cost is least.

What a router sees is as of the last finished step of an instance and of what was routed to it since; with
``router_staleness_s``, as of before the last multiple of that, and what was routed since.

The draw of ``kv_aware`` with a temperature is ``uniform(seed, service, request)``: splitmix64 of the seed, of
the CRC-32 of the service's name and of the request's place in the trace, one after the other; the upper 53
bits. A request has one, wherever and however often it is routed.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING

from reference_cluster import Load, Phase

if TYPE_CHECKING:
    from reference_cluster import Instance, Job, Pool
    from reference_records import World

_64_BITS = 2**64 - 1


def splitmix64(state: int) -> int:
    """The next output of Vigna's splitmix64 generator at this state."""
    z = (state + 0x9E3779B97F4A7C15) & _64_BITS
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _64_BITS
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _64_BITS
    return z ^ (z >> 31)


def uniform(seed: int, service: str, request: int) -> float:
    """In [0, 1)."""
    state = splitmix64(seed & _64_BITS)
    state = splitmix64(state ^ zlib.crc32(service.encode()))
    return (splitmix64(state ^ request) >> 11) * 2.0**-53


@dataclass(slots=True, eq=False)
class Router:
    """Of one pool."""

    pool: Pool
    world: World
    block_tokens: int
    jobs: list[Job]
    turns: int = 0  # round robin: requests routed so far
    last: dict[int, Instance] = field(default_factory=dict)  # where a session was last routed
    epoch: int = -1  # of the last snapshot
    snapshot: dict[Instance, Load] = field(default_factory=dict)
    snapshot_blocks: dict[Instance, dict[Job, int]] = field(default_factory=dict)

    def choose(self, job: Job) -> Instance | None:
        """None if no instance is READY; ties to the lowest id."""
        ready = self.pool.in_phase(Phase.READY)
        if not ready:
            return None
        chosen = self.pick(job, ready)
        self.turns += 1
        chosen.turn = self.turns
        if job.request.session_id is not None:
            self.last[job.request.session_id] = chosen
        if self.is_stale:
            self.snapshot[chosen] = self.snapshot.get(chosen, Load()) + self.dispatched(job)
        return chosen

    def pick(self, job: Job, ready: list[Instance]) -> Instance:
        strategy = self.world.routing_strategy
        if strategy == "round_robin":  # whose latest turn is longest ago, one without any turn first
            return min(ready, key=lambda i: (i.turn, i.id))
        loads = {instance: self.load(instance) for instance in ready}
        if strategy == "least_tokens":
            return min(ready, key=lambda i: (loads[i].to_compute + loads[i].to_produce, i.id))
        if strategy == "kv_aware":
            return self.by_overlap(job, loads)
        if strategy == "prefix_affinity":
            return self.by_prefix(job, loads)
        balance = {instance: self.balance(load) for instance, load in loads.items()}
        if strategy == "session_affinity":
            assert job.request.session_id is not None
            home = self.last.get(job.request.session_id)
            mean = self.world.affinity_max_load * sum(balance.values())
            if home in balance and balance[home] * len(ready) <= mean:
                return home
        return min(ready, key=lambda i: (balance[i], i.id))

    def balance(self, load: Load) -> int:
        """The cost of ``load_balanced``."""
        if self.pool.name == "aggregated":
            return 4 * load.waiting + load.running
        return load.prompt_tokens if self.pool.name == "prefill" else load.reserved_tokens

    def by_overlap(self, job: Job, loads: dict[Instance, Load]) -> Instance:
        world, block = self.world, self.block_tokens
        prompt = 0 if self.pool.name == "decode" else job.known - job.request.cached_tokens
        costs = {
            instance: world.prefill_load_scale
            * (
                load.prompt_tokens / block
                + prompt / block
                - world.overlap_credit * self.cached_blocks(instance, job)
            )
            + load.held_blocks
            for instance, load in loads.items()
        }
        least, most = min(costs.values()), max(costs.values())
        if world.router_temperature == 0:
            return min(costs, key=lambda i: (costs[i], i.id))
        spread = (most - least) * world.router_temperature
        weights = [1.0 if most == least else math.exp(-(cost - least) / spread) for cost in costs.values()]
        drawn = uniform(world.seed, world.service, job.number) * sum(weights)
        upper = accumulate(weights)
        return next(i for i, bound in zip(costs, upper, strict=True) if drawn < bound)

    def by_prefix(self, job: Job, loads: dict[Instance, Load]) -> Instance:
        longest = max(load.waiting for load in loads.values())

        def score(instance: Instance) -> float:
            load = loads[instance]
            cached = self.cached_blocks(instance, job) * self.block_tokens / job.request.isl
            queue = 1.0 if longest == 0 else 1.0 - load.waiting / longest
            return 2.0 * cached + queue + (1.0 - load.kv_usage)

        return min(loads, key=lambda i: (-score(i), i.id))

    # What it sees

    @property
    def is_stale(self) -> bool:
        return self.world.router_staleness_s > 0

    def load(self, instance: Instance) -> Load:
        if self.is_stale:
            return self.snapshot.get(instance, Load())
        return instance.load(self.block_tokens)

    def cached_blocks(self, instance: Instance, job: Job) -> int:
        if self.is_stale:
            return self.snapshot_blocks.get(instance, {}).get(job, 0)
        return instance.cached_blocks(job)

    def look(self, now: float) -> None:
        """A snapshot before anything of an instant happens, if a multiple has come since the last one."""
        epoch = int(now // self.world.router_staleness_s) if self.is_stale else -1
        if epoch > self.epoch:
            self.epoch = epoch
            seen = self.pool.in_phase(Phase.READY)
            self.snapshot = {instance: instance.load(self.block_tokens) for instance in seen}
            self.snapshot_blocks = {
                instance: {job: blocks for job in self.jobs if (blocks := instance.cached_blocks(job))}
                for instance in seen
            }

    def dispatched(self, job: Job) -> Load:
        """What one more request adds, as far as the router knows."""
        in_decode = self.pool.name == "decode"
        to_compute = 1 if in_decode else job.known - job.request.cached_tokens
        return Load(
            waiting=1,
            prompt_tokens=0 if in_decode else to_compute,
            to_compute=to_compute,
            to_produce=job.request.osl - job.produced,
            reserved_tokens=job.reserved_tokens if in_decode else 0,
        )
