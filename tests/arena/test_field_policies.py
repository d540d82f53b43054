"""Each of the field's policies does what its published rule says, in the planner."""

from __future__ import annotations

import dataclasses
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import field_policies
import pytest
from field_policies.aibrix import AibrixApaPolicy
from field_policies.dynamo import DynamoPolicy
from field_policies.keda import KedaLatencyPolicy, KedaQueuePolicy
from field_policies.llm_d import LlmdSaturationPolicy
from field_policies.token_velocity import TokenVelocityPolicy
from planner_world import RoundNumbers
from sagescale.errors import InputError
from sagescale.fleet import PoolCounts, Pools
from sagescale.planner import AutoscalerConfig, Observation, Planner

POLICIES = (
    DynamoPolicy,
    KedaQueuePolicy,
    KedaLatencyPolicy,
    LlmdSaturationPolicy,
    AibrixApaPolicy,
    TokenVelocityPolicy,
)


QUIET = {
    "requests": 60.0,
    "completed": 60.0,
    "isl_mean": 1000.0,
    "osl_mean": 200.0,
    "queued_prefill": 0.0,
    "running_prefill": 0.0,
    "queued_decode": 0.0,
    "running_decode": 0.0,
    "kv_usage": 0.0,
    "lengths": ((1000, 200),) * 60,
}
"""One request of 1000 + 200 tokens a second: less than one instance of each pool."""


def at(time_s, prefill, decode, starting=(0, 0), **changes):
    pools = Pools(PoolCounts(prefill, starting[0]), PoolCounts(decode, starting[1]))
    return Observation(time_s=time_s, window_s=60.0, pools=pools, **(QUIET | changes))


def sizes(policy, *observations, **keys):
    """What the planner asks for at each observation, with targets TTFT 500 ms and ITL 30 ms."""
    config = AutoscalerConfig(
        target_ttft_ms=500.0,
        target_itl_ms=30.0,
        adjustment_interval_sec=60,
        max_gpu_budget=200,
        max_prefill_instances=50,
        max_decode_instances=50,
        prefill_gpus_per_instance=1,
        decode_gpus_per_instance=1,
        **keys,
    )
    perf = RoundNumbers(max_kv_tokens=100_000)
    planner = Planner(config, perf, policy=policy(config, perf))
    return [tuple(planner.step(one).targets) for one in observations]


def test_dynamos_throughput_loop_sets_a_floor_from_the_rate_every_three_minutes():
    busy = {"requests": 6000.0, "completed": 6000.0}  # 100/s: ten instances prefill 100 000 tokens/s
    found = sizes(
        DynamoPolicy, *(at(60.0 * tick, 10, 30, **busy) for tick in (1, 2)), at(180, 10, 30), at(240, 10, 30)
    )
    assert [prefill for prefill, _ in found] == [10, 10, 10, 9]


@pytest.mark.parametrize(("queued", "after"), [(3.0, 1), (4.0, 1), (5.0, 2)])
def test_dynamos_load_loop_adds_one_when_the_next_first_token_would_be_late(queued, after):
    assert sizes(DynamoPolicy, at(60, 1, 1, queued_prefill=queued)) == [(after, 1)]


@pytest.mark.parametrize(("queued", "after"), [(3.0, 1), (4.0, 2)])
def test_dynamo_takes_one_away_only_if_the_others_could_hold_what_it_holds(queued, after):
    # A prompt takes 100 ms alone; 0.8 of the 400 ms left are three prompts to wait for, not four.
    assert sizes(DynamoPolicy, at(60, 2, 1, queued_prefill=queued)) == [(after, 1)]


@pytest.mark.parametrize(("running", "after"), [(26.0, 1), (30.0, 2), (82.0, 3)])
def test_dynamo_sizes_decode_by_the_time_of_a_step(running, after):
    # 13 on each of two: 26 on one take 23 ms, under 0.8 of 30; 30 on one 25 ms; 41 on each 30.5 ms.
    assert sizes(DynamoPolicy, at(60, 1, 2, running_decode=running)) == [(1, after)]


def test_dynamo_only_looks_while_instances_start():
    assert sizes(DynamoPolicy, at(60, 1, 1, starting=(1, 0), queued_prefill=50.0)) == [(2, 1)]


def test_dynamo_asks_for_more_between_ticks():
    config = AutoscalerConfig(target_ttft_ms=500.0, target_itl_ms=30.0)
    policy = DynamoPolicy(config, RoundNumbers())
    planner = Planner(config, RoundNumbers(), policy=policy)
    planner.step(at(60, 1, 1))
    decision = planner.check(at(75, 1, 1, queued_prefill=50.0))
    assert decision is not None
    assert tuple(decision.targets) == (2, 1)


def test_keda_means_an_instance_to_have_five_waiting():
    assert sizes(KedaQueuePolicy, at(60, 2, 1, queued_prefill=24.0)) == [(5, 1)]
    assert sizes(KedaQueuePolicy, at(60, 2, 1, queued_prefill=24.0), load_headroom=1.5) == [(6, 1)]


def test_keda_on_latency_grows_in_proportion_and_no_more_than_twofold():
    assert sizes(KedaLatencyPolicy, at(60, 4, 2, ttft_ms_p99=750.0, itl_ms_p99=29.0)) == [(6, 2)]
    assert sizes(KedaLatencyPolicy, at(60, 4, 2, ttft_ms_p99=9000.0, itl_ms_p99=29.0)) == [(8, 2)]
    assert sizes(KedaLatencyPolicy, at(60, 4, 2)) == [(4, 2)]


@pytest.mark.parametrize(
    ("queued", "kv", "after"),
    [(0.0, 0.65, (1, 2)), (0.0, 0.72, (1, 3)), (7.0, 0.3, (3, 1)), (1.0, 0.3, (1, 1)), (3.0, 0.36, (2, 2))],
)
def test_llm_d_keeps_a_tenth_of_memory_and_three_places_in_the_queue_spare(queued, kv, after):
    assert sizes(LlmdSaturationPolicy, at(60, 2, 2, queued_prefill=queued, kv_usage=kv)) == [after]


def test_llm_d_waits_for_what_is_starting():
    assert sizes(LlmdSaturationPolicy, at(60, 2, 1, starting=(1, 0), queued_prefill=90.0)) == [(3, 1)]


def test_aibrix_follows_use_within_half_and_twice_and_shrinks_after_five_minutes():
    busy = {"queued_prefill": 6.0, "running_prefill": 3.0}
    assert sizes(AibrixApaPolicy, at(60, 3, 4, kv_usage=0.8, **busy)) == [(5, 7)]
    assert sizes(AibrixApaPolicy, at(60, 3, 4, kv_usage=0.52, queued_prefill=90.0)) == [(6, 4)]
    quiet = sizes(AibrixApaPolicy, *(at(60.0 * tick, 1, 8, kv_usage=0.01) for tick in range(1, 8)))
    assert [decode for _, decode in quiet] == [8, 8, 8, 8, 8, 4, 4]


def test_token_velocity_is_work_that_arrives_over_work_done():
    busy = at(60, 1, 1, requests=1200.0)  # 20/s of 1000 + 200 tokens, 0.1 s of prefill each
    # 40 at once in 30 ms steps are 1333 tokens/s: 4000 need three.
    assert sizes(TokenVelocityPolicy, busy) == [(2, 3)]


def test_token_velocity_sums_over_kinds_of_requests():
    mixed = ((100, 10),) * 40 + ((4000, 500),) * 20
    assert sizes(TokenVelocityPolicy, at(60, 1, 1, requests=600.0, lengths=mixed)) == [(2, 2)]


@pytest.mark.parametrize("policy", POLICIES)
def test_a_pool_about_which_nothing_is_known_stays(policy):
    unknown = dict.fromkeys(QUIET)
    assert sizes(policy, at(60, 3, 5, **unknown), at(120, 3, 5, **unknown)) == [(3, 5), (3, 5)]


@pytest.mark.parametrize("policy", POLICIES)
def test_an_aggregated_pool_is_refused(policy):
    with pytest.raises(InputError, match="serving is 'aggregated': it sizes prefill and decode pools"):
        policy(AutoscalerConfig(serving="aggregated"), RoundNumbers())


def test_the_package_offers_each_policy_and_its_keys_by_name():
    project = tomllib.loads((Path(field_policies.__file__).parents[1] / "pyproject.toml").read_text())[
        "project"
    ]
    offered = project["entry-points"]
    for name, target in offered["sagescale.policies"].items():
        assert EntryPoint(name, target, "sagescale.policies").load().name == name
    for name, target in offered["sagescale.keys"].items():
        assert dataclasses.is_dataclass(EntryPoint(name, target, "sagescale.keys").load())
