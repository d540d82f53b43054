"""The instances that are ready at the start, as configured."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from sagescale.fleet import Sizes
from sagescale.planner import pool_keys

if TYPE_CHECKING:
    from sagescale.planner import AutoscalerConfig
    from sagescale.sim.config import SimulatorConfig

__all__ = ["given_sizes", "starting_with"]


def given_sizes(config: AutoscalerConfig, simulator: SimulatorConfig) -> Sizes | None:
    """Return the sizes that are given for the start, None unless every pool's is."""
    found = {pool.name: getattr(simulator, pool_keys(pool).initial) for pool in config.pools}
    return None if None in found.values() else Sizes.of(found)


def starting_with(config: AutoscalerConfig, simulator: SimulatorConfig, sizes: Sizes) -> SimulatorConfig:
    """Return the simulator's configuration with these sizes at the start."""
    keys = {pool_keys(pool).initial: size for pool, size in zip(config.pools, sizes, strict=True)}
    return dataclasses.replace(simulator, **keys)  # type: ignore[arg-type]  # keys of sizes alone
