"""The instances that are ready at the start: as configured, else for the first window's true load."""

from __future__ import annotations

import dataclasses
import math
from bisect import bisect_left
from typing import TYPE_CHECKING, Any

import numpy as np

from sagescale.fleet import Sizes, fit
from sagescale.planner import initial_targets, pool_keys
from sagescale.planner.policy.twin import Lengths
from sagescale.sim.scheduler import scheduler_of
from sagescale.sim.twin import engine_twin
from sagescale.sim.twin_aggregated import AggregatedTwin
from sagescale.sim.world import computed_tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sagescale.perf import PerfModel, ProfileModel
    from sagescale.planner import AutoscalerConfig
    from sagescale.sim.config import SimulatorConfig
    from sagescale.sim.twin import KernelTwin
    from sagescale.trace import Trace

    Tried = Callable[[int, float, Lengths], float]

_SAMPLE = 8192
"""Requests tried at most."""


def given_sizes(config: AutoscalerConfig, simulator: SimulatorConfig) -> Sizes | None:
    """Return the sizes that are given for the start, None unless every pool's is."""
    found = _given(config, simulator)
    return None if None in found else Sizes(*found, names=config.pool_names)


def _given(config: AutoscalerConfig, simulator: SimulatorConfig) -> list[Any]:
    return [getattr(simulator, pool_keys(pool).initial) for pool in config.pools]


def starting_with(config: AutoscalerConfig, simulator: SimulatorConfig, sizes: Sizes) -> SimulatorConfig:
    """Return the simulator's configuration with these sizes at the start."""
    return dataclasses.replace(simulator, **config.by_key("initial", sizes))  # type: ignore[arg-type]  # keys of sizes alone


def sized_start(
    trace: Trace,
    model: ProfileModel,
    config: AutoscalerConfig,
    simulator: SimulatorConfig,
    learned: PerfModel | None = None,
) -> Sizes:
    """Return the sizes of the start, whatever the policy: those given, others for the load at the start.

    Engines that form batches are sized by the classic formulas for the first window's true load (DESIGN 5.8),
    with times ``learned`` before where there are any. Those say little of how many engines that step keep a
    target: such pools start with the fewest that, tried in the simulator, miss no more than they may in the
    busiest window before one launched at the first decision serves.
    """
    given = given_sizes(config, simulator)
    if given is not None:
        return given
    if scheduler_of(simulator, config.serving) != "batch":
        sized = _fewest_tried(trace, model, config, simulator)
    else:
        first = trace.arrival_s <= config.adjustment_interval_sec
        sized = initial_targets(
            config,
            learned or model,
            float(first.sum()),
            float(trace.isl[first].mean()),
            float(trace.osl[first].mean()),
        )
    return sized.map(lambda computed, size: computed if size is None else size, _given(config, simulator))


def _fewest_tried(
    trace: Trace, model: ProfileModel, config: AutoscalerConfig, simulator: SimulatorConfig
) -> Sizes:
    """Return the fewest with which each pool, tried, misses no more than its part of what may be missed."""
    pools = config.pools
    low = [pool.least for pool in pools]
    high = [max(pool.least, min(pool.most, config.max_gpu_budget // pool.gpus)) for pool in pools]
    if low == high:
        return fit(Sizes(*low, names=config.pool_names), config.fleet)
    twin = engine_twin(config, model, simulator)
    interval_s = float(config.adjustment_interval_sec)
    windows = 1 + math.ceil(twin.startup_s / interval_s)
    edges = np.searchsorted(trace.arrival_s, interval_s * np.arange(1, windows + 1), side="right")
    rate = float(np.diff(edges, prepend=0).max()) * config.load_headroom / interval_s
    some = np.random.default_rng(0).permutation(int(edges[-1]))[:_SAMPLE]
    lengths = Lengths(trace.isl[some], computed_tokens(trace, simulator)[some], trace.osl[some])
    allowed = (1.0 - config.target_attainment) / len(pools)

    def fewest(low: int, high: int, tried: Tried, rate: float, alone: float) -> int:
        enough = max(allowed, alone + allowed / 2.0)
        return low + bisect_left(
            range(low, high), x=True, key=lambda size: size > 0 and tried(size, rate, lengths) <= enough
        )

    sizes = map(fewest, low, high, *zip(*_tried(twin, rate, lengths), strict=True))
    return fit(Sizes(*sizes, names=config.pool_names), config.fleet)


def _tried(twin: KernelTwin, rate: float, lengths: Lengths) -> Iterable[tuple[Tried, float, float]]:
    """Return how each pool is tried: what says what it misses, at which rate, and what it misses anyway."""
    if isinstance(twin, AggregatedTwin):
        rate *= twin.work(lengths)
    else:
        yield twin.prefill_misses, rate, twin.prefill_misses_alone(lengths)
    yield twin.decode_misses, rate, twin.decode_misses_alone(lengths)
