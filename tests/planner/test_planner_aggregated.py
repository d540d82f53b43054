"""A pool of aggregated instances is planned for by the same core: keys, formulas, limits, words."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from planner_world import RoundNumbers
from sagescale.errors import InputError
from sagescale.fleet import Role
from sagescale.planner import (
    AutoscalerConfig,
    Observation,
    Planner,
    PoolCounts,
    Pools,
    ReasonCode,
    initial_targets,
)

WIDE = {"serving": "aggregated", "max_instances": 10**6, "max_gpu_budget": 10**8}


def pool(ready: int) -> Pools:
    return Pools.of({"aggregated": PoolCounts(ready=ready)})


def busy(ready: int = 4, **changes: object) -> Observation:
    known: dict[str, object] = {
        "requests": 600.0, "completed": 600.0, "isl_mean": 1000.0, "osl_mean": 200.0, "duration_s_mean": 20.0,
    }  # fmt: skip
    return Observation(60.0, 60.0, pool(ready), **(known | changes))


def test_the_keys_describe_one_pool():
    config = AutoscalerConfig(serving="aggregated", min_instances=2, max_instances=7, gpus_per_instance=4)
    (only,) = config.pools
    assert (only.name, only.role, only.gpus, only.least, only.most) == (
        "aggregated", Role.AGGREGATED, 4, 2, 7
    )  # fmt: skip
    assert config.minimum_gpus == 8


def test_keys_of_the_other_way_of_serving_are_not_looked_at():
    config = AutoscalerConfig(serving="aggregated", min_prefill_instances=5, max_prefill_instances=2)
    assert config.minimum_gpus == 1
    with pytest.raises(InputError, match="min_instances is 5 but max_instances is 2"):
        AutoscalerConfig(serving="aggregated", min_instances=5, max_instances=2)
    with pytest.raises(
        InputError, match=r"the minima need 9 GPUs \(min_instances 3 x gpus_per_instance 3\);"
    ):
        AutoscalerConfig(serving="aggregated", min_instances=3, gpus_per_instance=3, max_gpu_budget=8)


@given(
    st.floats(0.1, 1e5), st.floats(1, 1e5), st.floats(1, 1e4), st.floats(11, 500), st.integers(1, 8)
)  # fmt: skip
def test_the_shares_of_prefill_and_decode_are_added_before_rounding(requests, isl, osl, target_ms, gpus):
    config = AutoscalerConfig(**WIDE, target_itl_ms=target_ms, gpus_per_instance=gpus)
    perf = RoundNumbers(prefill_gpus=gpus, decode_gpus=gpus)
    point = perf.decode_throughput_per_gpu(target_ms, isl + osl / 2)
    rate = requests / 60 / gpus
    demand = rate * isl / perf.prefill_throughput_per_gpu(isl) + rate * osl / point.tokens_per_s_per_gpu
    (size,) = initial_targets(config, perf, requests, isl, osl)
    assert abs(size - max(1, math.ceil(demand))) <= (abs(demand - round(demand)) < 1e-6)


def test_a_share_that_is_unknown_holds_the_pool():
    planner = Planner(AutoscalerConfig(**WIDE), RoundNumbers())
    decision = planner.step(busy(7, osl_mean=None))
    assert decision.targets.as_dict() == {"aggregated": 7}
    (held,) = (one.text for one in decision.reasons if one.code == ReasonCode.HOLD_UNKNOWN_LENGTHS)
    assert held == "no osl has been observed yet: the pool holds"


def test_limits_are_named_by_their_keys():
    planner = Planner(AutoscalerConfig(serving="aggregated", max_instances=2), RoundNumbers())
    decision = planner.step(busy(requests=60000.0))
    assert decision.targets.as_dict() == {"aggregated": 2}
    (cut,) = (one.text for one in decision.reasons if one.code == ReasonCode.AT_MAX_AGGREGATED)
    assert cut.endswith("max_instances is 2")


def test_static_keeps_what_it_is_given_or_finds():
    given_size = AutoscalerConfig(**WIDE, policy="static", static_instances=3)
    assert Planner(given_size, RoundNumbers()).step(busy(5)).targets.as_dict() == {"aggregated": 3}
    found = AutoscalerConfig(**WIDE, policy="static")
    assert Planner(found, RoundNumbers()).step(busy(5)).targets.as_dict() == {"aggregated": 5}


def test_reactive_counts_what_waits_and_what_runs_against_slots():
    config = AutoscalerConfig(**WIDE, policy="reactive", reactive_decode_usage=0.5)
    gauges = {"queued_prefill": 100.0, "running_prefill": 0.0, "queued_decode": 0.0, "running_decode": 200.0}
    decision = Planner(config, RoundNumbers()).step(busy(4, **gauges))
    assert decision.targets.as_dict() == {"aggregated": 6}  # 300 requests at 50 an instance
    full = Planner(config, RoundNumbers()).step(busy(4, kv_usage=1.0, **gauges))
    assert full.targets.as_dict() == {"aggregated": 8}


def test_nothing_is_learned_of_engines_whose_steps_do_both():
    from sagescale.perf import ProfileModel, load_profile

    model = ProfileModel(load_profile("h200-llama-3.1-8b-fp8"))
    assert Planner(AutoscalerConfig(), model).learned is not None
    assert Planner(AutoscalerConfig(serving="aggregated"), model).learned is None
