"""The instances that are ready at the start: as configured, else for the first window's true load."""

from __future__ import annotations

import dataclasses
import math
from bisect import bisect_left
from typing import TYPE_CHECKING

import numpy as np

from sagescale.fleet import Sizes
from sagescale.planner import initial_targets, pool_keys
from sagescale.planner.policy.twin import Lengths
from sagescale.sim.twin_aggregated import AggregatedTwin
from sagescale.sim.world import computed_tokens

if TYPE_CHECKING:
    from sagescale.perf import PerfModel, ProfileModel
    from sagescale.planner import AutoscalerConfig
    from sagescale.sim.config import SimulatorConfig
    from sagescale.trace import Trace

__all__ = ["given_sizes", "sized_start", "starting_with"]

_SAMPLE = 8192
"""Requests tried at most."""


def given_sizes(config: AutoscalerConfig, simulator: SimulatorConfig) -> Sizes | None:
    """Return the sizes that are given for the start, None unless every pool's is."""
    found = {pool.name: getattr(simulator, pool_keys(pool).initial) for pool in config.pools}
    return None if None in found.values() else Sizes.of(found)


def starting_with(config: AutoscalerConfig, simulator: SimulatorConfig, sizes: Sizes) -> SimulatorConfig:
    """Return the simulator's configuration with these sizes at the start."""
    keys = {pool_keys(pool).initial: size for pool, size in zip(config.pools, sizes, strict=True)}
    return dataclasses.replace(simulator, **keys)  # type: ignore[arg-type]  # keys of sizes alone


def sized_start(
    trace: Trace,
    model: ProfileModel,
    config: AutoscalerConfig,
    simulator: SimulatorConfig,
    learned: PerfModel | None = None,
) -> Sizes:
    """Return the sizes of the start, whatever the policy: those given, others for the load at the start.

    Separate pools are sized by the classic formulas for the first window's true load (DESIGN 5.8), with times
    ``learned`` before where there are any. Those say little of how many aggregated instances keep a TTFT
    target: such a pool starts with the fewest that, tried in the simulator, miss no more than they may in the
    busiest window before one launched at the first decision serves.
    """
    given = [getattr(simulator, pool_keys(pool).initial) for pool in config.pools]
    names = tuple(pool.name for pool in config.pools)
    if None not in given:
        return Sizes(*given, names=names)
    if config.serving == "aggregated":
        return Sizes(_fewest_aggregated(trace, model, config, simulator), names=names)
    first = trace.arrival_s <= config.adjustment_interval_sec
    sized = initial_targets(
        config,
        learned or model,
        float(first.sum()),
        float(trace.isl[first].mean()),
        float(trace.osl[first].mean()),
    )
    return sized.map(lambda computed, size: computed if size is None else size, given)


def _fewest_aggregated(
    trace: Trace, model: ProfileModel, config: AutoscalerConfig, simulator: SimulatorConfig
) -> int:
    (pool,) = config.pools
    low, high = pool.least, max(pool.least, min(pool.most, config.max_gpu_budget // pool.gpus))
    if low == high:
        return low
    twin = AggregatedTwin(model, simulator, config)
    interval_s = float(config.adjustment_interval_sec)
    windows = 1 + math.ceil(twin.startup_s / interval_s)
    edges = np.searchsorted(trace.arrival_s, interval_s * np.arange(1, windows + 1), side="right")
    rate = float(np.diff(edges, prepend=0).max()) * config.load_headroom / interval_s
    some = np.random.default_rng(0).permutation(int(edges[-1]))[:_SAMPLE]
    lengths = Lengths(trace.isl[some], computed_tokens(trace, simulator)[some], trace.osl[some])
    work = rate * twin.work(lengths)
    alone, allowed = twin.decode_misses_alone(lengths), 1.0 - config.target_attainment
    enough = max(allowed, alone + allowed / 2.0)

    def holds(size: int) -> bool:
        return size > 0 and twin.decode_misses(size, work, lengths) <= enough

    return low + bisect_left(range(low, high), x=True, key=holds)
