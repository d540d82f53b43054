"""The baselines: fixed pools, and what a Kubernetes HPA would do."""

from __future__ import annotations

import pytest
from planner_world import BUSY, NOTHING_KNOWN, make_planner, seen
from sagescale.planner import PoolCounts, ReasonCode

QUIET = {"queued_prefill": 0.0, "running_prefill": 0.0, "queued_decode": 0.0, "running_decode": 0.0}


def at(time_s: float, prefill: int, decode: int, **changes):
    return seen(
        BUSY, time_s=time_s, prefill=PoolCounts(prefill), decode=PoolCounts(decode), **(QUIET | changes)
    )


def test_static_asks_for_what_was_given_whatever_the_load():
    planner = make_planner(policy="static", static_prefill=2, static_decode=5)
    assert planner.step(BUSY).targets == (2, 5)
    assert planner.step(NOTHING_KNOWN).targets == (2, 5)


def test_static_keeps_what_it_finds_where_nothing_was_given():
    planner = make_planner(policy="static", static_decode=4)
    assert planner.step(at(60, 3, 2)).targets == (3, 4)
    assert planner.step(at(120, 1, 4)).targets == (3, 4)


def test_reactive_sizes_prefill_by_requests_an_instance():
    # 2 meant for each of 2 instances; 9 are there: ceil(9 / 2)
    planner = make_planner(policy="reactive", reactive_prefill_requests=2.0)
    assert planner.step(at(60, 2, 1, queued_prefill=7.0, running_prefill=2.0)).targets.prefill == 5


def test_reactive_sizes_decode_by_slots_or_memory_whichever_is_fuller():
    planner = make_planner(policy="reactive", reactive_decode_usage=0.5)
    # RoundNumbers has 100 slots: 150 requests in 2 instances need 3 at half use.
    assert planner.step(at(60, 1, 2, running_decode=150.0)).targets.decode == 3
    planner = make_planner(policy="reactive", reactive_decode_usage=0.5)
    assert planner.step(at(60, 1, 2, running_decode=10.0, kv_usage=0.9)).targets.decode == 4


@pytest.mark.parametrize("running", [91.0, 100.0, 109.0])
def test_reactive_stays_within_its_tolerance(running):
    planner = make_planner(policy="reactive")
    assert planner.step(at(60, 1, 2, running_decode=running)).targets.decode == 2


def test_reactive_shrinks_only_after_five_quiet_minutes():
    planner = make_planner(policy="reactive")
    assert planner.step(at(60, 1, 6, running_decode=300.0)).targets.decode == 6
    sizes = [planner.step(at(60.0 * tick, 1, 6, running_decode=50.0)).targets.decode for tick in range(2, 8)]
    assert sizes == [6, 6, 6, 6, 1, 1]


def test_reactive_grows_by_no_more_than_the_hpa_does():
    planner = make_planner(policy="reactive")
    decision = planner.step(at(60, 1, 2, running_decode=1000.0))
    assert decision.targets.decode == 6  # two and four more
    assert decision.has(ReasonCode.RATE_LIMITED)
    planner = make_planner(policy="reactive")
    assert planner.step(at(60, 1, 8, running_decode=5000.0)).targets.decode == 16  # a doubling


def test_reactive_counts_starting_instances_as_idle_when_growing():
    planner = make_planner(policy="reactive")
    observation = seen(
        BUSY,
        prefill=PoolCounts(1),
        decode=PoolCounts(ready=2, starting=2),
        **(QUIET | {"running_decode": 180.0}),
    )
    assert planner.step(observation).targets.decode == 4


def test_reactive_holds_what_it_cannot_see():
    planner = make_planner(policy="reactive")
    decision = planner.step(NOTHING_KNOWN)
    assert decision.targets == NOTHING_KNOWN.pools.asked
    assert decision.has(ReasonCode.HOLD_UNKNOWN_METRICS)


def test_headroom_turns_the_reactive_policy_too():
    planner = make_planner(policy="reactive", load_headroom=2.0)
    assert planner.step(at(60, 1, 2, running_decode=150.0)).targets.decode == 6
