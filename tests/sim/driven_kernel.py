"""The kernel driven through a scenario of the reference's, and what both must agree in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from sagescale.sim.state import DONE, GAP_BINS, GAP_BINS_AN_OCTAVE, GAP_LEAST_OCTAVE, REJECTED, TIMED_OUT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from numpy.typing import NDArray
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
    seen = {snapshot.time_s: snapshot for snapshot in expected.snapshots}
    actions = {time: targets for time, *targets in scenario.script}
    for time in sorted({*seen, *actions, *(crash[0] for crash in scenario.crashes)}):
        advance(cluster, time, scenario.cold_s)
        if cluster.settled and time > horizon_s(cluster, scenario):
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


def horizon_s(cluster: Cluster, scenario: Any) -> float:
    """The last completion, the last arrival (of a session, where turns wait for answers), the end asked."""
    world, requests = scenario.world, scenario.requests
    last_s = requests[-1].arrival_s
    if cluster.state.turns is not None:
        starts_s = {request.session_id: request.arrival_s for request in reversed(requests)}
        last_s = max(starts_s.values()) if world.concurrent_sessions is None else cluster.last_session_s
    return max(cluster.last_completion_s, last_s, scenario.until_s)


def optional(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def rows_of(cluster: Cluster) -> list[int]:
    """Which request of the trace each is that has come, by arrival."""
    rows = cluster.rows
    return list(range(len(cluster.requests))) if rows is None else rows.tolist()


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
    """Of each request that is done the largest gap, how many are above the target, and what that misses."""
    measured = cluster.gaps()
    assert measured is not None
    of_row = [expected.requests[row] for row in rows_of(cluster)]
    done = [number for number, r in enumerate(of_row) if r.state == "done"]
    got = [(float(measured.requests["gap_s"][n]), int(measured.requests["late"][n])) for n in done]
    assert got == [
        (r.max_gap_s or 0.0, sum(gap_s > target_s for gap_s in r.gaps_s)) for r in (of_row[n] for n in done)
    ]
    osl = np.array([len(r.gaps_s) + 1 for r in of_row])
    for statistic in ("p99", "max"):
        missed = measured.itl_misses(statistic, osl[done], np.array(done, np.intp))
        assert missed.tolist() == [(of_row[n].itl_s(statistic) or 0.0) > target_s for n in done]
    if all(r.state in ("done", "rejected", "never_arrived") for r in expected.requests):
        gaps_s = [gap_s for r in expected.requests for gap_s in r.gaps_s]
        assert measured.histogram.tolist() == np.bincount(_bins(gaps_s), minlength=GAP_BINS).tolist()
        assert measured.largest_s == max((r.max_gap_s or 0.0 for r in expected.requests), default=0.0)


def _bins(gaps_s: Sequence[float]) -> NDArray[np.int64]:
    """Of gaps, the bins of their histogram."""
    mantissa, octave = np.frexp(gaps_s)
    within = np.floor((mantissa - 0.5) * (2 * GAP_BINS_AN_OCTAVE)).astype(np.int64)
    bins = (octave - GAP_LEAST_OCTAVE) * GAP_BINS_AN_OCTAVE + within
    return np.where(mantissa > 0.0, bins.clip(0, GAP_BINS - 1), 0)


def assert_same_lives(cluster: Cluster, scenario: Any, expected: Outcome) -> None:
    """Instances, the horizon, restarts and the budget."""
    assert cluster.restarts == sum(r.restarts for r in expected.requests)
    horizon = horizon_s(cluster, scenario)
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
