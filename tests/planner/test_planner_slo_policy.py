"""Policy slo in the planner's cycle: what it asks for, holds, gives up and adds between ticks."""

from __future__ import annotations

import copy
import dataclasses
import functools
import itertools
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from planner_world import BUSY, RoundNumbers, seen
from sagescale.errors import SagescaleError
from sagescale.perf import ProfileModel, load_profile
from sagescale.planner import AutoscalerConfig, Observation, Planner, PoolCounts, Pools, ReasonCode
from sagescale.planner.policy import make_policy
from sagescale.sim.config import SimulatorConfig
from sagescale.sim.twin import KernelTwin
from slo_world import RoundTwin, minute, poisson, run, share_missed, slo_planner

requests = st.none() | st.just(0.0) | st.floats(1.0, 30_000.0)
FEW = settings(max_examples=25)

METRICS = [
    field.name
    for field in dataclasses.fields(Observation)
    if "None" in str(field.type) and field.name != "lengths"
]
maybe = st.none() | st.floats(allow_nan=True, allow_infinity=True) | st.floats(0.0, 10_000.0)


def look(rate_rps: float, prefill: int, decode: int, time_s: float, window_s: float = 15.0) -> Observation:
    ready = {"prefill": PoolCounts(ready=prefill), "decode": PoolCounts(ready=decode)}
    return seen(BUSY, time_s=time_s, window_s=window_s, requests=rate_rps * window_s, completed=None, **ready)


def settled(requests_a_minute: float = 6000.0, windows: int = 40, **keys: object):
    """A planner after a flat load, and the sizes it came to."""
    planner, sizes = _settled(requests_a_minute, windows, tuple(keys.items()))
    return copy.deepcopy(planner), sizes


@functools.cache
def _settled(requests_a_minute, windows, keys):
    planner = slo_planner(**dict(keys))
    return planner, run(planner, poisson(requests_a_minute, windows))[-1]


class TestSizes:
    def test_they_hold_what_is_asked_at_a_flat_load(self):
        _, (prefill, decode) = settled()
        missed = share_missed(prefill, 100 * 1000 / 10_000) + share_missed(decode, 100 * 200 / 2_000)
        assert missed <= 0.01
        assert share_missed(prefill - 3, 10.0) + share_missed(decode - 3, 10.0) > 0.01

    @FEW
    @given(st.lists(requests, min_size=1, max_size=12), st.integers(2, 60))
    def test_limits_and_budget_hold_whatever_comes(self, loads, budget):
        planner = slo_planner(max_gpu_budget=budget)
        for number, (prefill, decode) in enumerate(run(planner, loads), 1):
            assert prefill >= 1
            assert decode >= 1
            assert prefill + decode <= budget
            asked = planner.check(look(300.0, prefill, decode, 60.0 * number + 15))
            if asked is not None:
                assert sum(asked.targets) <= budget

    @FEW
    @given(st.floats(10.0, 10_000.0), st.floats(1.0, 3.0), st.integers(1, 15))
    @example(load=6852.0, times=1.00390625, windows=1)  # 15 and 16, then 16 and 15
    def test_more_load_never_asks_for_fewer_gpus(self, load, times, windows):
        # Of a pool alone test_planner_slo_pool.py says so; of two the fewest in all may be other pairs.
        less = run(slo_planner(), [load] * windows)
        more = run(slo_planner(), [load * times] * windows)
        assert all(sum(high) >= sum(low) for high, low in zip(more, less, strict=True))

    def test_headroom_never_asks_for_fewer(self):
        spent = [
            sum(map(sum, run(slo_planner(load_headroom=headroom), poisson(6000.0, 60))))
            for headroom in (1.0, 1.2, 1.5)
        ]
        assert spent == sorted(spent)

    def test_a_looser_attainment_never_asks_for_more(self):
        spent = [
            sum(map(sum, run(slo_planner(target_attainment=target), poisson(6000.0, 200))))
            for target in (0.6, 0.9, 0.99, 0.999)
        ]
        assert spent == sorted(spent)
        assert spent[0] < spent[-1]

    def test_a_step_is_asked_for_at_the_tick_that_sees_it(self):
        planner, sizes = settled()
        before = planner.step(minute(41, 6000.0, *sizes)).raw
        after = planner.step(minute(42, 24_000.0, *before)).raw
        assert after.prefill >= 3.5 * before.prefill
        assert after.decode >= 3.5 * before.decode

    def test_flat_load_does_not_flap(self):
        planner, _ = settled(windows=60)
        sizes = run(planner, poisson(6000.0, 400, seed=7), first=61, start=settled(windows=60)[1])
        for pool in zip(*sizes, strict=True):
            assert sum(old != new for old, new in itertools.pairwise(pool)) <= 4

    def test_what_waits_is_load_too(self):
        sized = {}
        for waiting in (0.0, 20_000.0):
            planner, sizes = settled()
            sized[waiting] = planner.step(minute(41, 6000.0, *sizes, queued_prefill=waiting)).raw
        assert sized[20_000.0].prefill > sized[0.0].prefill
        assert sized[20_000.0].decode == sized[0.0].decode

    def test_engines_learned_to_be_slower_than_those_simulated_get_more_instances(self):
        twin, slow = (
            RoundTwin(),
            RoundNumbers(prefill_tokens_per_s=5_000.0, step_floor_ms=20.0, step_ms_per_request=1.0),
        )
        fast = run(slo_planner(twin), poisson(6000.0, 20))[-1]
        slowed = run(slo_planner(twin, slow), poisson(6000.0, 20))[-1]
        for pool in (0, 1):
            assert slowed[pool] == pytest.approx(2 * fast[pool], abs=4)


class TestBudget:
    def test_where_it_is_tight_no_affordable_pair_misses_much_less(self):
        budget = 18
        _, (prefill, decode) = settled(max_gpu_budget=budget)

        def missed(mine: int, other: int) -> float:
            return share_missed(mine, 10.0) + share_missed(other, 10.0)

        assert prefill + decode == budget
        least = min(missed(size, budget - size) for size in range(1, budget))
        assert missed(prefill, decode) <= least + 0.05

    def test_where_it_is_tight_what_waits_moves_nothing(self):
        """Whoever takes instances from one pool for what waits for the other has to give them back."""
        sized = []
        for waiting in (0.0, 50_000.0):
            planner, sizes = settled(max_gpu_budget=18)
            sized.append(planner.step(minute(41, 6000.0, *sizes, queued_prefill=waiting)).targets)
        assert sized[0] == sized[1]

    def test_the_pool_whose_instances_save_more_gets_them(self):
        """Decode work weighs six times as much: a proportional cut would leave both pools failing."""
        planner = slo_planner(max_gpu_budget=30)
        sizes = run(planner, [2400.0] * 40, start=(5, 5))
        prefill, decode = sizes[-1]
        assert share_missed(prefill, 4.0) <= 0.01
        assert decode <= 26
        heavy = slo_planner(RoundTwin(decode_tokens_per_s=300.0), max_gpu_budget=30)
        prefill, decode = run(heavy, [2400.0] * 40, start=(5, 5))[-1]
        assert prefill + decode <= 30
        assert decode > 3 * prefill


class TestWhatIsNotKnown:
    @pytest.mark.parametrize("pools", [(3, 5), (7, 2)])
    def test_unknown_traffic_holds_both_pools(self, pools):
        planner, _ = settled()
        decision = planner.step(minute(41, None, *pools))
        assert tuple(decision.targets) == pools
        assert ReasonCode.HOLD_UNKNOWN_TRAFFIC in {reason.code for reason in decision.reasons}

    def test_unknown_lengths_hold_both_pools(self):
        nothing = {"isl_mean": None, "osl_mean": None}
        decision = slo_planner().step(minute(1, 600.0, 3, 5, **nothing))
        assert tuple(decision.targets) == (3, 5)
        assert ReasonCode.HOLD_UNKNOWN_LENGTHS in {reason.code for reason in decision.reasons}

    def test_a_gap_in_the_metrics_is_followed_by_what_was_before_it(self):
        planner, before = settled()
        run(planner, [None] * 5, first=41, start=before)
        after = run(planner, [6000.0] * 3, first=46, start=before)[-1]
        assert after == pytest.approx(before, abs=1)

    def test_with_no_twin_it_is_not_made(self):
        with pytest.raises(SagescaleError, match=r"slo.*simulated engines"):
            make_policy(AutoscalerConfig(policy="slo"), RoundNumbers())

    @FEW
    @given(
        st.lists(st.fixed_dictionaries(dict.fromkeys(METRICS, maybe)), min_size=1, max_size=6),
        st.sampled_from([1.0, 60.0, 61.5]),
    )
    def test_whatever_metrics_say_sizes_stay_within_limits_and_budget(self, windows, window_s):
        planner, _ = settled(windows=5, max_gpu_budget=40)
        for number, metrics in enumerate(windows, 6):
            now = Pools(PoolCounts(ready=9), PoolCounts(ready=9))
            seen_now = Observation(60.0 * number, window_s, now, **metrics)
            for decision in (planner.check(seen_now), planner.step(seen_now)):
                if decision is not None:
                    assert 1 <= decision.targets.prefill <= 60
                    assert 1 <= decision.targets.decode <= 60
                    assert sum(decision.targets) <= 40

    def test_a_mean_length_beyond_any_does_not_end_the_planner(self):
        planner, before = settled(windows=5, max_gpu_budget=40)
        decision = planner.step(seen(minute(6, 6000.0, *before), isl_mean=401226868.0, osl_mean=1.0))
        assert sum(decision.targets) <= 40

    @pytest.mark.parametrize("lie", [math.nan, math.inf, -1.0, 1e15])
    @pytest.mark.parametrize("metric", METRICS)
    def test_one_impossible_value_changes_nothing_for_long(self, metric, lie):
        planner, before = settled()
        lied = planner.step(seen(minute(41, 6000.0, *before), **{metric: lie})).targets
        assert run(planner, [6000.0] * 5, first=42, start=tuple(lied))[-1] == pytest.approx(before, abs=1)

    @pytest.mark.parametrize("missing", METRICS)
    def test_a_missing_metric_never_scales_down(self, missing):
        (whole, sizes), (blind, _) = settled(), settled()
        for number in range(41, 46):
            busy = minute(number, 6000.0 + 600.0 * (number - 40), *sizes)
            full, part = whole.step(busy), blind.step(seen(busy, **{missing: None}))
            for pool in (0, 1):
                assert part.targets[pool] >= min(full.targets[pool], part.current[pool])
            sizes = tuple(full.targets)


class TestSilence:
    def test_from_the_start_is_the_minimum_once_it_has_lasted(self):
        nothing = {"isl_mean": None, "osl_mean": None}
        planner = slo_planner(min_decode_instances=2)
        for number in range(1, 7):
            raw = planner.step(minute(number, 0.0, 9, 9, **nothing)).raw
            assert min(raw) > 2, "what was found counts as wanted at the first decision"
        assert tuple(planner.step(minute(7, 0.0, 9, 9, **nothing)).raw) == (0, 0)
        assert tuple(planner.step(minute(8, 0.0, 9, 9, **nothing)).targets) == (1, 2)

    @pytest.mark.parametrize("lengths", [{}, {"isl_mean": None, "osl_mean": None}], ids=["told", "unknown"])
    def test_of_hours_ends_at_the_minimum(self, lengths):
        planner, sizes = settled(min_decode_instances=2)
        for number in range(41, 41 + 360):
            sizes = planner.step(minute(number, 0.0, *sizes, **lengths)).targets
        assert tuple(sizes) == (1, 2)

    def test_ends_with_the_traffic(self):
        planner, sizes = settled()
        quiet = run(planner, [0.0] * 60, first=41, start=sizes)[-1]
        assert run(planner, [6000.0] * 3, first=101, start=quiet)[-1] == pytest.approx(sizes, rel=0.4)


class TestBetweenTicks:
    def test_a_surge_gets_more_at_once(self):
        planner, sizes = settled()
        decision = planner.check(look(400.0, *sizes, time_s=2415.0))
        assert decision is not None
        assert decision.targets.prefill > sizes[0]
        assert decision.targets.decode > sizes[1]
        assert ReasonCode.SURGE in {reason.code for reason in decision.reasons}

    @FEW
    @given(requests, st.integers(1, 60), st.integers(1, 60), st.integers(20, 120))
    def test_it_never_asks_for_less_and_keeps_limits_and_budget(self, count, prefill, decode, budget):
        planner, _ = settled(windows=5, max_gpu_budget=budget)
        now = {"prefill": PoolCounts(ready=prefill), "decode": PoolCounts(ready=decode)}
        decision = planner.check(seen(BUSY, time_s=315.0, window_s=15.0, requests=count, **now))
        if decision is not None:
            assert decision.targets.prefill >= prefill
            assert decision.targets.decode >= decode
            assert sum(decision.targets) <= budget
            assert decision.targets.prefill <= 60
            assert decision.targets.decode <= 60

    @FEW
    @given(
        st.lists(st.floats(10.0, 20_000.0), min_size=1, max_size=20),
        st.floats(1.0, 400.0),
        st.floats(1.0, 3.0),
    )
    def test_the_more_is_seen_the_more_is_asked_for(self, loads, rate_rps, times):
        asked = []
        for rate in (rate_rps, rate_rps * times):
            planner = slo_planner()
            sizes = run(planner, loads)[-1]
            decision = planner.check(look(rate, *sizes, time_s=60.0 * len(loads) + 15))
            asked.append(sizes if decision is None else decision.raw)
        assert asked[1][0] >= asked[0][0]
        assert asked[1][1] >= asked[0][1]

    @pytest.mark.parametrize("rate_rps", [1.0, 10.0, 100.0])
    def test_ordinary_noise_adds_nothing(self, rate_rps):
        planner, sizes = settled(60.0 * rate_rps)
        counts = np.random.default_rng(5).poisson(15.0 * rate_rps, 400)
        asked = [planner.check(look(count / 15.0, *sizes, time_s=2415.0)) for count in counts.tolist()]
        assert sum(decision is not None for decision in asked) <= 8

    @pytest.mark.parametrize("changes", [{"requests": None}, {"requests": 0.0}, {"window_s": 0.0}], ids=str)
    def test_nothing_known_adds_nothing(self, changes):
        planner, sizes = settled()
        assert planner.check(dataclasses.replace(look(400.0, *sizes, time_s=2415.0), **changes)) is None

    def test_before_the_first_tick_there_is_no_plan_to_be_above(self):
        assert slo_planner().check(look(400.0, 1, 1, time_s=15.0)) is None

    def test_what_was_seen_right_before_a_tick_is_sized_for_by_it(self):
        sized = []
        for rate_rps in (100.0, 300.0):
            planner, sizes = settled()
            planner.check(look(rate_rps, *sizes, time_s=2460.0))
            decision = planner.step(minute(41, 6600.0, *sizes))
            assert ReasonCode.REPLICAS_CHANGED not in {reason.code for reason in decision.reasons}
            sized.append(decision.raw)
        assert sized[1].prefill > sized[0].prefill
        assert sized[1].decode > sized[0].decode

    def test_it_is_off_at_zero_and_where_it_is_no_shorter_than_the_interval(self):
        assert slo_planner().fast_interval_s == 15.0
        assert slo_planner(fast_interval_sec=0).fast_interval_s is None
        assert slo_planner(fast_interval_sec=60).fast_interval_s is None


class TestSameInSameOut:
    LOADS = (*poisson(3000.0, 20), None, *poisson(9000.0, 10), 0.0, 0.0)

    def test_equal_planners_decide_equally(self):
        assert run(slo_planner(), list(self.LOADS)) == run(slo_planner(), list(self.LOADS))

    def test_a_copy_goes_on_as_the_original_does(self):
        original = slo_planner()
        sizes = run(original, list(self.LOADS))[-1]
        other = copy.deepcopy(original)
        later = [run(one, poisson(5000.0, 10, seed=9), first=40, start=sizes) for one in (original, other)]
        assert later[0] == later[1]


class TestOnTheKernel:
    PERF = ProfileModel(load_profile("h200-llama-3.1-8b-fp8"))

    def planner(self, **keys: object) -> Planner:
        config = AutoscalerConfig(
            **{
                "policy": "slo",
                "prefill_gpus_per_instance": 1,
                "decode_gpus_per_instance": 1,
                "max_prefill_instances": 128,
                "max_decode_instances": 128,
                "max_gpu_budget": 512,
                "target_ttft_ms": 300.0,
                "target_itl_ms": 30.0,
            }
            | keys
        )
        return Planner(config, self.PERF, twin=KernelTwin(self.PERF, SimulatorConfig(), config))

    @pytest.mark.parametrize(
        ("key", "values"), [("target_ttft_ms", (150, 300, 1000, 5000)), ("target_itl_ms", (10, 20, 30, 60))]
    )
    def test_a_looser_target_never_asks_for_more(self, key, values):
        sizes = [run(self.planner(**{key: value}), [24_000.0] * 3)[-1] for value in values]
        pool = 0 if key == "target_ttft_ms" else 1
        assert [size[pool] for size in sizes] == sorted((size[pool] for size in sizes), reverse=True)
        assert sizes[0][pool] > sizes[-1][pool]


@pytest.mark.parametrize(("queued", "limited"), [(0.0, True), (2_000.0, False)])
def test_what_kept_the_last_day_is_enough_unless_requests_wait(monkeypatch, queued, limited):
    monkeypatch.setattr("sagescale.planner.policy.slo.pool.Pool.enough", 3)
    planner = slo_planner()
    run(planner, poisson(1_000.0, 5))
    decision = planner.step(minute(6, 6_000.0, 3, 3, queued_prefill=queued, queued_decode=queued))
    said = [reason.text for reason in decision.reasons if reason.code == ReasonCode.SIZED_FOR_MISSES]
    assert [size <= 3 for size in decision.targets] == [limited, limited]
    assert ["but 3 would have kept the last day" in text for text in said] == [limited, limited]


class TestWhatKeptItFromGrowing:
    @pytest.mark.parametrize(
        ("keys", "code"),
        [
            ({}, None),
            ({"max_gpu_budget": 10}, ReasonCode.GPU_BUDGET),
            ({"max_prefill_instances": 3}, ReasonCode.AT_MAX_PREFILL),
            ({"max_decode_instances": 3}, ReasonCode.AT_MAX_DECODE),
        ],
    )
    def test_the_budget_and_the_maxima_are_reasons_where_more_is_wanted(self, keys, code):
        planner, sizes = settled(**keys)
        given = {reason.code for reason in planner.step(minute(41, 6000.0, *sizes)).reasons}
        limits = {ReasonCode.GPU_BUDGET, ReasonCode.AT_MAX_PREFILL, ReasonCode.AT_MAX_DECODE}
        assert given & limits == ({code} if code else set())


class TestNothingComes:
    def test_pools_that_may_go_entirely_do_when_nothing_was_expected_for_a_while(self):
        planner, sizes = settled(60.0, min_prefill_instances=0, min_decode_instances=0)
        silence = run(planner, [0.0] * 60, 41, sizes)
        assert min(silence[3]) > 0
        assert silence[-1] == (0, 0)
        assert min(run(planner, [60.0] * 10, 101, (0, 0))[-1]) > 0

    def test_not_while_requests_wait_or_come_later(self):
        planner, sizes = settled(6000.0, min_prefill_instances=0, min_decode_instances=0)
        for number in range(41, 80):
            there = minute(number, 0.0, *sizes, queued_decode=2000.0)
            reasons = planner.step(there).reasons
        assert ReasonCode.NO_TRAFFIC not in {reason.code for reason in reasons}

    def test_pools_that_may_not_stay_at_their_minimum(self):
        planner, sizes = settled(60.0)
        assert run(planner, [0.0] * 60, 41, sizes)[-1] == (1, 1)


@pytest.mark.parametrize(
    ("prefill", "decode", "gpus", "part"),
    [(1, 1, 1, 0.5), (1, 3, 1, 0.25), (1, 4, 4, 0.5), (1, 40, 1, 0.1), (40, 1, 1, 0.9)],
)
def test_a_pool_may_miss_as_large_a_part_as_its_gpus_are(prefill, decode, gpus, part):
    planner = slo_planner(
        max_gpu_budget=80,
        max_prefill_instances=40,
        max_decode_instances=40,
        prefill_gpus_per_instance=gpus,
        min_prefill_instances=0,
        min_decode_instances=0,
    )
    policy = planner._policy
    for number, sizes in enumerate([(prefill, decode), (0, 0)], 1):  # nobody's GPUs say nothing
        planner.step(minute(number, 60.0, *sizes))
        assert policy._prefill.part == pytest.approx(part)
        assert policy._prefill.part + policy._decode.part == pytest.approx(1.0)


def answers(
    number: int, osl: int, running: float | None, decode: int, times: float = 1.0, **waits: float | None
) -> Observation:
    """A minute's answers of so many tokens, 2,000 of them a second, and how many run at its end."""
    return minute(
        number,
        times * 120_000.0 / osl,
        2,
        decode,
        osl_mean=float(osl),
        lengths=((1000, osl),) * 20,
        running_decode=running,
        **waits,
    )


def decode_after(osl: int, running: float | None, times: float = 1.0, **waits: float | None) -> int:
    """Decode asked for after 40 minutes, where in the last one so many run and so many times as much came."""
    return policy_after(osl, running, times, **waits)[1]


def policy_after(osl: int, running: float | None, times: float = 1.0, **waits: float | None):
    planner, decode = slo_planner(), 2
    for number in range(1, 40):
        decode = planner.step(answers(number, osl, 50.0, decode)).targets.decode
    decode = planner.step(answers(40, osl, running, decode, times, **waits)).targets.decode
    return planner._policy, decode


def test_more_requests_in_service_than_came_are_load():
    usual = decode_after(4000, 50.0)
    assert decode_after(4000, 110.0) > usual
    assert decode_after(4000, None) == usual, "unknown is not zero"
    assert decode_after(4000, 1e9) == usual, "more than there are slots for is no count"
    assert decode_after(4000, 0.0) == usual, "nor is none of what answers"


@pytest.mark.parametrize(
    ("queued_prefill", "queued_decode", "believed"),
    [(0.0, 0.0, True), (None, 0.0, False), (0.0, None, False), (0.0, 3.0, False), (1e4, 0.0, False)],
)
def test_few_in_service_are_a_sign_of_little_to_do_only_where_nothing_waits(
    queued_prefill, queued_decode, believed
):
    waits = {"queued_prefill": queued_prefill, "queued_decode": queued_decode}
    few, many = (policy_after(4000, running, **waits)[0]._decode for running in (5.0, 110.0))
    assert (few.counted is not None) == believed
    assert many.counted is not None
    assert few.demand.in_service.load < many.demand.in_service.load


def test_decode_is_not_tried_at_less_than_what_is_in_service():
    planner, sizes = slo_planner(), (1, 1)
    good = {"ttft_attainment": 1.0, "itl_attainment": 1.0}
    for number in range(1, 120):
        sizes = tuple(planner.step(minute(number, 60.0, *sizes, **good)).targets)
    assert planner._policy._prefill.caution.factor < 1.0
    assert planner._policy._decode.caution.factor == 1.0


def test_a_minute_of_much_is_sized_for_in_part_where_answers_take_minutes():
    assert decode_after(4000, 50.0, times=3.0) < decode_after(40, 50.0, times=3.0)
    assert decode_after(4000, 50.0) <= decode_after(40, 50.0)
