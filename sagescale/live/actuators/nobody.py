"""Nobody acts: a dry run, or sizes that an HPA or KEDA reads from the exported metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sagescale.live.actuators.protocol import Order, PoolStates

__all__ = ["ExportOnly", "Nobody"]


class Nobody:
    """Does nothing and knows nothing; the loop never asks it to."""

    target = "nothing (dry run)"

    def states(self) -> PoolStates | None:
        """Not know."""
        return None

    def carry_out(self, order: Order) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class ExportOnly(Nobody):
    """Leaves the acting to whoever reads ``sagescale_desired_replicas``.

    The loop exports every order's sizes, so that nothing is left to be done here.
    """

    def __init__(self, where: str) -> None:
        self.target = f"desired replicas exported at {where}"
