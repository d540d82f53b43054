"""An instance that goes one step at a time: schedulers ``vllm`` and ``sglang`` (ENGINES sections 1-4, 7).

Written from the specification, to be read beside it. Where that leaves a choice, AMBIGUITIES says which was
made.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from reference_cluster import Instance, Load, Step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from reference_cluster import Job
    from reference_memory import Memory
    from reference_records import Engine

AMBIGUITIES = """
Steps
* `longest` (section 8) of a decode is what it holds before the step (as K), of a chunk p + c.
* After pre-empting others a running request is scheduled and the next one is looked at; only one that pre-
  empts itself ends step 1 ("then nothing more" is for that case, as in vLLM).
* `n` of a running request is settled before it pre-empts: what returns to B serves those behind it.
* One that could not begin a step tries again when something happens to it: somebody joins or gives up, or
  blocks are released.
* A step left empty by a pre-emption takes no time: the instance begins the next one at once.
* `join_ms_per_1k_tokens` lengthens the step that admits a request which arrived computed, by its isl (and
  what a crash made it bring); a cold start lengthens the first step.
* Whether a request can be a chunk of one token and not a decode is judged as of before the step (hits
  included).
* What decode steps leave is there when prefill steps that end at the same instant hand over, as when batches
  do (DESIGN 5.9).
Waiting
* Pre-empted requests stand in front in running order. Under `priority` all waiting ones stand by priority,
  then by when they joined this instance; a pre-empted one keeps that place.
* `slo_aware` and `adaptive` order a prefill or aggregated queue anew for every step; a prefill alone is one
  step with one chunk of all that is to compute; `adaptive` is overloaded when more than
  `max_batched_tokens` wait to be computed. That a batch takes nobody who would make another late is a rule
  of `batch` alone. At a decode pool: as today.
Rejection
* `isl + osl` blocks over all blocks of any pool with a step scheduler. With chunking off also `isl + osl -
  1`, capped by the threshold of `vllm`, over `max_batched_tokens`.
`sglang`
* The threshold and `reserve_full_isl` are not read. An unfinished prompt alone makes a step a prefill step.
* With `mixed_chunk` the decodes come first and are taken off the budget; a pre-emption among them forbids
  admission.
* At a decode pool those that arrive computed are no prompts: they are admitted, in order, without a prefill
  step.
Roles
* A hand-off that does not block outlives a crash of its prefill instance, and does not keep a drained one
  (as today).
* A prefill pool that does not reserve and whose hand-offs never end computes the next prompt in vain forever.
* On a crash those handing off (blocking) come first, then running, then waiting: those in front, then by when
  they joined, whatever the policy.
* `cached_tokens` are computed from the start, again after a pre-emption too; their blocks are its own.
Prefix cache
* A unit is found when the last token of its full engine blocks is scheduled; a unit of which no block is
  hit is not taken. Own blocks of a pre-empted request are evicted one by one, its last first. What of them
  is no hit at its resumption is free then; all of them when it times out.
* A unit scheduled in the very step in which its request is pre-empted (`priority`) was not computed and is
  not found; kept are the full blocks computed by earlier steps.
* Recomputed tokens are those lost less those hit, counted when it resumes.
Routing
* Admissions, hits, pre-emptions and blocks are seen when the step that makes them has ended; arrivals and
  requests that leave the queue at once. Caches are seen as they are.
* Blocks of tokens in `kv_aware` are tokens / block, not rounded. A decoding request has no outstanding
  prompt tokens. The cached blocks of a prompt are all leading ones, its last included. `batch` pools:
  blocks of reserved tokens. Who computes its prompt again decodes, to a router, from its next token on.
* Tokens to produce are osl - produced for every role. Waiting at a decode pool counts those still in hand-
  off.
* Scale-down drains by the least outstanding prompt tokens, reserved tokens, or (aggregated) `least_tokens`.
"""


@dataclass(slots=True, eq=False)
class StepInstance(Instance):
    """One step at a time; ``queue`` is what waits, pre-empted ones included."""

    role: Literal["prefill", "decode", "aggregated"] = "aggregated"
    engine: Engine = field(kw_only=True)
    memory: Memory = field(kw_only=True)
    first_token: Literal["prefill", "decode"] = "prefill"
    policy: str = "fifo"
    join_s_per_token: float = 0.0
    bound: list[Job] = field(default_factory=list)  # decode: all on their way to it or there (rule 2)
    running: list[Job] = field(default_factory=list)  # in order of admission
    handed: list[Job] = field(
        default_factory=list
    )  # prefill: done here, their blocks held until the hand-off ends
    plan: dict[Job, int] = field(default_factory=dict)  # the step under way: tokens of each request
    steps: list[Step] = field(default_factory=list)  # all there have been
    joined: int = 0  # requests that ever joined the queue
    places: dict[Job, int] = field(default_factory=dict)  # of those here: when they joined it
    seen_held: int = 0  # blocks held when the last step had ended
    had_preemption: bool = False  # in the step that is being scheduled
    was_full: bool = False  # an allocation failed in it, or the head was refused for blocks
    joined_tokens: int = 0  # brought by hand-offs that it admits
    began_s: float = 0.0  # when it last tried to begin a step
    hits: float = 0.0  # tokens that first admissions found in its cache, fading
    hits_at_s: float = 0.0  # as of then
    concerned: bool = True  # something has happened to it since it last tried to begin a step

    # What comes and goes

    def join(self, job: Job) -> None:
        """To the tail of the queue."""
        self.concerned = True
        self.joined += 1
        self.places[job] = self.joined
        self.queue.append(job)

    def release(self, job: Job) -> None:
        """Its hand-off has ended, or will not take place."""
        if job in self.handed:
            self.concerned = True
            self.handed.remove(job)
            self.memory.let_go(job)

    @property
    def is_empty(self) -> bool:
        return not (self.queue or self.running or self.bound or self.handing_off)

    @property
    def is_free(self) -> bool:
        """A step may begin."""
        return self.step_end_s == math.inf and not self.handing_off

    @property
    def held(self) -> list[Job]:
        """In the order in which a crash routes them again (section 1)."""
        in_front = [job for job in self.queue if job.pre_empted and self.policy != "priority"]
        others = sorted((job for job in self.queue if job not in in_front), key=self.places.__getitem__)
        here = [*self.handing_off, *self.running, *in_front, *others]
        return here + [job for job in self.bound if job not in here]

    def forget(self, lost: list[Job]) -> None:
        self.concerned = True
        self.queue, self.running, self.bound, self.handing_off = (
            [job for job in jobs if job not in lost]
            for jobs in (self.queue, self.running, self.bound, self.handing_off)
        )
        for job in lost:
            self.plan.pop(job, None)
            self.places.pop(job, None)
        if not self.plan:
            self.step_end_s = math.inf

    # Sections 2 and 3: a step

    def begin_step(self, now: float, order: Callable[[StepInstance], None]) -> None:
        """``order`` sorts the queue by the scheduling policy."""
        assert self.is_free
        self.began_s = now
        self.concerned = False
        self.joined_tokens = 0
        self.memory.fresh.clear()
        again = True
        while again:
            self.plan, self.had_preemption, self.was_full = {}, False, False
            if self.engine.scheduler == "vllm":
                self.continue_running(self.running, self.engine.long_prefill_token_threshold)
                self.admit_waiting(order, self.engine.long_prefill_token_threshold)
            else:
                self.schedule_prefill_first(order)
            again = not self.plan and self.had_preemption
        if self.plan:
            duration = self.duration_s() + self.join_s_per_token * self.joined_tokens + self.cold_s
            self.cold_s = 0.0
            self.steps.append(Step(now, duration))
            self.step_end_s = self.steps[-1].end_s

    def schedule_prefill_first(self, order: Callable[[StepInstance], None]) -> None:
        """``sglang``: prompts while there are any that fit, else decodes; with ``mixed_chunk`` both."""
        if self.role == "decode":
            order(self)
            self.admit_computed()
        decoding = [job for job in self.running if job.decodes(job.computed)]
        if self.engine.mixed_chunk:
            self.continue_running(decoding, 0)
        self.continue_running([job for job in self.running if job not in decoding], 0)
        self.admit_waiting(order, 0)
        if not self.plan and not self.had_preemption:
            self.continue_running(decoding, 0)

    @property
    def budget(self) -> int:
        """What is left of it in this step."""
        return self.engine.max_batched_tokens - sum(self.plan.values())

    def continue_running(self, eligible: Iterable[Job], threshold: int) -> None:
        """Section 2.1, for those of the running ones that are eligible."""
        for job in list(eligible):
            if self.budget <= 0:
                return
            if job not in self.running:  # pre-empted by one before it
                continue
            tokens = min(job.known - job.computed, self.budget, threshold or math.inf)
            while not self.memory.grows(job, job.computed + tokens):
                self.was_full = True
                victim = self.victim()
                self.pre_empt(victim)
                if victim is job:
                    return
            self.schedule(job, tokens)

    def schedule(self, job: Job, tokens: int) -> None:
        self.memory.grow(job, job.computed + tokens)
        self.memory.share(job, job.computed, job.computed + tokens)
        self.plan[job] = tokens

    def victim(self) -> Job:
        """Section 3: the last in running order, or by ``priority`` the largest (priority, arrival)."""
        if self.policy != "priority":
            return self.running[-1]
        return max(self.running, key=lambda job: (job.request.priority, job.by_arrival))

    def pre_empt(self, job: Job) -> None:
        """Section 3: by recompute; what it was scheduled in this step returns to the budget."""
        self.had_preemption = True
        self.plan.pop(job, None)
        self.running.remove(job)
        self.memory.unshare(job)
        self.memory.let_go(job, job.computed)
        job.preemptions += 1
        job.lost_tokens = job.computed
        job.computed = job.request.cached_tokens if self.role != "decode" else 0
        job.arrived_computed = job.answering = False
        job.pre_empted = True
        self.queue.insert(0, job)

    def admit_waiting(self, order: Callable[[StepInstance], None], threshold: int) -> None:
        """Section 2.2."""
        engine = self.engine
        if self.had_preemption:
            return
        order(self)
        while self.queue and self.budget > 0 and len(self.running) < engine.max_num_seqs:
            job = self.queue[0]
            hits = [] if job.arrived_computed else self.memory.look_up(job)
            computed = max(job.computed, len(hits) * engine.block_tokens)
            tokens = min(job.known - computed, threshold or math.inf)
            if not engine.chunked_prefill and tokens > self.budget:
                return
            tokens = min(tokens, self.budget)
            reserves = engine.reserve_full_isl or engine.scheduler == "sglang"
            if not self.memory.admits(job, hits, job.known if reserves else computed + tokens):
                self.was_full = True
                return
            self.admit(job, hits, computed)
            self.schedule(job, tokens)

    def admit_computed(self) -> None:
        """``sglang`` at a decode pool: what arrived computed runs, and decodes when decodes do."""
        while self.queue and self.queue[0].arrived_computed and len(self.running) < self.engine.max_num_seqs:
            job = self.queue[0]
            if not self.memory.admits(job, [], job.known):
                self.was_full = True
                return
            self.admit(job, [], job.computed)
            self.memory.grow(job, job.known)

    def admit(self, job: Job, hits: list, computed: int) -> None:
        self.queue.remove(job)
        self.running.append(job)
        self.memory.admit(job, hits)
        if job.arrived_computed:
            self.joined_tokens += job.prefilled_tokens
        if job.hit_tokens is None and self.role != "decode":
            job.hit_tokens = len(hits) * self.engine.block_tokens
            if self.engine.prefix_cache:
                self.hits = self.recent_hits(self.began_s) + job.hit_tokens
                self.hits_at_s = self.began_s
                self.hits_by_age.append(
                    (self.began_s - (self.ready_s or 0.0), job.request.isl, job.hit_tokens)
                )
        if job.pre_empted:
            job.recomputed_tokens += max(0, job.lost_tokens - computed)
            job.pre_empted = False
        job.computed = computed

    def duration_s(self) -> float:
        """Section 2.3."""
        decodes = [job for job in self.plan if job.decodes(job.computed)]
        chunks = [(tokens, job.computed) for job, tokens in self.plan.items() if job not in decodes]
        contexts = [job.computed for job in decodes] + [tokens + computed for tokens, computed in chunks]
        held = sum(job.computed for job in decodes)
        return self.engine.step_s(len(decodes), held, max(contexts), chunks)

    def end_step(self, now: float) -> list[Job]:
        """Section 2.4: those that leave for decode, in running order."""
        if self.was_full:
            self.full_memory_s += self.steps[-1].duration_s
        self.concerned = True
        self.step_end_s = math.inf
        leaving = []
        for job in [job for job in self.running if job in self.plan]:
            job.computed += self.plan[job]
            if job.computed < job.known:
                continue
            if self.role != "prefill" or self.first_token == "prefill":
                job.take_token(now)
            if job.state == "done":
                self.memory.let_go(job)
            elif self.role == "prefill":
                leaving.append(job)
        self.handed += leaving
        self.plan = {}
        self.running = [job for job in self.running if job.state != "done" and job not in leaving]
        self.bound = [job for job in self.bound if job.state != "done"]
        for seen in (self.running, self.queue):
            for job in seen:
                job.seen_running = seen is self.running
                job.seen_computed = job.computed
                job.seen_decoding = job.answering
        self.seen_held = self.memory.held
        return leaving

    def recent_hits(self, now: float) -> float:
        return self.hits * 0.5 ** ((now - self.hits_at_s) / 300.0)

    # What routers see

    def cached_blocks(self, job: Job) -> int:
        return self.memory.cached_blocks(job)

    @property
    def outstanding_tokens(self) -> int:
        """What a scale-down compares (rule 6)."""
        if self.role == "decode":
            return sum(job.reserved_tokens for job in self.bound)
        load = self.load(self.engine.block_tokens)
        return load.prompt_tokens if self.role == "prefill" else load.to_compute + load.to_produce

    def load(self, block_tokens: int) -> Load:
        here = [*self.running, *self.queue]
        coming = [job for job in self.bound if job not in here]  # in hand-off: nothing but the next token
        running = sum(job.seen_running for job in here)
        return Load(
            waiting=len(here) - running + len(coming),
            running=running,
            prompt_tokens=sum(job.known - job.seen_computed for job in here if not job.seen_decoding),
            to_compute=sum(job.known - job.seen_computed for job in here) + len(coming),
            to_produce=sum(job.request.osl - job.produced for job in here + coming),
            reserved_tokens=sum(job.reserved_tokens for job in self.bound),
            held_blocks=self.seen_held,
            kv_usage=0.0 if self.memory.blocks == math.inf else self.seen_held / self.memory.blocks,
        )
