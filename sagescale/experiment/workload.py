"""What a comparison runs on: one recorded trace, copies of it with arrivals moved, and the engines."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from sagescale.trace import TransformSpec, apply_transforms, slice_trace

if TYPE_CHECKING:
    from sagescale.perf import Profile
    from sagescale.trace import Trace

__all__ = ["BLOCK_S", "Workload", "shift_blocks"]

BLOCK_S = 300.0
"""Length of the blocks in which a replicate's arrivals are moved, s."""

_CACHE: dict[tuple[str, TransformSpec, float | None, float, int], Trace] = {}
_CACHED = 2
"""Transformed traces a process keeps: tasks come sorted by replicate."""


@dataclass(frozen=True, slots=True)
class Workload:
    """The recorded trace, what is done to it, and the engines before any override.

    Replicate 0 is the trace as transformed. Replicate k > 0 has the transforms' seed raised by k, so that
    ``--rate-scale`` draws other copies, and its blocks shifted (see :func:`shift_blocks`).

    Attributes:
        block_s: length of the blocks that are shifted; None leaves arrivals where the transforms put them.
        until_s: what arrives then or later, after the transforms and shifts, is left out: the beginning of
            the very same trace.
    """

    recorded: Trace
    transforms: TransformSpec
    profile: Profile
    block_s: float | None = BLOCK_S
    until_s: float = math.inf

    def trace(self, replicate: int = 0) -> Trace:
        """The trace of a replicate; the last few made are kept."""
        key = (self.recorded.sha256, self.transforms, self.block_s, self.until_s, replicate)
        if key not in _CACHE:
            while len(_CACHE) >= _CACHED:
                del _CACHE[next(iter(_CACHE))]
            spec = replace(self.transforms, seed=self.transforms.seed + replicate)
            made = apply_transforms(self.recorded, spec)
            if replicate and self.block_s is not None:
                made = shift_blocks(made, replicate, self.block_s)
            if self.until_s < math.inf:
                made = slice_trace(made, 0.0, self.until_s)
            _CACHE[key] = made
        return _CACHE[key]


def shift_blocks(trace: Trace, seed: int, block_s: float = BLOCK_S) -> Trace:
    """Rotate the arrivals of every block of ``block_s`` seconds by a random time, within the block.

    Each block keeps its requests, their gaps (but one) and their bursts; where in the block these fall,
    and so in which planner window, is drawn anew. The load over hours stays what it was. A last block that
    is cut short rotates within what there is of it.
    """
    rng = np.random.default_rng([seed, 0x5EED])
    at = trace.arrival_s
    block = np.floor_divide(at, block_s)
    blocks = int(block[-1]) + 1
    length = np.full(blocks, block_s)
    length[-1] = max(trace.duration_s - (blocks - 1) * block_s, 1e-9)
    shift = rng.uniform(0.0, 1.0, blocks) * length
    index = block.astype(np.int64)
    start = index * block_s
    moved = start + np.mod(at - start + shift[index], length[index])
    order = np.argsort(moved, kind="stable")
    arrival = moved[order]
    note = f"blocks of {block_s:g} s rotated (seed {seed})"
    return trace.remade(arrival - arrival[0], lambda column: column[order], note)
