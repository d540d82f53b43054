"""The result document of simulated runs (DESIGN 8)."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

from sagescale.compiling import work_clock_s
from sagescale.declare import declared
from sagescale.document import (
    SCHEMA_VERSION,
    PoolChange,
    ProfileInfo,
    RequestCounts,
    ResultDocument,
    RunDocument,
    ScalingCounts,
    SurgeRecord,
    TimingInfo,
    TraceInfo,
)
from sagescale.sim.bound import lower_bound
from sagescale.sim.measures import (
    Served,
    engine_measures,
    faults_result,
    forecast_scores,
    gpu_hours,
    gpus_per_instance,
    sessions_result,
    surfaces,
    timeline,
)
from sagescale.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sagescale.document import ComparisonInfo
    from sagescale.perf import Profile
    from sagescale.planner import AutoscalerConfig
    from sagescale.sim.config import SimulatorConfig
    from sagescale.sim.run import Run
    from sagescale.trace import Trace


def run_document(
    run: Run, name: str, differs: Mapping[str, object] | None = None, without_faults: Run | None = None
) -> RunDocument:
    """Measure one run.

    Args:
        run: the run.
        name: what tells it from its siblings.
        differs: the configuration keys in which it differs from its siblings.
        without_faults: the same run with nothing going wrong, to say what its faults cost.
    """
    began = work_clock_s()
    served = Served(run)
    sessions = sessions_result(run, served)
    sla, by_tick, faults = served.sla(), timeline(run, served), faults_result(run, served, without_faults)
    ttft, itl, e2e = served.latencies()
    arrived, completed = len(run.requests), len(run.completed)
    hours = gpu_hours(run)
    bound = lower_bound(run).gpu_hours
    initials = dict(zip(gpus_per_instance(run), run.initial, strict=True))
    moved = [tick for tick in run.ticks if tick.decision.targets != tick.decision.current]
    scaling = ScalingCounts(
        ticks=len(run.ticks),
        changes=len(moved),
        surges=len(run.surges),
        launched={
            pool: int((run.lifetimes["pool"] == at).sum()) - initial
            for at, (pool, initial) in enumerate(initials.items())
        },
        max_gpus=run.max_gpus_used,
    )
    forecasts = forecast_scores(run.ticks)
    surges = [
        SurgeRecord(
            time_s=surge.time_s,
            pools={
                pool: PoolChange(found=found, target=surge.targets[pool])
                for pool, found in surge.current.items()
            },
            reasons=[str(reason.code) for reason in surge.reasons],
        )
        for surge in run.surges
    ]
    learned = None if run.actual is run.given else surfaces(run)
    simulate_s = run.timing.simulate_s + work_clock_s() - began
    return RunDocument(
        name=name,
        policy=run.config.policy,
        predictor=run.config.load_predictor_type,
        config={key: json_value(value) for key, value in (differs or {}).items()},
        initial=initials,
        horizon_s=run.horizon_s,
        requests=RequestCounts(
            arrived=arrived,
            completed=completed,
            unfinished=arrived - completed,
            restarted=int((run.requests["restarts"] > 0).sum()),
            rejected=run.rejected,
            timed_out=run.timed_out,
            never_arrived=None if run.closed_loop is None else run.never_arrived,
        ),
        sla=sla,
        ttft_ms=ttft,
        itl_ms=itl,
        e2e_ms=e2e,
        gpu_hours=hours,
        lower_bound_gpu_hours=bound,
        ratio_to_lower_bound=hours.total / bound if bound > 0 else None,
        scaling=scaling,
        forecast=forecasts,
        reasons=dict(
            Counter(str(reason.code) for tick in run.ticks for reason in tick.decision.reasons).most_common()
        ),
        faults=faults,
        engines=engine_measures(run),
        sessions=sessions,
        timeline=by_tick,
        surges=surges,
        timing=TimingInfo(
            simulate_s=simulate_s,
            planner_s=run.timing.planner_s,
            forecast_s=run.timing.forecast_s,
            requests_per_s=arrived / simulate_s,
        ),
        surfaces=learned,
    )


def result_document(
    trace: Trace,
    profile: Profile,
    config: Mapping[str, object],
    runs: Sequence[RunDocument],
    warnings: Sequence[str] = (),
    *,
    world: Profile | None = None,
    comparison: ComparisonInfo | None = None,
) -> ResultDocument:
    """Put runs of one trace on one profile together.

    Args:
        trace: the requests served.
        profile: the engines modelled, or those the planner was given, overrides applied.
        config: the resolved configuration (see :func:`configuration`).
        runs: their documents.
        warnings: what their reader should know, one line each.
        world: the engines as they are, where the planner was given others.
        comparison: what comparing the runs found.
    """
    return ResultDocument(
        schema_version=SCHEMA_VERSION,
        sagescale=__version__,
        trace=trace_info(trace),
        profile=profile_info(profile),
        config=dict(config),
        warnings=[*trace.warnings, *warnings],
        lower_bound_gpu_hours=min((run.lower_bound_gpu_hours for run in runs), default=0.0),
        runs=list(runs),
        world=None if world is None else profile_info(world),
        comparison=comparison,
    )


def trace_info(trace: Trace) -> TraceInfo:
    """What documents say of a trace."""
    return TraceInfo(
        path=trace.path,
        sha256=trace.sha256,
        format=trace.format,
        requests=len(trace),
        duration_s=trace.duration_s,
        transform=list(trace.transforms),
        started_at=None if trace.started_at is None else trace.started_at.isoformat(),
    )


def profile_info(profile: Profile) -> ProfileInfo:
    """What documents say of engines, overrides applied."""
    decode = profile.decode
    pools = (
        {"aggregated": decode.gpus_per_instance}
        if profile.is_aggregated
        else {"prefill": profile.prefill.gpus_per_instance, "decode": decode.gpus_per_instance}
    )
    return ProfileInfo(
        name=profile.name,
        model=profile.model,
        gpu=profile.gpu,
        engine=f"{profile.engine} {profile.engine_version}".strip(),
        source=profile.source.title,
        licence=profile.source.licence,
        gpus_per_instance=pools,
        max_num_seqs=decode.max_num_seqs,
        max_kv_tokens=decode.max_kv_tokens,
        assumed=list(profile.assumed),
    )


def configuration(config: AutoscalerConfig, simulator: SimulatorConfig) -> dict[str, object]:
    """Return every key, those of plug-ins too, with its resolved value, in plain JSON types."""
    parts = (config, simulator, *config.plugins.configured)
    return {name: json_value(getattr(part, name)) for part in parts for name in declared(type(part))}


def json_value(value: object) -> object:
    """A configuration value in plain JSON types."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, tuple | list):
        return [json_value(item) for item in value]
    return str(value)
