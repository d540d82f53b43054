"""The kernel driven through a scenario of the reference's, and what both must agree in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from sagescale.sim.state import DONE, REJECTED, TIMED_OUT

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from reference_records import Outcome, Snapshot
    from sagescale.sim.engine import Cluster

_STATES = {DONE: "done", REJECTED: "rejected", TIMED_OUT: "timed_out"}


def advance(cluster: Cluster, until_s: float, cold_s: float) -> None:
    """Advance through every instant that launches something; what is launched is cold."""
    reached = False
    while not reached:
        launched = len(cluster.launches())
        reached = cluster.advance(until_s)
        chill(cluster, launched, cold_s)


def chill(cluster: Cluster, since: int, cold_s: float) -> None:
    for launch in cluster.launches(since):
        cluster.chill(launch.pool, launch.instance, cold_s)


def drive(
    cluster: Cluster, scenario: Any, expected: Outcome, assert_same_view: Callable[[Cluster, Snapshot], None]
) -> None:
    """Run the kernel through the script, comparing what can be seen on the way."""
    last_arrival = scenario.requests[-1].arrival_s
    seen = {snapshot.time_s: snapshot for snapshot in expected.snapshots}
    actions = {time: targets for time, *targets in scenario.script}
    for time in sorted({*seen, *actions, *(crash[0] for crash in scenario.crashes)}):
        advance(cluster, time, scenario.cold_s)
        if cluster.settled and time > max(last_arrival, scenario.until_s, cluster.last_completion_s):
            break
        for at, pool, instance in scenario.crashes:
            if at == time:
                launched = len(cluster.launches())
                cluster.crash(pool, instance)
                chill(cluster, launched, scenario.cold_s)
                advance(cluster, time, scenario.cold_s)
        if time in seen:
            assert_same_view(cluster, seen[time])
        if time in actions:
            launched = len(cluster.launches())
            cluster.scale(*actions[time])
            chill(cluster, launched, scenario.cold_s)
    advance(cluster, 1e6, scenario.cold_s)


def optional(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def of_request(record: np.void) -> tuple[str, float | None, float | None, int]:
    """State, first token, completion and restarts."""
    return (
        _STATES.get(int(record["state"]), "unfinished"),
        optional(record["first_token_s"]),
        optional(record["done_s"]),
        int(record["restarts"]),
    )


def assert_same_totals(cluster: Cluster, expected: Snapshot) -> None:
    """What can be counted, and the pools by state."""
    seen = cluster.counters()
    for name in ("arrived", "isl_sum", "first_tokens", "completed", "osl_sum", "itl_count"):
        assert getattr(seen, name) == getattr(expected, name), name
    assert seen.ttft_sum_s == expected.ttft_sum
    assert seen.duration_sum_s == expected.duration_sum
    for pool, counts in zip(cluster.pools(), expected.pools, strict=True):
        assert (pool.ready, pool.starting, pool.draining, pool.waiting) == (
            counts.ready, counts.starting, counts.draining, counts.waiting
        )  # fmt: skip


def assert_same_gaps(cluster: Cluster, target_s: float, expected: Outcome) -> None:
    """Of each request that is done the largest gap between its tokens, and how many are above the target."""
    measured = cluster.gaps()
    assert measured is not None
    got = [
        (float(gaps["gap_s"]), int(gaps["late"])) if request["state"] == DONE else None
        for request, gaps in zip(cluster.requests, measured.requests, strict=True)
    ]
    assert got == [
        (r.max_gap_s or 0.0, sum(gap_s > target_s for gap_s in r.gaps_s)) if r.state == "done" else None
        for r in expected.requests
    ]
    if all(r.state in ("done", "rejected") for r in expected.requests):
        assert measured.histogram.sum() == sum(len(r.gaps_s) for r in expected.requests)
        assert measured.largest_s == max((r.max_gap_s or 0.0 for r in expected.requests), default=0.0)


def assert_same_lives(cluster: Cluster, scenario: Any, expected: Outcome) -> None:
    """Instances, the horizon, restarts and the budget."""
    assert cluster.restarts == sum(r.restarts for r in expected.requests)
    horizon = max(cluster.last_completion_s, scenario.requests[-1].arrival_s, scenario.until_s)
    assert horizon == expected.horizon_s
    lives = [
        (cluster.pool_names[life["pool"]], int(life["number"]), float(life["launch_s"]),
         optional(life["ready_s"]), optional(life["drain_s"]), float(life["stop_s"]))
        for life in cluster.lifetimes(horizon)
    ]  # fmt: skip
    assert sorted(lives) == sorted(
        (life.pool, life.id, life.launch_s, life.ready_s, life.drain_s, life.end_s)
        for life in expected.lifetimes
    )
    assert cluster.max_gpus_used <= scenario.world.max_gpus
