"""Names of what the modelled cluster decides about requests: who is next, and where one goes."""

from __future__ import annotations

from typing import Literal

__all__ = ["RoutingStrategy", "SchedulingPolicy"]

SchedulingPolicy = Literal["fifo", "priority", "slo_aware", "adaptive"]
"""In which order an instance, of either pool, serves the requests that wait for it."""

RoutingStrategy = Literal["load_balanced", "round_robin"]
"""Which READY instance of a pool a request goes to."""
