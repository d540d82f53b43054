"""Learning surfaces from noiseless, noisy, drifting and mad observations of them."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sagescale.perf import ProfileModel, estimate_profile, find_gpu, find_model, load_profile
from sagescale.perf.learn import LARGEST_STEP, LearnedModel, SignedFactors, mean_ttft

MEASURED = ProfileModel(load_profile("h200-llama-3.1-8b-fp8"))
ESTIMATED = ProfileModel(estimate_profile(find_model("Llama-3.1-8B"), find_gpu("h200"), precision="fp8"))
FOLLOWED_WITHIN = 8
"""Windows after which a drift of 30 % is followed to within 5 %."""

factors = st.floats(0.4, 2.5)
loads = st.tuples(st.floats(1.0, 256.0), st.floats(100.0, 20_000.0))
prompts = st.floats(16.0, 30_000.0)


def scaled(base: ProfileModel, prefill: float, decode: float) -> ProfileModel:
    """The same engines, slower by two factors."""
    profile = base.profile
    grid = tuple(tuple(itl * decode for itl in row) for row in profile.decode.itl_ms)
    floor = profile.prefill.floor_ms
    return ProfileModel(
        dataclasses.replace(
            profile,
            prefill=dataclasses.replace(
                profile.prefill,
                ttft_ms=tuple(ttft * prefill for ttft in profile.prefill.ttft_ms),
                floor_ms=None if floor is None else floor * prefill,
            ),
            decode=dataclasses.replace(profile.decode, itl_ms=grid),
        )
    )


def idle_ttft(truth: ProfileModel | LearnedModel, isl: float) -> tuple[float, float, int, float]:
    """A window with so little traffic that TTFT is prefill time, as ``learn_ttft`` takes it."""
    return isl, 0.01, 4, truth.ttft_ms(isl)


def teach(model: LearnedModel, truth: ProfileModel | LearnedModel, windows: int, seed: int = 0) -> None:
    """Noiseless windows at varying loads."""
    rng = np.random.default_rng(seed)
    for _ in range(windows):
        n, context = np.exp(rng.uniform(np.log((1, 300)), np.log((250, 8000))))
        model.learn_itl(n, context, truth.itl_ms(n, context))
        model.learn_ttft(*idle_ttft(truth, math.exp(rng.uniform(math.log(100), math.log(10_000)))))


class TestWithoutNoise:
    @given(factors, factors, factors, factors, factors)
    @settings(max_examples=8, deadline=None)
    def test_any_factors_are_found(self, fixed, tokens, step, request, kv):
        truth = LearnedModel(ESTIMATED)
        truth.prefill.factors = np.array([fixed, tokens])
        truth.decode.factors = np.array([step, request, kv])
        model = LearnedModel(ESTIMATED)
        teach(model, truth, 500)
        for isl in (128.0, 1000.0, 8000.0):
            assert model.ttft_ms(isl) == pytest.approx(truth.ttft_ms(isl), rel=0.01)
        for n, context in ((4, 500), (100, 1000), (200, 6000)):
            assert model.itl_ms(n, context) == pytest.approx(truth.itl_ms(n, context), rel=0.01)

    @given(st.sampled_from([MEASURED, ESTIMATED]), st.sampled_from([0.6, 1.4]))
    @settings(max_examples=4, deadline=None)
    def test_engines_that_are_slower_or_faster_all_over_are_found(self, base, factor):
        model, truth = LearnedModel(base), scaled(base, factor, factor)
        teach(model, truth, 100)
        assert model.ttft_ms(1000.0) == pytest.approx(truth.ttft_ms(1000.0), rel=0.005)
        assert model.itl_ms(64.0, 1000.0) == pytest.approx(truth.itl_ms(64.0, 1000.0), rel=0.005)

    def test_waiting_is_taken_off(self):
        truth = scaled(MEASURED, 1.5, 1.0)
        model = LearnedModel(MEASURED)
        rng = np.random.default_rng(0)
        for _ in range(60):
            isl, rate = rng.uniform(500, 2000), rng.uniform(10, 35)
            model.learn_ttft(isl, rate, 2, mean_ttft(truth.ttft_ms, isl, rate, 2).ttft_ms)
        assert model.ttft_ms(1000.0) == pytest.approx(truth.ttft_ms(1000.0), rel=0.02)

    @given(st.floats(1.0, 8.0))
    @settings(max_examples=10, deadline=None)
    def test_waiting_that_clumps_explain_teaches_nothing(self, clumped):
        model = LearnedModel(MEASURED)
        rng = np.random.default_rng(1)
        for _ in range(20):
            isl, rate = rng.uniform(500, 2000), rng.uniform(10, 35)
            waited_ms = mean_ttft(MEASURED.ttft_ms, isl, rate, 2, dispersion=clumped).ttft_ms
            model.learn_ttft(isl, rate, 2, waited_ms, dispersion=8.0)
        assert model.ttft_ms(1000.0) == pytest.approx(MEASURED.ttft_ms(1000.0), rel=0.02)

    @pytest.mark.parametrize("factor", [0.6, 2.0])
    def test_engines_that_are_slower_or_faster_are_found_among_clumps(self, factor):
        truth, model = scaled(MEASURED, factor, 1.0), LearnedModel(MEASURED)
        for isl in np.random.default_rng(2).uniform(500, 2000, 60).tolist():
            model.learn_ttft(*idle_ttft(truth, isl), dispersion=8.0)
        assert model.ttft_ms(1000.0) == pytest.approx(truth.ttft_ms(1000.0), rel=0.03)


class TestDrift:
    @pytest.mark.parametrize("drift", [0.7, 1.3])
    @pytest.mark.parametrize("base", [MEASURED, ESTIMATED], ids=["measured", "estimated"])
    def test_is_followed_within_the_stated_windows(self, base, drift):
        model = LearnedModel(base)
        teach(model, base, 100)
        truth = scaled(base, drift, drift)
        for _ in range(FOLLOWED_WITHIN):
            model.learn_itl(80.0, 1200.0, truth.itl_ms(80.0, 1200.0))
            model.learn_ttft(*idle_ttft(truth, 1200.0))
        assert model.itl_ms(80.0, 1200.0) == pytest.approx(truth.itl_ms(80.0, 1200.0), rel=0.05)
        assert model.ttft_ms(1200.0) == pytest.approx(truth.ttft_ms(1200.0), rel=0.05)

    def test_is_forgotten_only_where_windows_speak(self):
        """Hundreds of windows at one point neither wear out what is known elsewhere nor make it jumpy."""
        model = LearnedModel(ESTIMATED)
        truth = LearnedModel(ESTIMATED)
        truth.decode.factors = np.array([1.2, 1.5, 0.8])
        teach(model, truth, 100)
        rng = np.random.default_rng(1)
        for _ in range(1000):
            noisy = truth.itl_ms(100.0, 1000.0) * rng.uniform(0.97, 1.03)
            model.learn_itl(100.0, 1000.0, noisy)
        for n, context in ((1, 100), (256, 100), (50, 10_000)):
            assert model.itl_ms(n, context) == pytest.approx(truth.itl_ms(n, context), rel=0.06)


class TestOneBadWindow:
    @given(
        st.sampled_from([MEASURED, ESTIMATED]),
        st.integers(0, 30),
        loads,
        prompts,
        st.floats(1e-6, 1e12),
        st.floats(1e-6, 1e12),
        st.floats(0.0, 1e6),
        st.integers(1, 100),
    )
    @settings(max_examples=100, deadline=None)
    def test_moves_no_surface_by_more_than_a_quarter(
        self, base, windows, load, isl, itl_ms, ttft_ms, rate, instances
    ):
        model = LearnedModel(base)
        teach(model, scaled(base, 1.4, 1.4), windows)
        points = [(1, 100), (64, 1000), (256, 20_000)]
        before = [model.itl_ms(*point) for point in points], [model.ttft_ms(i) for i in (16, 1000, 30_000)]
        model.learn_itl(*load, itl_ms)
        model.learn_ttft(isl, rate, instances, ttft_ms)
        after = [model.itl_ms(*point) for point in points], [model.ttft_ms(i) for i in (16, 1000, 30_000)]
        for old, new in zip([*before[0], *before[1]], [*after[0], *after[1]], strict=True):
            assert 1 / LARGEST_STEP - 1e-9 <= new / old <= LARGEST_STEP + 1e-9

    def test_is_forgotten_again(self):
        model = LearnedModel(ESTIMATED)
        teach(model, ESTIMATED, 50)
        model.learn_itl(80.0, 1200.0, 1e6)
        teach(model, ESTIMATED, 30, seed=2)
        assert model.itl_ms(80.0, 1200.0) == pytest.approx(ESTIMATED.itl_ms(80.0, 1200.0), rel=0.02)


class TestSurfacesStayPhysical:
    @given(st.lists(st.tuples(loads, st.floats(0.01, 1e5), prompts, st.floats(0.01, 1e6)), max_size=20))
    @settings(max_examples=60, deadline=None)
    def test_whatever_was_observed(self, windows):
        model = LearnedModel(ESTIMATED)
        for load, itl_ms, isl, ttft_ms in windows:
            model.learn_itl(*load, itl_ms)
            model.learn_ttft(isl, 5.0, 2, ttft_ms)
        assert (model.decode.factors > 0).all()
        assert (model.prefill.factors > 0).all()
        prefill = [model.ttft_ms(isl) for isl in (1, 16, 300, 1000, 5000, 40_000)]
        assert prefill == sorted(prefill)
        for context in (100, 3000, 30_000):
            steps = [model.itl_ms(n, context) for n in (1, 2, 10, 100, 256)]
            assert steps == sorted(steps)
        for n in (1, 30, 256):
            steps = [model.itl_ms(n, context) for context in (50, 500, 5000, 50_000)]
            assert steps == sorted(steps)
            assert math.isfinite(steps[-1])
            assert steps[0] > 0

    @given(factors, factors, factors, st.floats(1.0, 200.0), st.floats(100.0, 20_000.0))
    @settings(max_examples=60, deadline=None)
    def test_the_capacity_is_the_best_point_of_the_surface(self, step, request, kv, itl_ms, context):
        model = LearnedModel(MEASURED)
        model.decode.factors = np.array([step, request, kv])
        best = model.decode_throughput_per_gpu(itl_ms, context)
        held = [
            (n / model.itl_ms(n, context), n)
            for n in range(1, model.max_num_seqs + 1)
            if model.itl_ms(n, context) <= itl_ms and n * context <= (model.max_kv_tokens or math.inf)
        ]
        assert best.feasible == bool(held)
        if held:
            assert best.tokens_per_s_per_gpu == pytest.approx(1000 * max(held)[0] / model.decode_gpus)
        assert best.itl_ms == pytest.approx(model.itl_ms(best.concurrency, context))


class TestAMeasuredProfile:
    def noisy(self, factor: float, noise: float, windows: int = 300) -> LearnedModel:
        model, truth = LearnedModel(MEASURED), scaled(MEASURED, factor, factor)
        rng = np.random.default_rng(7)
        for _ in range(windows):
            n, isl = rng.uniform(1, 200), rng.uniform(300, 4000)
            model.learn_itl(n, 1200.0, truth.itl_ms(n, 1200.0) * math.exp(rng.normal(0, noise)))
            model.learn_ttft(isl, 0.01, 4, truth.ttft_ms(isl) * math.exp(rng.normal(0, noise)))
        return model

    @pytest.mark.parametrize("noise", [0.0, 0.05, 0.1])
    @pytest.mark.parametrize("factor", [0.95, 1.0, 1.05])
    def test_that_is_right_within_noise_is_used_to_the_last_bit(self, factor, noise):
        model = self.noisy(factor, noise)
        assert not model.prefill.used
        assert not model.decode.used
        assert model.ttft_ms(777.0) == MEASURED.ttft_ms(777.0)
        assert model.itl_ms(33.3, 777.0) == MEASURED.itl_ms(33.3, 777.0)
        assert model.decode_throughput_per_gpu(20.0, 777.0) == MEASURED.decode_throughput_per_gpu(20.0, 777.0)

    @pytest.mark.parametrize("factor", [0.7, 1.3])
    def test_that_is_plainly_wrong_is_left(self, factor):
        model = self.noisy(factor, 0.05)
        assert model.prefill.used
        assert model.decode.used
        assert model.ttft_ms(1500.0) == pytest.approx(factor * MEASURED.ttft_ms(1500.0), rel=0.05)
        assert model.itl_ms(100.0, 1200.0) == pytest.approx(factor * MEASURED.itl_ms(100.0, 1200.0), rel=0.05)

    def test_is_returned_to_when_it_is_right_again(self):
        model = self.noisy(1.3, 0.0, windows=50)
        teach(model, MEASURED, 40)
        assert model.itl_ms(100.0, 1200.0) == MEASURED.itl_ms(100.0, 1200.0)


class TestTheStart:
    def test_a_measured_profile_is_believed_and_an_estimate_a_deviation_on_the_slow_side(self):
        for n, context in ((1.0, 500.0), (64.0, 1000.0), (200.0, 3000.0)):
            assert LearnedModel(MEASURED).itl_ms(n, context) == MEASURED.itl_ms(n, context)
            assert 1.29 < LearnedModel(ESTIMATED).itl_ms(n, context) / ESTIMATED.itl_ms(n, context) < 1.81
        for isl in (100.0, 1000.0, 10_000.0):
            assert LearnedModel(MEASURED).ttft_ms(isl) == MEASURED.ttft_ms(isl)
            assert 1.29 < LearnedModel(ESTIMATED).ttft_ms(isl) / ESTIMATED.ttft_ms(isl) < 2.01


class TestSignedFactors:
    def test_the_others_make_up_for_one_that_is_bound(self):
        """The truth would be negative in the first part; the fit is the best that is not."""
        learned = SignedFactors((1.0, 1.0))
        rng = np.random.default_rng(3)
        for _ in range(300):
            parts = rng.uniform(0.5, 1.0, 2)
            expected = float(parts @ learned.values)
            observed = max(1e-3, -0.5 * parts[0] + 2.0 * parts[1])
            learned.update(parts / expected, observed / expected - 1.0, 0.05)
        assert learned.values[0] == pytest.approx(0.05)
        assert 1.0 < learned.values[1] < 2.0


class TestWaiting:
    def test_there_is_none_without_traffic(self):
        assert mean_ttft(MEASURED.ttft_ms, 1000.0, 0.0, 1) == (MEASURED.ttft_ms(1000.0), 0.0, 0.0)

    @given(st.floats(50.0, 20_000.0), st.floats(0.1, 100.0), st.floats(1.01, 3.0), st.integers(1, 40))
    @settings(deadline=None)
    def test_more_traffic_waits_longer_and_more_instances_shorter(self, isl, rate, more, instances):
        here = mean_ttft(MEASURED.ttft_ms, isl, rate, instances)
        busier = mean_ttft(MEASURED.ttft_ms, isl, rate * more, instances)
        larger = mean_ttft(MEASURED.ttft_ms, isl, rate, instances + 1)
        assert larger.ttft_ms <= here.ttft_ms * (1 + 1e-9)
        assert here.ttft_ms <= busier.ttft_ms * (1 + 1e-9)
        assert 0.0 <= here.share < 1.0
