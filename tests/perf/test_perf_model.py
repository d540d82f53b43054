from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from perf_builders import built, profiles
from sagescale.perf import ImportOptions, PrefillProfile, ProfileModel
from sagescale.perf.surfaces import PrefillCurve

constants = st.floats(1.0, 50.0)
per_token = st.floats(1e-4, 0.1)
per_request = st.floats(0.0, 0.5)
per_kv_token = st.floats(0.0, 1e-4)

SCATTERED = (
    (1, 350),
    (60, 350),
    (200, 350),
    (1, 3000),
    (30, 3000),
    (90, 3000),
    (1, 9000),
    (20, 9000),
    (1, 30_000),
)
RECTANGLE = tuple((n, c) for n in (2, 8, 40, 96) for c in (300, 1000, 4000))


class TestNoiselessDataIsReproducedExactly:
    @given(constants, per_token, st.floats(1.0, 50_000.0))
    def test_linear_prefill_inside_and_outside_the_measured_range(self, a, b, isl):
        model = ProfileModel(built(lambda n: a + b * n, lambda n, c: 5.0 + n))
        assert model.ttft_ms(isl) == pytest.approx(a + b * isl, rel=1e-11)
        assert model.quadratic_ms == 0.0
        assert model.prefill_floor_ms == pytest.approx(a + b, rel=1e-11)

    @given(
        constants,
        per_request,
        per_kv_token,
        st.integers(1, 256),
        st.floats(1.0, 100_000.0),
        st.sampled_from([SCATTERED, RECTANGLE]),
    )
    @settings(deadline=None, max_examples=40)
    def test_linear_decode_inside_and_outside_the_measured_range(self, a, b, c, n, context, points):
        model = ProfileModel(built(lambda _: 10.0 + _, lambda n, k: a + b * n + c * n * k, points=points))
        assert model.itl_ms(n, context) == pytest.approx(a + b * n + c * n * context, rel=1e-10)

    @given(constants, per_request, per_kv_token, st.integers(1, 255), st.floats(0.0, 1.0))
    @settings(deadline=None, max_examples=40)
    def test_linear_decode_at_fractional_concurrency(self, a, b, c, n, fraction):
        model = ProfileModel(built(lambda _: 10.0 + _, lambda n, k: a + b * n + c * n * k))
        load = n + fraction
        assert model.itl_ms(load, 700.0) == pytest.approx(a + b * load + c * load * 700.0, rel=1e-10)

    @given(constants, per_token, st.floats(1e-9, 1e-5))
    @settings(deadline=None, max_examples=40)
    def test_quadratic_prefill_gives_its_attention_coefficient(self, a, b1, b):
        profile = built(lambda n: a + b1 * n + b * n * n, lambda n, c: 5.0 + n)
        assert profile.prefill.quadratic_ms == pytest.approx(b, rel=1e-6)

    def test_times_exact_in_binary_stay_exact(self):
        points = tuple((2**i, 2**j) for i in range(7) for j in (6, 9, 12))
        profile = built(lambda n: 8 + n / 64, lambda n, c: 4 + n / 8 + n * c / 8192, points=points)
        table = ProfileModel(profile).decode_table()
        for n in (1, 3, 17, 64, 200):
            for kv_tokens in (1, 777, 65_536, 1_000_000):
                assert table.step_ms(n, kv_tokens) == 4 + n / 8 + kv_tokens / 8192

    def test_kv_transfer_line(self):
        profile = built(
            lambda n: 8 + n / 64, lambda n, c: 4 + n, kv=[(n, 0.25 + 0.0005 * n) for n in (128, 1024, 4096)]
        )
        assert profile.kv_transfer.latency_ms == pytest.approx(0.25, rel=1e-9)
        assert profile.kv_transfer.ms_per_1k_tokens == pytest.approx(0.5, rel=1e-9)
        assert not profile.kv_transfer.assumed


class TestSurfaces:
    @given(profiles(), st.lists(st.floats(1.0, 60_000.0), min_size=2, max_size=20))
    def test_ttft_is_positive_and_never_falls_with_longer_prompts(self, profile, lengths):
        model = ProfileModel(profile)
        values = [model.ttft_ms(isl) for isl in sorted(lengths)]
        assert values[0] > 0
        assert all(b >= a * (1 - 1e-12) for a, b in itertools.pairwise(values))

    @given(profiles())
    @settings(deadline=None, max_examples=40)
    def test_itl_is_positive_and_never_falls_with_requests_or_context(self, profile):
        model = ProfileModel(profile)
        contexts = np.unique(np.geomspace(1.0, 100_000.0, 40).round())
        grid = np.array(
            [[model.itl_ms(n, c) for c in contexts] for n in np.linspace(1, model.max_num_seqs, 30)]
        )
        slack = 1e-11 * grid.max()
        assert grid.min() > 0
        assert np.all(np.diff(grid, axis=0) >= -slack)
        assert np.all(np.diff(grid, axis=1) >= -slack)

    @given(profiles(), st.data())
    @settings(deadline=None, max_examples=40)
    def test_the_table_is_itl_in_other_words(self, profile, data):
        model = ProfileModel(profile)
        table = model.decode_table()
        n = data.draw(st.integers(1, model.max_num_seqs))
        context = data.draw(st.floats(1.0, 50_000.0))
        assert table.step_ms(n, n * context) == pytest.approx(model.itl_ms(n, context), rel=1e-9)

    @given(profiles())
    @settings(deadline=None, max_examples=40)
    def test_the_tables_pieces_join_and_start_at_zero_tokens(self, profile):
        table = ProfileModel(profile).decode_table()
        assert np.all(table.breaks[:, 0] == 0)
        assert np.all(np.isinf(table.breaks[:, -1]))
        assert np.all(np.diff(table.breaks[1:], axis=1) > 0)
        assert np.all(table.slope_ms >= 0)
        at = table.breaks[1:, 1:-1]
        left = table.base_ms[1:, :-1] + table.slope_ms[1:, :-1] * at
        right = table.base_ms[1:, 1:] + table.slope_ms[1:, 1:] * at
        assert left == pytest.approx(right, rel=1e-9)

    @given(profiles(), st.integers(1, 4000))
    def test_the_prefill_table_is_ttft_at_every_token(self, profile, longest):
        model = ProfileModel(profile)
        table = model.prefill_table_ms(longest)
        assert table[0] == 0
        for tokens in {1, longest // 2, longest} - {0}:
            assert table[tokens] == model.ttft_ms(tokens)

    def test_fractional_concurrency_is_linear_between_whole_batches_and_clamped(self):
        model = ProfileModel(built(lambda n: 8.0 + n, lambda n, c: 4.0 + n**2 + n * c / 1000))
        assert model.itl_ms(6.25, 500) == pytest.approx(
            0.75 * model.itl_ms(6, 500) + 0.25 * model.itl_ms(7, 500)
        )
        assert model.itl_ms(0.0, 500) == model.itl_ms(1, 500)
        assert model.itl_ms(1e9, 500) == model.itl_ms(model.max_num_seqs, 500)

    def test_a_steep_first_segment_cannot_make_short_prompts_free(self):
        prefill = PrefillProfile(gpus_per_instance=1, isl_tokens=(2000.0, 4000.0), ttft_ms=(20.0, 80.0))
        assert PrefillCurve(prefill).ttft_ms(1000) == 10.0

    def test_extrapolation_is_told(self):
        model = ProfileModel(built(lambda n: 8.0 + n, lambda n, c: 4.0 + n, points=SCATTERED))
        assert not model.prefill_is_extrapolated(100)
        assert model.prefill_is_extrapolated(99)
        assert model.prefill_is_extrapolated(7001)
        assert not model.decode_is_extrapolated(90, 1000)
        assert model.decode_is_extrapolated(91, 1000)
        assert not model.decode_is_extrapolated(200, 350)
        assert model.decode_is_extrapolated(1, 349)
        assert model.decode_is_extrapolated(1, 30_001)
        assert not model.decode_is_extrapolated(1, 30_000)


class TestPrefillBatch:
    def test_attention_is_quadratic_within_a_prompt_not_across_prompts(self):
        curve = PrefillCurve(built(lambda n: 5 + 0.02 * n + 1e-6 * n * n, lambda n, c: 4.0 + n).prefill)
        expected = curve.ttft_ms(2000) - curve.quadratic_ms * (2000**2 - 2 * 1000**2)
        assert curve.batch_ms([1000, 1000]) == expected
        assert curve.batch_ms([1234]) == curve.ttft_ms(1234)

    @given(profiles(), st.lists(st.integers(1, 4000), min_size=1, max_size=12))
    def test_no_batch_beats_the_floor(self, profile, tokens):
        curve = PrefillCurve(profile.prefill)
        assert curve.batch_ms(tokens) >= curve.floor_ms > 0

    def test_an_empty_batch_or_prompt_is_refused(self):
        curve = PrefillCurve(built(lambda n: 8.0 + n, lambda n, c: 4.0 + n).prefill)
        for tokens in ([], [0], [5, -1]):
            with pytest.raises(ValueError, match="at least one token"):
                curve.batch_ms(tokens)


class TestDecodeCapacity:
    @given(profiles(), st.floats(1.0, 30_000.0), st.floats(0.01, 300.0))
    @settings(deadline=None, max_examples=40)
    def test_it_is_the_largest_throughput_among_feasible_points(self, profile, context, target):
        model = ProfileModel(profile)
        found = model.decode_throughput_per_gpu(target, context)
        limit = math.inf if model.max_kv_tokens is None else model.max_kv_tokens
        batches = [n for n in range(1, model.max_num_seqs + 1) if n == 1 or n * context <= limit]
        throughput = {n: n / model.itl_ms(n, context) * 1000 / model.decode_gpus for n in batches}
        feasible = [n for n in batches if model.itl_ms(n, context) <= target * (1 + 1e-12)]
        assert found.feasible == bool(feasible)
        if feasible:
            assert found.tokens_per_s_per_gpu == pytest.approx(max(throughput[n] for n in feasible), rel=1e-9)
            assert found.itl_ms <= target * (1 + 1e-9)
        else:
            assert found.itl_ms == pytest.approx(model.itl_ms(1, context), rel=1e-9)
        assert found.tokens_per_s_per_gpu == pytest.approx(throughput[found.concurrency], rel=1e-9)

    @given(profiles(), st.floats(1.0, 30_000.0), st.lists(st.floats(0.01, 300.0), min_size=2, max_size=8))
    @settings(deadline=None, max_examples=40)
    def test_a_looser_target_never_has_a_lower_throughput(self, profile, context, targets):
        model = ProfileModel(profile)
        capacity = [model.decode_throughput_per_gpu(t, context).tokens_per_s_per_gpu for t in sorted(targets)]
        assert capacity == sorted(capacity)

    def test_no_target_means_the_engines_best(self):
        model = ProfileModel(built(lambda n: 8.0 + n, lambda n, c: 4.0 + n / 10))
        assert model.decode_throughput_per_gpu(math.inf, 100).concurrency == 256

    def test_kv_memory_bounds_the_batch_but_one_request_always_fits(self):
        options = ImportOptions(name="small", max_kv_tokens=10_000)
        model = ProfileModel(built(lambda n: 8.0 + n, lambda n, c: 4.0 + n / 10, options=options))
        assert model.decode_throughput_per_gpu(1000.0, 1000).concurrency == 10
        assert model.decode_throughput_per_gpu(1000.0, 1001).concurrency == 9
        assert model.decode_throughput_per_gpu(1000.0, 50_000).concurrency == 1

    def test_when_nothing_is_fast_enough_it_is_the_fastest_point_with_the_most_requests(self):
        model = ProfileModel(built(lambda n: 8.0 + n, lambda n, c: max(10.0, n / 4)))
        found = model.decode_throughput_per_gpu(2.0, 500)
        assert not found.feasible
        assert found.itl_ms == pytest.approx(10.0)
        assert found.concurrency > 1


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan])
def test_nonsense_is_refused(bad):
    model = ProfileModel(built(lambda n: 8.0 + n, lambda n, c: 4.0 + n))
    for ask in (
        lambda: model.ttft_ms(bad),
        lambda: model.prefill_throughput_per_gpu(bad),
        lambda: model.itl_ms(1, bad),
        lambda: model.decode_throughput_per_gpu(bad, 100),
        lambda: model.decode_throughput_per_gpu(20, bad),
    ):
        with pytest.raises(ValueError, match="above 0"):
            ask()
    if bad != 0:
        with pytest.raises(ValueError, match="concurrency"):
            model.itl_ms(bad, 100)


def test_limits_of_the_users_replace_assumed_ones():
    profile = built(lambda n: 8.0 + n, lambda n, c: 4.0 + n)
    assert profile.decode.assumed == ("max_num_seqs", "max_kv_tokens")
    changed = profile.with_limits(max_num_seqs=512)
    assert changed.decode.assumed == ("max_kv_tokens",)
    assert ProfileModel(changed).decode_table().slots == 512
