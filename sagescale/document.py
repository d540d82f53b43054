"""The result document: what ``--json`` writes and everything else is rendered from (DESIGN 8).

``None`` is "not defined", never zero. Keys may be added within a schema version, never renamed. Times are
seconds unless a name says otherwise.

A field is a key of the same name. What there is a pool of is a mapping by the pool's name, and its keys begin
with that name (``decode_launched``), for any number of pools. What is None by
default is left out while it is.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import statistics
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from sagescale.declare import LARGEST_NUMBER, shown
from sagescale.errors import InputError, UnknownFormatError
from sagescale.files import read_input_text
from sagescale.fleet import AGGREGATED, DISAGGREGATED

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "SCHEMA_VERSION",
    "AnswerInfo",
    "BacktestDocument",
    "BacktestScore",
    "Choice",
    "ComparisonInfo",
    "ComparisonTiming",
    "FailedRun",
    "FaultRecord",
    "FaultsResult",
    "FinishTimes",
    "ForecastScore",
    "ForecastScores",
    "Forecaster",
    "GpuHours",
    "Interval",
    "ItlPoint",
    "Latency",
    "LostGpuHours",
    "MissSplit",
    "PoolChange",
    "PoolTimeline",
    "ProfileInfo",
    "Replicates",
    "RequestCounts",
    "ResultDocument",
    "RunDocument",
    "ScalingCounts",
    "SeriesCharacter",
    "ServingWay",
    "SessionsResult",
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
    "as_keys",
    "from_keys",
    "read_result",
]

SCHEMA_VERSION = 1
_LARGEST_BYTES = 1 << 30

Part = TypeVar("Part")


def by_pool(suffix: str) -> Any:  # noqa: ANN401  # as dataclasses.field
    """Declare a mapping by pool, its keys the pool's name with ``suffix``, or with each key of its entry.

    The suffix tells which pools a document has.
    """
    return field(metadata={"suffix": suffix})


def as_keys(part: Any) -> dict[str, Any]:  # noqa: ANN401  # any dataclass of this module
    """Return the keys of a part of a document, the parts in it as they are: for ``json.dumps(default=)``."""
    keys: dict[str, Any] = {}
    for each in dataclasses.fields(part):
        value = getattr(part, each.name)
        if (suffix := each.metadata.get("suffix")) is not None:
            for pool, entry in value.items():
                of_pool = as_keys(entry) if dataclasses.is_dataclass(entry) else {suffix[1:]: entry}
                keys |= {f"{pool}_{key}" if key else pool: known for key, known in of_pool.items()}
        elif each.default is not None or getattr(part, each.metadata.get("with", each.name)) is not None:
            keys[each.name] = value
    return keys


def from_keys(part: type[Part], keys: Mapping[str, Any]) -> Part:
    """Return a part of a document from its keys; ones that it lacks, as documents of before may, are None."""
    types_ = _types(part)  # type: ignore[arg-type]  # a class is hashable
    found: dict[str, Any] = {}
    for each in dataclasses.fields(part):  # type: ignore[arg-type]  # a dataclass of this module
        kind = types_[each.name]
        if (suffix := each.metadata.get("suffix")) is None:
            found[each.name] = _read(kind, keys.get(each.name))
            continue
        entry = typing.get_args(kind)[1]
        of_parts = dataclasses.is_dataclass(entry)
        pools = [key.removesuffix(suffix) for key in keys if key.endswith(suffix) and key not in types_]
        found[each.name] = {
            pool: from_keys(entry, {name: keys.get(f"{pool}_{name}") for name in _types(entry)})
            if of_parts
            else keys[pool + suffix]
            for pool in pools
        }
    return part(**found)


def _number(text: str) -> float:
    """Read a number whose sums and products are numbers too; NaN and infinity are not.

    Raises:
        ValueError: it is none.
    """
    if not abs(number := float(text)) <= LARGEST_NUMBER:
        raise ValueError(f"{shown(text, 30)} is no number of a result; expected at most {LARGEST_NUMBER:g}")
    return number


def _whole(text: str) -> int:
    if len(text) > 30:
        _number(text)  # first: Python refuses whole numbers of thousands of digits
    return int(text)


def read_result(path: Path) -> ResultDocument:
    """Read what ``simulate`` or ``compare-predictors`` wrote with ``--json``, of this version or before.

    Raises:
        InputError: the file cannot be read, or is no such document.
    """
    text = read_input_text(path, "a result document", _LARGEST_BYTES)
    try:
        keys = json.loads(text, parse_int=_whole, parse_float=_number, parse_constant=_number)
    except (json.JSONDecodeError, RecursionError) as error:
        raise _unknown(path, f"not JSON ({error}); expected a result document") from None
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    if isinstance(keys, dict) and keys.get("schema_version", SCHEMA_VERSION) != SCHEMA_VERSION:
        found_version = shown(keys["schema_version"])
        raise InputError(
            f"{path}: schema_version is {found_version}; expected {SCHEMA_VERSION}, this version's"
        )
    if not isinstance(keys, dict) or not {"schema_version", "runs"} <= keys.keys():
        raise _unknown(path, f"not a result document; expected schema_version {SCHEMA_VERSION} and runs")
    found = from_keys(ResultDocument, keys)
    try:
        _check(found, ResultDocument, "")
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    return found


def _unknown(path: Path, what: str) -> UnknownFormatError:
    return UnknownFormatError(f"{path}: {what}", path, "a result document")


def _check(value: Any, kind: Any, key: str) -> None:  # noqa: ANN401  # anything, and a type
    """See that a part of a document is what its type says.

    Raises:
        ValueError: it is something else; names the key.
    """
    if isinstance(kind, types.UnionType):
        if value is not None:
            _check(value, next(one for one in typing.get_args(kind) if one is not types.NoneType), key)
        return
    origin, arguments = typing.get_origin(kind) or kind, typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, typing.cast("type[Any]", kind)):
            raise ValueError(f"{key} is {_short(value)}; expected a mapping")
        for each in dataclasses.fields(kind):
            part, name = getattr(value, each.name), f"{key}.{each.name}".lstrip(".")
            known = _types(typing.cast("Any", kind))[each.name]
            # Documents of before may lack a key that is a plain value.
            if part is not None or dataclasses.is_dataclass(known) or typing.get_origin(known) is list:
                _check(part, known, name)
        if kind in _PARALLEL:
            _check_parallel(value, key)
        if kind is Timeline:
            _check_ascending(value.time_s, f"{key}.time_s")
    elif origin is list:
        if not isinstance(value, list):
            raise ValueError(f"{key} is {_short(value)}; expected a list")
        if not _plainly(arguments[0]).issuperset(map(type, value)):
            for place, entry in enumerate(value):
                _check(entry, arguments[0], f"{key}[{place}]")
    elif origin is Mapping or origin is dict:
        if not isinstance(value, Mapping):
            raise ValueError(f"{key} is {_short(value)}; expected a mapping")
        for name, entry in value.items():
            _check(entry, arguments[1], f"{key}.{name}")
    elif origin in _PLAIN and not isinstance(value, _PLAIN[origin]):
        raise ValueError(f"{key} is {_short(value)}; expected {_PLAIN_WORDS[origin]}")


def _check_parallel(part: Any, key: str) -> None:  # noqa: ANN401  # a dataclass of _PARALLEL
    """See that lists whose entries belong together are of one length.

    Raises:
        ValueError: two are not; names both.
    """
    series = {name: len(entries) for name, entries in as_keys(part).items() if isinstance(entries, list)}
    usual = statistics.mode(series.values())
    if odd := next((name for name, length in series.items() if length != usual), None):
        other = next(name for name, length in series.items() if length == usual)
        raise ValueError(
            f"{key}.{odd} has {series[odd]} entries, {key}.{other} {usual}; expected as many in each"
        )


def _check_ascending(times: list[float], key: str) -> None:
    """See that times go forward.

    Raises:
        ValueError: one does not.
    """
    for place, (before, after) in enumerate(itertools.pairwise(times), 1):
        if after <= before:
            raise ValueError(f"{key}[{place}] is {after}, after {before}; expected times that ascend")


_PLAIN: dict[Any, tuple[type, ...]] = {str: (str,), float: (int, float), int: (int, float), bool: (bool,)}
_PLAIN_WORDS = {str: "a text", float: "a number", int: "a number", bool: "true or false"}


@functools.cache
def _plainly(kind: Any) -> frozenset[type]:  # noqa: ANN401  # a type
    """Return the types whose values are of a kind for sure: of long series nothing else need be looked at."""
    kinds = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    return frozenset(one for each in kinds for one in _PLAIN.get(each, ())) | {types.NoneType} & set(kinds)


def _short(value: object) -> str:
    return repr(value)[:40]


@functools.cache
def _types(part: Any) -> dict[str, Any]:  # noqa: ANN401  # a class
    return typing.get_type_hints(part)


def _read(kind: Any, value: Any) -> Any:  # noqa: ANN401  # a type, and what a document has for it
    """Make parts of what is a part by its type; anything else stays as the document has it."""
    arguments = [one for one in typing.get_args(kind) if one is not types.NoneType]
    if dataclasses.is_dataclass(kind) and isinstance(value, Mapping):
        return from_keys(typing.cast("type[Any]", kind), value)
    if isinstance(kind, types.UnionType):
        return _read(arguments[0], value)
    if typing.get_origin(kind) is list and isinstance(value, list):
        return (
            [_read(arguments[0], each) for each in value] if dataclasses.is_dataclass(arguments[0]) else value
        )
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceInfo:
    """The requests served: ``transform`` lists in order what was done to the file's.

    ``started_at`` is date, time and zone of the first arrival (ISO 8601), where the file has them.
    """

    path: str
    sha256: str
    format: str
    requests: int
    duration_s: float
    transform: list[str]
    started_at: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileInfo:
    """Engines: limits as used, and whatever had to be assumed."""

    name: str
    model: str
    gpu: str
    engine: str
    source: str
    licence: str
    gpus_per_instance: Mapping[str, int] = by_pool("_gpus_per_instance")
    max_num_seqs: int
    max_kv_tokens: int | None
    assumed: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestCounts:
    """``arrived = completed + unfinished``; rejected and timed out ones are among the unfinished.

    ``restarted`` are requests that a crash threw back, once or more. ``never_arrived`` is there where turns
    waited for answers: those whose session ended before, misses too. With ``arrived`` they are all of the
    trace.
    """

    arrived: int
    completed: int
    unfinished: int
    restarted: int
    rejected: int
    timed_out: int
    never_arrived: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SlaResult:
    """Shares of all requests, arrived or never arrived; one that is not finished meets nothing.

    ``itl_statistic`` says which of a request's gaps between tokens the ITL target binds; None is their mean.
    """

    target_ttft_ms: float
    target_itl_ms: float
    attainment: float
    ttft_attainment: float
    itl_attainment: float
    goodput_rps: float
    itl_statistic: str | None = None

    @property
    def itl_name(self) -> str:
        """What the ITL target binds, for readers."""
        if self.itl_statistic is None:
            return "ITL"
        return "largest gap" if self.itl_statistic == "max" else f"{self.itl_statistic} of a request's gaps"

    @property
    def target_mean_itl_ms(self) -> float | None:
        """What mean ITLs are held against; None where the target binds other gaps."""
        return self.target_itl_ms if self.itl_statistic is None else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """A distribution over requests in ms, percentiles by linear interpolation; None where it is empty."""

    mean: float | None
    p50: float | None
    p90: float | None
    p95: float | None
    p99: float | None
    max: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuHours:
    """GPU time from launch to stop, starting and draining included."""

    total: float
    pools: Mapping[str, float] = by_pool("")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingCounts:
    """``changes`` counts ticks at which either target moved, ``surges`` decisions between ticks.

    Launches leave out the initial instances.
    """

    ticks: int
    changes: int
    surges: int | None = None
    launched: Mapping[str, int] = by_pool("_launched")
    max_gpus: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastScore:
    """One series one interval ahead: MAPE as a fraction, bias and pinball loss in the series' unit.

    ``coverage_p90`` is the share of windows at or under the forecast 90th percentile.
    """

    mape: float | None
    bias: float | None
    pinball_p90: float | None
    coverage_p90: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastScores:
    """The three series a planner forecasts."""

    requests: ForecastScore
    isl: ForecastScore
    osl: ForecastScore


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingInfo:
    """Wall time of the run; the only part of a document that differs between equal runs."""

    simulate_s: float
    planner_s: float
    forecast_s: float
    requests_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolTimeline:
    """The instances of a pool at each tick, before its decision, and the size that it set."""

    ready: list[int]
    starting: list[int]
    draining: list[int]
    waiting: list[int]
    target: list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """The run tick by tick: one list a quantity, all of one length.

    Counts of instances are those found at the tick, before its decision; ``*_target`` is the decision.
    Windowed values cover the interval that ends at the tick: what the planner saw, but ``attainment`` and the
    percentiles are over the requests that arrived in it, whenever they were served. So is
    ``prefix_hit_rate``, there where prefix caches are; ``full_memory_s``, there where engines step, is what
    instances spent in steps for which blocks were short, where such a run of steps ended in the interval.
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
    prefix_hit_rate: list[float | None] | None = None
    full_memory_s: list[float] | None = None
    queued_prefill: list[float | None]
    queued_decode: list[float | None]
    running_decode: list[float | None]
    kv_usage: list[float | None]
    pools: Mapping[str, PoolTimeline] = by_pool("_target")
    gpus: list[int]
    corrections: Mapping[str, list[float]] = by_pool("_correction")
    reasons: list[list[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolChange:
    """The size of a pool that a decision found, and the one it set."""

    found: int
    target: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SurgeRecord:
    """A decision between two ticks: the sizes it found and the targets it set, never smaller."""

    time_s: float
    pools: Mapping[str, PoolChange] = by_pool("_target")
    reasons: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultRecord:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class LostGpuHours:
    """GPU time for nothing: whole starts that failed, delays beyond a start's own, cold batches."""

    total: float
    failed_starts: float
    stuck_starts: float
    timed_out_starts: float
    slow_starts: float
    cold_starts: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WithoutFaults:
    """The same run with nothing going wrong."""

    attainment: float
    ttft_attainment: float
    itl_attainment: float
    completed: int
    gpu_hours: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultsResult:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class MissSplit:
    """The requests of a run that were not good, by cause; the five causes add up to ``total``.

    Below zero is a cause that helped: more would be missed without it. Others may then exceed ``total``.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A mean over replicates, and half the width of its 95 % interval (Student t; None for one value)."""

    mean: float
    half_width: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicates:
    """The same run on replicates of the trace; replicate 0, the trace itself, is the run's own document."""

    gpu_hours: list[float]
    attainment: list[float]
    gpu_hours_interval: Interval
    attainment_interval: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class TtftPoint:
    """Prefill times in ms of one prompt of ``isl`` tokens alone: as given, as learned by the end, actual."""

    isl: float
    told_ms: float
    learned_ms: float
    true_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ItlPoint:
    """Times in ms of a decode step of so many requests of so many tokens, likewise."""

    requests: int
    context_tokens: float
    told_ms: float
    learned_ms: float
    true_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Surfaces:
    """The engines as given to the planner (``--profile``), as learned, and as they are."""

    ttft: list[TtftPoint]
    itl: list[ItlPoint]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gaps:
    """All gaps between the tokens of all requests, in ms; percentiles from bins no wider than 0.4 %."""

    p50: float | None
    p90: float | None
    p99: float | None
    max: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HitsByAge:
    """Hits on instances that had been ready for so long; ``until_s`` is None of the oldest."""

    until_s: float | None
    asked_tokens: int
    hit_tokens: int
    hit_rate: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainedCaches:
    """What scale-downs cost where prompts are cached.

    ``cached_tokens`` is what drained instances had cached at their end; ``asked_again_tokens`` what prompts
    asked for later right behind what they had found, and no other ready instance had when it was drained.
    The hit rates are of requests that arrived within ``within_s`` before and after instances were drained.
    """

    instances: int
    cached_tokens: int
    asked_again_tokens: int
    within_s: float
    hit_rate_before: float | None
    hit_rate_after: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixHits:
    """Prompt tokens that were asked of the prefix caches and found there, at first admissions."""

    asked_tokens: int
    hit_tokens: int
    hit_rate: float | None
    by_age: list[HitsByAge] | None = None
    scale_downs: DrainedCaches | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineMeasures:
    """What is known of engines that take one step after the other (vllm, sglang); of others the gaps.

    ``max_gap_ms`` is over requests, the largest gap of each; ``full_memory_s`` the time of all instances in
    steps for which blocks of KV memory were short. ``prefix`` is there where there is a prefix cache.
    """

    gap_ms: Gaps
    max_gap_ms: Latency
    preemptions: int | None = None
    preempted_requests: int | None = None
    recomputed_tokens: int | None = None
    full_memory_s: float | None = None
    prefix: PrefixHits | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishTimes:
    """Seconds from a session's first arrival to its last answer, of those that finished."""

    p50: float | None
    p90: float | None
    p99: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionsResult:
    """What became of sessions, where the trace says which answers their turns wait for.

    ``total`` are those of the trace, ``started`` those of which anything arrived, ``finished`` those of which
    everything was answered. ``attainment`` is the share of all whose every request met both targets.
    """

    total: int
    started: int
    finished: int
    attainment: float
    finish_s: FinishTimes


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDocument:
    """One run of one configuration.

    In comparisons ``kind`` is ``candidate``, or ``hindsight`` for what knows the future and cannot win;
    ``regret_gpu_hours`` is measured against the clairvoyant schedule.
    ``reasons`` counts those of ticks; ``surges`` have their own. ``profile`` is there where the engines are
    not those of the document.
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
    surges: list[SurgeRecord] | None = None
    timing: TimingInfo
    surfaces: Surfaces | None = None
    engines: EngineMeasures | None = None
    sessions: SessionsResult | None = None
    kind: str | None = None
    profile: ProfileInfo | None = None
    misses: MissSplit | None = None
    replicates: Replicates | None = None
    regret_gpu_hours: float | None = field(default=None, metadata={"with": "kind"})

    @property
    def judged_attainment(self) -> Interval:
        """The attainment a run is judged by: the mean over its replicates, where there are any."""
        if self.replicates is None:
            return Interval(mean=self.sla.attainment, half_width=None)
        return self.replicates.attainment_interval

    @property
    def judged_gpu_hours(self) -> Interval:
        """The GPU-hours a run is judged by, likewise."""
        if self.replicates is None:
            return Interval(mean=self.gpu_hours.total, half_width=None)
        return self.replicates.gpu_hours_interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecaster:
    """What forecasting the arrivals took, once for all runs: ``refits`` over all series forecast so."""

    predictor: str
    interval_s: float
    cadence: str
    windows: int
    refits: int
    timing: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedRun:
    """A run that could not be done, and why, in one line."""

    name: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonTiming:
    """Wall time of the whole comparison."""

    wall_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonInfo:
    """What a comparison found; ``runs`` of its document are in the order of the ranking.

    Attributes:
        attainment_asked: the share of requests that must meet both targets.
        reaching: names of the runs that reach it, by GPU-hours; the others follow, by attainment.
        winner: the cheapest candidate that reaches it, None where none does.
        verdict: the outcome in one or two sentences.
        clairvoyant_gpu_hours: of the achievable reference, the least where configurations have their own;
            None where none was found.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One way to serve the trace: fixed sizes all day, or a policy that sets them.

    ``sizes`` are the fewest and the most instances of each pool, ``gpus`` the most GPUs at once. ``cost`` is
    there with a ``gpu_hour_price``, ``engines`` where a comparison is of several.
    """

    name: str
    sizes: dict[str, list[int]]
    attainment: float
    gpu_hours: float
    cost: float | None = None
    engines: str | None = None
    gpus: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingWay:
    """What serving on some engines takes: the best fixed sizes and the best autoscaled run on them."""

    engines: str
    serving: str
    profile: str
    fixed: Choice | None
    autoscaled: Choice | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerInfo:
    """What to do, in a sentence: the cheapest fixed sizes that hold, against autoscaled ones.

    ``ways`` are there where a comparison is of several ways of serving or engines, the cheapest first.

    ``take`` is ``fixed``, ``autoscaled`` or, where neither reaches the attainment, ``neither``. ``saves``
    is the share of the fixed pair's GPU-hours that autoscaling saves, below 0 where it costs more.
    """

    text: str
    attainment_asked: float
    take: str
    fixed: Choice | None
    autoscaled: Choice | None
    saves: float | None
    ways: list[ServingWay] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultDocument:
    """One command's results.

    The engines modelled are those of ``profile``; with ``--actual-profile`` they are ``world``, and the
    planner is given ``profile``.
    """

    schema_version: int
    sagescale: str
    trace: TraceInfo
    profile: ProfileInfo
    config: dict[str, Any]
    warnings: list[str]
    lower_bound_gpu_hours: float
    runs: list[RunDocument]
    world: ProfileInfo | None = None
    comparison: ComparisonInfo | None = None
    gpu_hour_price: float | None = None
    answer: AnswerInfo | None = None

    @property
    def pools(self) -> tuple[str, ...]:
        """The pools of all runs, in an order that does not depend on theirs; of no run the usual two."""
        found = {pool: None for run in self.runs for pool in run.gpu_hours.pools}
        usual = [pool for pool in (*DISAGGREGATED, *AGGREGATED) if pool in found]
        return (*usual, *sorted(found.keys() - {*usual})) or DISAGGREGATED


@dataclass(frozen=True, slots=True, kw_only=True)
class BacktestScore:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesCharacter:
    """What the requests are like: mean a window, coefficient of variation, memory of changes, and season."""

    mean: float
    variation: float | None
    change_autocorrelation: float | None
    season_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BacktestDocument:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneScore:
    """A configuration on a part of a trace: means over the replicates, and the worst five minutes of any."""

    attainment: float
    gpu_hours: float
    worst_5_min_attainment: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneRow:
    """A configuration by the keys that were tuned; ``later`` is None where it was not judged."""

    name: str
    config: dict[str, object]
    earlier: TuneScore
    later: TuneScore | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TunePoint:
    """The cheapest configuration tried that reaches ``attainment`` on the earlier part, if any does."""

    attainment: float
    reached: TuneRow | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneDocument:
    """What ``sagescale tune`` found.

    ``validation`` says what ``later`` is. ``holds`` is whether the chosen configuration reaches the
    attainment asked there; None where it was not judged. ``nearest_holding`` is, where the chosen one
    failed on either part, the cheapest judged that holds on both, if any does. ``tried`` has (name,
    attainment, GPU-hours) of everything tried on all replicates.
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
    nearest_holding: TuneRow | None = None
    gpu_hour_price: float | None = None
    answer: AnswerInfo | None = None
    verdict: str
    curve: list[TunePoint]
    tried: list[tuple[str, float, float]]
    warnings: list[str]
    interrupted: bool
    timing: ComparisonTiming


_PARALLEL = (Timeline, Replicates)
"""Parts whose lists have an entry for the same thing at each place: a tick, a replicate."""
