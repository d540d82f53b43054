"""The reference simulator: DESIGN section 5, one token at a time, in plain Python.

It is written to be read, not to be fast: every quantity is recomputed from the requests themselves, every
decode step is taken, and each rule is found by its number ("rule 5" is DESIGN 5.5; "rule 9 (3)" is the third
thing of an instant). The compiled kernel is held to it, request by request. Times are seconds, sizes tokens.
What goes in and comes out is in ``reference_records``, what a cluster is made of in ``reference_cluster``.

An instant is (1) decode steps end, (2) prefill batches and steps end, (3) hand-offs end, (4) instances become
READY and the pool queues are handed out, (5) arrivals, (6) timeouts, (7) idle instances form batches and
steps, (8) drained instances stop and waiting launches start; round again while anything more falls due at
that very instant; then crashes (rule 12), one by one, with (6)-(8) and another round after each; then (9) the
tick: observations, scaling actions, (8) once more; round again for what that made due.
"""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

from reference_cluster import DecodeInstance, HandOff, Job, Phase, Pool, PrefillInstance, Step, current_step_s
from reference_engine import StepInstance
from reference_memory import Memory
from reference_records import (
    Lifetime,
    Outcome,
    PoolCounts,
    Request,
    RequestOutcome,
    Snapshot,
    World,
)
from reference_router import Router
from reference_sessions import Arrivals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from reference_cluster import Instance

AnyInstance = TypeVar("AnyInstance", bound="Instance")

__all__ = ["Lifetime", "Outcome", "PoolCounts", "Request", "RequestOutcome", "Snapshot", "World", "simulate"]


class Simulation:
    """The state of one run and the rules that move it on."""

    def __init__(
        self,
        requests: Sequence[Request],
        world: World,
        initial: tuple[int, ...],
        script: Sequence[tuple[float, ...]],
        until_s: float | None,
        snapshots: Sequence[float],
        crashes: Sequence[tuple[float, str, int]],
        cold_s: float,
    ) -> None:
        assert all(a.arrival_s <= b.arrival_s for a, b in pairwise(requests))
        self.world = world
        self.jobs = [Job(request, number) for number, request in enumerate(requests)]
        self.arrivals = Arrivals(self.jobs, world)
        self.hand_offs: list[HandOff] = []  # under way, in order of start
        gpus = {
            "prefill": world.prefill_gpus,
            "decode": world.decode_gpus,
            "aggregated": world.aggregated_gpus,
        }
        self.pools = [Pool(name, self.maker(name), gpus[name]) for name in world.pool_names]
        self.entry = self.pools[0]  # where requests arrive
        self.routers = {pool.name: self.router(pool) for pool in self.pools}
        self.script = sorted(script, key=lambda action: action[0])  # what is left of it
        self.snapshot_times = sorted(snapshots)  # what is left of them
        self.crashes = sorted(crashes, key=lambda crash: crash[0])  # what is left of them
        self.cold_s = cold_s
        self.snapshots: list[Snapshot] = []
        self.until_s = until_s or 0.0
        for pool, size in zip(self.pools, initial, strict=True):  # rule 8: READY at 0
            for _ in range(size):
                instance = pool.launch(0.0, 0.0)
                instance.phase, instance.ready_s = Phase.READY, 0.0
            pool.initial = size
        self.gpu_history = [(0.0, self.gpus_in_use)]

    def maker(self, pool: str) -> Callable[[int, float, float], Instance]:
        """What makes an instance of the pool: by its scheduler (section 1)."""
        world = self.world
        engine = world.engines.get(pool)
        if engine is None:
            if pool == "prefill":
                return PrefillInstance
            return lambda *life: DecodeInstance(*life, max_kv_tokens=world.max_kv_tokens)
        unlimited = engine.max_kv_tokens is None
        blocks = math.inf if unlimited else engine.max_kv_tokens // engine.block_tokens
        return lambda *life: StepInstance(
            *life,
            role=pool,
            engine=engine,
            memory=Memory(
                block_tokens=engine.block_tokens,
                blocks=blocks,
                caching=engine.prefix_cache and pool != "decode",
                hash_block_tokens=world.hash_block_tokens,
            ),
            first_token=world.first_token,
            policy=world.scheduling_policy,
            join_s_per_token=world.join_s_per_token if pool == "decode" else 0.0,
        )

    def router(self, pool: Pool) -> Router:
        engine = self.world.engines.get(pool.name)
        return Router(pool, self.world, 16 if engine is None else engine.block_tokens, self.jobs)

    @property
    def decode(self) -> Pool:
        return self.pools[1]

    @property
    def gpus_in_use(self) -> int:
        return sum(pool.gpus_in_use for pool in self.pools)

    def instances(self, kind: type[AnyInstance]) -> Iterator[AnyInstance]:
        """All there have been, of all pools."""
        for pool in self.pools:
            for instance in pool.instances:
                if isinstance(instance, kind):
                    yield instance

    @property
    def work_remains(self) -> bool:
        """Some request, arrived or yet to come, may still be served."""
        return any(job.state == "unfinished" for job in reversed(self.jobs))  # the last ones are last to end

    @property
    def horizon_s(self) -> float:
        """Rule 10 and section 6, as far as is known now."""
        floor_s = max(self.until_s, self.arrivals.last_start_s)
        return max([floor_s] + [job.done_s for job in self.jobs if job.done_s is not None])

    # Time

    def run(self) -> Outcome:
        """From instant to instant until nothing more can happen, or nothing more that matters (rule 10)."""
        while True:
            own = self.next_event_s()
            scripted = min(queue[0][0] if queue else math.inf for queue in (self.script, self.crashes))
            observed = self.snapshot_times[0] if self.snapshot_times else math.inf
            now = min(own, scripted, observed)
            may_proceed = self.work_remains and min(own, scripted) < math.inf
            if now == math.inf or (not may_proceed and now > self.horizon_s):
                return self.outcome()
            self.instant(now)

    def next_event_s(self) -> float:
        """The next thing due of itself: everything but observations and scaling actions."""
        times = [math.inf]
        for pool in self.pools:
            times += [instance.due_s for instance in pool.instances if instance.phase is not Phase.STOPPED]
        times += [hand_off.end_s for hand_off in self.hand_offs]
        times.append(self.arrivals.next_s)
        if self.world.request_timeout_s is not None:
            waiting = [job for queue in self.queues() for job in queue if job.first_token_s is None]
            times += [self.deadline_s(job) for job in waiting]
        return min(times)

    def instant(self, now: float) -> None:
        """Everything that happens at one time, in rule 9's order."""
        for router in self.routers.values():
            router.look(now)
        self.settle(now)
        while self.crashes and self.crashes[0][0] <= now:
            _, name, instance_id = self.crashes.pop(0)
            if self.work_remains or now <= self.horizon_s:
                self.crash(next(pool for pool in self.pools if pool.name == name), instance_id, now)
        # (9) The tick, unless the run was over before it: rule 10 leaves nothing to observe or act on.
        due = self.work_remains or now <= self.horizon_s
        while self.snapshot_times and self.snapshot_times[0] <= now:
            self.snapshot_times.pop(0)
            if due:
                self.snapshots.append(self.observe(now))
        while self.script and self.script[0][0] <= now:
            _, *targets = self.script.pop(0)
            if due:
                for pool, target in zip(self.pools, targets, strict=True):
                    pool.retarget(target, now, self.world.scale_down_choice == "least_cache_hits")
                self.start_launches(now)
                self.stop_drained(now)
                self.start_launches(now)
        self.settle(now)

    def settle(self, now: float) -> None:
        """Rule 9 (1)-(8), round and round until nothing more is due at this instant (zero-length things)."""
        while self.next_event_s() <= now:
            self.end_steps(now)
            self.end_batches(now)
            self.end_hand_offs(now)
            self.become_ready(now)
            self.arrive(now)
            self.go_on(now)

    def go_on(self, now: float) -> None:
        """Rule 9 (6)-(8), and (5) before anything is formed: who gives up lets a session in (section 6)."""
        self.time_out(now)
        while self.arrivals.next_s <= now:
            self.arrive(now)
            self.time_out(now)
        self.form_batches(now)
        self.form_steps(now)
        self.stop_drained(now)
        self.start_launches(now)

    # (1)-(3): what ends

    def end_steps(self, now: float) -> None:
        """Rule 9 (1): every running request gets one token; the finished leave and give their room back.

        Whose prompt is complete goes on to decode when all have ended, as (2) has it.
        """
        leaving = []
        for engine in self.instances(StepInstance):
            if engine.step_end_s <= now:
                stepping = list(engine.plan)
                leaving += [(job, engine) for job in engine.end_step(now)]
                for job in stepping:
                    if job.state == "done":
                        self.arrivals.answered(job, now)
        for instance in self.instances(DecodeInstance):
            if instance.step_end_s <= now:
                instance.step_end_s = math.inf
                for job in instance.running:
                    job.take_token(now)
                    if job.state == "done":
                        self.arrivals.answered(job, now)
                        instance.bound.remove(job)
                instance.running = [job for job in instance.running if job.state != "done"]
        for job, engine in leaving:
            self.leave_prefill(job, engine, now)

    def end_batches(self, now: float) -> None:
        """Rule 9 (2): first tokens (rule 3), then each request is done or goes on to decode (rules 2, 4)."""
        for instance in self.instances(PrefillInstance):
            if instance.step_end_s <= now:
                batch, instance.batch, instance.step_end_s = instance.batch, [], math.inf
                for job in batch:
                    if self.world.first_token == "prefill":
                        job.take_token(now)
                    if job.state == "done":
                        self.arrivals.answered(job, now)
                    else:
                        self.leave_prefill(job, instance, now)

    def leave_prefill(self, job: Job, instance: Instance, now: float) -> None:
        """Bind it to a decode instance, or let it wait for one in the pool's queue (rule 2)."""
        decode = self.routers["decode"].choose(job)
        if decode is None and self.is_late(job, now):
            self.give_up(job, now)  # rule 11: (4) may not hand it out before (6) could take it out
            self.release(job)
            return
        if self.world.kv_blocks_prefill:
            instance.handing_off.append(job)
        if decode is None:
            self.decode.queue.append(job)
        else:
            self.bind(job, decode, now)

    def release(self, job: Job) -> None:
        """The blocks that it held in prefill until its hand-off was over, or was not to be (section 1)."""
        if isinstance(job.prefill, StepInstance):
            job.prefill.release(job)

    def bind(self, job: Job, decode: Instance, now: float) -> None:
        """Reserve room; the hand-off starts at once, or in blocking mode when its turn comes (rule 4)."""
        assert isinstance(decode, DecodeInstance | StepInstance)
        job.decode = decode
        decode.bound.append(job)
        if self.world.kv_blocks_prefill:
            assert job.prefill is not None
            self.next_hand_off(job.prefill, now)
        else:
            self.start_hand_off(job, now)

    def next_hand_off(self, instance: Instance, now: float) -> None:
        """Blocking mode: start the first one's hand-off, if it knows where to and has not begun (rule 4)."""
        if instance.handing_off:
            job = instance.handing_off[0]
            if job.decode is not None and all(under_way.job is not job for under_way in self.hand_offs):
                self.start_hand_off(job, now)

    def start_hand_off(self, job: Job, now: float) -> None:
        """Section 4's cost; the step in progress at the receiver is looked at once, now."""
        assert isinstance(job.decode, DecodeInstance | StepInstance)
        world = self.world
        duration = world.kv_latency_s + job.prefilled_tokens * world.kv_s_per_token
        duration += world.kv_decode_steps * current_step_s(job.decode.steps, now)
        self.hand_offs.append(HandOff(job, now + duration))

    def end_hand_offs(self, now: float) -> None:
        """Rule 9 (3): in order of their start, those that start meanwhile and take no time included."""
        while ended := next((hand_off for hand_off in self.hand_offs if hand_off.end_s <= now), None):
            self.hand_offs.remove(ended)
            job = ended.job
            assert job.prefill is not None
            assert job.decode is not None
            self.release(job)
            job.decode_rank = self.decode_rank(job, now)
            if isinstance(job.decode, StepInstance):
                job.come(job.known - 1, arrived_computed=True)
                job.decode.join(job)  # if its deadline passed on the way, (6) takes it out again
            else:
                job.decode.queue.append(job)
            if self.world.kv_blocks_prefill:
                job.prefill.handing_off.remove(job)
                if isinstance(job.prefill, StepInstance):
                    job.prefill.concerned = True
                self.next_hand_off(job.prefill, now)

    # (4)-(6): what comes and what gives up

    def become_ready(self, now: float) -> None:
        """Rule 9 (4): and whatever waited for a READY instance is handed out, FCFS (rule 2)."""
        for pool in self.pools:
            for instance in pool.in_phase(Phase.STARTING):
                if instance.ready_due_s <= now:
                    instance.phase, instance.ready_s = Phase.READY, now
        while self.entry.queue and self.entry.in_phase(Phase.READY):
            self.route(self.entry.queue.pop(0))
        for pool in self.pools[1:]:
            while pool.queue and (decode := self.routers[pool.name].choose(pool.queue[0])):
                self.bind(pool.queue.pop(0), decode, now)

    def arrive(self, now: float) -> None:
        """Rule 9 (5): what can never fit is rejected at once (rule 1), the rest routed."""
        while job := self.arrivals.take(now):
            if any(self.never_fits(job, name) for name in self.world.pool_names):
                job.state = "rejected"
                self.arrivals.missed(job, now)
            else:
                job.come(job.request.cached_tokens)
                self.route(job)

    def never_fits(self, job: Job, pool: str) -> bool:
        """Rule 1; for a pool with a step scheduler in blocks, and without chunking in tokens (section 2)."""
        engine = self.world.engines.get(pool)
        if engine is None:
            limit = self.world.max_kv_tokens
            return pool == "decode" and limit is not None and job.reserved_tokens > limit
        if not engine.chunked_prefill:
            threshold = engine.long_prefill_token_threshold if engine.scheduler == "vllm" else 0
            if min(job.reserved_tokens - 1, threshold or math.inf) > engine.max_batched_tokens:
                return True
        blocks = -(-job.reserved_tokens // engine.block_tokens)
        return engine.max_kv_tokens is not None and blocks > engine.max_kv_tokens // engine.block_tokens

    def route(self, job: Job) -> None:
        """Rule 2: to a prefill or aggregated instance, or to the pool's queue if none is READY."""
        job.prefill = self.routers[self.entry.name].choose(job)
        if isinstance(job.prefill, StepInstance):
            job.prefill.join(job)
        else:
            (self.entry.queue if job.prefill is None else job.prefill.queue).append(job)

    def time_out(self, now: float) -> None:
        """Rule 9 (6): a request without its first token leaves the queue it waits in (rule 11)."""
        if self.world.request_timeout_s is None:
            return
        for queue in self.queues():
            for job in list(queue):
                if self.is_late(job, now):
                    self.give_up(job, now)
                    queue.remove(job)
                    self.release(job)
                    holder = job.decode or job.prefill
                    if isinstance(holder, StepInstance):
                        holder.memory.forget(job)
                        holder.concerned = True
                    if isinstance(job.decode, DecodeInstance | StepInstance):
                        job.decode.bound.remove(job)
                    if job.prefill is not None and job in job.prefill.handing_off:  # it waited unbound
                        job.prefill.handing_off.remove(job)
                        if isinstance(job.prefill, StepInstance):
                            job.prefill.concerned = True
                        self.next_hand_off(job.prefill, now)

    def give_up(self, job: Job, now: float) -> None:
        """Rule 11, and what that means for its session (section 6)."""
        job.state = "timed_out"
        self.arrivals.missed(job, now)

    def queues(self) -> Iterator[list[Job]]:
        """Every queue there is."""
        for pool in self.pools:
            yield pool.queue
            for instance in pool.instances:
                yield instance.queue

    def deadline_s(self, job: Job) -> float:
        timeout = self.world.request_timeout_s
        return math.inf if timeout is None or job.arrival_s is None else job.arrival_s + timeout

    def is_late(self, job: Job, now: float) -> bool:
        return job.first_token_s is None and self.deadline_s(job) <= now

    # (7)-(8): what starts and what stops

    def form_batches(self, now: float) -> None:
        """Rule 9 (7), prefill: queued prompts in order up to the token limit, one at least (rule 3)."""
        for instance in self.instances(PrefillInstance):
            if instance.is_free and instance.queue:
                by_slack = self.orders_by_slack(instance)
                ordered = sorted(instance.queue, key=lambda job: self.prefill_rank(job, by_slack, now))
                batch = ordered[:1]
                for job in ordered[1:]:
                    joined = [*batch, job]
                    tokens = [one.computed_tokens for one in joined]
                    if sum(tokens) > self.world.max_batch_tokens:
                        break
                    ends_s = now + self.world.prefill_batch_s(tokens)
                    if by_slack and any(ends_s > self.to_meet_s(one, now) for one in joined):
                        break
                    batch = joined
                tokens = [job.computed_tokens for job in batch]
                instance.batch, instance.queue = batch, [job for job in instance.queue if job not in batch]
                instance.step_end_s = now + self.world.prefill_batch_s(tokens) + instance.cold_s
                instance.cold_s = 0.0

    # Which of those that wait is first (scheduling policies)

    def due_s(self, job: Job) -> float:
        """When its next token is due: the first by the TTFT target, each later one an ITL on."""
        if job.first_token_s is None:
            return job.by_arrival[0] + self.world.target_ttft_s
        return job.first_token_s + job.produced * self.world.target_itl_s

    def latest_start_s(self, job: Job) -> float:
        """By when its prefill must begin, alone, for its next token to be in time."""
        if isinstance(job.prefill, StepInstance):
            chunk = (job.known - job.computed, job.computed)
            return self.due_s(job) - job.prefill.engine.step_s(0, 0, job.known, [chunk])
        return self.due_s(job) - self.world.prefill_batch_s([job.computed_tokens])

    def can_only_miss(self, job: Job, now: float) -> bool:
        """Whether its first token can no longer be in time."""
        return job.first_token_s is None and self.latest_start_s(job) < now

    def to_meet_s(self, job: Job, now: float) -> float:
        """The first-token deadline that a batch with it must meet; inf where there is none or no hope."""
        has_none = job.first_token_s is not None or self.can_only_miss(job, now)
        return math.inf if has_none else self.due_s(job)

    def orders_by_slack(self, instance: Instance) -> bool:
        """adaptive: where more waits than one batch, or step, takes."""
        if isinstance(instance, StepInstance):
            waiting_tokens = sum(job.known - job.computed for job in instance.queue)
            overloaded = waiting_tokens > instance.engine.max_batched_tokens
        else:
            waiting_tokens = sum(job.computed_tokens for job in instance.queue)
            overloaded = waiting_tokens > self.world.max_batch_tokens
        policy = self.world.scheduling_policy
        return policy == "slo_aware" or (policy == "adaptive" and overloaded)

    def prefill_rank(self, job: Job, by_slack: bool, now: float) -> tuple[bool, int, float]:
        """The lowest first, and of equals the one that joined the queue first."""
        priority = job.request.priority if self.world.scheduling_policy in ("priority", "adaptive") else 0
        if not by_slack:
            return False, priority, 0.0
        hopeless = self.can_only_miss(job, now)
        return hopeless, priority, 0.0 if hopeless else self.latest_start_s(job)

    def decode_rank(self, job: Job, now: float) -> float:
        """As above; judged once, when it joins the queue."""
        if self.world.scheduling_policy != "slo_aware":
            return 0.0 if self.world.scheduling_policy == "fifo" else job.request.priority
        due_s = self.due_s(job)
        return math.inf if job.first_token_s is None and due_s < now else due_s

    def order_queue(self, instance: StepInstance, now: float) -> None:
        """Section 2.2: pre-empted ones first; by ``priority`` they stand by that, as all others."""
        policy = self.world.scheduling_policy
        by_slack = instance.role != "decode" and self.orders_by_slack(instance)

        def rank(job: Job) -> tuple[bool, int, float]:
            if instance.role == "decode":
                return False, 0, job.decode_rank
            return self.prefill_rank(job, by_slack, now)

        if policy == "priority":
            instance.queue.sort(key=lambda job: (job.request.priority, instance.places[job]))
        else:
            front = [job for job in instance.queue if job.pre_empted]
            others = [job for job in instance.queue if not job.pre_empted]
            others.sort(key=lambda job: (rank(job), instance.places[job]))
            instance.queue = front + others

    def form_steps(self, now: float) -> None:
        """Rule 9 (7), decode: join in order while there are slots and room, then step (rule 5)."""
        for engine in self.instances(StepInstance):
            if engine.is_free and engine.concerned and (engine.queue or engine.running):
                engine.begin_step(now, lambda instance: self.order_queue(instance, now))
        for instance in self.instances(DecodeInstance):
            if instance.step_end_s < math.inf:
                continue
            joined_tokens = 0
            instance.queue.sort(
                key=lambda job: job.decode_rank
            )  # stable: of equals the one that joined first
            while instance.queue and self.fits(instance.queue[0], instance):
                job = instance.queue.pop(0)
                instance.running.append(job)
                joined_tokens += job.prefilled_tokens
            if instance.running:
                n, held = len(instance.running), sum(job.held_tokens for job in instance.running)
                longest = max(job.held_tokens for job in instance.running)
                duration = self.world.step_s(n, held) + self.world.spread_s(n) * (n * longest - held) / n
                extra = self.world.join_s_per_token * joined_tokens + instance.cold_s
                instance.cold_s = 0.0
                step = Step(now, duration + extra)
                instance.steps.append(step)
                instance.step_end_s = step.end_s

    def fits(self, job: Job, instance: DecodeInstance) -> bool:
        """Rule 5: a slot is free, and the room promised to the running ones and to it is there."""
        world = self.world
        promised = sum(other.reserved_tokens for other in [*instance.running, job])
        has_slot = len(instance.running) < world.max_num_seqs
        return has_slot and (world.max_kv_tokens is None or promised <= world.max_kv_tokens)

    def stop_drained(self, now: float) -> None:
        """Rule 9 (8): DRAINING instances with nothing left stop and free their GPUs (rule 6)."""
        for pool in self.pools:
            for instance in pool.in_phase(Phase.DRAINING):
                if instance.is_empty:
                    instance.phase, instance.stop_s = Phase.STOPPED, now

    def start_launches(self, now: float) -> None:
        """Rule 9 (8): waiting launches start where GPUs are free (rule 6).

        GPUs go one launch at a time to the pool that misses the largest share of its size, decode on a tie;
        a launch that does not fit is passed over. Those of one instant are numbered prefill first.
        """
        free = self.world.max_gpus - self.gpus_in_use
        pools = self.pools[::-1]
        begun = {pool.name: 0 for pool in pools}
        while fitting := [
            pool for pool in pools if pool.waiting > begun[pool.name] and pool.gpus_per_instance <= free
        ]:
            # Of equals, max takes the first: decode.
            pool = max(fitting, key=lambda pool: Fraction(pool.waiting - begun[pool.name], pool.asked))
            begun[pool.name] += 1
            free -= pool.gpus_per_instance
        delays = self.world.startup_delays_s
        for pool in self.pools:
            for _ in range(begun[pool.name]):
                pool.waiting -= 1
                number = len(pool.instances) - pool.initial
                pool.launch(now, delays[number % len(delays)]).cold_s = self.cold_s
                self.gpu_history.append((now, self.gpus_in_use))

    # Faults

    def crash(self, pool: Pool, instance_id: int, now: float) -> None:
        """Rule 12: what it held is routed again by arrival; another launch replaces it unless it drained."""
        instance = next(
            (i for i in pool.instances if i.id == instance_id and i.phase is not Phase.STOPPED), None
        )
        if instance is None:
            return
        pool.waiting += instance.phase is not Phase.DRAINING
        instance.phase, instance.stop_s = Phase.STOPPED, now
        lost = instance.held
        if not isinstance(instance, StepInstance):
            lost.sort(key=lambda job: job.by_arrival)
        self.hand_offs = [hand_off for hand_off in self.hand_offs if hand_off.job not in lost]
        for job in lost:
            self.release(job)
        for other in self.pools:
            for holder in other.instances:
                holder.forget(lost)
            if other is not self.entry:
                other.queue = [job for job in other.queue if job not in lost]
        for prefill in self.entry.in_phase(Phase.READY, Phase.DRAINING):
            self.next_hand_off(prefill, now)
        for job in lost:
            if self.is_late(job, now):
                self.give_up(job, now)  # rule 11
            else:
                job.restart()
                self.route(job)
        self.start_launches(now)
        self.go_on(now)
        self.settle(now)

    # What is seen

    def observe(self, now: float) -> Snapshot:
        """Rule 7: everything is counted anew from the requests and the pools."""
        arrived = [job for job in self.jobs if job.arrival_s is not None]
        times = [(job, *job.by_arrival[:1], job.first_token_s, job.done_s) for job in arrived]
        ttfts = [first - arrival for _, arrival, first, _ in times if first is not None]
        completed = [
            (job.request, arrival, first, last)
            for job, arrival, first, last in times
            if first is not None and last is not None
        ]
        itls = [(last - first) / (r.osl - 1) for r, _, first, last in completed if r.osl > 1]
        running = [
            [
                job
                for i in pool.instances
                for job in (i.batch if isinstance(i, PrefillInstance) else i.running)
            ]
            for pool in self.pools
        ]
        at_instances = [sum(len(i.queue) for i in pool.instances) for pool in self.pools]
        queued = [len(pool.queue) + here for pool, here in zip(self.pools, at_instances, strict=True)]
        bound = sum(len(i.bound) for pool in self.pools[1:] for i in pool.instances)
        return Snapshot(
            time_s=now,
            arrived=len(arrived),
            isl_sum=sum(job.request.isl for job in arrived),
            first_tokens=len(ttfts),
            ttft_sum=math.fsum(ttfts),
            completed=len(completed),
            osl_sum=sum(r.osl for r, *_ in completed),
            duration_sum=math.fsum(last - arrival for _, arrival, _, last in completed),
            itl_count=len(itls),
            itl_sum=math.fsum(itls),
            in_hand_off=bound - sum(at_instances[1:]) - sum(len(jobs) for jobs in running[1:]),
            kv_tokens=sum(job.held_tokens for jobs in running[1:] for job in jobs),
            queued=tuple(queued),
            running=tuple(len(jobs) for jobs in running),
            pools=tuple(pool.counts for pool in self.pools),
        )

    def outcome(self) -> Outcome:
        """Rule 10: lifetimes end at the horizon; what happened after it is no part of them."""
        horizon = self.horizon_s

        def by_horizon(time_s: float | None) -> float | None:
            return None if time_s is None or time_s > horizon else time_s

        return Outcome(
            requests=[
                RequestOutcome(
                    state="never_arrived" if job.arrival_s is None else job.state,
                    arrival_s=job.arrival_s,
                    missed_s=job.missed_s,
                    first_token_s=job.first_token_s,
                    done_s=job.done_s,
                    prefill_id=None if job.prefill is None else job.prefill.id,
                    decode_id=None if job.decode is None else job.decode.id,
                    restarts=job.restarts,
                    preemptions=job.preemptions,
                    recomputed_tokens=job.recomputed_tokens,
                    hit_tokens=job.hit_tokens or 0,
                    gaps_s=tuple(b - a for a, b in pairwise(job.token_times_s)),
                )
                for job in self.jobs
            ],
            lifetimes=[
                Lifetime(
                    pool=pool.name,
                    id=i.id,
                    launch_s=i.launch_s,
                    ready_s=by_horizon(i.ready_s),
                    drain_s=by_horizon(i.drain_s),
                    stop_s=by_horizon(i.stop_s),
                    end_s=horizon if i.stop_s is None else min(i.stop_s, horizon),
                    full_memory_s=i.full_memory_s,
                    hits_by_age=tuple(i.hits_by_age),
                )
                for pool in self.pools
                for i in pool.instances
                if i.launch_s <= horizon
            ],
            horizon_s=horizon,
            max_gpus_used=max(gpus for time_s, gpus in self.gpu_history if time_s <= horizon),
            snapshots=self.snapshots,
        )


def simulate(
    requests: Sequence[Request],
    world: World,
    initial: tuple[int, ...],
    script: Sequence[tuple[float, ...]] = (),
    until_s: float | None = None,
    snapshots: Sequence[float] = (),
    crashes: Sequence[tuple[float, str, int]] = (),
    cold_s: float = 0.0,
) -> Outcome:
    """Serve the requests, sorted by arrival, from initial (prefill, decode) instances that are READY at 0.

    Or from (aggregated,) ones, where the world has such an engine; targets are then one as well.
    ``script`` is (time_s, prefill target, decode target), each applied as that instant's tick; ``snapshots``
    are times to observe at, before a scaling action of the same time; the horizon is at least ``until_s``.
    ``crashes`` is (time_s, pool, instance id), before both; the first batch or step of an instance launched
    after 0 takes ``cold_s`` longer.
    """
    return Simulation(requests, world, initial, script, until_s, snapshots, crashes, cold_s).run()
