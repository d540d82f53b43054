from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sagescale.perf.fit.decode import fit_decode
from sagescale.perf.fit.prefill import fit_prefill
from sagescale.perf.fit.regression import fit_kv_transfer, project_grid, project_line
from sagescale.perf.measurement import DecodePoint, KvPoint, PrefillPoint
from scipy.optimize import isotonic_regression

values = st.lists(st.floats(0.1, 100.0), min_size=1, max_size=20)


class TestMonotoneProjection:
    @given(values, st.randoms(use_true_random=False))
    def test_along_a_line_it_is_scipys_isotonic_regression(self, y, random):
        weight = np.array([random.uniform(0.1, 5.0) for _ in y])
        expected = isotonic_regression(y, weights=weight).x
        assert project_line(np.array(y), weight) == pytest.approx(expected, rel=1e-9)

    @given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**32))
    @settings(deadline=None, max_examples=40)
    def test_a_grid_comes_out_in_order_and_stays_if_it_was(self, rows, columns, seed):
        random = np.random.default_rng(seed)
        y, weight = random.uniform(1.0, 50.0, (rows, columns)), random.uniform(0.1, 2.0, (rows, columns))
        x = project_grid(y, weight)
        assert np.all(np.diff(x, axis=0) >= 0)
        assert np.all(np.diff(x, axis=1) >= 0)
        assert np.array_equal(project_grid(x, weight), x)
        assert np.all((x >= y.min() - 1e-9) & (x <= y.max() + 1e-9))

    def test_a_grid_goes_to_the_nearest_in_order(self):
        # The pooled square: all four cells violate, so the nearest ordered grid is their mean.
        assert project_grid(np.array([[4.0, 3.0], [2.0, 1.0]]), np.ones((2, 2))) == pytest.approx(2.5)


class TestPrefill:
    def test_repeats_become_their_median(self):
        repeats = [PrefillPoint(100, 1, ms) for ms in (10.0, 11.0, 90.0)]
        fit, _ = fit_prefill(repeats + _line(200, 300, 400))
        assert fit.ttft_ms[0] == 11.0

    def test_of_two_points_out_of_order_the_outlier_goes_and_the_other_stays(self):
        points = [*_line(100, 2000, 4000, 8000, 10_000, 12_000), PrefillPoint(6000, 1, 300.0)]
        fit, notes = fit_prefill(points)
        assert 6000.0 not in fit.isl_tokens
        assert fit.ttft_ms == tuple(p.ttft_ms for p in sorted(points[:-1], key=lambda p: p.isl_tokens))
        assert len(notes) == 1
        assert "prefill at 6000 tokens left out of the curve: 300 ms breaks the order" in notes[0]
        assert fit.fit_error.max > 0.7

    def test_noise_out_of_order_is_pooled_and_told(self):
        points = [PrefillPoint(n, 1, ms) for n, ms in [(100, 10.0), (200, 10.4), (300, 10.2), (900, 20.0)]]
        fit, notes = fit_prefill(points)
        assert fit.ttft_ms[1] == fit.ttft_ms[2] == pytest.approx(10.3, abs=0.01)
        assert "2 of 4 knots pooled" in notes[0]

    def test_batches_that_lone_prompts_miss_are_fitted(self):
        """Lone prompts on a line say that attention costs nothing; batches are far quicker than that."""
        alone = _line(100, 1000, 2000, 4000, 8000)
        times = {point.isl_tokens: point.ttft_ms for point in alone}
        b = 5e-7
        batches = [
            PrefillPoint(n, k, times[n * k] - b * ((n * k) ** 2 - k * n * n))
            for n, k in ((1000, 2), (1000, 4), (1000, 8), (2000, 4), (500, 8))
        ]
        fit, notes = fit_prefill([*alone, *batches])
        assert fit.quadratic_ms == pytest.approx(b, rel=1e-6)
        assert fit.batch_error.max < 1e-6
        assert "attention fitted to 5 measured batches: 5e-07 ms per token squared, where lone" in notes[-1]

    def test_batches_that_confirm_lone_prompts_change_nothing(self):
        alone = [PrefillPoint(n, 1, 10 + 0.02 * n + 1e-6 * n * n) for n in (100, 500, 1000, 2000, 4000)]
        both = [*alone, PrefillPoint(1000, 2, 10 + 0.02 * 2000 + 1e-6 * 2 * 1000**2)]
        assert fit_prefill(both)[0].quadratic_ms == fit_prefill(alone)[0].quadratic_ms

    def test_batches_slower_than_one_prompt_of_their_tokens_leave_their_error(self):
        alone = _line(100, 1000, 2000, 4000)
        fit, _ = fit_prefill([*alone, *(PrefillPoint(500, k, 200.0 * k) for k in (2, 4, 8))])
        assert fit.quadratic_ms == 0.0
        assert fit.batch_error.median > 0.5

    def test_a_flat_foot_does_not_bend_the_attention_coefficient(self):
        def engine(n: int) -> float:
            return max(12.0, 3.0 + 0.025 * n + 8e-7 * n * n)

        lengths = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16_384)
        fit, _ = fit_prefill([PrefillPoint(n, 1, engine(n)) for n in lengths])
        assert fit.quadratic_ms == pytest.approx(8e-7, rel=1e-6)
        assert fit.floor_ms == 12.0

    def test_measured_batches_validate_and_do_not_fit(self):
        lone = [PrefillPoint(n, 1, 5 + 0.02 * n + 1e-6 * n * n) for n in (100, 500, 1000, 4000, 8000)]
        batch = PrefillPoint(1000, 4, 5 + 0.02 * 4000 + 1e-6 * 4 * 1000**2)
        fit, _ = fit_prefill([*lone, batch])
        assert fit.batch_error is not None
        assert fit.batch_error.max < 1e-4
        assert fit_prefill(lone)[0].quadratic_ms == fit.quadratic_ms


class TestDecode:
    def test_a_full_grid_keeps_its_knots_and_its_values(self):
        points = [DecodePoint(n, c, 5.0 + n + c / 100) for n in (1.0, 3.0, 9.0) for c in (10.0, 200.0)]
        fit, notes = fit_decode(points, 256)
        assert fit.concurrency == (1.0, 3.0, 9.0)
        assert fit.itl_ms == tuple(tuple(5.0 + n + c / 100 for c in (10.0, 200.0)) for n in (1.0, 3.0, 9.0))
        assert notes == ()

    def test_a_context_measured_once_goes_on_with_the_surrogates_slope(self):
        def engine(n: float, c: float) -> float:
            return 5.0 + 0.1 * n + 1e-5 * n * c

        places = [(1, 300), (50, 300), (128, 300), (1, 4000), (64, 4000), (1, 90_000)]
        fit, notes = fit_decode([DecodePoint(float(n), float(c), engine(n, c)) for n, c in places], 128)
        assert fit.concurrency[-1] == 128.0
        assert fit.itl_ms[-1][2] == pytest.approx(engine(128, 90_000), rel=1e-9)
        assert "outside their context's measured concurrency" in notes[0]

    @given(st.integers(0, 2**32))
    @settings(deadline=None, max_examples=15)
    def test_five_per_cent_noise_stays_five_per_cent_noise(self, seed):
        random = np.random.default_rng(seed)

        def engine(n: float, c: float) -> float:
            return 5.0 + 0.05 * n + 2e-5 * n * c

        points = [
            DecodePoint(n, c, engine(n, c) * random.uniform(0.95, 1.05))
            for c in (350.0, 3000.0, 6000.0, 11_000.0)
            for n in [1.0, *(random.uniform(2.0, 900_000 / c, 6).tolist())]
        ]
        fit, _ = fit_decode(points, 256)
        assert fit.fit_error.max < 0.10
        true = np.array([[engine(n, c) for c in fit.context_tokens] for n in fit.concurrency])
        assert np.abs(np.array(fit.itl_ms) / true - 1).max() < 0.08


def test_a_single_transfer_size_is_a_pure_rate():
    assert fit_kv_transfer([KvPoint(2000, 1.0), KvPoint(2000, 1.2)]) == (0.0, 0.55)


def _line(*lengths: int) -> list[PrefillPoint]:
    return [PrefillPoint(n, 1, 10 + 0.01 * n) for n in lengths]
