"""The classic policy is the guide's formulas, with every zero and unknown decided."""

from __future__ import annotations

import functools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planner_world import BUSY, NOTHING_KNOWN, ONE_GPU, RoundNumbers, make_planner, seen
from sagescale.errors import InputError
from sagescale.perf import ProfileModel, list_profiles, load_profile
from sagescale.planner import AutoscalerConfig, PoolCounts, ReasonCode, Sizes, initial_targets, make_policy
from sagescale.planner.policy.classic import whole_instances

WIDE = {"max_prefill_instances": 10**6, "max_decode_instances": 10**6, "max_gpu_budget": 10**8}


@functools.cache
def shipped(name: str) -> ProfileModel:
    return ProfileModel(load_profile(name))


loads = st.tuples(st.floats(0.1, 1e5), st.floats(1, 1e5), st.floats(1, 1e4))


@given(loads, st.floats(11, 500), st.floats(0.3, 3), st.integers(1, 8), st.integers(1, 8))
def test_sizes_are_the_guides_formulas(load, target_itl_ms, headroom, prefill_gpus, decode_gpus):
    requests, isl, osl = load
    config = AutoscalerConfig(
        **WIDE,
        target_itl_ms=target_itl_ms,
        load_headroom=headroom,
        prefill_gpus_per_instance=prefill_gpus,
        decode_gpus_per_instance=decode_gpus,
    )
    perf = RoundNumbers(prefill_gpus=prefill_gpus, decode_gpus=decode_gpus)
    prefill = requests * headroom * isl / 60 / (perf.prefill_throughput_per_gpu(isl) * prefill_gpus)
    point = perf.decode_throughput_per_gpu(target_itl_ms, isl + osl / 2)
    decode = requests * headroom * osl / 60 / point.tokens_per_s_per_gpu / decode_gpus
    sizes = initial_targets(config, perf, requests, isl, osl)
    assert abs(sizes.prefill - max(1, math.ceil(prefill))) <= (abs(prefill - round(prefill)) < 1e-6)
    assert abs(sizes.decode - max(1, math.ceil(decode))) <= (abs(decode - round(decode)) < 1e-6)


def test_a_prefill_correction_below_one_shrinks_the_demand_and_above_one_does_not_grow_it():
    busy = seen(BUSY, requests=2400.0)
    sizes = [
        make_planner(**WIDE).step(seen(busy, ttft_ms_mean=ttft_ms)).targets.prefill
        for ttft_ms in (50.0, 100.0, 190.0)
    ]
    assert sizes == [2, 4, 4]


def test_the_decode_correction_tightens_the_itl_target():
    busy = seen(BUSY, requests=6000.0, decode=PoolCounts(ready=20))  # 100 running each: 60 ms expected
    neutral = make_planner(**WIDE).step(seen(busy, itl_ms_mean=60.0))
    slower = make_planner(**WIDE).step(seen(busy, itl_ms_mean=120.0))
    # 20 000 tokens/s: over 80/0.05 s at 50 ms, and over 30/0.025 s at 50/2 ms.
    assert neutral.targets.decode == math.ceil(20_000 / 1600)
    assert slower.targets.decode == math.ceil(20_000 / 1200)


@given(loads, st.floats(11, 400), st.floats(1, 3))
def test_a_looser_itl_target_never_needs_more_decode_instances(load, target_itl_ms, looser):
    tight, loose = (
        initial_targets(
            AutoscalerConfig(**WIDE, **ONE_GPU, target_itl_ms=target), RoundNumbers(), *load
        ).decode
        for target in (target_itl_ms, target_itl_ms * looser)
    )
    assert loose <= tight


@given(loads, st.floats(1, 4))
def test_more_load_never_needs_fewer_instances(load, more):
    requests, isl, osl = load
    config = AutoscalerConfig(**WIDE, **ONE_GPU)
    low = initial_targets(config, RoundNumbers(), requests, isl, osl)
    high = initial_targets(config, RoundNumbers(), requests * more, isl, osl)
    headroom = initial_targets(
        AutoscalerConfig(**WIDE, **ONE_GPU, load_headroom=more), RoundNumbers(), requests, isl, osl
    )
    assert high.prefill >= low.prefill
    assert high.decode >= low.decode
    assert abs(headroom.prefill - high.prefill) <= 1  # the same product in another order
    assert abs(headroom.decode - high.decode) <= 1


@pytest.mark.parametrize(
    ("demand", "instances"), [(0.0, 0), (3.0, 3), (3.0000000001, 3), (3.001, 4), (2.999, 3)]
)
def test_float_noise_buys_no_instance(demand, instances):
    assert whole_instances(demand) == instances


def test_absurd_demand_is_only_the_maximum():
    decision = make_planner().step(seen(BUSY, requests=9e11, isl_mean=9e11))
    assert decision.targets.prefill <= 10
    assert decision.has(ReasonCode.AT_MAX_PREFILL)


def test_unknown_traffic_holds_whatever_the_predictor_thinks():
    planner = make_planner()
    planner.step(BUSY)
    decision = planner.step(NOTHING_KNOWN)
    assert decision.targets == decision.current == Sizes(3, 4)
    assert decision.has(ReasonCode.HOLD_UNKNOWN_TRAFFIC)


def test_no_traffic_scales_down_to_the_minimum():
    decision = make_planner(min_decode_instances=2).step(seen(NOTHING_KNOWN, requests=0.0))
    assert decision.targets == Sizes(1, 2)
    assert {ReasonCode.NO_TRAFFIC, ReasonCode.SCALE_DOWN} <= {reason.code for reason in decision.reasons}


def test_a_minimum_of_zero_lets_a_pool_go_and_traffic_brings_it_back():
    planner = make_planner(min_prefill_instances=0, min_decode_instances=0)
    gone = planner.step(seen(NOTHING_KNOWN, requests=0.0))
    assert gone.targets == Sizes(0, 0)
    back = planner.step(seen(BUSY, prefill=PoolCounts(ready=0), decode=PoolCounts(ready=0)))
    assert back.targets.prefill >= 1
    assert back.targets.decode >= 1


def test_the_first_window_without_lengths_holds():
    decision = make_planner().step(seen(NOTHING_KNOWN, requests=600.0))
    assert decision.targets == decision.current
    assert decision.has(ReasonCode.HOLD_UNKNOWN_LENGTHS)


def test_while_nothing_has_completed_decode_holds_and_prefill_is_sized():
    decision = make_planner().step(seen(NOTHING_KNOWN, requests=2400.0, isl_mean=1000.0))
    assert decision.targets == Sizes(4, 4)
    assert decision.has(ReasonCode.HOLD_UNKNOWN_LENGTHS)


def test_unknown_lengths_repeat_the_last_known():
    planner = make_planner()
    before = planner.step(BUSY)
    after = planner.step(seen(BUSY, isl_mean=None, osl_mean=None))
    assert (after.forecast.isl, after.forecast.osl) == (before.forecast.isl, before.forecast.osl)
    assert after.targets == before.targets


def test_an_infeasible_itl_is_said_and_sized_for_the_fastest_point():
    decision = make_planner(target_itl_ms=5.0, max_gpu_budget=1000, max_decode_instances=900).step(BUSY)
    assert decision.has(ReasonCode.SLA_INFEASIBLE)
    assert decision.targets.decode == 21  # 2000 tokens/s at one token every 10.5 ms


def test_a_lone_prefill_over_the_target_is_said_and_changes_no_size():
    loose, strict = make_planner().step(BUSY), make_planner(target_ttft_ms=50.0).step(BUSY)
    assert strict.has(ReasonCode.TARGET_TTFT_UNREACHABLE)
    assert not loose.has(ReasonCode.TARGET_TTFT_UNREACHABLE)
    assert strict.targets == loose.targets


def test_a_model_without_capacity_holds():
    decision = make_planner(RoundNumbers(prefill_tokens_per_s=1e-320)).step(seen(BUSY, ttft_ms_mean=None))
    broken = RoundNumbers()
    broken.prefill_throughput_per_gpu = lambda isl: 0.0
    held = make_planner(broken).step(seen(BUSY, prefill=PoolCounts(ready=3)))
    assert held.targets.prefill == 3
    assert held.has(ReasonCode.HOLD_NO_CAPACITY)
    assert decision.targets.prefill == 10


def test_the_initial_size_without_traffic_is_the_minimum():
    config = AutoscalerConfig(min_decode_instances=3)
    assert initial_targets(config, RoundNumbers(), 0.0, None, None) == Sizes(1, 3)
    assert initial_targets(config, RoundNumbers(), None, None, None) == Sizes(1, 3)


def test_a_misspelt_policy_is_refused_with_the_nearest():
    with pytest.raises(InputError, match=r"policy is 'clasic'; expected one of .*did you mean 'classic'"):
        AutoscalerConfig(policy="clasic")
    with pytest.raises(InputError, match="did you mean 'classic'"):
        make_policy(AutoscalerConfig(), RoundNumbers(), "clasic")


@pytest.mark.parametrize("name", list_profiles())
@given(load=loads, targets=st.tuples(st.floats(2, 300), st.floats(2, 300)))
@settings(max_examples=30)
def test_on_every_shipped_profile_a_looser_itl_never_needs_more_instances(name, load, targets):
    perf = shipped(name)
    gpus = {
        "prefill_gpus_per_instance": perf.prefill_gpus,
        "decode_gpus_per_instance": perf.decode_gpus,
    }
    tight, loose = (
        initial_targets(AutoscalerConfig(**WIDE, **gpus, target_itl_ms=target), perf, *load)
        for target in sorted(targets)
    )
    assert loose.decode <= tight.decode
    assert loose.prefill == tight.prefill
