"""Cumulative histograms with vLLM's bucket edges, filled many values at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ["DURATION_EDGES", "ITL_EDGES", "TOKEN_EDGES", "TTFT_EDGES", "Histogram"]

TTFT_EDGES = np.array(
    [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0,
     80.0, 160.0, 640.0, 2560.0]
)  # fmt: skip
ITL_EDGES = np.array(
    [
        0.01,
        0.025,
        0.05,
        0.075,
        0.1,
        0.15,
        0.2,
        0.3,
        0.4,
        0.5,
        0.75,
        1.0,
        2.5,
        5.0,
        7.5,
        10.0,
        20.0,
        40.0,
        80.0,
    ]
)
DURATION_EDGES = np.array(
    [0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0,
     960.0, 1920.0, 7680.0]
)  # fmt: skip
TOKEN_EDGES = np.array([float(step * 10**power) for power in range(6) for step in (1, 2, 5)])


class Histogram:
    """Counts of values at or under each edge, with their sum."""

    __slots__ = ("counts", "edges", "total")

    def __init__(self, edges: NDArray[np.float64]) -> None:
        self.edges = edges
        self.counts = np.zeros(len(edges) + 1)
        self.total = 0.0

    def observe(self, values: NDArray[np.float64], weights: NDArray[np.float64] | None = None) -> None:
        """Take in values, each ``weights`` times."""
        where = np.searchsorted(self.edges, values, side="left")
        self.counts += np.bincount(where, weights, len(self.counts))
        self.total += float(values.sum() if weights is None else (values * weights).sum())

    @property
    def count(self) -> float:
        """How many values so far."""
        return float(self.counts.sum())

    def cumulative(self) -> Iterator[tuple[str, float]]:
        """Return each upper edge as text and how many values lie at or under it."""
        running = np.cumsum(self.counts).tolist()
        for edge, value in zip(self.edges.tolist(), running, strict=False):
            yield repr(edge), value
        yield "+Inf", running[-1]
