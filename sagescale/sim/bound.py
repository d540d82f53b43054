"""A lower bound on GPU-hours that no schedule of the same requests can beat (DESIGN 6).

Every prefill batch with S computed tokens and Q = sum of squares lasts at least ``alpha + beta*S + gamma*Q``,
and every decode step of n requests holding K tokens at least ``a + b*n + c*K``, for coefficients that keep
under the profile wherever a schedule can be. Summed over all batches and steps of any schedule the
right-hand sides depend on the requests alone: tokens are computed and steps taken exactly once, and there
are at least as many batches and steps as ``max_batch_tokens``, the slots and the KV memory force. Among all
admissible coefficients a linear program picks those that make the bound largest. ``docs/lower-bound.md``
has the proof.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sagescale.fleet import Role
from sagescale.sim.bound_steps import decode_rows, steps_s, work_of_steps
from sagescale.sim.linear_minorant import SAFETY, largest_minorant, summed
from sagescale.sim.state import DONE, REJECTED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from sagescale.sim.engine import World
    from sagescale.sim.run import Run

_PIECE = 1 << 16


@dataclass(frozen=True, slots=True)
class LowerBound:
    """GPU-hours that no schedule can go below, by pool; a pool also keeps its minimum all along."""

    pools: Mapping[str, float]

    @property
    def gpu_hours(self) -> float:
        """All pools."""
        return sum(self.pools.values())


def lower_bound(run: Run) -> LowerBound:
    """Bound the GPU-hours of any schedule that completes the requests this run completed."""
    # That this run ended later may be its own doing.
    least_s = run.least_s * (1.0 - SAFETY)
    if run.faults is not None:
        least_s = 0.0  # through crashes, or without GPUs to be had, no pool can be sure to keep its minimum
    busy_s = _busy_s(run)
    return LowerBound(
        {
            pool.name: max(busy_s[pool.role], pool.least * least_s) * pool.gpus / 3600.0
            for pool in run.config.pools
        }
    )


def _busy_s(run: Run) -> dict[Role, float]:
    """Instance-seconds of batches and steps, by what a pool's engines do."""
    world, roles = run.world, [pool.role for pool in run.config.pools]
    if world.stepping is None:
        work = _work(run)
        return {Role.PREFILL: _prefill_s(world, work), Role.DECODE: _decode_s(world, work)}
    again = bool(run.requests["restarts"].any())
    return {
        role: steps_s(
            world,
            work_of_steps(run, world, prefill=Role.PREFILL in role, decode=Role.DECODE in role),
            again=again,
        )
        for role in roles
    }


@dataclass(slots=True)
class _Work:
    """Totals over the completed requests: n computed prompt tokens, m decode steps of each.

    What else was prefilled and not completed, or again after a crash, shares their batches: it
    counts in ``shortest``, ``beyond`` and ``all_tokens``.
    """

    shortest: float = np.inf  # smallest n
    beyond: frozenset[float] = frozenset()  # every n above max_batch_tokens
    all_tokens: float = 0.0
    others: bool = False
    least_kv: float = np.inf  # KV tokens of a request at its first step, at least
    batch_shares: float = 0.0  # sum of min(1, n / max_batch_tokens)
    tokens: float = 0.0  # sum of n
    squares: float = 0.0  # sum of n²
    steps: float = 0.0  # sum of m
    reserved: float = 0.0  # sum of m (isl + osl)
    kv: float = 0.0  # sum of the KV tokens of each step


def _work(run: Run) -> _Work:
    world, trace, work = run.world, run.trace, _Work()
    # In pieces that stay in the cache.
    for start in range(0, len(trace), _PIECE):
        piece = slice(start, start + _PIECE)
        state = run.requests["state"][piece]
        done, seen = state == DONE, state != REJECTED
        every = run.prompt[piece][seen].astype(np.float64)
        if len(every):
            work.shortest = min(work.shortest, float(every.min()))
            work.beyond |= frozenset(np.unique(every[every > world.max_batch_tokens]).tolist())
            work.all_tokens += float(every.sum())
        n = run.prompt[piece][done].astype(np.float64)
        work.others |= len(n) < len(every)
        if not len(n):
            continue
        isl = trace.isl[piece][done].astype(np.float64)
        osl = trace.osl[piece][done].astype(np.float64)
        m, first = (osl - 1.0, isl) if world.first_token == "prefill" else (osl, isl - 1.0)
        restarts = run.requests["restarts"][piece]
        if restarts.any():
            _count_restarts(work, world, run.prompt[piece], run.produced[piece], restarts)
            if world.first_token == "prefill":  # a prefill gives a token: one repeated saves a step at most
                m = np.maximum(m - restarts[done], 0.0)
        work.least_kv = min(work.least_kv, float(first.min()))
        work.batch_shares += float(np.minimum(1.0, n / world.max_batch_tokens).sum())
        work.tokens += float(n.sum())
        work.squares += float((n * n).sum())
        work.steps += float(m.sum())
        work.reserved += float((m * (isl + osl)).sum())
        work.kv += float((m * (first + 0.5 * (m - 1.0))).sum())
    return work


def _count_restarts(
    work: _Work,
    world: World,
    prompt: NDArray[np.int32],
    produced: NDArray[np.int32],
    restarts: NDArray[np.uint16],
) -> None:
    """Take in what crashes may have had prefilled again: n and up to ``produced`` tokens, each time."""
    work.others = True
    again = np.flatnonzero(restarts)
    longest = prompt[again].astype(np.int64) + produced[again]
    work.all_tokens += float((longest * restarts[again]).sum())
    for n, most in zip(prompt[again].tolist(), longest.tolist(), strict=True):
        work.beyond |= frozenset(map(float, range(max(n, world.max_batch_tokens) + 1, most + 1)))


def _prefill_s(world: World, work: _Work) -> float:
    """Instance-seconds of prefill: no batch holds more than max_batch_tokens unless it is one prompt."""
    if work.tokens == 0.0:
        return 0.0
    weights = np.array([work.batch_shares, work.tokens, work.squares])
    lengths = np.array(sorted({work.shortest, *work.beyond}))
    minorant = prefill_minorant(world, lengths, work.all_tokens, weights, grows=work.others)
    return summed(weights, minorant)


def _decode_s(world: World, work: _Work) -> float:
    """Instance-seconds of decode: steps, the requests they serve and the KV held through them."""
    if work.steps == 0.0:
        return 0.0
    fewest = work.steps / world.max_num_seqs
    if world.max_kv_tokens is not None:
        fewest = max(fewest, work.reserved / world.max_kv_tokens)
    weights = np.array([fewest, work.steps, work.kv])
    return summed(weights, step_minorant(world, work.least_kv, weights))


def prefill_minorant(
    world: World,
    lengths: NDArray[np.float64],
    all_tokens: float,
    weights: NDArray[np.float64],
    *,
    grows: bool = False,
) -> NDArray[np.float64]:
    """Coefficients (alpha, beta, gamma) in s, s/token and s/token² that maximise their sum by ``weights``.

    Under the batch time for every S up to max_batch_tokens and every Q between ``shortest*S`` (all prompts
    as short as the shortest) and S² (one prompt), and for each longer prompt alone. The time,
    max(floor, t(S) - b*S² + b*Q), is convex in Q, so its ends and its kink are all that must be checked.

    Args:
        world: the engines.
        lengths: the shortest length among the prompts and all above max_batch_tokens, ascending.
        all_tokens: of all prompts together; no batch holds more.
        weights: what the coefficients are multiplied with in the bound.
        grows: keep beta and gamma at or above 0, so that further prompts in a batch never lower it.
    """
    shortest = float(lengths[0])
    batches = np.arange(shortest, min(float(world.max_batch_tokens), all_tokens) + 1.0)
    beyond = lengths[lengths > world.max_batch_tokens]
    tokens = np.concatenate([batches, beyond])
    top = len(world.prefill_s) - 1
    time_s = world.prefill_s[np.minimum(tokens, top).astype(np.int64)]
    time_s = time_s + world.prefill_slope_s * np.maximum(tokens - top, 0.0)
    b = world.quadratic_s
    offset = time_s - b * tokens * tokens
    one = tokens * tokens
    least = np.concatenate([shortest * batches, beyond * beyond])
    squares = [least, one]
    if b > 0.0:
        squares.append(np.clip((world.prefill_floor_s - offset) / b, least, one))
    rows = np.concatenate([np.column_stack([np.ones_like(tokens), tokens, q]) for q in squares])
    bounds = np.concatenate([np.maximum(world.prefill_floor_s, offset + b * q) for q in squares])
    free = 0.0 if grows else -np.inf
    return largest_minorant(rows, bounds, weights, [(0.0, np.inf), (free, np.inf), (free, np.inf)])


def step_minorant(world: World, least_kv: float, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Coefficients (a, b, c) in s, s/request and s/token that maximise their sum by ``weights``.

    Step time is piecewise linear and continuous in K for each n, so its break points, the least and the
    most K that n requests can hold are all that must be checked; without a KV limit c stays at or under
    the least slope at infinity.
    """
    bounded = world.max_kv_tokens is not None
    rows, time_s = decode_rows(world, least_kv, bounded=bounded)
    steepest = np.inf if bounded else float(world.slope_s[1:, -1].min())
    return largest_minorant(rows, time_s, weights, [(0.0, np.inf), (-np.inf, np.inf), (-np.inf, steepest)])
