"""What a trace looks like in a few numbers: rates, lengths and burstiness."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sagescale.trace.sessions import session_starts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sagescale.trace.prefixes import Prefixes
    from sagescale.trace.sessions import Turns
    from sagescale.trace.trace import Trace

_MINUTE_S = 60.0
_SPARK_BINS = 60
_ENGINE_BLOCK_TOKENS = 16


@dataclass(frozen=True, slots=True)
class LengthStats:
    """A distribution of token counts; percentiles interpolate linearly."""

    mean: float
    p50: float
    p90: float
    p99: float
    max: int


@dataclass(frozen=True, slots=True)
class PrefixStats:
    """What prompts have in common, where the trace says it.

    Attributes:
        block_tokens: tokens of an id.
        requests: those with ids.
        ids: how many, of all requests together.
        distinct_ids: how many of them differ.
        distinct_tokens: what a cache of them all would hold.
        hit_share: of all prompt tokens, those that one cache without end finds, in order of arrival: of each
            prompt the leading ids that came before, but for its last token, in blocks of 16.
    """

    block_tokens: int
    requests: int
    ids: int
    distinct_ids: int
    distinct_tokens: int
    hit_share: float


@dataclass(frozen=True, slots=True)
class TurnStats:
    """Sessions whose turns wait for answers.

    Attributes:
        waiting: requests that wait for an answer; the others arrive by the clock.
        joins: those that wait for several.
        starts_per_hour: sessions begun, over the time from the first start to the last; None for one.
        per_session: requests of a session.
        think_s: p50, p90, p99 and mean of seconds from an answer to the request that waited for it; None
            where none waits.
        growth: p50, p90, p99 and mean of tokens by which a prompt is longer than the one it waited for first;
            below 0 where it begins anew. None where none waits.
    """

    waiting: int
    joins: int
    starts_per_hour: float | None
    per_session: LengthStats
    think_s: Spread | None
    growth: Spread | None


@dataclass(frozen=True, slots=True)
class Spread:
    """A distribution of any numbers; percentiles interpolate linearly."""

    mean: float
    p50: float
    p90: float
    p99: float


@dataclass(frozen=True, slots=True)
class TraceStats:
    """A trace in numbers. A figure that the trace is too short for is None.

    Attributes:
        requests: how many.
        duration_s: first arrival to last.
        mean_rps: requests over the duration.
        peak_minute_rps: rate of the busiest minute, minutes counted from the first arrival; the last full
            one counts with what is left behind it, too, so that no mean exceeds it. None below a minute.
        prompt_tokens_per_s: total ISL over the duration; ``output_tokens_per_s`` the same of OSL.
        isl: prompt lengths; ``osl`` generated ones.
        cached_share: cached prompt tokens over all prompt tokens, where the trace has them.
        isl_osl_correlation: Spearman's rank correlation.
        gap_cv: coefficient of variation of the gaps between arrivals; 1 for a Poisson process.
        dispersion: variance over mean of the requests in each full minute; 1 for a Poisson process.
        rate_profile_rps: mean rate in equal bins over the duration.
        prefixes: what prompts have in common; None when unknown.
        sessions: how many, where the trace says it.
        turns: how they go on, where turns wait for answers; None when all arrive by the clock.
    """

    requests: int
    duration_s: float
    mean_rps: float | None
    peak_minute_rps: float | None
    prompt_tokens_per_s: float | None
    output_tokens_per_s: float | None
    isl: LengthStats
    osl: LengthStats
    cached_share: float | None
    isl_osl_correlation: float | None
    gap_cv: float | None
    dispersion: float | None
    rate_profile_rps: tuple[float, ...]
    prefixes: PrefixStats | None = None
    sessions: int | None = None
    turns: TurnStats | None = None


def describe(trace: Trace) -> TraceStats:
    """Compute all the figures; a million requests take a fraction of a second."""
    n, duration_s = len(trace), trace.duration_s
    gaps_s = np.diff(trace.arrival_s)
    full_minutes = int(duration_s // _MINUTE_S)
    minutes = np.bincount((trace.arrival_s // _MINUTE_S).astype(np.int64)) if full_minutes else np.array([n])
    full = minutes[:full_minutes]
    bins = min(_SPARK_BINS, n)
    counts = (
        np.histogram(trace.arrival_s, bins=bins, range=(0.0, duration_s))[0] if duration_s else np.zeros(0)
    )
    isl_total, osl_total = int(trace.isl.sum(dtype=np.int64)), int(trace.osl.sum(dtype=np.int64))
    cached = trace.cached_tokens
    return TraceStats(
        requests=n,
        duration_s=duration_s,
        mean_rps=_per(n, duration_s),
        peak_minute_rps=_busiest(minutes, full_minutes, duration_s) if full_minutes else None,
        prompt_tokens_per_s=_per(isl_total, duration_s),
        output_tokens_per_s=_per(osl_total, duration_s),
        isl=_lengths(trace.isl),
        osl=_lengths(trace.osl),
        cached_share=None if cached is None else float(cached.sum(dtype=np.int64) / isl_total),
        isl_osl_correlation=_rank_correlation(trace.isl, trace.osl),
        gap_cv=float(gaps_s.std() / gaps_s.mean()) if n > 2 and duration_s else None,
        dispersion=float(full.var() / full.mean()) if full_minutes >= 10 else None,
        rate_profile_rps=tuple((counts * (bins / duration_s)).tolist()) if duration_s else (),
        prefixes=None if trace.prefixes is None else _shared(trace.prefixes, trace.isl),
        sessions=None if trace.session_id is None else int(trace.session_id.max()) + 1,
        turns=None if trace.turns is None else _turns(trace, trace.turns),
    )


def _busiest(minutes: NDArray[np.int64], full_minutes: int, duration_s: float) -> float:
    last = full_minutes - 1
    end = minutes[last:].sum() / (duration_s - last * _MINUTE_S)
    return float(max(minutes.max() / _MINUTE_S, end))


def _turns(trace: Trace, turns: Turns) -> TurnStats:
    assert trace.session_id is not None
    starts, waits = session_starts(trace), turns.waits
    counts = np.diff(turns.after_start)
    growth = trace.isl[waits].astype(np.int64) - trace.isl[turns.after[turns.after_start[:-1][waits]]]
    return TurnStats(
        waiting=int(waits.sum()),
        joins=int((counts > 1).sum()),
        starts_per_hour=_per(3600 * (len(starts) - 1), float(starts[-1])),
        per_session=_lengths(np.bincount(trace.session_id)),
        think_s=_spread(turns.think_s[waits]),
        growth=_spread(growth),
    )


def _spread(values: NDArray[Any]) -> Spread | None:
    if not len(values):
        return None
    p50, p90, p99 = np.percentile(values, (50, 90, 99)).tolist()
    return Spread(float(values.mean()), p50, p90, p99)


def _shared(prefixes: Prefixes, isl: NDArray[np.int32]) -> PrefixStats:
    counts, block = prefixes.counts, prefixes.block_tokens
    known = prefixes.hits().astype(np.int64) * block
    last = (isl - 1) // _ENGINE_BLOCK_TOKENS * _ENGINE_BLOCK_TOKENS
    return PrefixStats(
        block_tokens=block,
        requests=int((counts > 0).sum()),
        ids=int(counts.sum(dtype=np.int64)),
        distinct_ids=len(prefixes.ids),
        distinct_tokens=len(prefixes.ids) * block,
        hit_share=float(np.minimum(known, last).sum() / isl.sum(dtype=np.int64)),
    )


def _per(total: int, duration_s: float) -> float | None:
    return total / duration_s if duration_s else None


def _lengths(tokens: NDArray[Any]) -> LengthStats:
    p50, p90, p99 = np.percentile(tokens, (50, 90, 99)).tolist()
    return LengthStats(float(tokens.mean()), p50, p90, p99, int(tokens.max()))


def _rank_correlation(a: NDArray[np.int32], b: NDArray[np.int32]) -> float | None:
    """Return Spearman's rho, ties by mean rank; None when either column is constant."""
    ranks = [_mean_ranks(column) for column in (a, b)]
    if any(rank.min() == rank.max() for rank in ranks):
        return None
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _mean_ranks(values: NDArray[np.int32]) -> NDArray[np.float64]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean_rank: NDArray[np.float64] = (last - (counts - 1) / 2)[inverse]
    return mean_rank
