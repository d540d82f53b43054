"""KV memory of one instance with a step scheduler: blocks and the prefix cache (ENGINES sections 3 and 4).

A request's ``table`` says of each engine block it holds, from its first token on, which cache unit it is
part of; None is a block of its own. A block is held, free, or idle: nobody holds it, it can still be hit, and
it is evicted when no free one is left.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reference_cluster import Job


@dataclass(slots=True, eq=False)
class Unit:
    """The full engine blocks of one trace id."""

    id: int
    blocks: int
    holders: set[Job] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class OwnBlock:
    """A full block of its own that a pre-empted request left behind; a hit for nobody else."""

    job: Job
    number: int  # from its first token on


@dataclass(slots=True, eq=False)
class Memory:
    """The blocks of one instance."""

    block_tokens: int
    blocks: float  # all there are; inf is unlimited
    caching: bool
    hash_block_tokens: int
    occupied: int = 0  # blocks that are not free: held or idle
    idle_blocks: int = 0
    units: dict[int, Unit] = field(default_factory=dict)  # by trace id
    fresh: dict[Unit, Job] = field(default_factory=dict)  # to be computed by the step that is being scheduled
    idle: dict[Unit | OwnBlock, None] = field(default_factory=dict)  # the one let go longest ago first

    def __post_init__(self) -> None:
        assert not self.caching or self.hash_block_tokens % self.block_tokens == 0

    @property
    def free(self) -> float:
        return self.blocks - self.occupied

    @property
    def held(self) -> int:
        """Distinct blocks that somebody holds."""
        return self.occupied - self.idle_blocks

    def blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.block_tokens)

    # What is known of a prompt

    def unit_end(self, job: Job, number: int) -> int:
        """The block after the last full one of its ``number``-th id; the last id may cover fewer tokens."""
        covered = min((number + 1) * self.hash_block_tokens, job.request.isl)
        return covered // self.block_tokens

    def shared_from(self, job: Job, block: int) -> list[Unit]:
        """The unit of each block that is shared, of the id that begins with this block."""
        number, within = divmod(block * self.block_tokens, self.hash_block_tokens)
        ids = job.request.hash_ids if self.caching else ()
        if within or number >= len(ids) or ids[number] not in self.units:
            return []
        unit = self.units[ids[number]]
        return [unit] * min(unit.blocks, self.unit_end(job, number) - block)

    def cached_blocks(self, job: Job) -> int:
        """How many leading blocks of its prompt are in the shared cache."""
        found = 0
        while shared := self.shared_from(job, found):
            found += len(shared)
        return found

    def look_up(self, job: Job) -> list[Unit | None]:
        """The blocks that it need not compute, from the first on; None is one it left behind itself."""
        most = (job.known - 1) // self.block_tokens  # at least one token is computed
        hits: list[Unit | None] = []
        while len(hits) < most:
            if shared := self.shared_from(job, len(hits)):
                hits += shared[: most - len(hits)]
            elif OwnBlock(job, len(hits)) in self.idle:
                hits.append(None)
            else:
                break
        return hits

    # Taking and letting go

    def admits(self, job: Job, hits: list[Unit | None], tokens: int) -> bool:
        """Whether blocks for so many tokens are to be had: hits off, what is idle of them on (section 4)."""
        idle_hits = {hit for hit in hits if hit is not None and hit in self.idle}
        idle = sum(hit.blocks for hit in idle_hits) + hits.count(None)
        need = self.blocks_for(tokens) - len(hits) + idle
        return need <= self.free + self.idle_blocks

    def admit(self, job: Job, hits: list[Unit | None]) -> None:
        """Hold the hits; what else it left behind can be no hit any more."""
        for number, hit in enumerate(hits):
            entry = OwnBlock(job, number) if hit is None else hit
            if entry in self.idle:
                self.take_up(entry)
            if hit is not None:
                hit.holders.add(job)
        job.table = hits
        self.forget(job)

    def grows(self, job: Job, tokens: int) -> bool:
        """Whether what it lacks for that many tokens is to be had."""
        lacking = self.blocks_for(tokens) - len(job.table)
        return lacking <= self.free + self.idle_blocks

    def grow(self, job: Job, tokens: int) -> None:
        """Take what it lacks: free blocks first, then the idle ones that were let go longest ago."""
        lacking = max(0, self.blocks_for(tokens) - len(job.table))
        while self.free < lacking:
            self.evict(next(iter(self.idle)))
        self.occupied += lacking
        job.table += [None] * lacking

    def lay_idle(self, entry: Unit | OwnBlock) -> None:
        self.idle[entry] = None
        self.idle_blocks += size(entry)

    def take_up(self, entry: Unit | OwnBlock) -> None:
        del self.idle[entry]
        self.idle_blocks -= size(entry)

    def evict(self, entry: Unit | OwnBlock) -> None:
        self.take_up(entry)
        self.occupied -= size(entry)
        if isinstance(entry, Unit):
            del self.units[entry.id]

    def share(self, job: Job, before: int, after: int) -> None:
        """What it computes from token ``before`` to ``after`` is found from now on, unit by unit."""
        ids = job.request.hash_ids if self.caching else ()
        # The others, which may be thousands, end before or begin after.
        ends = -(-(after + self.block_tokens) // self.hash_block_tokens)
        for number in range(before // self.hash_block_tokens, min(len(ids), ends)):
            name = ids[number]
            begin = number * self.hash_block_tokens // self.block_tokens
            end = self.unit_end(job, number)
            is_scheduled_now = before < end * self.block_tokens <= after
            if begin < end and is_scheduled_now and name not in self.units:
                assert all(entry is None for entry in job.table[begin:end])
                unit = Unit(name, end - begin, {job})
                self.units[name] = unit
                self.fresh[unit] = job
                job.table[begin:end] = [unit] * (end - begin)

    def unshare(self, job: Job) -> None:
        """It is pre-empted in the very step that was to compute these units: they are not there."""
        for unit in [unit for unit, by in self.fresh.items() if by is job]:
            assert unit.holders == {job}
            del self.fresh[unit], self.units[unit.id]
            job.table = [None if entry is unit else entry for entry in job.table]

    def let_go(self, job: Job, keep_tokens: int = 0) -> None:
        """Free what it holds, tail before head; of its own keep the full blocks of so many tokens, idle."""
        kept = keep_tokens // self.block_tokens if self.caching else 0
        for number in reversed(range(len(job.table))):
            unit = job.table[number]
            if unit is not None:
                unit.holders.discard(job)
                if not unit.holders and unit not in self.idle:
                    self.lay_idle(unit)
            elif number < kept:
                self.lay_idle(OwnBlock(job, number))
            else:
                self.occupied -= 1
        job.table = []

    def forget(self, job: Job) -> None:
        """What it left behind is free: it will not come back for it."""
        if job.preemptions:
            for entry in [entry for entry in self.idle if isinstance(entry, OwnBlock) and entry.job is job]:
                self.evict(entry)


def size(entry: Unit | OwnBlock) -> int:
    """Engine blocks."""
    return entry.blocks if isinstance(entry, Unit) else 1
