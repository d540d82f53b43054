"""The discrete-event simulator: pools, lifecycle, router, kernel, faults, results."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sagescale.sim.simulate import ServiceRun, simulate_fleet

__all__ = ["ServiceRun", "simulate_fleet"]


def __getattr__(name: str) -> object:
    """Import what is public when it is asked for: the kernel takes a while."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.simulate"), name)
