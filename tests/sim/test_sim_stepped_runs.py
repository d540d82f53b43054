"""What holds for every run on engines that take one step after the other, whatever else (Hypothesis)."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sagescale.errors import InputError
from sagescale.live.setup import configured
from sagescale.perf import AggregatedProfile, Profile
from sagescale.planner import AutoscalerConfig
from sagescale.sim.bound import lower_bound
from sagescale.sim.config import SimulatorConfig, with_overrides
from sagescale.sim.faults import Crash, Faults
from sagescale.sim.measures import gpu_hours
from sagescale.sim.simulate import simulate
from sagescale.trace import Trace
from strategies import sampled
from test_sim_conservation import CHEAP_PREDICTORS, Case, document, many, profiles, traces

BUDGET = 64


@st.composite
def sections(draw: st.DrawFn, profile: Profile) -> AggregatedProfile:
    """Steps of any shape: flat, steep, with or without attention, KV and the longest context."""
    knots = sorted(draw(st.sets(sampled(1, 2, 8, 30, 64, 200), min_size=2)))
    rises = [draw(st.floats(0, 30)) for _ in knots]
    decode = profile.decode
    return AggregatedProfile(
        gpus_per_instance=decode.gpus_per_instance,
        concurrency=decode.concurrency,
        context_tokens=decode.context_tokens,
        itl_ms=decode.itl_ms,
        max_num_seqs=decode.max_num_seqs,
        max_kv_tokens=decode.max_kv_tokens,
        max_batched_tokens=BUDGET,
        tokens=tuple(map(float, knots)),
        tokens_ms=tuple((np.cumsum(rises) + 0.5).tolist()),
        running_ms=draw(sampled(0.0, 0.3)),
        kv_ms=draw(sampled(0.0, 1e-4, 1e-2)),
        cross_ms=draw(sampled(0.0, 1e-6, 1e-4)),
        square_ms=draw(sampled(0.0, 1e-6, 1e-4)),
        longest_ms=draw(sampled(0.0, 1e-3)),
    )


@st.composite
def cases(draw: st.DrawFn, serving: str) -> Case:
    profile = draw(profiles())
    profile = dataclasses.replace(profile, aggregated=draw(sections(profile)))
    gpus = profile.decode.gpus_per_instance
    least = draw(st.integers(0, 2))
    policy = draw(sampled("classic", "classic", "reactive", "static"))
    planner: dict[str, object] = {
        "serving": serving,
        "min_instances": least,
        "max_instances": least + draw(st.integers(1, 4)),
        "gpus_per_instance": gpus,
        "prefill_gpus_per_instance": profile.prefill.gpus_per_instance,
        "decode_gpus_per_instance": gpus,
        "max_gpu_budget": 12,
        "adjustment_interval_sec": draw(sampled(7, 30)),
        "load_predictor_type": draw(sampled(*CHEAP_PREDICTORS)),
        "target_ttft_ms": draw(sampled(1.0, 5000.0)),
        "target_itl_ms": draw(sampled(1.0, 500.0)),
        "load_headroom": draw(sampled(0.3, 1.0, 3.0)),
        "policy": policy,
    }
    world: dict[str, object] = {
        "engine_scheduler": draw(sampled("vllm", "sglang")),
        "max_batched_tokens": BUDGET,
        "long_prefill_token_threshold": draw(sampled(0, 0, 5)),
        "chunked_prefill": draw(sampled(True, True, False)),
        "mixed_chunk": draw(st.booleans()),
        "reserve_full_isl": draw(st.booleans()),
        "kv_block_tokens": draw(sampled(1, 16, 50)),
        "startup_delay_s": draw(sampled(0, 25, "uniform:low=0,high=90")),
        "first_token": draw(sampled("prefill", "decode")),
        "prefix_hit_rate": draw(sampled(0.0, 0.4)),
        "request_timeout_s": draw(sampled(None, None, 0.5, 30.0)),
        "scheduling_policy": draw(sampled("fifo", "priority")),
        "routing_strategy": draw(sampled("load_balanced", "round_robin", "least_tokens")),
    }
    simulator = SimulatorConfig(**world)
    config = AutoscalerConfig(**planner)
    return Case(draw(traces()), with_overrides(profile, simulator, config.serving), config, simulator)


any_case = st.one_of(cases("aggregated"), cases("aggregated"), cases("disaggregated"))


@many(150)
@given(any_case)
def test_no_run_beats_the_lower_bound(case: Case):
    run = case.run()
    bound, spent = lower_bound(run), gpu_hours(run)
    assert bound.pools.keys() == spent.pools.keys()
    for pool, hours in spent.pools.items():
        assert 0 <= bound.pools[pool] <= hours


@many(40)
@given(any_case)
def test_every_request_is_completed_or_counted_unfinished(case: Case):
    run = case.run()
    counts = document(case, run)["runs"][0]["requests"]
    assert counts["arrived"] == len(case.trace) == counts["completed"] + counts["unfinished"]
    assert counts["rejected"] + counts["timed_out"] <= counts["unfinished"]
    done = run.requests[run.completed]
    assert (done["done_s"] >= done["first_token_s"]).all()
    assert (done["first_token_s"] > case.trace.arrival_s[run.completed]).all()


@many(40)
@given(cases("aggregated"))
def test_the_pool_stays_within_its_limits_and_the_budget(case: Case):
    run = case.run()
    assert run.max_gpus_used <= case.config.max_gpu_budget
    for tick in run.ticks:
        (pool,) = tick.observation.pools
        assert case.config.min_instances <= pool.asked <= case.config.max_instances
        seen = tick.observation
        assert seen.running_prefill == seen.queued_decode == 0.0
        limit = run.world.max_num_seqs * (pool.ready + pool.draining)
        assert 0 <= seen.running_decode <= limit


@many(25)
@given(any_case)
def test_the_same_inputs_give_the_same_document(case: Case):
    assert document(case, case.run()) == document(case, case.run())


def test_faults_are_of_the_pools_there_are():
    setup = configured(None, [], ["serving=aggregated", "initial_instances=2"])
    trace = Trace.from_arrays(np.arange(300.0), np.full(300, 500), np.full(300, 200))
    given = trace, setup.profile, setup.config, setup.simulator
    with pytest.raises(InputError, match="pool is decode; expected aggregated"):
        simulate(*given, faults=Faults(crashes=(Crash(at_s=50.5, pool="decode"),)))
    run = simulate(*given, faults=Faults(crashes=(Crash(at_s=50.5, pool="aggregated", count=2),)))
    assert run.requests["restarts"].sum() > 0
    assert len(run.completed) == 300
    assert [event.pool for event in run.faults.events] == ["aggregated", "aggregated"]


@pytest.mark.parametrize("scheduler", ["batch", "vllm", "sglang"])
def test_what_prefill_computes_again_after_crashes_is_no_step_of_decode(scheduler: str):
    # No GPU is left for decode: a prefill holds its request, crashes, and makes the next token with the next.
    setup = configured(
        None,
        [],
        [
            f"engine_scheduler={scheduler}", "kv_transfer_blocks_prefill=true", "max_gpu_budget=1",
            "min_prefill_instances=1", "max_prefill_instances=1", "initial_prefill=1",
            "min_decode_instances=0", "initial_decode=0", "startup_delay_s=1",
        ],
    )  # fmt: skip
    crashes = Faults(crashes=(Crash(at_s=30.0, pool="prefill"), Crash(at_s=60.0, pool="prefill")))
    trace = Trace.from_arrays([0.0], [500], [3])
    run = simulate(trace, setup.profile, setup.config, setup.simulator, faults=crashes)
    assert len(run.completed) == 1
    assert gpu_hours(run).pools["decode"] == lower_bound(run).pools["decode"] == 0.0
