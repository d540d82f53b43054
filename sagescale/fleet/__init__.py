"""What there is to run, and the arithmetic of moving pools under limits and stock; pure, below everything."""

from __future__ import annotations

from sagescale.fleet.by_pool import AGGREGATED, DISAGGREGATED, STATES, ByPool, PoolCounts, Pools, Sizes
from sagescale.fleet.model import Fleet, PoolSpec, Role, Service, check_names
from sagescale.fleet.moves import Change, fit, gpus_of, grow, next_launches, resize, within_limits

__all__ = [
    "AGGREGATED", "DISAGGREGATED", "STATES", "ByPool", "Change", "Fleet", "PoolCounts", "PoolSpec", "Pools",
    "Role", "Service", "Sizes", "check_names", "fit", "gpus_of", "grow", "next_launches", "resize",
    "within_limits",
]  # fmt: skip
