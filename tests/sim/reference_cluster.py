"""What the reference simulator's cluster is made of: jobs, instances, hand-offs, pools.

Rules are numbered as in DESIGN section 5, sections are those of ENGINES; instances that go step by step are
in ``reference_engine``. Times are seconds, sizes are tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from reference_records import PoolCounts

if TYPE_CHECKING:
    from collections.abc import Callable

    from reference_memory import Unit
    from reference_records import Request, State


@dataclass(slots=True, eq=False)
class Job:
    """A request on its way."""

    request: Request
    number: int = 0  # place in the trace
    arrival_s: float | None = None  # once it has come
    missed_s: float | None = None  # when it was rejected or gave up
    state: State = "unfinished"
    produced: int = 0  # output tokens so far
    restored: int = 0  # those of them that prefill computes again after a crash (rule 12)
    restarts: int = 0
    first_token_s: float | None = None
    done_s: float | None = None
    token_times_s: list[float] = field(default_factory=list)
    prefill: Instance | None = None  # in the aggregated pool, where that is what there is
    decode: Instance | None = None
    decode_rank: float = 0.0  # its place in the decode queue, as of when it joined

    # On an instance that goes step by step
    computed: int = 0  # tokens whose KV is there
    arrived_computed: bool = False  # at a decode pool, and not pre-empted since
    table: list[Unit | None] = field(default_factory=list)  # the blocks it holds (reference_memory)
    pre_empted: bool = False  # and waiting to resume
    lost_tokens: int = 0  # computed before it was pre-empted
    seen_running: bool = False  # as of the last finished step: what routers see (section 5)
    seen_computed: int = 0
    seen_decoding: bool = False
    answering: bool = False  # it has taken a token here, or came computed, and was not pre-empted since
    preemptions: int = 0
    recomputed_tokens: int = 0
    hit_tokens: int | None = None  # of its first admission

    @property
    def by_arrival(self) -> tuple[float, int]:
        """What orders requests that have come."""
        assert self.arrival_s is not None
        return self.arrival_s, self.number

    @property
    def known(self) -> int:
        """Prompt tokens and those produced (section 2)."""
        return self.request.isl + self.produced

    def decodes(self, computed: int) -> bool:
        """Whether a step that finds so much computed counts it as a decode, not as a chunk (section 2.3)."""
        return self.known - computed == 1 and (computed >= self.request.isl or self.arrived_computed)

    @property
    def computed_tokens(self) -> int:
        """What prefill computes: cached tokens are not computed, but held and handed off (rule 1)."""
        return self.prefilled_tokens - self.request.cached_tokens

    @property
    def prefilled_tokens(self) -> int:
        """What it brings to decode: its prompt, and after a crash the tokens it had by then (rule 12)."""
        return self.request.isl + self.restored

    @property
    def reserved_tokens(self) -> int:
        """The most KV it will ever be promised (rules 1, 2, 5)."""
        return self.request.isl + self.request.osl

    @property
    def held_tokens(self) -> int:
        """KV held now: the last token produced has not been fed back yet (rule 5)."""
        return self.request.isl + self.produced - 1

    def restart(self) -> None:
        """Back to prefill, which computes what it has produced too; that stands (rule 12)."""
        self.restored = self.produced
        self.restarts += 1
        self.prefill = self.decode = None
        self.come(self.request.cached_tokens)

    def come(self, computed: int, arrived_computed: bool = False) -> None:
        """It is new to an instance, with so much computed."""
        self.computed = self.seen_computed = computed
        self.arrived_computed = self.seen_decoding = self.answering = arrived_computed
        self.seen_running = self.pre_empted = False
        self.table = []

    def take_token(self, now: float) -> None:
        """One more output token; the first and the last are remembered."""
        self.produced += 1
        self.answering = True
        self.token_times_s.append(now)
        if self.produced == 1:
            self.first_token_s = now
        if self.produced == self.request.osl:
            self.done_s, self.state = now, "done"


class Phase(Enum):
    """The lifecycle (rule 6); there is no way back."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Load:
    """What a router knows of an instance (section 5): requests, tokens, blocks."""

    waiting: int = 0  # routed and not admitted
    running: int = 0
    prompt_tokens: int = 0  # that it has yet to compute
    to_compute: int = 0
    to_produce: int = 0
    reserved_tokens: int = 0  # decode: of all that is bound to it
    held_blocks: float = 0.0  # distinct ones, of what is admitted
    kv_usage: float = 0.0

    def __add__(self, other: Load) -> Load:
        return Load(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))


@dataclass(slots=True, eq=False)
class Instance:
    """What all instances have in common: a queue and a life."""

    id: int
    launch_s: float
    startup_s: float
    phase: Phase = Phase.STARTING
    ready_s: float | None = None
    drain_s: float | None = None
    stop_s: float | None = None
    cold_s: float = 0.0  # what its next batch or step takes longer
    queue: list[Job] = field(default_factory=list)  # in order of joining
    turn: int = 0  # round robin: its latest, counted over the pool; 0 is none yet
    handing_off: list[Job] = field(default_factory=list)  # blocking mode: what holds it busy (rule 4)
    full_memory_s: float = 0.0
    hits_by_age: list[tuple[float, int, int]] = field(default_factory=list)  # age, tokens asked, hit
    step_end_s: float = math.inf  # of the batch or step in service

    @property
    def ready_due_s(self) -> float:
        """When a STARTING instance becomes READY."""
        return self.launch_s + self.startup_s

    @property
    def due_s(self) -> float:
        """When the next thing happens to it of itself."""
        return self.ready_due_s if self.phase is Phase.STARTING else self.step_end_s

    @property
    def outstanding_tokens(self) -> int:
        """What the router and a scale-down compare (rules 2 and 6)."""
        raise NotImplementedError

    @property
    def is_empty(self) -> bool:
        """Nothing left to do: a DRAINING one may stop (rule 6)."""
        raise NotImplementedError

    @property
    def held(self) -> list[Job]:
        """What a crash would throw back (rule 12)."""
        raise NotImplementedError

    def forget(self, lost: list[Job]) -> None:
        """Let go of what a crash took, here or elsewhere."""
        raise NotImplementedError

    def load(self, block_tokens: int) -> Load:
        """As of the last finished step, and of what was routed since."""
        raise NotImplementedError

    def cached_blocks(self, job: Job) -> int:
        """Blocks of its prompt that are in the prefix cache."""
        return 0

    def recent_hits(self, now: float) -> float:
        """Tokens found in the prefix cache, those of five minutes ago counted half."""
        return 0.0


@dataclass(slots=True, eq=False)
class PrefillInstance(Instance):
    """Takes prompts in batches (rule 3)."""

    batch: list[Job] = field(default_factory=list)  # in service

    @property
    def outstanding_tokens(self) -> int:
        return sum(job.computed_tokens for job in self.queue + self.batch)

    @property
    def is_free(self) -> bool:
        """May form a batch."""
        return not self.batch and not self.handing_off

    @property
    def is_empty(self) -> bool:
        return self.is_free and not self.queue

    @property
    def held(self) -> list[Job]:
        return [*self.queue, *self.batch, *self.handing_off]

    def forget(self, lost: list[Job]) -> None:
        """Let go of what a crash took, here or elsewhere."""
        self.queue, self.batch, self.handing_off = (
            [job for job in jobs if job not in lost] for jobs in (self.queue, self.batch, self.handing_off)
        )
        if not self.batch:
            self.step_end_s = math.inf

    def load(self, block_tokens: int) -> Load:
        return Load(
            waiting=len(self.queue),
            running=len(self.batch),
            prompt_tokens=self.outstanding_tokens,
            to_compute=self.outstanding_tokens,
            to_produce=sum(job.request.osl - job.produced for job in self.queue + self.batch),
        )


@dataclass(frozen=True, slots=True)
class Step:
    """One decode step."""

    start_s: float
    duration_s: float

    @property
    def end_s(self) -> float:
        return self.start_s + self.duration_s


@dataclass(slots=True, eq=False)
class DecodeInstance(Instance):
    """Continuous batching, one token a step (rule 5)."""

    max_kv_tokens: int | None = None
    bound: list[Job] = field(default_factory=list)  # all that it holds room for (rule 2)
    running: list[Job] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)  # all there have been, the one under way last

    @property
    def outstanding_tokens(self) -> int:
        return sum(job.reserved_tokens for job in self.bound)

    @property
    def is_empty(self) -> bool:
        return not self.bound

    @property
    def held(self) -> list[Job]:
        return list(self.bound)

    def forget(self, lost: list[Job]) -> None:
        """Let go of what a crash took, here or elsewhere."""
        self.queue, self.bound, self.running = (
            [job for job in jobs if job not in lost] for jobs in (self.queue, self.bound, self.running)
        )
        if not self.running:
            self.step_end_s = math.inf

    def load(self, block_tokens: int) -> Load:
        """It promises whole lengths, and counts them as blocks."""
        reserved = self.outstanding_tokens
        return Load(
            waiting=len(self.bound) - len(self.running),
            running=len(self.running),
            to_compute=len(self.bound),
            to_produce=sum(job.request.osl - job.produced for job in self.bound),
            reserved_tokens=reserved,
            held_blocks=reserved / block_tokens,
            kv_usage=0.0 if self.max_kv_tokens is None else reserved / self.max_kv_tokens,
        )

    def current_step_s(self, now: float) -> float:
        return current_step_s(self.steps, now)


def current_step_s(steps: list[Step], now: float) -> float:
    """The step in progress: one ending now still is, one starting now not yet; 0 if none (rule 4)."""
    for step in reversed(steps):
        if step.start_s < now <= step.end_s:
            return step.duration_s
        if step.end_s < now:
            break
    return 0.0


@dataclass(frozen=True, slots=True)
class HandOff:
    """KV on its way from prefill to decode (rule 4)."""

    job: Job
    end_s: float


@dataclass(slots=True, eq=False)
class Pool:
    """Instances of one kind, the queue for when none is READY, and the launches that wait for GPUs."""

    name: str
    make: Callable[[int, float, float], Instance]  # id, launch time, startup delay
    gpus_per_instance: int
    instances: list[Instance] = field(default_factory=list)  # all there have been; the index is the id
    queue: list[Job] = field(default_factory=list)
    waiting: int = 0
    initial: int = 0  # launches that took no startup delay

    def in_phase(self, *phases: Phase) -> list[Instance]:
        """Instances in any of the phases, by id."""
        return [instance for instance in self.instances if instance.phase in phases]

    @property
    def asked(self) -> int:
        """The size the pool is to have (rule 6)."""
        return len(self.in_phase(Phase.STARTING, Phase.READY)) + self.waiting

    @property
    def gpus_in_use(self) -> int:
        """GPU time runs from launch to STOPPED, draining included (rule 6)."""
        return self.gpus_per_instance * len(self.in_phase(Phase.STARTING, Phase.READY, Phase.DRAINING))

    @property
    def counts(self) -> PoolCounts:
        """For the planner."""
        return PoolCounts(
            ready=len(self.in_phase(Phase.READY)),
            starting=len(self.in_phase(Phase.STARTING)),
            draining=len(self.in_phase(Phase.DRAINING)),
            waiting=self.waiting,
        )

    def launch(self, now: float, startup_s: float) -> Instance:
        """A new instance, with the next id."""
        instance = self.make(len(self.instances), now, startup_s)
        self.instances.append(instance)
        return instance

    def retarget(self, target: int, now: float, by_hits: bool = False) -> None:
        """Ask for more, or give up what is asked for, then what starts, then what serves (rule 6).

        ``by_hits``: what serves goes by what its prefix cache has hit lately.
        """
        surplus = self.asked - target
        if surplus <= 0:
            self.waiting -= surplus
            return
        withdrawn = min(surplus, self.waiting)
        self.waiting -= withdrawn
        surplus -= withdrawn
        for instance in self.in_phase(Phase.STARTING)[::-1][:surplus]:  # newest first
            instance.phase, instance.stop_s = Phase.STOPPED, now
            surplus -= 1
        idlest = sorted(
            self.in_phase(Phase.READY),
            key=lambda i: (i.recent_hits(now) if by_hits else 0.0, i.outstanding_tokens, -i.id),
        )
        for ready in idlest[:surplus]:
            ready.phase, ready.drain_s = Phase.DRAINING, now
