"""The surfaces of an engine: prefill time over prompt length, decode step time over requests and KV tokens.

Both stand on a monotone cubic through knots, PCHIP (F. N. Fritsch and J. Butland, "A method for constructing
local monotone piecewise cubic interpolants", SIAM J. Sci. Stat. Comput. 5, 1984): knots are met exactly,
nothing overshoots, and data on a straight line stays on it. It is written out here because importing
``scipy.interpolate`` takes longer than everything else a short run does.

For decode each context knot carries such a curve along concurrency, evaluated at every whole number of
requests; along context another one is cut into straight pieces wherever it bends, so for each n the step time
is exactly piecewise linear in K, the KV tokens held in all, with breaks at ``n * context``.
"""

from __future__ import annotations

import functools
import itertools
import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from sagescale.perf.profile import DecodeProfile, PrefillProfile

_BEND, _HALVINGS = 5e-4, 2
"""A piece is halved while its middle leaves the cubic by more than this share, so many times at most."""

_LEAST_SHARE = 0.01
"""Extrapolation never goes below this share of the smallest fitted ITL: it stays positive."""


class MonotoneCurve:
    """PCHIP through ``(x[i], y[i])``; outside, lines with the secants of the first and last two knots.

    ``x`` is strictly increasing, at least two knots; ``y`` has shape ``(len(x),)``, or ``(len(x), m)``
    for ``m`` curves over the same knots.
    """

    __slots__ = ("_c1", "_c2", "_c3", "_knots", "_rows", "_secants", "_x", "_y")

    def __init__(self, x: ArrayLike, y: ArrayLike) -> None:
        self._x = np.asarray(x, dtype=np.float64)
        self._y = np.asarray(y, dtype=np.float64)
        h = np.diff(self._x).reshape((-1,) + (1,) * (self._y.ndim - 1))
        secants = np.diff(self._y, axis=0) / h
        d = _derivatives(h, secants)
        self._secants = secants
        self._c1 = d[:-1]
        self._c2 = (3.0 * secants - 2.0 * d[:-1] - d[1:]) / h
        self._c3 = (d[:-1] + d[1:] - 2.0 * secants) / (h * h)
        # Plain lists for the scalar path: an interpreter reads them several times faster than arrays.
        self._knots: list[float] = self._x.tolist()
        self._rows: list[tuple[float, ...]] = []
        if self._y.ndim == 1:
            columns = (self._y[:-1], self._c1, self._c2, self._c3, self._y[1:])
            self._rows = list(zip(*(column.tolist() for column in columns), strict=True))

    def at(self, q: float) -> float:
        """Return the curve at one point; only for a single curve."""
        x = self._knots
        if q < x[0]:
            return self._rows[0][0] + float(self._secants[0]) * (q - x[0])
        if q >= x[-1]:
            return self._rows[-1][4] + float(self._secants[-1]) * (q - x[-1])
        i = bisect_right(x, q) - 1
        c0, c1, c2, c3, end = self._rows[i]
        t = q - x[i]
        value = ((c3 * t + c2) * t + c1) * t + c0
        return min(max(value, min(c0, end)), max(c0, end))

    def __call__(self, q: ArrayLike) -> NDArray[np.float64]:
        """Return the curves at the points ``q`` (1-D), shape ``(len(q),)`` or ``(len(q), m)``."""
        points = np.asarray(q, dtype=np.float64)
        i = np.searchsorted(self._x[1:-1], points, side="right")
        column = (-1,) + (1,) * (self._y.ndim - 1)
        t = (points - self._x[i]).reshape(column)
        low, high = self._y[i], self._y[i + 1]
        value = ((self._c3[i] * t + self._c2[i]) * t + self._c1[i]) * t + low
        value = np.clip(value, np.minimum(low, high), np.maximum(low, high))
        for end, beyond in ((0, points < self._x[0]), (-1, points >= self._x[-1])):
            away = (points[beyond] - self._x[end]).reshape(column)
            value[beyond] = self._y[end] + self._secants[end] * away
        return value

    def up_to(self, last: int) -> NDArray[np.float64]:
        """Return a single curve at 0, 1, ... ``last``: what a call gives, piece by piece and so faster."""
        points = np.arange(last + 1, dtype=np.float64)
        value = np.empty(last + 1)
        begins: list[int] = np.searchsorted(points, self._x).tolist()
        for i, (begin, end) in enumerate(itertools.pairwise(begins)):
            c0, c1, c2, c3, c_end = self._rows[i]
            t = points[begin:end] - self._knots[i]
            piece = c3 * t
            piece += c2
            piece *= t
            piece += c1
            piece *= t
            piece += c0
            np.clip(piece, min(c0, c_end), max(c0, c_end), out=value[begin:end])
        for end, beyond in ((0, slice(begins[0])), (-1, slice(begins[-1], None))):
            value[beyond] = self._y[end] + self._secants[end] * (points[beyond] - self._x[end])
        return value


class PrefillCurve:
    """TTFT of a prompt measured alone: PCHIP through the knots, straight outside, above a floor.

    Below the first knot the line is never below the proportional one through it (time per token never
    falls because a prompt is shorter), so a steep first segment cannot make short prompts free.
    """

    __slots__ = ("_curve", "_first_isl", "_first_ttft", "floor_ms", "quadratic_ms")

    def __init__(self, prefill: PrefillProfile) -> None:
        self._curve = MonotoneCurve(prefill.isl_tokens, prefill.ttft_ms)
        self._first_isl = float(prefill.isl_tokens[0])
        self._first_ttft = float(prefill.ttft_ms[0])
        self.quadratic_ms = float(prefill.quadratic_ms)
        self.floor_ms = 0.0
        self.floor_ms = self.ttft_ms(1.0) if prefill.floor_ms is None else float(prefill.floor_ms)

    def ttft_ms(self, isl: float) -> float:
        """Prefill time in ms of one prompt of ``isl`` tokens."""
        value = self._curve.at(isl)
        if isl < self._first_isl:
            value = max(value, self._first_ttft * (isl / self._first_isl))
        return max(value, self.floor_ms)

    def table_ms(self, max_tokens: int) -> NDArray[np.float64]:
        """Return ``ttft_ms`` at 0..max_tokens tokens; entry 0 is 0."""
        table = self._curve.up_to(max_tokens)
        tokens = np.arange(min(max_tokens + 1, math.ceil(self._first_isl)), dtype=np.float64)
        below = table[: len(tokens)]
        np.maximum(below, self._first_ttft * (tokens / self._first_isl), out=below)
        np.maximum(table, self.floor_ms, out=table)
        table[0] = 0.0
        return table

    def batch_ms(self, tokens: Sequence[int]) -> float:
        """Time of one batch of prompts: attention is quadratic within a prompt, not across prompts.

        ``max(floor, ttft(S) - b*(S^2 - sum(n_i^2)))`` with S the batch's tokens. Raises ValueError for an
        empty batch or a prompt below one token.
        """
        if not tokens or min(tokens) < 1:
            raise ValueError(f"a prefill batch needs prompts of at least one token, not {list(tokens)!r}")
        total = sum(tokens)
        across = total * total - sum(n * n for n in tokens)
        return max(self.floor_ms, self.ttft_ms(total) - self.quadratic_ms * across)


@dataclass(frozen=True, slots=True)
class DecodeTable:
    """Step time for n = 1..slots (row 0 unused) as straight pieces in K, the KV tokens held in all.

    ``step_ms(n, K) = base_ms[n, s] + slope_ms[n, s] * K`` for ``breaks[n, s] <= K < breaks[n, s + 1]``;
    ``breaks[n, 0]`` is 0 and ``breaks[n, -1]`` infinite. Shapes: ``breaks`` (slots+1, S+1), ``base_ms`` and
    ``slope_ms`` (slots+1, S); ms, and ms per token.

    Those are steps of equal contexts. One of unequal contexts, the longest of ``longest`` tokens, takes
    ``spread_ms[n] * (n * longest - K) / n`` longer, the bracket in integers; shape (slots+1,), ms per token,
    0 where not known.
    """

    breaks: NDArray[np.float64]
    base_ms: NDArray[np.float64]
    slope_ms: NDArray[np.float64]
    spread_ms: NDArray[np.float64]

    @property
    def slots(self) -> int:
        """The largest n of the table."""
        return len(self.base_ms) - 1

    def step_ms(self, n: int, kv_tokens: float) -> float:
        """Time in ms of one step with ``n`` running requests that hold ``kv_tokens`` in all."""
        s = int(np.searchsorted(self.breaks[n, 1:-1], kv_tokens, side="right"))
        return float(self.base_ms[n, s] + self.slope_ms[n, s] * kv_tokens)

    def unequal_step_ms(self, n: int, kv_tokens: int, longest: int) -> float:
        """Time in ms of one step of ``n`` requests, of which the longest holds ``longest`` before it."""
        return self.step_ms(n, kv_tokens) + float(self.spread_ms[n]) * (n * longest - kv_tokens) / n


@functools.lru_cache(maxsize=64)  # runs of a comparison have the same engines
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
    starts = [*contexts[:-1]]
    anchors = [*itl[:, :-1].T]
    rates = [*slopes.T]

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
    breaks[1:, :pieces] = n[:, None] * starts
    slope[1:] = np.transpose(rates) / n[:, None]
    base[1:] = np.transpose(anchors) - np.transpose(rates) * offsets
    # A padded batch is a step of the padded size: its row of pieces, over the KV tokens that are there.
    spread = np.zeros(slots + 1)
    if decode.spread_ms:
        spread[1:] = np.interp(n, decode.spread_requests, decode.spread_ms)
    if decode.padded_batch_sizes:
        breaks, base, slope, spread = breaks[sizes], base[sizes], slope[sizes], spread[sizes]
    for array in (breaks, base, slope, spread):
        array.setflags(write=False)
    return DecodeTable(breaks=breaks, base_ms=base, slope_ms=slope, spread_ms=spread)


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


def _derivatives(h: NDArray[np.float64], secants: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return PCHIP's slope at every knot: weighted harmonic means, and one-sided three-point ends."""
    if len(secants) == 1:
        return np.concatenate([secants, secants])
    s0, s1, h0, h1 = secants[:-1], secants[1:], h[:-1], h[1:]
    w0, w1 = 2.0 * h1 + h0, h1 + 2.0 * h0
    flat = (s0 * s1 <= 0.0) | (s0 == s1)
    safe0, safe1 = np.where(flat, 1.0, s0), np.where(flat, 1.0, s1)
    inner = np.where(flat, 0.0, (w0 + w1) / (w0 / safe0 + w1 / safe1))
    # Equal secants: exactly that slope, so that a line survives to the last bit.
    inner = np.where(s0 == s1, s0, inner)
    first = _end(h[0], h[1], secants[0], secants[1])
    last = _end(h[-1], h[-2], secants[-1], secants[-2])
    return np.concatenate([first[None], inner, last[None]])


def _end(
    h0: NDArray[np.float64], h1: NDArray[np.float64], s0: NDArray[np.float64], s1: NDArray[np.float64]
) -> NDArray[np.float64]:
    d = ((2.0 * h0 + h1) * s0 - h0 * s1) / (h0 + h1)
    d = np.where(np.sign(d) != np.sign(s0), 0.0, d)
    d = np.where((np.sign(s0) != np.sign(s1)) & (np.abs(d) > 3.0 * np.abs(s0)), 3.0 * s0, d)
    return np.asarray(np.where(s0 == s1, s0, d))
