"""Policy slo over any sequence of known and unknown windows, slow starts and looks; its units."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planner_world import BUSY, RoundNumbers, seen
from sagescale.planner import PoolCounts, ReasonCode
from slo_world import RoundTwin, minute, run, slo_planner

counts = st.builds(PoolCounts, st.integers(0, 12), st.integers(0, 8), st.integers(0, 4), st.integers(0, 8))
requests = st.none() | st.just(0.0) | st.floats(1.0, 60_000.0)
length = st.none() | st.floats(1.0, 20_000.0)
share = st.none() | st.floats(0.0, 1.0)
windows = st.fixed_dictionaries(
    {
        "requests": requests,
        "isl_mean": length,
        "osl_mean": length,
        "prefill": counts,
        "decode": counts,
        "queued_prefill": st.none() | st.floats(0.0, 1e6),
        "queued_decode": st.none() | st.floats(0.0, 1e6),
        "prefix_hit_rate": share,
        "ttft_attainment": share,
        "itl_attainment": share,
    }
)
steps = st.lists(
    st.tuples(st.sampled_from([1, 2, 3, 5, 10, 40]), windows, st.lists(windows, max_size=2)),
    min_size=1,
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(steps, st.sampled_from(["constant", "moving_average", "kalman"]), st.floats(0.0, 600.0))
def test_no_sequence_of_windows_starts_and_looks_raises(sequence, predictor, startup_s):
    planner = slo_planner(RoundTwin(startup_s=startup_s), load_predictor_type=predictor)
    tick = 0
    for times, window, looks in sequence:
        for _ in range(times):
            tick += 1
            decision = planner.step(seen(BUSY, time_s=60.0 * tick, **window))
            assert sum(decision.targets) <= 200
        for number, look in enumerate(looks, 1):
            planner.check(seen(BUSY, time_s=60.0 * tick + 15.0 * number, window_s=15.0, **look))


def test_a_look_after_unknown_windows_in_which_starts_were_slow():
    planner = slo_planner()
    for number in range(1, 12):
        planner.step(minute(number, 600.0, 4, 4))
    slow = {"prefill": PoolCounts(4, starting=2), "decode": PoolCounts(4, starting=2)}
    for number in range(12, 26):
        planner.step(seen(minute(number, None, 4, 4), **slow))
    look = seen(BUSY, time_s=1515.0, window_s=15.0, requests=6000.0, **slow)
    decision = planner.check(look)
    assert decision is not None
    assert decision.has(ReasonCode.SURGE)


def missed_weights(hit_rate: float) -> list[float]:
    """The weights with which the factor was told of what prefill missed."""
    planner = slo_planner()
    told: list[float] = []
    planner._policy._prefill.caution.learn = lambda window: told.append(window.weight)  # type: ignore[method-assign]
    sizes = (8, 8)
    for number in range(1, 20):
        observation = minute(number, 3000.0, *sizes, prefix_hit_rate=hit_rate, ttft_attainment=0.9)
        sizes = tuple(planner.step(observation).targets)
    return told


@settings(max_examples=20, deadline=None)
@given(st.floats(0.0, 0.99))
def test_misses_weigh_the_same_at_every_prefix_hit_rate(hit_rate):
    weights = missed_weights(hit_rate)
    assert weights
    assert weights == pytest.approx([1.0] * len(weights), rel=0.01)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.3, 4.0))
def test_misses_weigh_the_same_however_slow_engines_have_been_learned_to_be(times):
    twin = RoundTwin()
    planner = slo_planner(twin, RoundNumbers(prefill_tokens_per_s=10_000.0 / times))
    run(planner, [3000.0] * 10)
    policy = planner._policy
    sample = policy._lengths.sample
    assert policy._weight(minute(11, 3000.0, 8, 8), sample) == pytest.approx(1.0, rel=0.01)
    assert policy._weight(minute(11, 6000.0, 8, 8), sample) == pytest.approx(2.0, rel=0.01)


@pytest.mark.parametrize("pool", ["prefill", "decode"])
@pytest.mark.parametrize("times", [0.5, 1.0, 2.0])
def test_what_waits_counts_as_what_comes_does_however_slow_engines_have_been_learned_to_be(pool, times):
    slow = RoundNumbers(
        prefill_tokens_per_s=10_000.0 / times, step_floor_ms=10.0 * times, step_ms_per_request=0.5 * times
    )
    planner = slo_planner(RoundTwin(), slow)
    run(planner, [3000.0] * 10)
    policy = planner._policy
    one = getattr(policy, f"_{pool}")
    queued, length = f"queued_{pool}", {"prefill": 1000.0, "decode": 200.0}[pool]

    def backlog(waiting: float) -> float:
        return policy._backlog(one, minute(11, 3000.0, 8, 8, **{queued: waiting}), 0.0)

    more = (backlog(30_000.0) - backlog(20_000.0)) * 60.0
    assert more == pytest.approx(10_000.0 * length * times, rel=0.01)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(1.0, 60_000.0), min_size=2, max_size=15), st.integers(2, 40), st.integers(0, 5))
def test_no_share_that_is_told_passes_the_whole(loads, budget, seed):
    planner = slo_planner(max_gpu_budget=budget)
    loads = np.random.default_rng(seed).permutation(loads).tolist()
    sizes = (1, 1)
    for number, load in enumerate([*loads, 60_000.0], 1):
        decision = planner.step(minute(number, load, *sizes))
        sizes = tuple(decision.targets)
        texts = [reason.text for reason in decision.reasons if reason.code is ReasonCode.SIZED_FOR_MISSES]
        assert len(texts) == 2
        for text in texts:
            shares = [float(found) for found in re.findall(r"([\d.]+)%", text)]
            assert shares
            assert all(0.0 <= one <= 100.0 for one in shares), text
