"""The lower bound where engines take one step after the other: a step's cost is shared by what it computes.

Every step of n decoding requests that hold K tokens, with C tokens of prompts over whose P pairs attention
goes (``sum c p + c²/2``), lasts at least ``a + b n + d C + c K + e P`` for coefficients, none below 0, that
keep under the profile wherever a step can be. Whatever the schedule, tokens are computed and produced at
least once, so summed over its steps the right-hand side is at least what the requests alone say. Among all
admissible coefficients a linear program picks those that make the bound largest. ``docs/lower-bound.md`` has
the proof.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sagescale.sim.linear_minorant import largest_minorant, summed
from sagescale.sim.state import DONE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sagescale.sim.engine import World
    from sagescale.sim.run import Run

_PIECE = 1 << 16


@dataclass(slots=True)
class StepWork:
    """Totals over the completed requests, as any schedule computes them at least.

    Attributes:
        tokens: of prompts that are computed.
        pairs: over which their attention goes: computed token and earlier one, half for its own chunk.
        decodes: tokens produced after the first.
        kv: held by their requests before each of them, in all.
        least_kv: held before the first of them by the request that holds least.
        visits: how often requests are in a step: once a decode, and for as many chunks as prompts need.
        held: what they hold at the end of each of these steps, in all; 0 where KV is shared.
        found: whether some of a prompt may be found in a cache, so that less than all of it is computed anew.
    """

    tokens: float = 0.0
    pairs: float = 0.0
    decodes: float = 0.0
    kv: float = 0.0
    least_kv: float = np.inf
    visits: float = 0.0
    held: float = 0.0
    found: bool = False


def work_of_steps(run: Run, world: World, *, prefill: bool, decode: bool) -> StepWork:
    """Add up what engines of a pool compute of a run's completed requests.

    Args:
        run: which requests, and what of their prompts has to be computed.
        world: the engines.
        prefill: whether the pool computes prompts.
        decode: whether it produces tokens after the first.
    """
    assert world.stepping is not None
    stepping, trace, work = world.stepping, run.trace, StepWork(found=world.stepping.prefix_cache)
    longest = stepping.max_batched_tokens
    if stepping.long_prefill_token_threshold:
        longest = min(longest, stepping.long_prefill_token_threshold)
    handed_over = 1.0 if decode and not prefill and world.first_token == "decode" else 0.0
    for start in range(0, len(trace), _PIECE):
        piece = slice(start, start + _PIECE)
        done = run.requests["state"][piece] == DONE
        isl, osl = trace.isl[piece][done].astype(np.float64), trace.osl[piece][done].astype(np.float64)
        if not len(isl):
            continue
        if prefill:
            n = run.prompt[piece][done].astype(np.float64)
            work.found |= bool((n < isl).any())
            if stepping.prefix_cache:  # all but the last block may be found
                n = np.minimum(n, isl - np.floor((isl - 1.0) / stepping.block_tokens) * stepping.block_tokens)
            chunks = np.ceil(n / longest)
            work.tokens += float(n.sum())
            work.pairs += float((n * (isl - n) + 0.5 * n * n).sum())
            work.visits += float(chunks.sum())
            # Of a prompt in k chunks the j-th from the end leaves all but j - 1 of the longest.
            work.held += float((isl * chunks - 0.5 * longest * chunks * (chunks - 1.0)).sum())
        if decode:
            m, held = osl - 1.0 + handed_over, isl - handed_over
            if not prefill and world.first_token == "prefill":
                # A prefill of another pool gives a token: one repeated after a crash saves a step at most.
                m = np.maximum(m - run.requests["restarts"][piece][done], 0.0)
            kv = m * held + 0.5 * m * (m - 1.0)
            work.decodes += float(m.sum())
            work.kv += float(kv.sum())
            if (m > 0.0).any():
                work.least_kv = min(work.least_kv, float(held[m > 0.0].min()))
            work.visits += float(m.sum())
            work.held += float((kv + m).sum())
    if stepping.prefix_cache:
        work.held = 0.0
    return work


def steps_s(world: World, work: StepWork, *, again: bool = False) -> float:
    """Bound the instance-seconds of all steps that do some work.

    Args:
        world: the engines.
        work: what is done at least.
        again: requests may be thrown back by crashes.
    """
    assert world.stepping is not None
    if work.visits == 0.0:
        return 0.0
    fewest = max(
        work.visits / world.max_num_seqs,
        (work.tokens + work.decodes) / world.stepping.max_batched_tokens,
        0.0 if world.max_kv_tokens is None else work.held / world.max_kv_tokens,
    )
    weights = np.array([fewest, work.decodes, work.tokens, work.kv, work.pairs])
    least_kv = work.least_kv if np.isfinite(work.least_kv) else 1.0
    replaced = again or world.max_kv_tokens is not None  # by crashes, or pre-emption
    return summed(weights, step_coefficients(world, least_kv, weights, replaced=replaced, found=work.found))


def step_coefficients(
    world: World, least_kv: float, weights: NDArray[np.float64], *, replaced: bool, found: bool
) -> NDArray[np.float64]:
    """Coefficients (a, b, d, c, e) that maximise their sum by weights.

    In s, s/request, s/token, s/token and s/pair. Steps without chunks are checked at every number of requests
    and every break of the step time in K; steps with chunks at every number of tokens, with no request
    decoding and with as many as there can be.

    Args:
        world: the engines.
        least_kv: that a decoding request holds at least.
        weights: what the coefficients are multiplied with in the bound.
        replaced: a token may come from computing its request again, after a pre-emption or a crash.
        found: some of which may then be found in a cache.
    """
    stepping = world.stepping
    assert stepping is not None
    bounded = world.max_kv_tokens is not None and not stepping.prefix_cache  # what requests hold in all
    decoding, times = decode_rows(world, least_kv, bounded=bounded)
    nothing = np.zeros(len(decoding))
    rows = [np.column_stack([decoding[:, :2], nothing, decoding[:, 2], nothing])]
    bounds = [times]
    tokens = np.arange(1.0, stepping.max_batched_tokens + 1.0)
    nothing = np.zeros_like(tokens)
    for requests in (nothing, np.minimum(world.max_num_seqs - 1.0, tokens - 1.0)):
        rows.append(np.column_stack([nothing + 1.0, requests, tokens - requests, nothing, nothing]))
        bounds.append(stepping.tokens_s[1:] + stepping.running_s * requests)
    # A pair costs at least the less of both kinds; and the longest context times a step's tokens is no less
    # than its pairs.
    pairs_s = min(stepping.cross_s, stepping.square_s) + stepping.longest_s / stepping.max_batched_tokens
    kv_s = stepping.kv_s if bounded else min(stepping.kv_s, float(world.slope_s[1:, -1].min()))
    limits = [(0.0, np.inf), (0.0, np.inf), (0.0, np.inf), (0.0, max(0.0, kv_s)), (0.0, pairs_s)]
    if not replaced:
        return largest_minorant(np.concatenate(rows), np.concatenate(bounds), weights, limits)
    # Computing a request again costs no less than the decode it stands for: with nothing found it computes
    # all that the request holds and one more, else one token at least, over as many pairs as are held.
    again, held = (1.0, 0.0) if found else (least_kv + 1.0, least_kv)
    couplings = np.array(
        [[0.0, 0.0, 0.0, 1.0, -1.0] if found else [0.0, 0.0, -1.0, 1.0, 0.0], [0.0, 1.0, -again, held, 0.0]]
    )
    best = largest_minorant(np.concatenate(rows), np.concatenate(bounds), weights, limits, couplings)
    a, b, d, c, e = best.tolist()  # the couplings hold whatever the solver's tolerance
    c = min(c, e if found else d)
    return np.array([a, max(0.0, min(b, again * d - held * c)), d, c, e])


def decode_rows(
    world: World, least_kv: float, *, bounded: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rows (1, n, K) and times of steps without chunks, wherever the time in K may be least.

    ``bounded``: what the requests hold in all fits the KV memory.
    """
    n = np.arange(1, world.max_num_seqs + 1, dtype=np.float64)[:, None]
    kv = np.concatenate([n * least_kv, np.maximum(world.breaks[1:, 1:-1], n * least_kv)], axis=1)
    if bounded:
        assert world.max_kv_tokens is not None
        most = float(world.max_kv_tokens)
        kv = np.minimum(np.concatenate([kv, np.full_like(n, most)], axis=1), most)
    segment = (kv[:, :, None] >= world.breaks[1:, None, 1:-1]).sum(axis=2)
    time_s = np.take_along_axis(world.base_s[1:], segment, 1)
    time_s = time_s + np.take_along_axis(world.slope_s[1:], segment, 1) * kv
    rows = np.column_stack([np.ones(kv.size), np.broadcast_to(n, kv.shape).ravel(), kv.ravel()])
    return rows, time_s.ravel()
