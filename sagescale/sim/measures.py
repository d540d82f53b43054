"""The measures of a run: attainment, latencies, GPU-hours, forecast errors, timeline, cost of faults."""

from __future__ import annotations

import functools
import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sagescale.document import (
    DrainedCaches,
    EngineMeasures,
    FaultRecord,
    FaultsResult,
    FinishTimes,
    ForecastScore,
    ForecastScores,
    Gaps,
    GpuHours,
    HitsByAge,
    ItlPoint,
    Latency,
    LostGpuHours,
    PoolTimeline,
    PrefixHits,
    SessionsResult,
    SlaResult,
    Surfaces,
    Timeline,
    TtftPoint,
    WithoutFaults,
)
from sagescale.fleet import STATES
from sagescale.planner import Corrections
from sagescale.planner.forecast.scores import bias, coverage, if_known, mape, pinball
from sagescale.sim.state import (
    AGES_UNTIL_S,
    DONE,
    GAP_BINS_AN_OCTAVE,
    GAP_LEAST_OCTAVE,
    HITS_HALVE_S,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sagescale.sim.injector import FaultLog
    from sagescale.sim.run import MeasuredGaps, Run, SteppedRun, Tick

_PERCENTILES = (50.0, 90.0, 95.0, 99.0)


class Served:
    """Latencies of a run's requests in ms, computed once, when first asked for.

    TTFT = first token - arrival. ITL of a request = (done - first token)/(osl - 1), undefined for OSL 1.
    """

    def __init__(self, run: Run) -> None:
        self._run = run

    @functools.cached_property
    def ttft_ms(self) -> NDArray[np.float64]:
        """Per request; NaN without a first token. float64[n]."""
        span: NDArray[np.float64] = self._run.requests["first_token_s"] - self._run.trace.arrival_s
        span *= 1000.0
        return span

    @functools.cached_property
    def itl_ms(self) -> NDArray[np.float64]:
        """Per request; NaN where unfinished or undefined. float64[n]."""
        span: NDArray[np.float64] = self._run.requests["done_s"] - self._run.requests["first_token_s"]
        span *= 1000.0
        steps = self._run.trace.osl - 1
        with np.errstate(divide="ignore", invalid="ignore"):
            span /= steps
        span[steps == 0] = np.nan
        return span

    @functools.cached_property
    def good(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Who met the TTFT target, and who met the ITL target; unfinished ones met neither. bool[n] each."""
        run, statistic = self._run, self._run.simulator.itl_statistic
        done = run.requests["state"] == DONE
        ttft = done & (self.ttft_ms <= run.config.target_ttft_ms)
        if run.gaps is None or statistic == "mean":
            return ttft, done & ~(self.itl_ms > run.config.target_itl_ms)
        return ttft, done & ~run.gaps.itl_misses(statistic, run.trace.osl)

    @property
    def asked_up_to(self) -> NDArray[np.int64]:
        """How many requests the first k that arrived stand for, int64[n + 1]: see ``never_behind``."""
        if self._run.closed_loop is None:
            return np.arange(len(self._run.trace) + 1)
        return np.concatenate([[0], np.cumsum(1 + self._run.closed_loop.never_behind)])

    def sla(self) -> SlaResult:
        """Shares of all requests, arrived or not, that met the targets, and good requests a second."""
        ttft, itl = self.good
        run, arrived, statistic = self._run, self._run.asked, self._run.simulator.itl_statistic
        both = int(np.count_nonzero(ttft & itl))
        return SlaResult(
            target_ttft_ms=run.config.target_ttft_ms,
            target_itl_ms=run.config.target_itl_ms,
            attainment=both / arrived,
            ttft_attainment=int(np.count_nonzero(ttft)) / arrived,
            itl_attainment=int(np.count_nonzero(itl)) / arrived,
            goodput_rps=both / run.horizon_s if run.horizon_s > 0 else 0.0,
            itl_statistic=None if statistic == "mean" else statistic,
        )

    def latencies(self) -> tuple[Latency, Latency, Latency]:
        """TTFT, ITL and end to end. The last thing to ask: it reorders and lets go of what it summarises.

        New memory costs more than the sums do, so each array is used up before the next is made.
        """
        ttft = latency(self.ttft_ms)
        del self.ttft_ms
        itl = latency(self.itl_ms)
        del self.itl_ms
        span: NDArray[np.float64] = self._run.requests["done_s"] - self._run.trace.arrival_s
        span *= 1000.0
        return ttft, itl, latency(span)


def latency(values_ms: NDArray[np.float64]) -> Latency:
    """Summarise a distribution, NaN left out; percentiles by linear interpolation. Reorders its argument."""
    unknown = np.isnan(values_ms)
    known = values_ms[~unknown] if unknown.any() else values_ms
    if not len(known):
        return Latency(mean=None, p50=None, p90=None, p95=None, p99=None, max=None)
    mean, largest = float(known.mean()), float(known.max())
    p50, p90, p95, p99 = np.percentile(known, _PERCENTILES, overwrite_input=True).tolist()
    return Latency(mean=mean, p50=p50, p90=p90, p95=p95, p99=p99, max=largest)


def engine_measures(run: Run) -> EngineMeasures | None:
    """Gaps where they were measured; pre-emptions and prefix hits of engines that step. None without both."""
    if run.gaps is None:
        return None
    largest_ms = np.where(run.requests["state"] == DONE, run.gaps.requests["gap_s"] * 1000.0, np.nan)
    largest_ms[run.trace.osl == 1] = np.nan
    gap_ms, max_gap_ms = _gaps(run.gaps), latency(largest_ms)
    stepped = run.stepped
    if stepped is None:
        return EngineMeasures(gap_ms=gap_ms, max_gap_ms=max_gap_ms)
    requests = stepped.requests
    prefix = None
    if run.simulator.prefix_cache:
        prefix = _prefix_hits(run, stepped)
    return EngineMeasures(
        gap_ms=gap_ms,
        max_gap_ms=max_gap_ms,
        preemptions=stepped.preemptions,
        preempted_requests=int((requests["preemptions"] > 0).sum()),
        recomputed_tokens=int(requests["recomputed"].sum()),
        full_memory_s=stepped.short_s,
        prefix=prefix,
    )


def _prefix_hits(run: Run, stepped: SteppedRun) -> PrefixHits:
    admitted = stepped.requests["admitted"]
    asked, hit = (int(c[admitted].sum()) for c in (run.trace.isl, stepped.requests["hit_tokens"]))
    by_age = [
        HitsByAge(
            until_s=until_s if math.isfinite(until_s) else None,
            asked_tokens=int(found["asked_tokens"]),
            hit_tokens=int(found["hit_tokens"]),
            hit_rate=_rate(int(found["hit_tokens"]), int(found["asked_tokens"])),
        )
        for until_s, found in zip(AGES_UNTIL_S, stepped.hits_by_age, strict=True)
        if found["asked_tokens"]
    ]
    return PrefixHits(
        asked_tokens=asked,
        hit_tokens=hit,
        hit_rate=_rate(hit, asked),
        by_age=by_age,
        scale_downs=_drained_caches(run, stepped),
    )


def _drained_caches(run: Run, stepped: SteppedRun) -> DrainedCaches | None:
    """What scale-downs cost; None without any."""
    drained_s = run.lifetimes["drain_s"]
    drained_s = drained_s[~np.isnan(drained_s)]
    if not len(drained_s):
        return None
    arrival_s, records = run.trace.arrival_s, stepped.requests
    totals = [
        np.concatenate([[0], np.cumsum(np.where(records["admitted"], column, 0))])
        for column in (run.trace.isl, records["hit_tokens"])
    ]
    rates = []
    for before_s, after_s in ((HITS_HALVE_S, 0.0), (0.0, HITS_HALVE_S)):
        first = np.searchsorted(arrival_s, drained_s - before_s)
        end = np.searchsorted(arrival_s, drained_s + after_s)
        asked, hit = (int((total[end] - total[first]).sum()) for total in totals)
        rates.append(_rate(hit, asked))
    return DrainedCaches(
        instances=len(drained_s),
        cached_tokens=stepped.drained_tokens,
        asked_again_tokens=stepped.asked_again_tokens,
        within_s=HITS_HALVE_S,
        hit_rate_before=rates[0],
        hit_rate_after=rates[1],
    )


def _rate(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _gaps(measured: MeasuredGaps) -> Gaps:
    """Percentiles by nearest rank, each the middle of its bin."""
    behind = np.cumsum(measured.histogram)
    if not behind[-1]:
        return Gaps(p50=None, p90=None, p99=None, max=None)
    bins = np.searchsorted(behind, np.ceil(behind[-1] * np.array([0.5, 0.9, 0.99])))
    octave, within = np.divmod(bins, GAP_BINS_AN_OCTAVE)
    middle_s = np.ldexp(0.5 + (within + 0.5) / (2 * GAP_BINS_AN_OCTAVE), octave + GAP_LEAST_OCTAVE)
    p50, p90, p99 = np.minimum(middle_s, measured.largest_s).tolist()
    return Gaps(p50=p50 * 1e3, p90=p90 * 1e3, p99=p99 * 1e3, max=measured.largest_s * 1e3)


def gpu_hours(run: Run) -> GpuHours:
    """GPU time from launch to stop, by pool."""
    span_s = run.lifetimes["stop_s"] - run.lifetimes["launch_s"]
    hours = {
        pool: float(span_s[run.lifetimes["pool"] == at].sum()) * gpus / 3600.0
        for at, (pool, gpus) in enumerate(gpus_per_instance(run).items())
    }
    return GpuHours(total=sum(hours.values()), pools=hours)


def gpus_per_instance(run: Run) -> dict[str, int]:
    """GPUs an instance of each pool takes, by the pool's name and in its place among ``lifetimes``."""
    return {pool.name: pool.gpus for pool in run.config.pools}


@dataclass(frozen=True, slots=True)
class Score:
    """What a run is ranked by: requests, those that were not good, and GPU-hours; and what they met.

    ``asked`` are all requests, arrived or never arrived.
    """

    asked: int
    misses: int
    gpu_hours: float
    completed: int
    ttft_met: int
    itl_met: int

    @property
    def attainment(self) -> float:
        """Share of the requests that were good."""
        return (self.asked - self.misses) / self.asked

    def without_faults(self) -> WithoutFaults:
        """The score of a run with nothing going wrong, as the run with faults shows it."""
        return WithoutFaults(
            attainment=self.attainment,
            ttft_attainment=self.ttft_met / self.asked,
            itl_attainment=self.itl_met / self.asked,
            completed=self.completed,
            gpu_hours=self.gpu_hours,
        )


def score(run: Run) -> Score:
    """Score a run, which costs less than all of its measures."""
    ttft, itl = Served(run).good
    good = int((ttft & itl).sum())
    return Score(
        run.asked,
        run.asked - good,
        gpu_hours(run).total,
        len(run.completed),
        int(ttft.sum()),
        int(itl.sum()),
    )


def forecast_scores(ticks: Sequence[Tick]) -> ForecastScores:
    """Each tick's forecast against the window that followed it."""

    def score(observed: str, forecast: str) -> ForecastScore:
        actual = _column([getattr(tick.observation, observed) for tick in ticks[1:]])
        mean = _column([getattr(tick.decision.forecast, forecast) for tick in ticks[:-1]])
        p90 = _column([getattr(tick.decision.forecast, f"{forecast}_p90") for tick in ticks[:-1]])
        return ForecastScore(
            mape=if_known(mape(actual, mean)),
            bias=if_known(bias(actual, mean)),
            pinball_p90=if_known(pinball(actual, p90, 0.9)),
            coverage_p90=if_known(coverage(actual, p90)),
        )

    return ForecastScores(
        requests=score("requests", "requests"), isl=score("isl_mean", "isl"), osl=score("osl_mean", "osl")
    )


def _column(values: Sequence[float | None]) -> NDArray[np.float64]:
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)


def timeline(run: Run, served: Served) -> Timeline:
    """Build the columns; every one has an entry a tick."""
    ticks = run.ticks
    gpus = gpus_per_instance(run)
    edges = np.array([tick.observation.time_s for tick in ticks])
    arrivals = np.searchsorted(run.trace.arrival_s, edges, side="right")
    ttft = _each_window(served.ttft_ms, arrivals)
    itl = _each_window(served.itl_ms, arrivals)
    return Timeline(
        time_s=[tick.observation.time_s for tick in ticks],
        requests=[tick.observation.requests for tick in ticks],
        requests_forecast=[tick.decision.forecast.requests for tick in ticks],
        requests_forecast_p90=[tick.decision.forecast.requests_p90 for tick in ticks],
        isl=[tick.observation.isl_mean for tick in ticks],
        osl=[tick.observation.osl_mean for tick in ticks],
        ttft_mean_ms=[tick.observation.ttft_ms_mean for tick in ticks],
        ttft_p50_ms=ttft[0],
        ttft_p99_ms=ttft[1],
        itl_mean_ms=[tick.observation.itl_ms_mean for tick in ticks],
        itl_p50_ms=itl[0],
        itl_p99_ms=itl[1],
        attainment=_attainment(served, arrivals),
        prefix_hit_rate=_hit_rates(run, arrivals),
        full_memory_s=None if run.stepped is None else np.diff(run.full_memory_s, prepend=0.0).tolist(),
        queued_prefill=[tick.observation.queued_prefill for tick in ticks],
        queued_decode=[tick.observation.queued_decode for tick in ticks],
        running_decode=[tick.observation.running_decode for tick in ticks],
        kv_usage=[tick.observation.kv_usage for tick in ticks],
        pools={
            pool: PoolTimeline(
                **{
                    state: [getattr(tick.observation.pools[pool], state) for tick in ticks]
                    for state in STATES
                },
                target=[tick.decision.targets[pool] for tick in ticks],
            )
            for pool in gpus
        },
        gpus=[
            sum(gpus[pool] * count for pool, count in tick.observation.pools.present.items())
            for tick in ticks
        ],
        corrections={
            role: [getattr(tick.decision.corrections, role) for tick in ticks] for role in Corrections._fields
        },
        reasons=[[str(reason.code) for reason in tick.decision.reasons] for tick in ticks],
    )


def _hit_rates(run: Run, arrivals: NDArray[np.int64]) -> list[float | None] | None:
    """Of what arrived in each window, as far as it was admitted; None without prefix caches."""
    if run.stepped is None or not run.simulator.prefix_cache:
        return None
    records, cuts = run.stepped.requests, np.concatenate([[0], arrivals])
    asked, hit = (
        np.diff(np.concatenate([[0], np.cumsum(np.where(records["admitted"], column, 0))])[cuts]).tolist()
        for column in (run.trace.isl, records["hit_tokens"])
    )
    return [_rate(part, whole) for part, whole in zip(hit, asked, strict=True)]


def _attainment(served: Served, arrivals: NDArray[np.int64]) -> list[float | None]:
    """Share of the requests that arrived in each window and were good; None without arrivals."""
    ttft, itl = served.good
    good = np.concatenate([[0], np.cumsum(ttft & itl)])
    cuts = np.concatenate([[0], arrivals])
    asked, met = np.diff(served.asked_up_to[cuts]).tolist(), np.diff(good[cuts]).tolist()
    return [_rate(part, whole) for part, whole in zip(met, asked, strict=True)]


def _each_window(
    values: NDArray[np.float64], cuts: NDArray[np.int64]
) -> tuple[list[float | None], list[float | None]]:
    """Median and 99th percentile of each window's values, interpolated, NaN left out; None without any."""
    result: tuple[list[float | None], list[float | None]] = ([], [])
    start = 0
    for stop in cuts.tolist():
        group = values[start:stop]
        start = stop
        group = group[~np.isnan(group)]
        if not len(group):
            for column in result:
                column.append(None)
            continue
        ranks = [share * (len(group) - 1) for share in (0.5, 0.99)]
        places = [(int(rank), min(int(rank) + 1, len(group) - 1)) for rank in ranks]
        group.partition(sorted({place for pair in places for place in pair}))
        for column, rank, (low, high) in zip(result, ranks, places, strict=True):
            column.append(float(group[low] + (group[high] - group[low]) * (rank - low)))
    return result


_QUANTILES = (0.1, 0.5, 0.9)
_BATCHES = (1 / 16, 1 / 4, 1 / 2, 1)
"""Of the slots that the KV memory can fill."""


def surfaces(run: Run) -> Surfaces:
    """Engine times by the profile the planner was given, by what it learned, and as they are.

    At p10, p50 and p90 of the trace's lengths, and for batches up to the slots.
    """
    models = run.given, run.learned, run.actual
    isl = np.unique(np.quantile(run.trace.isl, _QUANTILES).round()).tolist()
    contexts = np.unique(np.quantile(run.trace.isl + run.trace.osl / 2.0, _QUANTILES).round()).tolist()
    ttft, itl = [], []
    for tokens in isl:
        given, learned, actual = (model.ttft_ms(tokens) for model in models)
        ttft.append(TtftPoint(isl=tokens, told_ms=given, learned_ms=learned, true_ms=actual))
    for context in contexts:
        room = run.actual.max_kv_tokens
        most = run.actual.max_num_seqs if room is None else min(run.actual.max_num_seqs, room // context)
        for requests in sorted({max(1, round(share * most)) for share in _BATCHES}):
            given, learned, actual = (model.itl_ms(requests, context) for model in models)
            itl.append(
                ItlPoint(
                    requests=requests,
                    context_tokens=context,
                    told_ms=given,
                    learned_ms=learned,
                    true_ms=actual,
                )
            )
    return Surfaces(ttft=ttft, itl=itl)


_LOST = {"stuck_start": "stuck_starts", "start_timeout": "timed_out_starts", "failed_start": "failed_starts"}


def faults_result(run: Run, served: Served, without: Run | None) -> FaultsResult | None:
    """Sum up what went wrong; None where nothing was to.

    Args:
        run: the run.
        served: its latencies.
        without: the same run without its faults, if there is one to compare with.
    """
    log = run.faults
    if log is None:
        return None
    ttft_ok, itl_ok = served.good
    thrown_back = run.requests["restarts"] > 0
    return FaultsResult(
        file=log.faults.file,
        seed=log.faults.seed,
        events=[
            FaultRecord(
                time_s=event.time_s,
                until_s=event.until_s,
                kind=event.kind,
                pool=event.pool,
                instance=event.instance,
                restarted=event.restarted,
            )
            for event in log.events
        ],
        counts=dict(sorted(Counter(event.kind for event in log.events).items())),
        restarts=log.restarts,
        restarted_missed=int(np.count_nonzero(thrown_back & ~(ttft_ok & itl_ok))),
        gpu_hours_lost=_lost(run, log),
        without=None if without is None else score(without).without_faults(),
    )


def _lost(run: Run, log: FaultLog) -> LostGpuHours:
    """GPU time that went into starts for nothing, up to the horizon; each instance counts once."""
    gpus = gpus_per_instance(run)
    pools = list(gpus)
    lives = {(pools[life["pool"]], int(life["number"])): life for life in run.lifetimes}
    hours = dict.fromkeys((*_LOST.values(), "slow_starts", "cold_starts"), 0.0)
    # A stuck start that was given up is counted as given up.
    ends: dict[tuple[str, int], str] = {}
    for event in log.events:
        if event.pool is None or event.instance is None:
            continue
        key: tuple[str, int] = (event.pool, event.instance)
        if event.kind in _LOST:
            ends[key] = _LOST[event.kind]
        elif event.kind == "slow_start":
            assert event.until_s is not None
            waited_s = min(float(lives[key]["stop_s"]), event.until_s) - (event.until_s - event.lost_s)
            hours["slow_starts"] += max(0.0, waited_s) * gpus[key[0]] / 3600.0
    for key, end in ends.items():
        hours[end] += float(lives[key]["stop_s"] - lives[key]["launch_s"]) * gpus[key[0]] / 3600.0
    for at, each in enumerate(gpus.values()):
        cold_s = run.lifetimes["cold_s"][run.lifetimes["pool"] == at]
        hours["cold_starts"] += float(cold_s.sum()) * each / 3600.0
    return LostGpuHours(total=math.fsum(hours.values()), **hours)


def sessions_result(run: Run, served: Served) -> SessionsResult | None:
    """Sum up a run's sessions; None where the trace does not say which answers turns wait for."""
    loop, came = run.closed_loop, run.trace
    given = came if loop is None else loop.given
    if given.turns is None or given.session_id is None:
        return None
    session = given.session_id if loop is None else given.session_id[loop.rows]
    requests = np.bincount(given.session_id)
    total = len(requests)
    ttft, itl = served.good
    done = run.requests["state"] == DONE
    finished = np.bincount(session[done], minlength=total) == requests
    first_s, last_s = np.full(total, np.inf), np.zeros(total)
    np.minimum.at(first_s, session, came.arrival_s)
    np.maximum.at(last_s, session[done], run.requests["done_s"][done])
    times = (last_s - first_s)[finished]
    p50, p90, p99 = np.percentile(times, (50, 90, 99)).tolist() if len(times) else (None, None, None)
    return SessionsResult(
        total=total,
        started=int(np.isfinite(first_s).sum()),
        finished=int(finished.sum()),
        attainment=int((np.bincount(session[ttft & itl], minlength=total) == requests).sum()) / total,
        finish_s=FinishTimes(p50=p50, p90=p90, p99=p99),
    )
