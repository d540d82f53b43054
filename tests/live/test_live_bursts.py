"""Looks between ticks: instances are added at once, never removed, under the loop's own rules."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from live_world import LiveWorld, VirtualClock
from sagescale.live.explain import explain_all, explain_tick
from sagescale.live.journal import read_journal
from sagescale.live.tick_text import tick_text
from sagescale.perf import load_profile
from sagescale.planner import AutoscalerConfig, Planner, ReasonCode, Sizes
from sagescale.sim.config import SimulatorConfig
from sagescale.sim.simulate import simulate
from sagescale.trace import Trace

STEADY = 8
"""Ticks after which the policy knows its load."""


def steady(path=":memory:", live=None, clock=None, pools=None, **keys):
    """A world under policy slo that has had the same load for some ticks."""
    world = LiveWorld(path=path, live=live, clock=clock, pools=pools, policy="slo", **keys)
    world.loop.start()
    world.ticks(STEADY)
    return world


def looks(world):
    return [record for record in world.log.records if record.kind == "look"]


def test_instances_are_added_between_ticks_where_load_is_plainly_above_the_plan():
    world = steady()
    before = world.pools.sizes
    world.load.surge = 4.0
    world.loop._wait_for(STEADY + 1)
    first = looks(world)[0]
    assert first.time_s == world.log.records[STEADY - 1].time_s + 15.0
    assert first.observation.window_s == 15.0
    assert min(to - at for to, at in zip(first.goal, before, strict=True)) >= 1
    assert world.pools.sizes == looks(world)[-1].goal > before
    assert world.log.decisions[STEADY].has(ReasonCode.SURGE)
    assert first.acted


def test_a_look_is_written_down_before_anything_acts():
    world = steady()
    seen = []
    plain = world.pools.carry_out

    def look_first(order):
        seen.append((world.journal.last_ticks(1)[0].kind, world.journal.last_ticks(1)[0].goal, order.sizes))
        plain(order)

    world.pools.carry_out = look_first
    world.load.surge = 4.0
    world.loop._wait_for(STEADY + 1)
    kind, goal, ordered = seen[0]
    assert kind == "look"
    assert goal == ordered


@pytest.mark.parametrize("fast_s", [7, 15, 25, 40, 59])
def test_looks_come_when_they_come_in_simulation_one_right_before_every_tick(fast_s, monkeypatch):
    """Whether or not ``fast_interval_sec`` divides the interval."""
    world = LiveWorld(policy="slo", fast_interval_sec=fast_s)
    world.loop.start()
    world.ticks(5)
    live = world.load.looks[1:]  # before the first there is no other

    simulated = []
    monkeypatch.setattr(Planner, "check", lambda _, seen: simulated.append((seen.time_s, seen.window_s)))
    count = 240
    trace = Trace.from_arrays(
        1.25 * np.arange(count), np.full(count, 1000, np.int32), np.full(count, 20, np.int32)
    )
    config = AutoscalerConfig(policy="slo", fast_interval_sec=fast_s, prefill_gpus_per_instance=1)
    simulate(trace, load_profile("h200-llama-3.1-8b-fp8"), config, SimulatorConfig(until_s=300.0))

    assert [time_s for time_s, _ in simulated if time_s % 60.0 == 0.0] == [120.0, 180.0, 240.0, 300.0]
    upto = [window_s for time_s, window_s in simulated if time_s <= 300.0]
    assert live == pytest.approx(upto, abs=1e-6)


def test_other_policies_are_shown_no_looks():
    world = LiveWorld()
    world.loop.start()
    world.load.surge = 4.0
    world.ticks(5)
    assert world.load.looks == []
    assert all(record.last_burst_check is None for record in world.log.records)


def test_usual_load_moves_nothing_between_ticks_and_the_tick_sees_the_last_burst_check():
    world = steady()
    world.ticks(4, start=STEADY + 1)
    assert looks(world) == []
    # Before the first tick nothing can be decided: one look right before it, then four an interval.
    assert len(world.load.looks) == 1 + 4 * (STEADY + 3)
    assert world.load.looks[1:] == [pytest.approx(15.0)] * 4 * (STEADY + 3)
    last = world.log.records[-1]
    assert last.last_burst_check.time_s == last.time_s
    assert last.last_burst_check.window_s == pytest.approx(15.0)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3000), st.floats(0, 6)), min_size=5, max_size=12), st.integers(6, 20)
)
def test_a_look_never_shrinks_a_pool_nor_passes_the_budget(loads, budget):
    world = LiveWorld(policy="slo", max_gpu_budget=budget)
    world.loop.start()
    for number, (requests, surge) in enumerate(loads, start=1):
        world.load.requests, world.load.surge = requests, surge
        world.ticks(1, start=number)
    for record in looks(world):
        assert all(to >= at for to, at in zip(record.goal, record.current, strict=True))
        assert record.goal != record.current
    assert world.pools.most_gpus <= max(budget, 4)


def test_the_step_cap_counts_from_the_last_tick():
    world = steady(live={"max_step_instances": 1})
    before = world.pools.sizes
    world.load.surge = 6.0
    world.loop._wait_for(STEADY + 1)
    assert len(looks(world)) == 1, "the second look finds the cap used up"
    assert world.pools.sizes == Sizes(before.prefill + 1, before.decode + 1)
    assert "step_capped" in [note.code for note in looks(world)[0].notes]


def test_the_pause_switch_holds_for_looks(tmp_path):
    switch = tmp_path / "pause"
    world = steady(live={"pause_file": str(switch)})
    switch.touch()
    orders = len(world.pools.orders)
    world.load.surge = 4.0
    world.loop._wait_for(STEADY + 1)
    assert len(world.pools.orders) == orders
    assert not looks(world)[0].acted
    assert [note.code for note in looks(world)[0].notes] == ["paused"]


def test_a_dry_run_looks_and_never_acts():
    world = steady(no_operation=True)
    world.load.surge = 4.0
    world.loop._wait_for(STEADY + 1)
    assert world.pools.orders == []
    assert not looks(world)[0].acted
    assert world.log.decisions[-1].has(ReasonCode.DRY_RUN)


def test_a_look_at_unknown_pools_or_metrics_does_nothing_and_says_nothing():
    world = steady()
    told = len(world.log.events), len(world.log.records)
    world.load.surge = 4.0
    world.load.blind = True
    world.loop._wait_for(STEADY + 1)
    world.load.blind, world.load.surge = False, 1.0
    world.loop.tick(STEADY + 1)
    world.pools.fail_states, world.load.surge = True, 4.0
    world.loop._wait_for(STEADY + 2)
    assert looks(world) == []
    assert (len(world.log.events), len(world.log.records)) == (told[0], told[1] + 1)


def test_a_slow_look_is_followed_by_no_heap_of_late_ones_and_ticks_keep_their_cadence():
    world = LiveWorld(policy="slo")
    plain = world.load.collect_burst

    def slow(window_s, late_s=0.0):
        world.clock.now += 40.0 if len(world.load.looks) == 20 else 0.0
        return plain(window_s)

    world.load.collect_burst = slow
    world.loop.run(ticks=12)
    times = [record.time_s for record in world.log.records if record.kind == "tick"]
    assert [later - earlier for earlier, later in itertools.pairwise(times)] == [60.0] * 11
    assert "ticks_missed" not in world.log.kinds()
    assert 40 <= len(world.load.looks) < 1 + 4 * 11
    assert max(world.load.looks) <= 60.0


def test_looks_follow_the_pools_own_time():
    world = LiveWorld(policy="slo", live={"time_scale": 20.0})
    world.loop.start()
    world.ticks(STEADY)
    assert world.clock.now - 1000.0 == pytest.approx(3.0 * STEADY, abs=3.0)
    assert world.load.looks[5:] == [pytest.approx(15.0)] * (len(world.load.looks) - 5)


def scaling_down():
    """A world whose pools are to shrink and do not, the sizes that are wanted, and the next tick."""
    world = steady(max_prefill_instances=40, max_gpu_budget=100)
    world.load.requests = 2400.0
    world.ticks(6, start=STEADY + 1)
    high = world.pools.sizes
    world.load.requests = 100.0
    world.pools.fail_orders = True
    at = STEADY + 7
    while world.log.records[-1].goal >= high:
        world.ticks(1, start=at)
        at += 1
    wanted = world.log.records[-1].goal
    assert wanted < world.pools.sizes == high, "the order failed"
    world.load.isl = 100_000.0  # more to do for prefill, and for prefill alone
    return world, wanted, at


def test_a_look_cancels_no_scale_down_that_still_has_to_be_done():
    world, wanted, at = scaling_down()
    before = world.pools.sizes
    world.loop._wait_for(at)
    assert looks(world)[-1].goal.prefill > before.prefill
    assert looks(world)[-1].goal.decode == wanted.decode


def test_a_look_takes_up_no_scale_down_from_before_others_changed_the_pools():
    world, wanted, at = scaling_down()
    before, check_s, earlier = world.pools.sizes, world.clock.now + 15.0, len(looks(world))

    def change_right_before_the_look(now):
        if now >= check_s and world.pools.sizes == before:
            world.pools.pools[1].append(now)

    world.clock.on_wait = change_right_before_the_look
    world.loop._wait_for(at)
    first = looks(world)[earlier]
    assert first.goal.prefill > before.prefill
    assert first.goal.decode == first.current.decode == before.decode + 1 > wanted.decode


def test_a_day_of_faults_and_looks_shrinks_nothing_between_ticks_and_keeps_budget_and_records(tmp_path):
    chance = random.Random(3)
    world = LiveWorld(path=tmp_path / "j", policy="slo", max_gpu_budget=16, live={"max_step_instances": 4})
    world.loop.start()
    number = 1
    for _ in range(2400):
        load, pools = world.load, world.pools
        load.requests, load.surge = float(chance.randint(50, 400)), chance.choice([1.0] * 9 + [12.0])
        load.broken = "down" if chance.random() < 0.1 else ""
        load.blind = chance.random() < 0.1
        pools.fail_orders, pools.fail_states = chance.random() < 0.05, chance.random() < 0.12
        if chance.random() < 0.02 and not pools.fail_states:
            pools.pools[0][:] = pools.pools[0][: chance.randint(1, 3)]  # somebody else changes them
        world.loop._wait_for(number)
        world.loop.tick(number)
        if chance.random() < 0.02:
            world.clock.now += chance.uniform(0, 400)
        number = world.loop._after(number)
    for record in looks(world):
        assert any(to > at for to, at in zip(record.goal, record.current, strict=True))
        assert not record.problems
    assert len(looks(world)) > 50
    unseen = [each for each in world.log.records if each.kind == "tick" and each.observation.requests is None]
    for record in unseen:
        assert all(to >= at for to, at in zip(record.goal, record.current, strict=True))
        assert record.last_burst_check is None
    assert len(unseen) > 100
    assert world.pools.most_gpus <= 16
    world.loop.finish()
    kept = list(read_journal(tmp_path / "j")[0])
    assert kept == world.log.records
    assert [record.id for record in kept] == list(range(1, len(kept) + 1))


def run_with_restart(path, split):
    clock = VirtualClock()
    world = LiveWorld(path=path, clock=clock, policy="slo", load_predictor_type="moving_average")
    world.loop.start()
    goals = []
    for number in range(1, 180):
        if number == split:
            # Killed: nothing is closed; a new process opens the journal, within the same interval.
            world.loop = world.new_loop()
            world.loop.start()
            world.loop.ticks = 1  # it looks right away here, to compare what both would do
        world.load.requests = 600.0 + 100.0 * (number * 7 % 11)
        world.load.surge = 9.0 if number % 60 == 5 else 1.0
        due = round((clock.now - world.loop.rhythm.anchor_s) // 60) + 1
        world.loop._wait_for(due)
        goals.append(world.loop.tick(due).goal)
    return goals, world


def test_a_restart_takes_no_look_for_a_tick(tmp_path):
    through, world = run_with_restart(tmp_path / "one", None)
    assert len(looks(world)) >= 3
    assert run_with_restart(tmp_path / "two", 68)[0] == through
    assert run_with_restart(tmp_path / "three", 66)[0] == through


def test_what_a_look_wrote_is_read_back(tmp_path):
    world = steady(tmp_path / "j")
    world.load.surge = 4.0
    world.ticks(1, start=STEADY + 1)
    world.loop.finish()
    ticks, _ = read_journal(tmp_path / "j")
    assert list(ticks) == world.log.records


def test_explain_says_in_plain_words_why_instances_were_added_between_ticks(tmp_path):
    world = steady(tmp_path / "j")
    world.load.surge = 4.0
    world.ticks(1, start=STEADY + 1)
    world.loop.finish()
    ticks, events = read_journal(tmp_path / "j")
    ticks = list(ticks)
    look = next(record for record in ticks if record.kind == "look")
    text = " ".join(explain_tick(look, events).split())
    assert "between two ticks" in text
    assert "600 requests came in 15 s, 40.0 a second" in text
    assert "10.0 a second were forecast" in text
    assert "only ever added" in text
    sized = explain_tick(ticks[STEADY - 1], events)
    assert "simulated" in sized
    assert "prefill" in sized
    whole = explain_all(ticks, events)
    assert f"{STEADY + 1} ticks from" in whole
    assert f"{len(looks(world))} burst checks between them added instances" in whole


def test_a_tick_and_a_look_fit_one_screen_each():
    world = steady()
    world.load.surge = 4.0
    world.ticks(1, start=STEADY + 1)
    for record in (world.log.records[-1], looks(world)[0]):
        lines = tick_text(record).splitlines()
        assert len(lines) <= 30
        assert max(map(len, lines)) <= 110
