"""The measures of a part of a run: who arrived in it, and the GPU time spent in it, block by block.

So that knobs can be set on one part of a trace and judged on another, while the run itself, its queues, its
instances and what its forecasters have seen, goes on through both.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sagescale.sim.bound import lower_bound
from sagescale.sim.measures import Served, gpus_per_instance
from sagescale.trace import slice_trace

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sagescale.sim.run import Run

BLOCK_S = 300.0
"""Blocks of five minutes."""
SOON_S = 600.0
"""A launch so soon after a release in the same pool undoes it."""


@dataclass(frozen=True, slots=True)
class Part:
    """From ``start_s`` to before ``end_s`` of a run; an infinite end is the run's own."""

    start_s: float = 0.0
    end_s: float = math.inf


@dataclass(frozen=True, slots=True)
class PartResult:
    """A part in blocks of ``block_s`` seconds from its start; what is left over belongs to the last one.

    Attributes:
        arrived: requests that arrived in each block; turns that never did count where their session broke
            off, at the last of its requests that arrived.
        good: those of them that met both targets, whenever they were served.
        gpu_s: GPU time of each pool in each block. The last block of a part without an end goes on to the end
            of the run, when the last request is served.
        sizes: fewest and most instances of each pool, those launched and not yet stopped, at any instant
            while requests arrive.
        launches: instances launched while requests arrive, of all pools.
        relaunches: those of them within ``SOON_S`` of a release in the same pool.
    """

    block_s: float
    arrived: tuple[int, ...]
    good: tuple[int, ...]
    gpu_s: tuple[tuple[float, ...], ...]
    sizes: tuple[tuple[int, int], ...] = ()
    launches: int = 0
    relaunches: int = 0

    @property
    def misses(self) -> int:
        """Requests that were not good."""
        return sum(self.arrived) - sum(self.good)

    @property
    def attainment(self) -> float:
        """Share of the arrived requests that were good; 1 where none arrived."""
        arrived = sum(self.arrived)
        return sum(self.good) / arrived if arrived else 1.0

    @property
    def worst_attainment(self) -> float:
        """The lowest attainment of any block in which requests arrived."""
        shares = [good / arrived for good, arrived in zip(self.good, self.arrived, strict=True) if arrived]
        return min(shares, default=1.0)

    @property
    def gpu_hours(self) -> float:
        """GPU-hours of all pools."""
        return sum(math.fsum(pool) for pool in self.gpu_s) / 3600.0


def measure_part(run: Run, part: Part, block_s: float = BLOCK_S) -> PartResult:
    """Measure a part of a run.

    Raises:
        ValueError: the part begins after the last arrival.
    """
    end_s = min(part.end_s, run.trace.duration_s)
    if not part.start_s <= end_s:
        raise ValueError(f"the part starts at {part.start_s:g} s, the trace ends at {end_s:g} s")
    blocks = max(1, math.floor((end_s - part.start_s) / block_s))
    edges: NDArray[np.float64] = part.start_s + block_s * np.arange(blocks + 1, dtype=np.float64)
    edges[-1] = part.end_s  # the last block takes what is left
    served = Served(run)
    ttft, itl = served.good
    arrived = np.searchsorted(run.trace.arrival_s, edges, side="left")
    good = np.concatenate([[0], np.cumsum(ttft & itl, dtype=np.int64)])[arrived]
    asked = served.asked_up_to[arrived]
    edges[-1] = min(part.end_s, run.horizon_s)
    gpus = gpus_per_instance(run).values()
    return PartResult(
        block_s,
        tuple(np.diff(asked).tolist()),
        tuple(np.diff(good).tolist()),
        tuple(
            tuple((np.diff(_instance_seconds(run, edges, pool)) * each).tolist())
            for pool, each in enumerate(gpus)
        ),
        tuple(_sizes(run, part.start_s, end_s, pool) for pool in range(len(gpus))),
        *_launches(run, part.start_s, end_s),
    )


def _launches(run: Run, start_s: float, end_s: float) -> tuple[int, int]:
    """Launches from ``start_s`` to before ``end_s``, and how many of them soon after a release."""
    launches = relaunches = 0
    for pool in np.unique(run.lifetimes["pool"]):
        mine = run.lifetimes[run.lifetimes["pool"] == pool]
        released = np.sort(np.fmin(mine["drain_s"], mine["stop_s"]))  # one still starting stops undrained
        released = released[released < run.horizon_s]
        at = mine["launch_s"]
        at = at[
            (at >= max(start_s, np.nextafter(0.0, 1.0))) & (at < end_s)
        ]  # at 0 the initial ones are there
        before = np.searchsorted(released, at, side="right")
        soon = np.searchsorted(released, at - SOON_S, side="left")
        launches += len(at)
        relaunches += int((before > soon).sum())
    return launches, relaunches


def _sizes(run: Run, start_s: float, end_s: float, pool: int) -> tuple[int, int]:
    """Fewest and most instances of a pool at any instant from ``start_s`` to before ``end_s``."""
    mine = run.lifetimes[run.lifetimes["pool"] == pool]
    changes = np.concatenate([mine["launch_s"], mine["stop_s"]])
    at = np.unique(np.concatenate([[start_s], changes[(changes > start_s) & (changes < end_s)]]))
    launched = np.searchsorted(np.sort(mine["launch_s"]), at, side="right")
    alive = launched - np.searchsorted(np.sort(mine["stop_s"]), at, side="right")
    return int(alive.min()), int(alive.max())


def _instance_seconds(run: Run, until_s: NDArray[np.float64], pool: int) -> NDArray[np.float64]:
    """Instance-seconds of a pool from 0 to each of some times."""
    mine = run.lifetimes[run.lifetimes["pool"] == pool]
    total = np.zeros(len(until_s))
    for column, sign in (("launch_s", 1.0), ("stop_s", -1.0)):
        times = np.sort(mine[column])
        before = np.searchsorted(times, until_s, side="right")
        total += sign * (before * until_s - np.concatenate([[0.0], np.cumsum(times)])[before])
    return total


def lower_bound_of_part(run: Run, part: Part) -> float:
    """GPU-hours that serving the requests of a part needs at least, whatever the SLA (``bound.lower_bound``).

    As if they were all there is: it bounds what a part without an end costs but for batches and steps shared
    with requests that arrived before it.
    """
    trace = slice_trace(run.trace, part.start_s, part.end_s)
    first = int(np.searchsorted(run.trace.arrival_s, part.start_s, side="left"))
    mine = slice(first, first + len(trace))
    least_s = trace.duration_s
    if run.closed_loop is not None:  # when its requests come is the run's own doing
        least_s = max(0.0, min(run.least_s, part.end_s) - part.start_s)
    alone = dataclasses.replace(
        run,
        trace=trace,
        least_s=least_s,
        prompt=run.prompt[mine],
        produced=run.produced[mine],
        requests=run.requests[mine],
    )
    return lower_bound(alone).gpu_hours
