"""How far ahead policy slo looks: as long as launches are said, then seen, to take."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sagescale.planner import PoolCounts
from sagescale.planner.policy.slo.pool import StartupTime


def seen_through(startup: StartupTime, ticks: int, launches: int, ready: int = 1) -> None:
    """Launches one after the other, each of which is ready at the so-many-th tick after it."""
    startup.observe(PoolCounts(ready=ready))
    for _ in range(launches):
        for _ in range(ticks - 1):
            startup.observe(PoolCounts(ready=ready, starting=1))
        ready += 1
        startup.observe(PoolCounts(ready=ready))


@given(st.floats(0.0, 20.0), st.integers(1, 15))
def test_what_is_seen_replaces_what_is_said(said, ticks):
    startup = StartupTime(said)
    seen_through(startup, ticks, launches=3)
    assert startup.ahead == ticks + 1


@given(st.floats(0.0, 20.0))
def test_capacity_ordered_now_serves_most_of_the_window_after_its_start(said):
    window = StartupTime(said).ahead
    assert window - 1 - 0.5 <= said <= window - 0.5
    assert window >= 1


def test_a_launch_that_is_late_is_waited_for_before_any_was_seen_through():
    startup = StartupTime(1.0)
    for _ in range(8):
        startup.observe(PoolCounts(ready=1, starting=1))
    assert startup.ahead >= 8


def test_the_longest_memory_is_of_the_last_launches():
    startup = StartupTime(1.0)
    seen_through(startup, 10, launches=5)
    seen_through(startup, 2, launches=40, ready=6)
    assert startup.ahead == 3


def test_launches_are_ready_first_in_first_out_and_cancelled_newest_first():
    startup = StartupTime(1.0)
    startup.observe(PoolCounts(ready=1))
    startup.observe(PoolCounts(ready=1, starting=1))
    startup.observe(PoolCounts(ready=1, starting=1))
    startup.observe(PoolCounts(ready=1, starting=3))
    startup.observe(PoolCounts(ready=1, starting=1))
    startup.observe(PoolCounts(ready=2))
    assert startup.ahead == 5 + 1


def test_waiting_launches_count_as_they_delay_capacity():
    startup = StartupTime(0.0)
    startup.observe(PoolCounts(ready=1, waiting=1))
    startup.observe(PoolCounts(ready=1, starting=1))
    startup.observe(PoolCounts(ready=2))
    assert startup.ahead == 3 + 1


@given(st.lists(st.builds(PoolCounts, *(st.integers(0, 9) for _ in range(4))), max_size=40))
def test_whatever_the_pools_look_like_the_window_is_one_to_come(history):
    startup = StartupTime(1.0)
    for counts in history:
        startup.observe(counts)
        assert 1 <= startup.ahead <= len(history) + 2


@pytest.mark.parametrize("said", [0.0, 1.0, 5.0])
def test_with_no_launch_what_is_said_stays(said):
    startup = StartupTime(said)
    for ready in (3, 2, 1, 1):
        startup.observe(PoolCounts(ready=ready))
    assert startup.ahead == int(said + 0.5) + 1
