"""A lower bound on GPU-hours that no schedule of the same requests can beat (DESIGN 6).

Every prefill batch with S computed tokens and Q = sum of squares lasts at least ``alpha + beta*S + gamma*Q``,
and every decode step of n requests holding K tokens at least ``a + b*n + c*K``, for coefficients that keep
under the profile everywhere. Summed over all batches and steps of any schedule the right-hand sides
depend on the requests alone: tokens are computed and steps taken exactly once, and there are at least as
many batches and steps as ``max_batch_tokens``, the slots and the KV memory force. Among all admissible
coefficients a linear program picks those that make the bound largest. ``docs/lower-bound.md`` has the proof.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sagescale.sim.state import DONE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sagescale.sim.engine import World
    from sagescale.sim.run import Run

__all__ = ["LowerBound", "lower_bound", "prefill_minorant", "step_minorant"]

_SAFETY = 1.0 - 1e-9
"""The bound is shrunk by this against rounding."""

_TOLERANCE = 1e-7
"""Violation at which the cutting plane stops; the coefficients are then scaled below every row."""


@dataclass(frozen=True, slots=True)
class LowerBound:
    """GPU-hours that no schedule can go below, by pool; a pool also keeps its minimum all along."""

    prefill_gpu_hours: float
    decode_gpu_hours: float

    @property
    def gpu_hours(self) -> float:
        """Both pools."""
        return self.prefill_gpu_hours + self.decode_gpu_hours


def lower_bound(run: Run) -> LowerBound:
    """Bound the GPU-hours of any schedule that completes the requests this run completed."""
    done = run.requests["state"] == DONE
    prompt = run.requests["prompt"][done].astype(np.float64)
    isl = run.requests["isl"][done].astype(np.float64)
    osl = run.requests["osl"][done].astype(np.float64)
    restarts = run.requests["restarts"][done].astype(np.float64)
    # Through crashes and without GPUs no pool can be sure to keep its minimum.
    floor_s = run.horizon_s * _SAFETY if run.faults is None else 0.0
    prefill_s = max(_prefill_s(run.world, prompt), run.config.min_prefill_instances * floor_s)
    decode_s = max(_decode_s(run.world, isl, osl, restarts), run.config.min_decode_instances * floor_s)
    return LowerBound(
        prefill_gpu_hours=prefill_s * run.world.prefill_gpus / 3600.0,
        decode_gpu_hours=decode_s * run.world.decode_gpus / 3600.0,
    )


def _prefill_s(world: World, prompt: NDArray[np.float64]) -> float:
    """Instance-seconds of prefill: no batch holds more than max_batch_tokens unless it is one prompt."""
    if not len(prompt):
        return 0.0
    weights = np.array(
        [
            float(np.minimum(1.0, prompt / world.max_batch_tokens).sum()),
            float(prompt.sum()),
            float((prompt * prompt).sum()),
        ]
    )
    coefficients = prefill_minorant(world, int(prompt.min()), int(prompt.max()), weights)
    return max(0.0, float(weights @ coefficients)) * _SAFETY


def _decode_s(
    world: World, isl: NDArray[np.float64], osl: NDArray[np.float64], restarts: NDArray[np.float64]
) -> float:
    """Instance-seconds of decode: steps, the tokens they run over and the KV held through them.

    A prefill gives a token, and one repeated after a crash saves a step at most.
    """
    if world.first_token == "prefill":
        steps, first = np.maximum(osl - 1.0 - restarts, 0.0), isl
    else:
        steps, first = osl, isl - 1.0
    taken = float(steps.sum())
    if taken == 0.0:
        return 0.0
    fewest = taken / world.max_num_seqs
    if world.max_kv_tokens is not None:
        fewest = max(fewest, float((steps * (isl + osl)).sum()) / world.max_kv_tokens)
    held = float((steps * first + 0.5 * steps * (steps - 1.0)).sum())
    weights = np.array([fewest, taken, held])
    coefficients = step_minorant(world, float(first.min()), weights)
    return max(0.0, float(weights @ coefficients)) * _SAFETY


def prefill_minorant(
    world: World, shortest: int, longest: int, weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Coefficients (alpha, beta, gamma) in s, s/token and s/token² that maximise their sum by ``weights``.

    Under the batch time for every S and every Q between ``shortest*S`` (all prompts as short as the
    shortest) and S² (one prompt). The time, max(floor, t(S) - b*S² + b*Q), is convex in Q, so its ends and
    its kink are all that must be looked at.
    """
    batches = np.arange(shortest, max(world.max_batch_tokens, shortest) + 1, dtype=np.float64)
    batches = batches[batches <= world.max_batch_tokens]
    alone = np.arange(shortest, longest + 1, dtype=np.float64)
    beyond = alone[alone > world.max_batch_tokens]
    tokens = np.concatenate([batches, beyond])
    top = len(world.prefill_s) - 1
    time_s = world.prefill_s[np.minimum(tokens, top).astype(np.int64)]
    time_s = time_s + world.prefill_slope_s * np.maximum(tokens - top, 0.0)
    b = world.quadratic_s
    offset = time_s - b * tokens * tokens
    one = tokens * tokens
    least = np.concatenate([shortest * batches, one[len(batches) :]])
    squares = [least, one]
    if b > 0.0:
        squares.append(np.clip((world.prefill_floor_s - offset) / b, least, one))
    rows = np.concatenate([np.column_stack([np.ones_like(tokens), tokens, q]) for q in squares])
    bounds = np.concatenate([np.maximum(world.prefill_floor_s, offset + b * q) for q in squares])
    return _largest_minorant(rows, bounds, weights)


def step_minorant(world: World, least_held: float, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Coefficients (a, b, c) in s, s/request and s/token that maximise their sum by ``weights``.

    Step time is piecewise linear in K for each n, so its break points, the least and the most K that n
    requests can hold are all that must be looked at; without a KV limit also the slope at infinity.
    """
    n = np.arange(1, world.max_num_seqs + 1, dtype=np.float64)[:, None]
    low = np.maximum(n * max(least_held, 0.0), 0.0)
    breaks = world.breaks[1:, 1:-1]
    ends = [low, np.maximum(breaks, low)]
    if world.max_kv_tokens is not None:
        ends = [
            np.minimum(
                np.concatenate([*ends, np.full_like(n, world.max_kv_tokens)], axis=1), world.max_kv_tokens
            )
        ]
        ends[0] = np.maximum(ends[0], np.minimum(low, world.max_kv_tokens))
    kv = np.concatenate(ends, axis=1)
    segment = (kv[:, :, None] >= world.breaks[1:, None, 1:-1]).sum(axis=2)
    time_s = (
        np.take_along_axis(world.base_s[1:], segment, 1)
        + np.take_along_axis(world.slope_s[1:], segment, 1) * kv
    )
    rows = np.column_stack([np.ones(kv.size), np.broadcast_to(n, kv.shape).ravel(), kv.ravel()])
    bounds = time_s.ravel()
    if world.max_kv_tokens is None:
        rows = np.concatenate([rows, [[0.0, 0.0, 1.0]]])
        bounds = np.append(bounds, world.slope_s[1:, -1].min())
    return _largest_minorant(rows, bounds, weights)


def _largest_minorant(
    rows: NDArray[np.float64], bounds: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Maximise ``weights @ x`` over ``rows @ x <= bounds`` with x[0] >= 0, whatever the solver's tolerance.

    A cutting-plane linear program: solved on a sample of the rows, the worst violated ones added until
    none is; what violation is left is removed by scaling, which keeps an admissible x admissible.
    """
    from scipy.optimize import linprog

    scale = np.abs(rows).max(axis=0)
    scale[scale == 0.0] = 1.0
    unit = rows / scale
    objective = -(weights / scale)
    norm = np.abs(objective).max()
    chosen = np.unique(np.concatenate([np.linspace(0, len(rows) - 1, 400).astype(np.int64), [len(rows) - 1]]))
    best: NDArray[np.float64] = np.zeros(rows.shape[1])
    for _ in range(30):
        solved = linprog(
            objective / norm,
            A_ub=unit[chosen],
            b_ub=bounds[chosen],
            bounds=[(0, None), (None, None), (None, None)],
            method="highs",
        )
        if solved.x is None:
            break
        best = solved.x
        excess = unit @ best - bounds
        if (excess <= _TOLERANCE * bounds).all():
            break
        worst = np.argsort(excess)[-50:]
        chosen = np.union1d(chosen, worst[excess[worst] > 0.0])
    reached = unit @ best
    above = reached > bounds
    if above.any():
        positive = bounds[above] > 0.0
        best = best * (float((bounds[above] / reached[above]).min()) if positive.all() else 0.0)
    coefficients: NDArray[np.float64] = best / scale
    return coefficients
