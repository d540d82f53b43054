"""What holds of every run of the step-by-step reference, whatever the engines, caches, routers and faults."""

from __future__ import annotations

import math
from collections import Counter

from agg_scenarios import Scenario, scenarios
from hypothesis import HealthCheck, event, given, settings
from reference import Outcome, Simulation
from reference_cluster import Phase
from reference_engine import StepInstance
from reference_memory import OwnBlock

_MANY = settings(
    max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


class Checked(Simulation):
    """Every block and every request is looked for after every instant."""

    def instant(self, now: float) -> None:
        super().instant(now)
        for instance in self.instances(StepInstance):
            if instance.phase is not Phase.STOPPED:
                self.check_memory(instance)
        self.check_requests()

    def check_memory(self, instance: StepInstance) -> None:
        memory = instance.memory
        holders = instance.running + instance.handed
        assert all(job.table == [] for job in instance.queue)
        own = sum(job.table.count(None) for job in holders)
        held = {unit for job in holders for unit in job.table if unit is not None}
        assert all(
            unit.holders == {job for job in holders if unit in job.table} for unit in memory.units.values()
        )
        assert held == {unit for unit in memory.units.values() if unit.holders}
        assert held.isdisjoint(memory.idle)
        idle = {unit for unit in memory.units.values() if not unit.holders}
        left = [entry for entry in memory.idle if isinstance(entry, OwnBlock)]
        assert all(entry.job in instance.queue and entry.job.pre_empted for entry in left)
        assert memory.idle.keys() == idle | set(left)
        assert memory.idle_blocks == sum(unit.blocks for unit in idle) + len(left)
        assert memory.held == own + sum(unit.blocks for unit in held)
        assert memory.occupied <= memory.blocks
        for job in instance.running:
            tokens = job.computed + instance.plan.get(job, 0)
            assert len(job.table) == memory.blocks_for(tokens) or instance.engine.scheduler == "sglang"
        assert len(instance.running) <= instance.engine.max_num_seqs
        assert sum(instance.plan.values()) <= instance.engine.max_batched_tokens

    def check_requests(self) -> None:
        places = Counter(job for queue in self.queues() for job in queue)
        for pool in self.pools:
            for instance in pool.instances:
                places.update(getattr(instance, "running", []))
                places.update(getattr(instance, "batch", []))
        places.update(hand_off.job for hand_off in self.hand_offs)
        waits_for_turn = [
            job
            for pool in self.pools
            for instance in pool.instances
            for job in instance.handing_off
            if job.decode is not None and all(hand_off.job is not job for hand_off in self.hand_offs)
        ]
        places.update(waits_for_turn)
        for job in self.jobs:
            if job.arrival_s is not None:
                assert places[job] == (job.state == "unfinished")


def ran(scenario: Scenario) -> Outcome:
    return Checked(
        scenario.requests,
        scenario.world,
        scenario.initial,
        scenario.script,
        scenario.until_s,
        scenario.snapshots,
        scenario.crashes,
        scenario.cold_s,
    ).run()


@_MANY
@given(scenarios(stale=True))
def test_every_block_and_every_request_is_in_one_place_and_every_token_is_made_once(scenario: Scenario):
    outcome = ran(scenario)
    for request, became in zip(scenario.requests, outcome.requests, strict=True):
        if became.state == "done":
            assert len(became.gaps_s) == request.osl - 1
            assert math.fsum(became.gaps_s) == became.done_s - became.first_token_s
        assert became.hit_tokens < request.isl
        assert became.recomputed_tokens == 0 or became.preemptions > 0
    event(f"pre-empted: {any(r.preemptions for r in outcome.requests)}")
    event(f"hit: {any(r.hit_tokens for r in outcome.requests)}")
    event(f"restarted: {any(r.restarts for r in outcome.requests)}")


@_MANY
@given(scenarios(sessions=True, stale=True))
def test_no_turn_comes_before_its_answers_and_every_row_comes_or_never_does(scenario: Scenario):
    outcome = ran(scenario)
    became = outcome.requests
    missed_s: dict[int | None, float] = {}  # by session: its first miss
    for request, one in zip(scenario.requests, became, strict=True):
        if one.missed_s is not None:
            first_s = missed_s.get(request.session_id, math.inf)
            missed_s[request.session_id] = min(first_s, one.missed_s)
    joins = 0
    for request, one in zip(scenario.requests, became, strict=True):
        assert (one.arrival_s is None) == (one.state == "never_arrived")
        answers_s = [became[number].done_s for number in request.after]
        due_s = request.arrival_s
        if request.after:
            due_s = math.inf if None in answers_s else max(answers_s) + request.think_s
        elif scenario.world.concurrent_sessions is not None:
            due_s = one.arrival_s if one.arrival_s is not None else math.inf
        session_end_s = missed_s.get(request.session_id, math.inf)
        if one.arrival_s is None:
            assert due_s == math.inf or due_s >= session_end_s
        else:
            assert one.arrival_s == due_s <= session_end_s
            joins += len(request.after) > 1
            assert one.state != "done" or len(one.gaps_s) == request.osl - 1
    never_arrived = sum(one.arrival_s is None for one in became)
    event(f"never arrived: {never_arrived > 0}, misses: {bool(missed_s)}")
    event(f"turns: {sum(bool(r.after) for r in scenario.requests) // 5 * 5}")
    event(f"joins that came: {joins > 0}")
    event(f"pre-empted: {any(r.preemptions for r in became)}")
