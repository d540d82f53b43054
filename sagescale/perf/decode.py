"""Decode step time over running requests and KV tokens, compiled to straight pieces.

Along concurrency each context knot carries a monotone cubic, evaluated at every whole number of
requests; along context another one is cut into straight pieces wherever it bends, so for each n the
step time is exactly piecewise linear in K, the KV tokens held in all, with breaks at ``n * context``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sagescale.perf.curve import MonotoneCurve

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sagescale.perf.profile import DecodeProfile

__all__ = ["DecodeTable", "compile_decode"]

_BEND, _HALVINGS = 5e-4, 2
"""A piece is halved while its middle leaves the cubic by more than this share, so many times at most."""

_LEAST_SHARE = 0.01
"""Extrapolation never goes below this share of the smallest fitted ITL: it stays positive."""


@dataclass(frozen=True, slots=True)
class DecodeTable:
    """Step time for n = 1..slots (row 0 unused) as straight pieces in K, the KV tokens held in all.

    ``step_ms(n, K) = base_ms[n, s] + slope_ms[n, s] * K`` for ``breaks[n, s] <= K < breaks[n, s + 1]``;
    ``breaks[n, 0]`` is 0 and ``breaks[n, -1]`` infinite. Shapes: ``breaks`` (slots+1, S+1), ``base_ms`` and
    ``slope_ms`` (slots+1, S); ms, and ms per token.
    """

    breaks: NDArray[np.float64]
    base_ms: NDArray[np.float64]
    slope_ms: NDArray[np.float64]

    @property
    def slots(self) -> int:
        """The largest n of the table."""
        return len(self.base_ms) - 1

    def step_ms(self, n: int, kv_tokens: float) -> float:
        """Time in ms of one step with ``n`` running requests that hold ``kv_tokens`` in all."""
        s = int(np.searchsorted(self.breaks[n, 1:-1], kv_tokens, side="right"))
        return float(self.base_ms[n, s] + self.slope_ms[n, s] * kv_tokens)


def compile_decode(decode: DecodeProfile) -> DecodeTable:
    """Compile the fitted grid into straight pieces for every n up to ``max_num_seqs``.

    Monotone in n and in context everywhere, extrapolated parts included; data linear in n and n*context
    comes out as that line. Outside the context knots the end segments go on; below the first they stop
    at 1 % of the smallest ITL. With ``padded_batch_sizes`` a row is that of the size padded to.
    """
    sizes = _padded(decode)
    slots = int(sizes[-1])
    n = np.arange(1, slots + 1, dtype=np.float64)
    contexts = np.asarray(decode.context_tokens, dtype=np.float64)
    grid = np.asarray(decode.itl_ms, dtype=np.float64)
    least = _LEAST_SHARE * float(grid.min())

    itl = MonotoneCurve(decode.concurrency, grid)(n)
    # Below the first knot: fewer requests never give more tokens a second than that knot does.
    first = float(decode.concurrency[0])
    below = n < first
    itl[below] = np.maximum(itl[below], grid[0] * (n[below] / first)[:, None])
    itl = np.maximum(itl, least)
    # Cubics of neighbouring contexts may cross between knots; the running maximum keeps both orders.
    itl = np.maximum.accumulate(np.maximum.accumulate(itl, axis=0), axis=1)

    contexts, itl = _straightened(contexts, itl)

    slopes = np.diff(itl, axis=1) / np.diff(contexts)
    starts = list(contexts[:-1])
    anchors = [itl[:, j] for j in range(len(contexts) - 1)]
    rates = [slopes[:, j] for j in range(len(contexts) - 1)]

    # Beyond the last context a larger n must not have the flatter line, or the lines would cross.
    beyond = np.maximum.accumulate(slopes[:, -1])
    if not np.array_equal(beyond, slopes[:, -1]):
        starts.append(contexts[-1])
        anchors.append(itl[:, -1])
        rates.append(beyond)

    # Down to context 0 likewise: the foot of each line rises with n and stays positive.
    straight = itl[:, 0] - slopes[:, 0] * contexts[0]
    foot = np.minimum(np.maximum.accumulate(np.maximum(straight, least)), itl[:, 0])
    if np.array_equal(foot, straight):
        starts[0] = 0.0
        offsets = [contexts[0], *starts[1:]]
    else:
        starts.insert(0, 0.0)
        anchors.insert(0, foot)
        rates.insert(0, (itl[:, 0] - foot) / contexts[0])
        offsets = [0.0, *starts[1:]]

    pieces = len(starts)
    breaks = np.zeros((slots + 1, pieces + 1))
    base = np.zeros((slots + 1, pieces))
    slope = np.zeros((slots + 1, pieces))
    breaks[:, pieces] = np.inf
    for s in range(pieces):
        breaks[1:, s] = n * starts[s]
        slope[1:, s] = rates[s] / n
        base[1:, s] = anchors[s] - rates[s] * offsets[s]
    # A padded batch is a step of the padded size: its row of pieces, over the KV tokens really held.
    if decode.padded_batch_sizes:
        breaks, base, slope = breaks[sizes], base[sizes], slope[sizes]
    for array in (breaks, base, slope):
        array.setflags(write=False)
    return DecodeTable(breaks=breaks, base_ms=base, slope_ms=slope)


def _padded(decode: DecodeProfile) -> NDArray[np.int64]:
    """The batch size that n requests run as, for n = 0..max_num_seqs; 0 for none."""
    n = np.arange(decode.max_num_seqs + 1)
    if not decode.padded_batch_sizes:
        return n
    known = np.array([0, *decode.padded_batch_sizes])
    at = np.minimum(np.searchsorted(known, n), len(known) - 1)
    padded: NDArray[np.int64] = np.maximum(known[at], n)
    return padded


def _straightened(
    contexts: NDArray[np.float64], itl: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Add contexts where straight pieces between the given ones would leave the monotone cubic.

    A chord lies on one side of a curve that bends: with knots an octave apart all steps between them would
    be half a percent too fast or too slow, which a queue near saturation multiplies.
    """
    curve = MonotoneCurve(contexts, itl.T)
    for _ in range(_HALVINGS):
        middles = (contexts[:-1] + contexts[1:]) / 2.0
        bent = curve(middles).T
        chord = (itl[:, :-1] + itl[:, 1:]) / 2.0
        far = (np.abs(bent - chord) > _BEND * bent).any(axis=0)
        if not far.any():
            break
        at = np.flatnonzero(far) + 1
        contexts = np.insert(contexts, at, middles[far])
        itl = np.insert(itl, at, bent[:, far], axis=1)
    return contexts, np.maximum.accumulate(np.maximum.accumulate(itl, axis=0), axis=1)
