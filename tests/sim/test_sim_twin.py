"""The kernel as a twin of the engines: what pools of a size would miss, tried on it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sagescale.perf import ProfileModel, load_profile
from sagescale.planner import AutoscalerConfig
from sagescale.planner.policy.twin import Lengths
from sagescale.sim.config import SimulatorConfig, with_overrides
from sagescale.sim.startup import StartupDelay
from sagescale.sim.twin import KernelTwin

PROFILE = load_profile("h200-llama-3.1-8b-fp8")
FEW = settings(max_examples=20)


def twin(ttft_ms: float = 300.0, itl_ms: float = 30.0, **keys: object) -> KernelTwin:
    simulator = SimulatorConfig(**keys)
    config = AutoscalerConfig(
        target_ttft_ms=ttft_ms,
        target_itl_ms=itl_ms,
        prefill_gpus_per_instance=1,
        decode_gpus_per_instance=1,
    )
    return KernelTwin(ProfileModel(with_overrides(PROFILE, simulator)), simulator, config)


def requests(isl: float = 1000.0, osl: float = 200.0, hit_rate: float = 0.0, count: int = 500) -> Lengths:
    """Requests whose lengths spread as those of services do."""
    rng = np.random.default_rng(4)
    spread = rng.lognormal(-0.18, 0.6, (2, count))
    prompt = np.maximum(isl * spread[0], 1).astype(np.int32)
    computed = np.maximum(prompt * (1.0 - hit_rate), 1).astype(np.int32)
    return Lengths(prompt, computed, np.maximum(osl * spread[1], 1).astype(np.int32))


def same(isl: int, osl: int, count: int = 100) -> Lengths:
    """Requests all alike."""
    prompt = np.full(count, isl, np.int32)
    return Lengths(prompt, prompt, np.full(count, osl, np.int32))


USUAL = requests()
TWIN = twin()
POOLS = ("prefill", "decode")


def misses(
    pool: str, instances: int, use: float, lengths: Lengths = USUAL, engines: KernelTwin = TWIN
) -> float:
    """Misses where each instance is offered so much of what it gets through at most."""
    rate = use * limit_rps(pool, lengths, engines) * instances
    return getattr(engines, f"{pool}_misses")(instances, rate, lengths)


def limit_rps(pool: str, lengths: Lengths = USUAL, engines: KernelTwin = TWIN) -> float:
    return getattr(engines, f"{pool}_limit_rps")(lengths)


@pytest.mark.parametrize("pool", POOLS)
class TestEitherPool:
    @FEW
    @given(instances=st.integers(1, 40), use=st.floats(0.01, 3.0))
    def test_misses_are_a_share(self, pool, instances, use):
        assert 0.0 <= misses(pool, instances, use) <= 1.0

    @FEW
    @given(instances=st.integers(1, 40), use=st.floats(0.05, 2.0))
    def test_equal_questions_have_equal_answers(self, pool, instances, use):
        assert misses(pool, instances, use) == misses(pool, instances, use, engines=twin())

    @pytest.mark.parametrize("instances", [1, 3, 8, 30])
    def test_they_rise_with_the_rate(self, pool, instances):
        found = [misses(pool, instances, use) for use in (0.2, 0.4, 0.6, 0.8, 1.0, 1.3, 3.0)]
        assert all(high >= low - 0.01 for low, high in itertools.pairwise(found))
        assert found[0] <= 0.02
        assert found[-1] > 0.5

    @pytest.mark.parametrize("use", [0.6, 0.8, 0.95])
    def test_at_the_same_rate_an_instance_more_of_them_miss_less(self, pool, use):
        found = [misses(pool, instances, use) for instances in (1, 2, 4, 8, 16, 64)]
        assert all(more <= fewer + 0.02 for fewer, more in itertools.pairwise(found))

    def test_pools_too_large_to_be_tried_are_tried_smaller(self, pool):
        assert misses(pool, 200, 0.9) == misses(pool, 1000, 0.9)

    @FEW
    @given(isl=st.integers(1, 30_000), osl=st.integers(1, 1000))
    def test_an_instance_gets_something_through(self, pool, isl, osl):
        limit = limit_rps(pool, same(isl, osl))
        assert 0.0 < limit < np.inf

    def test_longer_requests_get_through_at_a_lower_rate(self, pool):
        limits = [limit_rps(pool, requests(isl, osl)) for isl, osl in ((200, 50), (1000, 200), (4000, 800))]
        assert limits == sorted(limits, reverse=True)

    def test_far_beyond_the_limit_almost_all_are_late(self, pool):
        assert misses(pool, 4, 3.0) > 0.7

    @pytest.mark.parametrize("key", ["ttft_ms", "itl_ms"])
    def test_a_looser_target_never_misses_more(self, pool, key):
        found = []
        for target in (15.0, 30.0, 100.0, 1000.0):
            engines = twin(**{key: target})
            rate = 0.8 * limit_rps(pool) * 4
            found.append(getattr(engines, f"{pool}_misses")(4, rate, USUAL))
        assert found == sorted(found, reverse=True)

    @pytest.mark.parametrize("shape", [(1, 1), (1, 2), (100_000, 2), (1, 3000), (50_000, 1)], ids=str)
    def test_tiny_and_huge_requests_are_tried_as_any(self, pool, shape):
        lengths = same(*shape)
        assert 0.0 <= misses(pool, 2, 0.5, lengths) <= 1.0


class TestPrefill:
    def test_a_prompt_that_cannot_be_in_time_is_late_on_any_pool(self):
        assert TWIN.prefill_misses(16, 0.01, same(100_000, 10)) == 1.0

    def test_what_is_late_alone_is_known(self):
        isl = np.where(np.arange(1000) % 25 == 0, 100_000, 500).astype(np.int32)
        lengths = Lengths(isl, isl, np.full(1000, 10, np.int32))
        assert TWIN.prefill_misses_alone(lengths) == 0.04
        assert TWIN.prefill_misses(64, 1.0, lengths) == 0.04
        assert TWIN.decode_misses_alone(USUAL) == 0.0

    def test_prefix_hits_save_work(self):
        cached = requests(hit_rate=0.5)
        assert limit_rps("prefill", cached) > 1.5 * limit_rps("prefill")
        rate = 0.95 * limit_rps("prefill") * 4
        assert TWIN.prefill_misses(4, rate, cached) < TWIN.prefill_misses(4, rate, USUAL)

    def test_hand_offs_that_hold_the_instance_make_it_slower(self):
        slow = {"kv_transfer_latency_ms": 50.0, "kv_transfer_ms_per_1k_tokens": 20.0}
        holding, free = (twin(kv_transfer_blocks_prefill=holds, **slow) for holds in (True, False))
        assert limit_rps("prefill", engines=holding) < limit_rps("prefill", engines=free)
        rate = 0.8 * limit_rps("prefill", engines=free) * 4
        assert holding.prefill_misses(4, rate, USUAL) > free.prefill_misses(4, rate, USUAL)

    def test_the_order_of_service_and_patience_are_not_what_is_asked(self):
        other = twin(scheduling_policy="slo_aware", request_timeout_s=0.5)
        assert misses("prefill", 4, 1.1, engines=other) == misses("prefill", 4, 1.1)


class TestDecode:
    def test_a_pool_is_full_when_it_is_tried(self):
        """Where a few replies are very long, that takes many times a mean residence."""
        varying = np.random.default_rng(1).lognormal(2.7, 1.38, 8192)  # mean 39, coefficient of variation 2.4
        osl = np.maximum(1, np.rint(varying)).astype(np.int32)
        lengths = Lengths(np.full(8192, 750, np.int32), np.full(8192, 750, np.int32), osl)
        assert misses("decode", 2, 1.5, lengths) > 0.5

    def test_requests_of_one_token_miss_nothing(self):
        assert misses("decode", 1, 0.9, same(1000, 1)) == 0.0

    def test_fewer_slots_get_less_through(self):
        few, many = twin(max_num_seqs=8), twin(max_num_seqs=64)
        assert limit_rps("decode", engines=few) < limit_rps("decode", engines=many)
        rate = 0.6 * limit_rps("decode", engines=many) * 4
        assert few.decode_misses(4, rate, USUAL) > many.decode_misses(4, rate, USUAL)

    def test_less_kv_memory_gets_less_through(self):
        little, much = twin(max_kv_tokens=8_000), twin(max_kv_tokens=400_000)
        assert limit_rps("decode", engines=little) < limit_rps("decode", engines=much)
        rate = 0.5 * limit_rps("decode", engines=much) * 4
        assert little.decode_misses(4, rate, USUAL) > much.decode_misses(4, rate, USUAL)

    def test_requests_larger_than_the_memory_miss_and_the_others_do_not(self):
        small = twin(max_kv_tokens=2000)
        fit = USUAL.isl + USUAL.osl <= 2000
        assert small.decode_misses(8, 0.1, USUAL) == pytest.approx(1.0 - fit.mean(), abs=0.05)
        assert limit_rps("prefill", engines=small) == limit_rps("prefill")

    @pytest.mark.parametrize("memory", [1, 100])
    def test_where_no_request_fits_all_miss_and_no_answer_is_unknown(self, memory):
        small, large = twin(max_kv_tokens=memory), same(1000, 200)
        assert small.decode_misses(8, 1.0, large) == 1.0
        assert 0.0 < limit_rps("decode", large, small) < np.inf
        assert misses("decode", 2, 0.5, large, small) == 1.0

    def test_a_first_token_from_decode_is_late_where_a_slot_is(self):
        late = {"max_num_seqs": 8, "itl_ms": 1e6}
        rate = 2.0 * limit_rps("decode", engines=twin(**late)) * 2
        assert twin(**late).decode_misses(2, rate, USUAL) == 0.0
        assert twin(first_token="decode", **late).decode_misses(2, rate, USUAL) > 0.5

    def test_steps_slower_than_the_target_miss_on_any_pool(self):
        assert twin(itl_ms=1.0).decode_misses(8, 1.0, USUAL) > 0.9


def test_what_it_says_of_the_cluster_is_what_the_simulator_was_told():
    engines = twin(startup_delay_s=StartupDelay.parse("90"))
    assert engines.startup_s == 90.0
    assert engines.perf.max_num_seqs == PROFILE.decode.max_num_seqs


@pytest.mark.parametrize("scheduler", ["vllm", "sglang"])
def test_pools_whose_engines_step_are_tried_too(scheduler):
    engines = twin(engine_scheduler=scheduler)
    for pool in POOLS:
        few, many = (misses(pool, 2, use, engines=engines) for use in (0.3, 1.5))
        assert few < 0.1
        assert many > 0.3
        assert misses(pool, 8, 1.5, engines=engines) > 0.2
