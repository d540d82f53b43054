"""The figures of ``trace info``."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from sagescale.trace import Trace, describe
from sagescale.trace.synth import Bursty, Constant, Steady, synthesise
from trace_strategies import traces


@given(traces())
def test_every_figure_is_finite_or_unknown(trace: Trace) -> None:
    stats = describe(trace)
    json.dumps(asdict(stats), allow_nan=False)
    assert stats.requests == len(trace)
    if stats.mean_rps is not None:
        if stats.peak_minute_rps is not None:
            assert stats.peak_minute_rps >= stats.mean_rps * (1 - 1e-12)
        bin_s = stats.duration_s / len(stats.rate_profile_rps)
        assert sum(stats.rate_profile_rps) * bin_s == pytest.approx(len(trace))


def test_figures_of_a_trace_that_can_be_done_by_hand() -> None:
    stats = describe(Trace.from_arrays([0, 10, 20, 70, 120], [1, 2, 3, 4, 90], [5] * 5, [0, 0, 0, 0, 50]))
    assert stats.mean_rps == 5 / 120
    assert stats.peak_minute_rps == 3 / 60
    assert stats.prompt_tokens_per_s == 100 / 120
    assert stats.output_tokens_per_s == 25 / 120
    assert (stats.isl.mean, stats.isl.p50, stats.isl.max) == (20, 3, 90)
    assert stats.isl.p90 == pytest.approx(55.6)
    assert stats.cached_share == 0.5
    assert stats.isl_osl_correlation is None
    assert stats.gap_cv == pytest.approx(20 / 30)
    assert stats.dispersion is None


@pytest.mark.parametrize(
    ("arrivals", "busiest"),
    [
        ([*range(0, 90, 2), 89], 46 / 89),  # more than the 30 of the one minute, and the mean
        ([*range(60), 60, 90, 119], 60 / 60),  # a busy minute stays what it is
        ([*range(0, 120, 20), *range(120, 180, 2), 180, 181], 32 / 61),  # of three: the last with its end
        ([0, 59], None),
    ],
)
def test_the_busiest_minute_is_one_or_the_last_with_what_is_left(
    arrivals: list[int], busiest: float | None
) -> None:
    ones = [1] * len(arrivals)
    stats = describe(Trace.from_arrays(arrivals, ones, ones))
    assert stats.peak_minute_rps == (None if busiest is None else pytest.approx(busiest))


def test_burstiness_is_one_for_poisson_and_more_for_bursts() -> None:
    length = Constant(1)
    poisson = describe(synthesise(Steady(5), 20_000, length, length))
    bursty = describe(synthesise(Bursty(5, 3), 20_000, length, length))
    assert poisson.gap_cv == pytest.approx(1, rel=0.05)
    assert poisson.dispersion == pytest.approx(1, rel=0.25)
    assert bursty.gap_cv == pytest.approx(3, rel=0.1)
    assert bursty.dispersion == pytest.approx(9, rel=0.3)


def test_rank_correlation_agrees_with_scipy() -> None:
    from scipy.stats import spearmanr

    rng = np.random.default_rng(0)
    isl = rng.integers(1, 20, 300)
    osl = isl + rng.integers(1, 20, 300)
    found = describe(Trace.from_arrays(np.arange(300.0), isl, osl)).isl_osl_correlation
    assert found == pytest.approx(spearmanr(isl, osl).statistic)
