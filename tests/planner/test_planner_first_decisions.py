"""First decisions: what was found at the start counts as recommended then, so nothing shrinks at once."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planner_world import BUSY, make_planner, seen
from sagescale.planner import PoolCounts
from slo_world import minute, run, slo_planner

FEW = settings(max_examples=40)
found_sizes = st.integers(1, 30)
NOTHING = {"isl_mean": None, "osl_mean": None}


def first_window(requests_per_s: float, window_s: float, prefill: int, decode: int):
    """The first window of a planner that was started so many seconds before a tick."""
    return seen(
        BUSY, window_s=window_s, requests=requests_per_s * window_s, completed=requests_per_s * window_s,
        prefill=PoolCounts(ready=prefill), decode=PoolCounts(ready=decode),
    )  # fmt: skip


@pytest.mark.parametrize(
    "keys",
    [
        {"policy": "slo"},
        {"policy": "slo", "scale_down_stabilization_window_sec": 150},
        {"policy": "classic", "scale_down_stabilization_window_sec": 150},
        {"policy": "reactive"},
    ],
    ids=str,
)
@FEW
@given(found_sizes, found_sizes, st.floats(0.1, 200.0), st.floats(0.5, 60.0))
def test_the_first_decision_never_shrinks_a_pool_however_short_its_window(
    keys, prefill, decode, requests_per_s, window_s
):
    make = slo_planner if keys["policy"] == "slo" else make_planner
    planner = make(**keys, max_gpu_budget=100, max_prefill_instances=60, max_decode_instances=60)
    observation = first_window(requests_per_s, window_s, prefill, decode)
    gauges = dict.fromkeys(("queued_prefill", "running_prefill", "queued_decode", "running_decode"), 0.0)
    targets = planner.step(seen(observation, **gauges)).targets
    assert targets.prefill >= prefill
    assert targets.decode >= decode


def test_the_example_five_and_three_at_five_requests_a_second():
    planner = slo_planner()
    sizes = [(5, 3)]
    for number in range(1, 10):
        sizes.append(tuple(planner.step(minute(number, 300.0, *sizes[-1])).targets))
    assert sizes[:7] == [(5, 3)] * 7, "six minutes"
    assert sizes[7:] == [(2, 2)] * 3


@FEW
@given(found_sizes, found_sizes, st.integers(0, 6), st.floats(60.0, 300.0))
def test_the_size_found_is_kept_as_long_as_one_that_was_wanted_and_no_longer(
    prefill, decode, unknown, startup_s
):
    planner = slo_planner()
    planner._policy._prefill.startup._assumed = planner._policy._decode.startup._assumed = startup_s / 60.0
    patience = max(6, 2 * planner._policy._prefill.startup.ahead)
    # Unknown windows are no evidence of anything.
    for number in range(1, 1 + unknown):
        assert tuple(planner.step(minute(number, None, prefill, decode)).targets) == (prefill, decode)
    after = run(planner, [60.0] * (patience + 2), first=1 + unknown, start=(prefill, decode))
    assert after[0] == (prefill, decode)
    assert after[patience] == (1, 1)


@FEW
@given(found_sizes, found_sizes)
def test_no_traffic_from_the_start_is_waited_out_as_well(prefill, decode):
    planner = slo_planner()
    targets = [(prefill, decode)]
    for number in range(1, 8):
        observation = minute(number, 0.0, *targets[-1], **NOTHING)
        targets.append(tuple(planner.step(observation).targets))
    assert targets[6] == (prefill, decode)
    assert targets[7] == (1, 1)


def test_classic_without_a_window_follows_the_guide():
    targets = make_planner().step(first_window(1.0, 7.8, 5, 6)).targets
    assert tuple(targets) == (1, 1)
