"""The p99 gap of each request, from counts of gaps longer than this and that."""

from __future__ import annotations

import numpy as np
import pytest
from sagescale.experiment.gap_p99 import gap_p99_ms

LEVELS = (50.0, 90.0)


def drawn(scale: float = 1.0, count: int = 400) -> list[np.ndarray]:
    """Gaps of requests that met more or fewer long steps."""
    rng = np.random.default_rng(3)
    return [
        scale * np.where(rng.random(n) < share, rng.uniform(20, 90, n), rng.uniform(8, 12, n))
        for n, share in zip([0, 1, *rng.integers(2, 900, count - 2)], rng.beta(0.5, 8.0, count), strict=True)
    ]


def found(gaps: list[np.ndarray], measured: list[np.ndarray]) -> np.ndarray:
    return gap_p99_ms(
        lambda target: np.array([(one > target).sum() for one in gaps], np.int32),
        np.array([len(one) + 1 for one in gaps], np.int32),
        np.array([one.max(initial=0.0) for one in gaps]),
        true(measured),
        LEVELS,
    )


def true(gaps: list[np.ndarray]) -> np.ndarray:
    return np.array([np.percentile(one, 99) if len(one) else np.nan for one in gaps])


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.5])
def test_percentiles_of_the_p99_gaps_are_found_to_a_percent_however_far_the_measured_ones_are(scale):
    gaps = drawn(scale)
    p99 = found(gaps, drawn())
    assert np.nanpercentile(p99, LEVELS) == pytest.approx(np.nanpercentile(true(gaps), LEVELS), rel=0.01)


def test_each_is_found_roughly_and_none_where_there_is_no_gap():
    gaps = drawn()
    p99, exact = found(gaps, gaps), true(gaps)
    near = ~(exact < np.nanmedian(exact) / 4.0)
    assert p99[near] == pytest.approx(exact[near], rel=0.2, nan_ok=True)
    assert np.isnan(p99).nonzero()[0].tolist() == [0]


def test_a_p99_is_never_above_the_largest():
    gaps = drawn()
    largest = np.array([one.max(initial=0.0) for one in gaps])
    assert not (found(gaps, gaps) > largest).any()
