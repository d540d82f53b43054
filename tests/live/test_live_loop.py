"""The loop: cadence, safety when metrics or actuators fail, and memory across restarts."""

from __future__ import annotations

import itertools
import json

import pytest
from live_world import LiveWorld, ToyPools, VirtualClock
from sagescale.live.metrics.prometheus import PastWindow
from sagescale.live.metrics.reporters import Reports
from sagescale.planner import ReasonCode, Sizes


def started(**keys):
    world = LiveWorld(**keys)
    world.loop.start()
    return world


def codes(record):
    reasons = [reason["code"] for reason in record.decision["reasons"]]
    return [item.code for item in (*record.notes, *record.problems)] + reasons


def test_pools_follow_the_load():
    world = started()
    world.load.requests = 1200.0
    world.ticks(2)
    assert world.pools.sizes == world.wanted(1200.0)
    world.load.requests = 0.0
    world.ticks(2, start=3)
    assert world.pools.sizes == Sizes(1, 1)


def test_ticks_fall_on_whole_intervals_and_do_not_drift():
    world = LiveWorld()
    times = []
    world.loop.tick = lambda number: times.append((number, world.clock.wall_s()))
    world.clock.on_wait = None
    world.loop.run(ticks=500)
    assert [at % 60 for _, at in times] == [0.0] * 500
    assert [number for number, _ in times] == list(range(1, 501))


def test_late_ticks_are_left_out_and_never_pile_up():
    world = LiveWorld()
    plain = world.load.collect
    slow_reads = []

    def slow(window_s, late_s):
        if world.load.reads == 2:
            world.clock.now += 250.0
            slow_reads.append(world.clock.now)
        return plain(window_s)

    world.load.collect = slow
    world.loop.run(ticks=10)
    assert slow_reads
    times = [record.time_s for record in world.log.records]
    assert all(later - earlier >= 60 for earlier, later in itertools.pairwise(times))
    assert max(later - earlier for earlier, later in itertools.pairwise(times)) == 300
    assert "ticks_missed" in world.log.kinds()
    assert [time % 60 for time in times] == [times[0] % 60] * len(times)


def test_a_step_of_the_wall_clock_moves_no_tick():
    world = started()
    world.ticks(3)
    before = world.clock.now
    world.clock.offset += 7200.0
    world.ticks(2, start=4)
    assert world.clock.now - before == 120.0
    assert "clock_step" in world.log.kinds()
    times = [record.time_s for record in world.log.records]
    assert [later - earlier for earlier, later in itertools.pairwise(times)] == [60.0] * 4


def test_unknown_metrics_hold_and_never_shrink():
    world = started()
    world.load.requests = 2400.0
    world.ticks(3)
    size = world.pools.sizes
    world.load.broken = "Prometheus is down"
    world.ticks(3, start=4)
    assert world.pools.sizes == size
    assert world.log.decisions[-1].has(ReasonCode.HOLD_UNKNOWN_TRAFFIC)
    assert "source_failed" in codes(world.log.records[-1])


def test_after_the_stated_time_without_data_it_goes_up_to_the_safe_floor():
    world = started(live={"no_data_timeout_s": 300.0})
    world.load.requests = 2400.0
    world.ticks(3)
    peak = world.pools.sizes
    world.load.requests = 60.0
    world.ticks(3, start=4)
    assert world.pools.sizes < peak
    world.load.broken = "no answer"
    world.ticks(4, start=7)
    assert world.pools.sizes < peak, "too early"
    world.ticks(3, start=11)
    assert world.pools.sizes == peak
    assert "safe_floor" in codes(world.log.records[-1])


def test_a_configured_floor_is_used_and_the_budget_still_holds():
    world = started(
        live={"no_data_timeout_s": 60.0, "safe_floor_prefill": 9, "safe_floor_decode": 9}, max_gpu_budget=10
    )
    world.load.broken = "no answer"
    world.ticks(5)
    assert sum(world.pools.sizes) == 10
    assert world.pools.most_gpus <= 10


def test_scale_down_waits_while_metrics_are_in_doubt():
    world = started()
    world.load.requests = 2400.0
    world.ticks(3)
    size = world.pools.sizes
    plain = world.load.collect

    def doubtful(window_s, late_s):
        from sagescale.live.metrics.window import Problem

        metrics, window_s = plain(window_s)
        return type(metrics)(metrics.values, (Problem("instances_silent", "1 of 2"),), {}), window_s

    world.load.collect = doubtful
    world.load.requests = 60.0
    world.ticks(2, start=4)
    assert world.pools.sizes == size
    assert "hold_bad_metrics" in codes(world.log.records[-1])
    world.load.collect = plain
    world.ticks(2, start=6)
    assert world.pools.sizes < size


def test_the_step_cap_limits_each_tick():
    world = started(live={"max_step_instances": 1})
    world.load.requests = 3000.0
    world.ticks(1)
    assert world.pools.sizes == Sizes(3, 3)
    assert "step_capped" in codes(world.log.records[-1])
    assert "replicas_changed" not in codes(world.log.records[-1])
    world.ticks(1, start=2)
    assert world.pools.sizes == Sizes(4, 3) or world.pools.sizes == Sizes(4, 4)
    assert "replicas_changed" not in codes(world.log.records[-1])


def test_the_pause_switch_stops_acting_not_deciding(tmp_path):
    switch = tmp_path / "pause"
    switch.touch()
    world = started(live={"pause_file": str(switch)})
    world.load.requests = 2400.0
    world.ticks(2)
    assert world.pools.sizes == Sizes(2, 2)
    assert not world.log.records[-1].acted
    assert "paused" in codes(world.log.records[-1])
    switch.unlink()
    world.ticks(1, start=3)
    assert world.pools.sizes == world.wanted(2400.0)


def test_a_dry_run_never_acts():
    world = started(no_operation=True)
    world.load.requests = 2400.0
    world.ticks(3)
    assert world.pools.orders == []
    assert world.log.records[-1].goal == world.wanted(2400.0)
    assert world.log.decisions[-1].has(ReasonCode.DRY_RUN)


def test_replicas_changed_by_hand_are_noticed_and_adopted():
    world = started()
    world.ticks(2)
    world.pools.set(Sizes(5, 5))
    world.ticks(1, start=3)
    assert "replicas_changed" in codes(world.log.records[-1])
    assert world.log.records[-1].current == Sizes(5, 5)


def test_a_failing_actuator_is_tried_again_with_the_same_key_and_nothing_is_frozen():
    world = started()
    world.load.requests = 2400.0
    world.pools.fail_orders = True
    world.ticks(2)
    assert world.pools.sizes == Sizes(2, 2)
    assert world.log.kinds().count("order_failed") > 2
    keys = {
        event.detail["key"]
        for event in world.log.events
        if event.kind == "order_failed" and event.tick is None
    }
    assert len(keys) <= 2
    world.pools.fail_orders = False
    world.ticks(1, start=3)
    assert world.pools.sizes == world.wanted(2400.0)


def test_unknown_pools_are_not_scaled():
    world = started()
    world.ticks(2)
    world.pools.fail_states = True
    world.load.requests = 5000.0
    orders = len(world.pools.orders)
    world.ticks(2, start=3)
    assert len(world.pools.orders) == orders
    assert "pools_unknown" in codes(world.log.records[-1])
    world.pools.fail_states = False
    world.ticks(1, start=5)
    assert world.pools.sizes == world.wanted(5000.0)


def test_a_scale_up_that_never_finishes_does_not_freeze_later_decisions():
    clock = VirtualClock()
    world = LiveWorld(clock=clock, pools=ToyPools(clock, startup_s=1e9), live={"scale_up_timeout_s": 200.0})
    world.loop.start()
    world.load.requests = 2400.0
    world.ticks(6)
    assert "scale_up_stuck" in world.log.kinds()
    world.load.requests = 0.0
    world.ticks(2, start=7)
    assert world.pools.sizes == Sizes(1, 1)
    assert world.log.kinds().count("scale_up_stuck") == 1


@pytest.mark.parametrize("knows", [True, False])
def test_a_rebalance_passes_no_budget_and_ends(knows):
    clock = VirtualClock()
    pools = ToyPools(clock, prefill=6, decode=2, drain_s=45.0)
    pools.knows = knows
    world = LiveWorld(clock=clock, pools=pools, max_gpu_budget=8, live={"drain_wait_s": 50.0})
    world.loop.mover.assume(Sizes(6, 2))
    world.loop.start()
    world.load.isl, world.load.osl, world.load.requests = 100.0, 1000.0, 1200.0
    world.ticks(4)
    assert world.pools.most_gpus <= 8
    assert world.pools.sizes.decode == 7
    assert world.pools.sizes.prefill == 1


def test_a_killed_planner_resumes_and_decides_as_one_that_was_not(tmp_path):
    def run(split):
        clock = VirtualClock()
        world = LiveWorld(
            path=tmp_path / f"journal-{split}.sqlite", clock=clock, load_predictor_type="moving_average",
            scale_down_stabilization_window_sec=300,
        )  # fmt: skip
        world.loop.start()
        targets = []
        for number in range(1, 21):
            if number == split:
                # Killed: nothing is closed; a new process opens the journal.
                world.loop = world.new_loop()
                world.loop.start()
            world.load.requests = 300.0 + 150.0 * (number * 7 % 11)
            due = 1000.0 + (60 - 1_000_000 % 60) + 60 * (number - 1)
            clock.wait_until(due)
            record = world.loop.tick(round((clock.now - world.loop.rhythm.anchor_s) / 60))
            targets.append(record.goal)
        return targets

    assert run(10) == run(99)


@pytest.mark.parametrize("scale", [1.0, 60.0])
def test_the_pools_own_time_goes_on_over_a_restart_whatever_the_scale(tmp_path, scale):
    world = LiveWorld(path=tmp_path / "journal.sqlite", live={"time_scale": scale})
    world.loop.start()
    world.ticks(5)
    world.clock.wait_until(world.clock.now + 3 * 60.0 / scale)  # killed, and started again three ticks later
    world.loop = world.new_loop()
    world.loop.start()
    world.ticks(1)
    times = [record.time_s for record in world.journal.last_ticks(10)]
    assert [round(at - times[0]) for at in times] == [0, 60, 120, 180, 240, 480]


def test_what_happened_while_it_was_down_is_read_from_the_sources_history(tmp_path):
    world = LiveWorld(path=tmp_path / "journal.sqlite", load_predictor_type="moving_average")
    world.loop.start()
    world.load.requests = 600.0
    world.ticks(5)
    world.clock.wait_until(world.clock.now + 300.0)
    world.load.past = [PastWindow(float(k), 2400.0, 1000.0, 200.0) for k in range(20)]
    world.loop = world.new_loop()
    world.loop.start()
    world.load.requests = 2400.0
    world.ticks(1)
    assert "resumed" in world.log.kinds()
    # Five windows before it went down, five while it was, one since; the mean is over the last ten.
    assert world.log.decisions[-1].forecast.requests == pytest.approx((4 * 600.0 + 6 * 2400.0) / 10)


def test_a_fresh_start_is_warmed_by_history():
    world = LiveWorld(load_predictor_type="moving_average")
    world.load.past = [PastWindow(float(k), 2400.0, 1000.0, 200.0) for k in range(9)]
    world.loop.start()
    world.load.requests = 2400.0
    world.ticks(1)
    assert "warm_start" in world.log.kinds()
    assert world.log.decisions[-1].forecast.requests == pytest.approx(2400.0)


def test_every_tick_is_journalled_before_anything_acts():
    world = started()
    seen = []
    plain = world.pools.carry_out

    def look_first(order):
        seen.append(world.journal.last_ticks(1)[0].goal)
        plain(order)

    world.pools.carry_out = look_first
    world.load.requests = 2400.0
    world.ticks(2)
    assert seen[0] == world.wanted(2400.0)


def test_orders_carry_the_decision_in_plain_json():
    world = started()
    world.load.requests = 2400.0
    world.ticks(1)
    document = json.loads(json.dumps(world.pools.orders[0].to_dict()))
    assert document["targets"] == world.wanted(2400.0).as_dict()
    assert document["decision"]["reasons"]


def test_the_loop_stops_when_told_and_leaves_the_pools_alone():
    world = LiveWorld()
    world.clock.stopped = True
    world.loop.run()
    assert world.log.kinds() == ["started", "stopped"]
    assert world.pools.orders == []


def test_once_finishes_a_rebalance_within_its_interval():
    clock = VirtualClock()
    world = LiveWorld(clock=clock, pools=ToyPools(clock, prefill=6, decode=2, drain_s=20.0), max_gpu_budget=8)
    world.load.isl, world.load.osl, world.load.requests = 100.0, 1000.0, 1200.0
    world.loop.run_once()
    assert world.pools.sizes == Sizes(1, 7)
    assert world.pools.most_gpus <= 8


def test_where_nobody_knows_the_pools_a_known_load_still_sets_them_and_an_unknown_one_does_not():
    world = LiveWorld()
    world.pools.knows = False
    plain = world.load.collect

    def frontend(window_s, late_s):
        metrics, window_s = plain(window_s)
        frontend = {"frontend": Reports(frozenset("a"), frozenset("a"))}
        return type(metrics)(metrics.values, metrics.problems, frontend), window_s

    world.load.collect = frontend
    world.load.broken = "down"
    world.loop.start()
    world.ticks(2)
    assert world.pools.orders == []
    world.load.broken = ""
    world.load.requests = 2400.0
    world.ticks(1, start=3)
    assert world.pools.sizes == world.wanted(2400.0)
