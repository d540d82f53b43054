"""What holds of every run of every comparison: nothing beats the lower bound, and misses add up."""

from __future__ import annotations

from experiment_world import written
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sagescale.experiment.compare import Comparison, compare
from sagescale.experiment.execute import Backend
from sagescale.experiment.grid import label_variants
from sagescale.experiment.workload import Workload
from sagescale.perf import ProfileModel, list_profiles, load_profile
from sagescale.planner import AutoscalerConfig, policy_names
from sagescale.planner.forecast import predictor_names
from sagescale.sim.config import SimulatorConfig
from sagescale.sim.faults import Crash, Faults, Outage, Rates
from sagescale.trace import Trace, TransformSpec

PROFILES = list_profiles()
CHEAP = tuple(name for name in predictor_names() if name not in {"arima", "prophet"})
CAUSES = ("faults", "forecast", "startup", "whole_instances", "policy")

requests = st.lists(
    st.tuples(st.floats(0.0, 400.0), st.integers(1, 12_000), st.integers(1, 600)), min_size=2, max_size=60
)
times = st.floats(0.0, 500.0)
faults = st.builds(
    Faults,
    seed=st.integers(0, 100),
    start_timeout_s=st.sampled_from(
        [250.0, 400.0]
    ),  # less than a startup would be a simulated day of waiting
    rates=st.builds(
        Rates,
        crash_per_instance_hour=st.sampled_from([0.0, 5.0, 20.0]),
        slow_start_probability=st.sampled_from([0.0, 0.5]),
        stuck_start_probability=st.sampled_from([0.0, 0.3]),
        failing_start_probability=st.sampled_from([0.0, 0.3]),
        cold_start_probability=st.sampled_from([0.0, 1.0]),
        metrics_vanish_per_hour=st.sampled_from([0.0, 20.0]),
    ),
    crashes=st.lists(
        st.builds(Crash, at_s=times, pool=st.sampled_from(["prefill", "decode"]), count=st.integers(1, 2)),
        max_size=3,
    ).map(tuple),
    outages=st.lists(
        st.builds(
            lambda kind, from_s, long_s: Outage(kind, from_s, from_s + long_s, lag_s=70.0),
            st.sampled_from(["no_gpus", "metrics_vanish", "metrics_freeze", "metrics_lag"]),
            times,
            st.floats(1.0, 300.0),
        ),
        max_size=3,
    ).map(tuple),
)


def setting(profile, *, interval, headroom, startup, kv, minimum, first_token, ttft_ms):
    model = ProfileModel(profile)
    return (
        AutoscalerConfig(
            prefill_gpus_per_instance=model.prefill_gpus,
            decode_gpus_per_instance=model.decode_gpus,
            max_gpu_budget=12 * (model.prefill_gpus + model.decode_gpus),
            adjustment_interval_sec=interval,
            load_headroom=headroom,
            min_prefill_instances=minimum,
            target_ttft_ms=ttft_ms,
        ),
        SimulatorConfig(startup_delay_s=startup, max_kv_tokens=kv, first_token=first_token),
    )


configurations = st.fixed_dictionaries(
    {
        "interval": st.sampled_from([15, 60]),
        "headroom": st.sampled_from([0.5, 1.0, 3.0]),
        "startup": st.sampled_from([0.0, 60.0, 200.0]),
        "kv": st.sampled_from([None, 20_000]),
        "minimum": st.integers(1, 2),
        "first_token": st.sampled_from(["prefill", "decode"]),
        "ttft_ms": st.sampled_from([100.0, 500.0, 5000.0]),
    }
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    requests,
    st.sampled_from(PROFILES),
    configurations,
    st.none() | faults,
    st.sampled_from([0.5, 0.9, 0.99]),
    st.lists(st.sampled_from(CHEAP), min_size=1, max_size=2, unique=True),
)
def test_no_run_beats_the_lower_bound_and_misses_add_up(
    rows, profile_name, keys, what_fails, asked, predictors
):
    profile = load_profile(profile_name)
    trace = Trace.from_arrays(*zip(*rows, strict=True))
    variants = label_variants([("", *setting(profile, **keys))])
    comparison = Comparison(variants, policy_names(), predictors, asked, faults=what_fails)
    document = written(
        compare(Workload(trace, TransformSpec(), profile), comparison, Backend("processes", 1))
    )
    assert not document["comparison"]["failed"]
    assert len(document["runs"]) >= len(predictors) + 2
    for run in document["runs"]:
        requests_, misses, hours = run["requests"], run["misses"], run["gpu_hours"]["total"]
        assert document["lower_bound_gpu_hours"] <= run["lower_bound_gpu_hours"] <= hours, run["name"]
        assert requests_["arrived"] == len(trace) == requests_["completed"] + requests_["unfinished"]
        assert misses["policy"] >= 0
        assert sum(misses[cause] for cause in CAUSES) == misses["total"]
        assert misses["total"] == len(trace) - round(run["sla"]["attainment"] * len(trace))
        assert (run["faults"] is None) == (what_fails is None)
