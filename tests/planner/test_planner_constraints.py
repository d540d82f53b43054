"""Limits and the GPU budget: properties first, then the failures other systems had."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sagescale import fleet
from sagescale.fleet import Sizes
from sagescale.planner import AutoscalerConfig


@st.composite
def limits(draw: st.DrawFn) -> AutoscalerConfig:
    min_prefill, min_decode = draw(st.integers(0, 4)), draw(st.integers(0, 4))
    prefill_gpus, decode_gpus = draw(st.integers(1, 8)), draw(st.integers(1, 8))
    least = max(min_prefill * prefill_gpus + min_decode * decode_gpus, 1)
    return AutoscalerConfig(
        min_prefill_instances=min_prefill,
        max_prefill_instances=max(min_prefill, 1) + draw(st.integers(0, 30)),
        min_decode_instances=min_decode,
        max_decode_instances=max(min_decode, 1) + draw(st.integers(0, 30)),
        prefill_gpus_per_instance=prefill_gpus,
        decode_gpus_per_instance=decode_gpus,
        max_gpu_budget=least + draw(st.integers(0, 120)),
    )


def within_limits(asked: Sizes, config: AutoscalerConfig) -> Sizes:
    return fleet.within_limits(asked, config.fleet)


def fit_gpu_budget(asked: Sizes, config: AutoscalerConfig) -> Sizes:
    return fleet.fit(asked, config.fleet)


def constrain(asked: Sizes, config: AutoscalerConfig) -> Sizes:
    return fit_gpu_budget(within_limits(asked, config), config)


sizes = st.builds(Sizes, st.integers(0, 60), st.integers(0, 60))


def gpus(pools: Sizes, config: AutoscalerConfig) -> int:
    return pools.prefill * config.prefill_gpus_per_instance + pools.decode * config.decode_gpus_per_instance


def richer(config: AutoscalerConfig, more: int) -> AutoscalerConfig:
    import dataclasses

    return dataclasses.replace(config, max_gpu_budget=config.max_gpu_budget + more)


@given(limits(), sizes)
def test_budget_and_limits_always_hold(config, asked):
    got = constrain(asked, config)
    assert gpus(got, config) <= config.max_gpu_budget
    assert config.min_prefill_instances <= got.prefill <= config.max_prefill_instances
    assert config.min_decode_instances <= got.decode <= config.max_decode_instances


@given(limits(), sizes)
def test_no_pool_gets_more_than_it_asked_for_or_its_minimum(config, asked):
    got = constrain(asked, config)
    assert got.prefill <= max(asked.prefill, config.min_prefill_instances)
    assert got.decode <= max(asked.decode, config.min_decode_instances)


@given(limits(), sizes)
def test_no_gpu_is_stranded_that_an_asked_for_instance_would_fit_in(config, asked):
    wanted = within_limits(asked, config)
    got = constrain(asked, config)
    free = config.max_gpu_budget - gpus(got, config)
    assert got.prefill == wanted.prefill or free < config.prefill_gpus_per_instance
    assert got.decode == wanted.decode or free < config.decode_gpus_per_instance


@given(limits(), sizes)
def test_what_fits_is_left_alone(config, asked):
    wanted = within_limits(asked, config)
    assume(gpus(wanted, config) <= config.max_gpu_budget)
    assert constrain(asked, config) == wanted


@given(limits(), sizes)
def test_constraining_twice_changes_nothing(config, asked):
    once = constrain(asked, config)
    assert constrain(once, config) == once


@given(limits(), sizes, st.integers(1, 40))
def test_a_larger_budget_uses_no_fewer_gpus(config, asked, more):
    assert gpus(constrain(asked, richer(config, more)), config) >= gpus(constrain(asked, config), config)


@given(limits(), sizes, st.integers(1, 40))
def test_a_larger_budget_shrinks_neither_pool_where_instances_cost_the_same(config, asked, more):
    import dataclasses

    equal = dataclasses.replace(
        config,
        prefill_gpus_per_instance=1,
        decode_gpus_per_instance=1,
        max_gpu_budget=max(config.min_prefill_instances + config.min_decode_instances, 1) + more,
    )
    before, after = constrain(asked, equal), constrain(asked, richer(equal, more))
    assert after.prefill >= before.prefill
    assert after.decode >= before.decode


@given(limits(), sizes)
def test_both_pools_shrink_in_proportion_to_what_they_asked_above_the_minimum(config, asked):
    wanted = within_limits(asked, config)
    got = constrain(asked, config)
    assume(got != wanted)
    extra = Sizes(wanted.prefill - config.min_prefill_instances, wanted.decode - config.min_decode_instances)
    free = config.max_gpu_budget - config.minimum_gpus
    share = free / gpus(extra, config)
    # Whole instances: within one of the exact share, and what one pool cannot use the other may take.
    slack = max(config.prefill_gpus_per_instance, config.decode_gpus_per_instance)
    assert got.prefill - config.min_prefill_instances <= share * extra.prefill + 1 + slack
    assert got.decode - config.min_decode_instances <= share * extra.decode + 1 + slack


@pytest.mark.parametrize(
    ("asked", "budget", "expected"),
    [
        # 4 GPUs a prefill, 1 a decode instance, minima 1 and 1.
        (Sizes(2, 24), 32, Sizes(2, 24)),
        (Sizes(5, 20), 24, Sizes(3, 12)),  # 16+19 GPUs asked above the minima, 19 there
        (Sizes(1, 40), 8, Sizes(1, 4)),  # decode alone asks, decode alone gets
        (Sizes(10, 1), 10, Sizes(2, 1)),  # one GPU is left: nobody asked for a decode instance
        (Sizes(10, 3), 11, Sizes(2, 3)),
        (Sizes(10, 20), 5, Sizes(1, 1)),
    ],
)
def test_budget_examples(asked, budget, expected):
    config = AutoscalerConfig(max_gpu_budget=budget, max_decode_instances=40)
    assert fit_gpu_budget(asked, config) == expected
