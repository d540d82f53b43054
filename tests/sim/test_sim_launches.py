"""Who gets freed GPUs first is one rule: kernel, mover and planner agree from every state."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from sagescale.fleet import Fleet, Pools, grow, next_launches, resize
from sagescale.live.mover import next_sizes
from sagescale.perf import ProfileModel, load_profile
from sagescale.planner import AutoscalerConfig, Sizes
from sagescale.sim.config import SimulatorConfig
from sagescale.sim.engine import Cluster, ServiceLoad, World, disaggregated
from sagescale.sim.world import build_world

PROFILE = load_profile("h200-llama-3.1-8b-fp8")
ENGINES = build_world(
    ProfileModel(PROFILE),
    SimulatorConfig(),
    AutoscalerConfig(prefill_gpus_per_instance=1, decode_gpus_per_instance=1),
)
sizes = st.builds(Sizes, st.integers(0, 9), st.integers(0, 9))
gpus_each = st.builds(Sizes, st.integers(1, 4), st.integers(1, 4))


def gpus(counts: Sizes, each: Sizes) -> int:
    return counts.prefill * each.prefill + counts.decode * each.decode


def pools_of(each: Sizes) -> Fleet:
    return AutoscalerConfig(
        prefill_gpus_per_instance=each.prefill, decode_gpus_per_instance=each.decode, max_gpu_budget=100
    ).fleet


def counts(cluster: Cluster) -> Pools:
    return cluster.pools()


def busy_cluster(each: Sizes, budget: int, initial: Sizes, requests: int) -> Cluster:
    """A cluster whose instances have so many requests in all to finish before they can stop."""
    world = World(
        **{
            **{name: getattr(ENGINES, name) for name in World.__slots__},
            "prefill_gpus": each.prefill,
            "decode_gpus": each.decode,
            "max_gpus": budget,
        }
    )
    tokens = np.full(requests, 1000, np.int32)
    columns = (np.zeros(requests), tokens, tokens, tokens)
    cluster = Cluster.alone(
        ServiceLoad("service", disaggregated(world), initial, *columns, lambda _, count: np.full(count, 60.0))
    )
    cluster.advance(0.5)
    return cluster


@settings(max_examples=300)
@given(sizes, sizes, sizes, gpus_each, st.integers(0, 60), st.integers(0, 12))
def test_kernel_mover_and_planner_give_free_gpus_to_the_same_pools(initial, fewer, goal, each, spare, busy):
    budget = max(gpus(initial, each) + spare, 1)
    config = AutoscalerConfig(
        prefill_gpus_per_instance=each.prefill, decode_gpus_per_instance=each.decode, max_gpu_budget=budget,
        min_prefill_instances=0, min_decode_instances=0,
    )  # fmt: skip
    cluster = busy_cluster(each, budget, initial, busy)
    cluster.scale(*map(min, initial, fewer))  # what is busy drains, and holds its GPUs
    cluster.advance(0.5)
    before = counts(cluster)
    goal = Sizes(*map(max, goal, before.asked))
    expected = next_sizes(goal, before, config.fleet)

    cluster.hold_launches(held=True)
    cluster.scale(*goal)
    assert counts(cluster).asked == goal
    cluster.hold_launches(held=False)
    after = counts(cluster)
    launched = Sizes(*(pool.ready + pool.starting for pool in (after.prefill, after.decode)))
    assert launched == expected

    drains = before.prefill.draining + before.decode.draining
    if not drains:
        assert grow(goal, before.asked, config.fleet) == expected


@given(sizes, sizes, gpus_each, st.integers(-8, 80))
def test_launches_fit_leave_no_gpu_idle_and_keep_the_pools_abreast(missing, there, each, free):
    goal = Sizes(missing.prefill + there.prefill, missing.decode + there.decode)
    more = next_launches(missing, goal, pools_of(each), {"gpu": free})
    assert all(0 <= got <= wanted for got, wanted in zip(more, missing, strict=True))
    assert gpus(more, each) <= max(free, 0)
    left = free - gpus(more, each)
    assert all(got == wanted or gpu > left for got, wanted, gpu in zip(more, missing, each, strict=True)), (
        "an instance that was asked for would have fitted"
    )


def test_the_example_that_kernel_and_mover_once_answered_differently():
    # (1, 1) to (4, 4) with four GPUs: prefill was filled first (3+1), where the mover made it 2+2.
    assert next_launches(Sizes(3, 3), Sizes(4, 4), pools_of(Sizes(1, 1)), {"gpu": 2}) == (1, 1)
    cluster = busy_cluster(Sizes(1, 1), 4, Sizes(1, 1), 0)
    cluster.scale(4, 4)
    after = counts(cluster)
    assert (after.prefill.starting, after.decode.starting) == (1, 1)


def test_growth_under_a_budget_takes_from_no_instance_that_is_wanted():
    config = AutoscalerConfig(prefill_gpus_per_instance=2, decode_gpus_per_instance=1, max_gpu_budget=12)
    # 6 + 2 GPUs are taken; prefill misses 2 of 5, decode 6 of 8: decode until it is abreast.
    assert grow(Sizes(5, 8), Sizes(3, 2), config.fleet) == (3, 6)
    assert grow(Sizes(2, 8), Sizes(5, 2), config.fleet) == (2, 8), "what is not wanted makes room"
    assert grow(Sizes(9, 3), Sizes(6, 3), config.fleet) == (6, 3), "over the budget nothing grows"


@settings(max_examples=200)
@given(sizes, sizes, sizes, gpus_each, st.integers(0, 40), st.integers(0, 12))
def test_the_kernel_resizes_pools_as_the_fleet_says(initial, starting, goal, each, spare, busy):
    """What of a pool is withdrawn, cancelled and drained: ``fleet.resize`` and its compiled copy."""
    cluster = busy_cluster(each, max(gpus(initial, each) + spare, 1), initial, busy)
    cluster.scale(*map(int.__add__, initial, starting))  # some start, and where GPUs are short some wait
    before = cluster.pools()
    cluster.hold_launches(held=True)
    cluster.scale(*goal)
    expected = [resize(pool, to).applied(pool, 0) for pool, to in zip(before, goal, strict=True)]
    for pool, then in zip(cluster.pools(), expected, strict=True):
        assert (pool.ready, pool.starting, pool.waiting) == (then.ready, then.starting, then.waiting)
        assert pool.draining <= then.draining, "an idle one that drains is gone at once"
