"""Correction factors: 1 at first, held on the unknown, never beyond their bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from planner_world import BUSY, NOTHING_KNOWN, RoundNumbers, make_planner, seen
from sagescale.planner import Corrections, PoolCounts, ReasonCode


def test_factors_are_observed_over_expected():
    # Expected: 1000 tokens in 100 ms; 600/2 * 20/60 = 100 running on each decode instance, 60 ms a step.
    decision = make_planner().step(seen(BUSY, ttft_ms_mean=120.0, itl_ms_mean=75.0))
    assert decision.corrections == pytest.approx((1.2, 1.25))


def test_factors_are_one_before_anything_is_known():
    assert make_planner().step(NOTHING_KNOWN).corrections == Corrections(1.0, 1.0)


@pytest.mark.parametrize("missing", ["ttft_ms_mean", "isl_mean"])
def test_the_prefill_factor_holds_while_an_input_is_unknown(missing):
    planner = make_planner()
    before = planner.step(seen(BUSY, ttft_ms_mean=120.0)).corrections
    after = planner.step(seen(BUSY, **({"ttft_ms_mean": 90.0} | {missing: None}))).corrections
    assert after.prefill == before.prefill == pytest.approx(1.2)


@pytest.mark.parametrize("missing", ["requests", "isl_mean", "osl_mean", "itl_ms_mean", "duration_s_mean"])
def test_the_decode_factor_holds_while_an_input_is_unknown(missing):
    planner = make_planner()
    before = planner.step(seen(BUSY, itl_ms_mean=75.0)).corrections
    after = planner.step(seen(BUSY, **({"itl_ms_mean": 40.0} | {missing: None}))).corrections
    assert after.decode == before.decode == pytest.approx(1.25)


def test_the_decode_factor_holds_while_no_decode_instance_is_ready():
    planner = make_planner()
    planner.step(seen(BUSY, itl_ms_mean=75.0))
    decision = planner.step(seen(BUSY, itl_ms_mean=40.0, decode=PoolCounts(ready=0, starting=2)))
    assert decision.corrections.decode == pytest.approx(1.25)
    assert decision.has(ReasonCode.NO_DECODE_READY)


def test_instances_still_starting_or_draining_do_not_enter_the_factor():
    alone = make_planner().step(BUSY)
    joined = make_planner().step(seen(BUSY, decode=PoolCounts(ready=2, starting=5, draining=3, waiting=1)))
    assert joined.corrections == alone.corrections


@given(st.floats(1e-3, 1e7), st.floats(1e-3, 1e7), st.floats(1, 1e6), st.floats(1, 1e5), st.integers(0, 50))
def test_factors_never_leave_their_bounds(ttft_ms, itl_ms, isl, osl, ready):
    decision = make_planner(correction_bounds=(0.8, 1.3)).step(
        seen(
            BUSY,
            ttft_ms_mean=ttft_ms,
            itl_ms_mean=itl_ms,
            isl_mean=isl,
            osl_mean=osl,
            decode=PoolCounts(ready),
        )
    )
    assert all(0.8 <= factor <= 1.3 for factor in decision.corrections)


def test_a_cold_start_does_not_run_away():
    """Where the factor was free, 3 replicas went to 56: an absurd ITL asks for no more than the bound."""
    perf = RoundNumbers(step_floor_ms=1.0, step_ms_per_request=0.5)
    planner = make_planner(perf, max_decode_instances=1000, max_gpu_budget=2000)
    calm = make_planner(perf, max_decode_instances=1000, max_gpu_budget=2000).step(BUSY).targets.decode
    counts = PoolCounts(ready=3)
    for tick in range(1, 20):
        decision = planner.step(seen(BUSY, time_s=60.0 * tick, itl_ms_mean=500.0, decode=counts))
        counts = PoolCounts(ready=decision.targets.decode)
    assert decision.corrections.decode == 2.0
    assert decision.has(ReasonCode.CORRECTION_BOUNDED)
    assert decision.targets.decode <= 2 * calm + 1


def test_enable_correction_false_leaves_both_at_one():
    planner = make_planner(enable_correction=False)
    assert planner.step(seen(BUSY, ttft_ms_mean=500.0, itl_ms_mean=99.0)).corrections == Corrections(1.0, 1.0)
    assert planner.get_status()["correction_factors"] == {"prefill": 1.0, "decode": 1.0}
