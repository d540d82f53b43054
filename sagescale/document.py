"""The result document: what ``--json`` writes and everything else is rendered from (DESIGN 8).

Plain JSON types throughout; ``None`` is "not defined", never zero. Keys may be added within a schema
version, never renamed. Times are seconds unless a name says otherwise.
"""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

__all__ = [
    "SCHEMA_VERSION",
    "BacktestDocument",
    "BacktestScore",
    "ComparisonInfo",
    "ComparisonTiming",
    "FailedRun",
    "FaultRecord",
    "FaultsResult",
    "ForecastScore",
    "ForecastScores",
    "Forecaster",
    "GpuHours",
    "Interval",
    "ItlPoint",
    "Latency",
    "LostGpuHours",
    "MissSplit",
    "ProfileInfo",
    "Replicates",
    "RequestCounts",
    "ResultDocument",
    "RunDocument",
    "ScalingCounts",
    "SeriesCharacter",
    "SlaResult",
    "Surfaces",
    "Timeline",
    "TimingInfo",
    "TraceInfo",
    "TtftPoint",
    "TuneDocument",
    "TunePoint",
    "TuneRow",
    "TuneScore",
    "WithoutFaults",
]

SCHEMA_VERSION = 1


class TraceInfo(TypedDict):
    """The requests served: ``transform`` lists in order what was done to the file's."""

    path: str
    sha256: str
    format: str
    requests: int
    duration_s: float
    transform: list[str]


class ProfileInfo(TypedDict):
    """Engines: limits as used, and whatever had to be assumed."""

    name: str
    model: str
    gpu: str
    engine: str
    source: str
    licence: str
    prefill_gpus_per_instance: int
    decode_gpus_per_instance: int
    max_num_seqs: int
    max_kv_tokens: int | None
    assumed: list[str]


class RequestCounts(TypedDict):
    """``arrived = completed + unfinished``; rejected and timed out ones are among the unfinished.

    ``restarted`` are requests that a crash threw back, once or more.
    """

    arrived: int
    completed: int
    unfinished: int
    restarted: int
    rejected: int
    timed_out: int


class SlaResult(TypedDict):
    """Shares of all arrived requests; an unfinished request meets nothing."""

    target_ttft_ms: float
    target_itl_ms: float
    attainment: float
    ttft_attainment: float
    itl_attainment: float
    goodput_rps: float


class Latency(TypedDict):
    """A distribution over requests in ms, percentiles by linear interpolation; None where it is empty."""

    mean: float | None
    p50: float | None
    p90: float | None
    p95: float | None
    p99: float | None
    max: float | None


class GpuHours(TypedDict):
    """GPU time from launch to stop, starting and draining included."""

    total: float
    prefill: float
    decode: float


class ScalingCounts(TypedDict):
    """``changes`` counts ticks at which either target moved, ``surges`` decisions between ticks.

    Launches leave out the initial instances.
    """

    ticks: int
    changes: int
    surges: NotRequired[int]
    prefill_launched: int
    decode_launched: int
    max_gpus: int


class ForecastScore(TypedDict):
    """One series one interval ahead: MAPE as a fraction, bias and pinball loss in the series' unit.

    ``coverage_p90`` is the share of windows at or under the forecast 90th percentile.
    """

    mape: float | None
    bias: float | None
    pinball_p90: float | None
    coverage_p90: NotRequired[float | None]


class ForecastScores(TypedDict):
    """The three series a planner forecasts."""

    requests: ForecastScore
    isl: ForecastScore
    osl: ForecastScore


class TimingInfo(TypedDict):
    """Wall time of the run; the only part of a document that differs between equal runs."""

    simulate_s: float
    planner_s: float
    forecast_s: float
    requests_per_s: float


class Timeline(TypedDict):
    """The run tick by tick: one list a quantity, all of one length.

    Counts of instances are those found at the tick, before its decision; ``*_target`` is the decision.
    Windowed values cover the interval that ends at the tick: what the planner saw, but ``attainment`` and the
    percentiles are over the requests that arrived in it, whenever they were served.
    A forecast is of the next interval.
    """

    time_s: list[float]
    requests: list[float | None]
    requests_forecast: list[float | None]
    requests_forecast_p90: list[float | None]
    isl: list[float | None]
    osl: list[float | None]
    ttft_mean_ms: list[float | None]
    ttft_p50_ms: list[float | None]
    ttft_p99_ms: list[float | None]
    itl_mean_ms: list[float | None]
    itl_p50_ms: list[float | None]
    itl_p99_ms: list[float | None]
    attainment: list[float | None]
    queued_prefill: list[float | None]
    queued_decode: list[float | None]
    running_decode: list[float | None]
    kv_usage: list[float | None]
    prefill_ready: list[int]
    prefill_starting: list[int]
    prefill_draining: list[int]
    prefill_waiting: list[int]
    prefill_target: list[int]
    decode_ready: list[int]
    decode_starting: list[int]
    decode_draining: list[int]
    decode_waiting: list[int]
    decode_target: list[int]
    gpus: list[int]
    prefill_correction: list[float]
    decode_correction: list[float]
    reasons: list[list[str]]


class SurgeRecord(TypedDict):
    """A decision between two ticks: the sizes it found and the targets it set, never smaller."""

    time_s: float
    prefill_found: int
    prefill_target: int
    decode_found: int
    decode_target: int
    reasons: list[str]


class FaultRecord(TypedDict):
    """One thing that went wrong; ``instance`` is counted from 0 in its pool.

    ``time_s`` of a slow, stuck or cold start is its launch; ``until_s`` ends what lasts; ``restarted``
    are the requests it threw back.
    """

    time_s: float
    until_s: float | None
    kind: str
    pool: str | None
    instance: int | None
    restarted: int


class LostGpuHours(TypedDict):
    """GPU time for nothing: whole starts that failed, delays beyond a start's own, cold batches."""

    total: float
    failed_starts: float
    stuck_starts: float
    timed_out_starts: float
    slow_starts: float
    cold_starts: float


class WithoutFaults(TypedDict):
    """The same run with nothing going wrong."""

    attainment: float
    ttft_attainment: float
    itl_attainment: float
    completed: int
    gpu_hours: float


class FaultsResult(TypedDict):
    """What went wrong in a run and what it cost.

    ``restarts`` counts a request as often as it was thrown back; ``restarted_missed`` are requests thrown
    back that missed a target or were not finished.
    """

    file: str
    seed: int
    events: list[FaultRecord]
    counts: dict[str, int]
    restarts: int
    restarted_missed: int
    gpu_hours_lost: LostGpuHours
    without: WithoutFaults | None


class MissSplit(TypedDict):
    """The requests of a run that were not good, by cause; the five causes add up to ``total``.

    ``without`` counts the misses that are left when the causes are taken away one after the other:
    ``faults`` (nothing goes wrong), ``forecast_error`` (and the true load forecast), ``startup`` (and
    instances ready at once), ``rounding`` (and one instance more in each pool); None where there was nothing
    to take away.
    """

    total: int
    faults: int
    forecast: int
    startup: int
    whole_instances: int
    policy: int
    without: dict[str, int | None]


class Interval(TypedDict):
    """A mean over replicates, and half the width of its 95 % interval (Student t; None for one value)."""

    mean: float
    half_width: float | None


class Replicates(TypedDict):
    """The same run on replicates of the trace; replicate 0, the trace itself, is the run's own document."""

    gpu_hours: list[float]
    attainment: list[float]
    gpu_hours_interval: Interval
    attainment_interval: Interval


class TtftPoint(TypedDict):
    """Prefill times in ms of one prompt of ``isl`` tokens alone: as given, as learned by the end, actual."""

    isl: float
    told_ms: float
    learned_ms: float
    true_ms: float


class ItlPoint(TypedDict):
    """Times in ms of a decode step of so many requests of so many tokens, likewise."""

    requests: int
    context_tokens: float
    told_ms: float
    learned_ms: float
    true_ms: float


class Surfaces(TypedDict):
    """The engines the planner was given (``--profile``), what it learned, and as they are (``--world``)."""

    ttft: list[TtftPoint]
    itl: list[ItlPoint]


class RunDocument(TypedDict):
    """One run of one configuration.

    In comparisons ``kind`` is ``candidate``, or ``hindsight`` for what knows the future and cannot win;
    ``regret_gpu_hours`` is measured against the clairvoyant schedule.
    ``reasons`` counts those of ticks; ``surges`` have their own.
    """

    name: str
    policy: str
    predictor: str
    config: dict[str, Any]
    initial: dict[str, int]
    horizon_s: float
    requests: RequestCounts
    sla: SlaResult
    ttft_ms: Latency
    itl_ms: Latency
    e2e_ms: Latency
    gpu_hours: GpuHours
    lower_bound_gpu_hours: float
    ratio_to_lower_bound: float | None
    scaling: ScalingCounts
    forecast: ForecastScores
    reasons: dict[str, int]
    faults: FaultsResult | None
    timeline: Timeline
    surges: NotRequired[list[SurgeRecord]]
    timing: TimingInfo
    kind: NotRequired[str]
    misses: NotRequired[MissSplit]
    replicates: NotRequired[Replicates]
    regret_gpu_hours: NotRequired[float | None]
    surfaces: NotRequired[Surfaces]


class Forecaster(TypedDict):
    """What forecasting the arrivals took, once for all runs: ``refits`` over all series forecast so."""

    predictor: str
    interval_s: float
    cadence: str
    windows: int
    refits: int
    timing: dict[str, float]


class FailedRun(TypedDict):
    """A run that could not be done, and why, in one line."""

    name: str
    error: str


class ComparisonTiming(TypedDict):
    """Wall time of the whole comparison."""

    wall_s: float


class ComparisonInfo(TypedDict):
    """What a comparison found; ``runs`` of its document are in the order of the ranking.

    Attributes:
        attainment_asked: the share of requests that must meet both targets.
        reaching: names of the runs that reach it, by GPU-hours; the others follow, by attainment.
        winner: the cheapest candidate that reaches it, None where none does.
        verdict: the outcome in one or two sentences.
        clairvoyant_gpu_hours: of the achievable reference; None where none was found.
        not_run: names of runs that an interruption left undone.
    """

    attainment_asked: float
    reaching: list[str]
    winner: str | None
    verdict: str
    clairvoyant_gpu_hours: float | None
    replicates: int
    forecasters: list[Forecaster]
    failed: list[FailedRun]
    interrupted: bool
    not_run: list[str]
    timing: ComparisonTiming


class ResultDocument(TypedDict):
    """One command's results.

    The engines modelled are those of ``profile``; with ``--world`` they are ``world``, and the planner is
    given ``profile``.
    """

    schema_version: int
    sagescale: str
    trace: TraceInfo
    profile: ProfileInfo
    config: dict[str, Any]
    warnings: list[str]
    lower_bound_gpu_hours: float
    runs: list[RunDocument]
    world: NotRequired[ProfileInfo]
    comparison: NotRequired[ComparisonInfo]


class BacktestScore(TypedDict):
    """One predictor on one series at the horizon of the back-test.

    Series are ``requests``, ``isl``, ``osl`` and the demands ``prefill_tokens`` (requests x ISL) and
    ``decode_tokens`` (requests x OSL), which have no quantile. MAPE and WAPE are fractions; the rest is in
    the series' unit.
    """

    series: str
    predictor: str
    mape: float | None
    wape: float | None
    bias: float | None
    pinball_p90: float | None
    coverage_p90: float | None
    refits: int
    cadence: str


class SeriesCharacter(TypedDict):
    """What the requests are like: mean a window, coefficient of variation, memory of changes, and season."""

    mean: float
    variation: float | None
    change_autocorrelation: float | None
    season_s: float | None


class BacktestDocument(TypedDict):
    """What ``sagescale forecast`` found; ``actual`` and ``forecasts`` have an entry a window of the trace."""

    trace: TraceInfo
    interval_s: float
    windows: int
    horizon: int
    warm_up: int
    scores: list[BacktestScore]
    ranking: list[str]
    winner: str
    verdict: str
    character: SeriesCharacter
    actual: dict[str, list[float | None]]
    forecasts: dict[str, dict[str, list[float | None]]]


class TuneScore(TypedDict):
    """A configuration on a part of a trace: means over the replicates, and the worst five minutes of any."""

    attainment: float
    gpu_hours: float
    worst_5_min_attainment: float


class TuneRow(TypedDict):
    """A configuration by the keys that were tuned; ``later`` is None where it was not judged."""

    name: str
    config: dict[str, object]
    earlier: TuneScore
    later: TuneScore | None


class TunePoint(TypedDict):
    """The cheapest configuration tried that reaches ``attainment`` on the earlier part, if any does."""

    attainment: float
    reached: TuneRow | None


class TuneDocument(TypedDict):
    """What ``sagescale tune`` found.

    ``validation`` says what ``later`` is. ``holds`` is whether the chosen configuration reaches the
    attainment asked there; None where it was not judged. ``tried`` has (name, attainment, GPU-hours) of
    everything tried on all replicates.
    """

    schema_version: int
    sagescale: str
    trace: TraceInfo
    validation: str
    profile: str
    attainment_asked: float
    replicates: int
    simulations: int
    chosen: TuneRow | None
    configured: TuneRow | None
    others: list[TuneRow]
    holds: bool | None
    verdict: str
    curve: list[TunePoint]
    tried: list[tuple[str, float, float]]
    warnings: list[str]
    interrupted: bool
    timing: ComparisonTiming
