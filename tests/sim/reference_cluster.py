"""What the reference simulator's cluster is made of: jobs, instances, hand-offs, pools.

Rules are numbered as in DESIGN section 5. Times are seconds, sizes are tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Generic, TypeVar

from reference_records import PoolCounts

if TYPE_CHECKING:
    from reference_records import Request, State


@dataclass(slots=True, eq=False)
class Job:
    """A request on its way."""

    request: Request
    state: State = "unfinished"
    produced: int = 0  # output tokens so far
    restored: int = 0  # those of them that prefill computes again after a crash (rule 12)
    restarts: int = 0
    first_token_s: float | None = None
    done_s: float | None = None
    prefill: PrefillInstance | None = None
    decode: DecodeInstance | None = None
    decode_rank: float = 0.0  # its place in the decode queue, as of when it joined

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

    def take_token(self, now: float) -> None:
        """One more output token; the first and the last are remembered."""
        self.produced += 1
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


@dataclass(slots=True, eq=False)
class Instance:
    """What prefill and decode instances have in common: a queue and a life."""

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

    @property
    def ready_due_s(self) -> float:
        """When a STARTING instance becomes READY."""
        return self.launch_s + self.startup_s

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


@dataclass(slots=True, eq=False)
class PrefillInstance(Instance):
    """Takes prompts in batches (rule 3)."""

    batch: list[Job] = field(default_factory=list)  # in service
    batch_end_s: float = math.inf
    handing_off: list[Job] = field(default_factory=list)  # blocking mode: what holds it busy (rule 4)

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
            self.batch_end_s = math.inf


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

    bound: list[Job] = field(default_factory=list)  # all that it holds room for (rule 2)
    running: list[Job] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)  # all there have been, the one under way last
    step_end_s: float = math.inf

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

    def current_step_s(self, now: float) -> float:
        """The step in progress: one ending now still is, one starting now not yet; 0 if none (rule 4)."""
        for step in reversed(self.steps):
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


AnyInstance = TypeVar("AnyInstance", PrefillInstance, DecodeInstance)


@dataclass(slots=True, eq=False)
class Pool(Generic[AnyInstance]):
    """Instances of one kind, the queue for when none is READY, and the launches that wait for GPUs."""

    name: str
    make: type[AnyInstance]
    gpus_per_instance: int
    round_robin: bool
    turns: int = 0  # round robin: requests routed so far
    instances: list[AnyInstance] = field(default_factory=list)  # all there have been; the index is the id
    queue: list[Job] = field(default_factory=list)
    waiting: int = 0
    initial: int = 0  # launches that took no startup delay

    def in_phase(self, *phases: Phase) -> list[AnyInstance]:
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

    def choose(self) -> AnyInstance | None:
        """Fewest outstanding tokens, ties to the lowest id; None if none is READY (rule 2).

        Round robin: whose latest turn is longest ago, one without any turn first.
        """
        if self.round_robin:
            chosen = min(self.in_phase(Phase.READY), key=lambda i: (i.turn, i.id), default=None)
            if chosen is not None:
                self.turns += 1
                chosen.turn = self.turns
            return chosen
        return min(self.in_phase(Phase.READY), key=lambda i: (i.outstanding_tokens, i.id), default=None)

    def launch(self, now: float, startup_s: float) -> AnyInstance:
        """A new instance, with the next id."""
        instance = self.make(len(self.instances), now, startup_s)
        self.instances.append(instance)
        return instance

    def retarget(self, target: int, now: float) -> None:
        """Ask for more, or give up what is asked for, then what starts, then what serves (rule 6)."""
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
        idlest = sorted(self.in_phase(Phase.READY), key=lambda i: (i.outstanding_tokens, -i.id))
        for ready in idlest[:surplus]:
            ready.phase, ready.drain_s = Phase.DRAINING, now
