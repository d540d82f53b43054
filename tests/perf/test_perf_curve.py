from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sagescale.perf.surfaces import MonotoneCurve

gaps = st.lists(st.floats(0.5, 500.0), min_size=1, max_size=12)
rises = st.lists(st.floats(0.0, 50.0), min_size=13, max_size=13)


@given(gaps, rises)
def test_inside_the_knots_it_is_scipys_pchip(gaps, rises):
    from scipy.interpolate import PchipInterpolator

    x = np.cumsum([1.0, *gaps])
    y = 5.0 + np.cumsum(rises[: len(x)])
    q = np.linspace(x[0], x[-1], 101)[:-1]
    assert MonotoneCurve(x, y)(q) == pytest.approx(PchipInterpolator(x, y)(q), rel=1e-9)


@given(gaps, rises)
def test_it_never_falls_and_meets_every_knot(gaps, rises):
    x = np.cumsum([1.0, *gaps])
    y = 5.0 + np.cumsum(rises[: len(x)])
    curve = MonotoneCurve(x, y)
    values = curve(np.linspace(x[0] - 10.0, x[-1] + 10.0, 400))
    assert np.all(np.diff(values) >= -1e-12 * y[-1])
    assert curve(x) == pytest.approx(y, rel=1e-14)


@given(gaps, rises, st.floats(-100.0, 7000.0))
def test_one_point_and_many_give_the_same_bits(gaps, rises, q):
    x = np.cumsum([1.0, *gaps])
    y = 5.0 + np.cumsum(rises[: len(x)])
    curve = MonotoneCurve(x, y)
    assert curve.at(q) == curve(np.array([q]))[0]


@given(
    st.lists(st.sampled_from([0.25, 1.0, 2.0, 3.7, 50.0]), min_size=1, max_size=12),
    rises,
    st.integers(0, 300),
)
def test_a_table_of_whole_numbers_has_the_same_bits(gaps, rises, last):
    x = np.cumsum([1.0, *gaps])
    curve = MonotoneCurve(x, 5.0 + np.cumsum(rises[: len(x)]))
    assert np.array_equal(curve.up_to(last), curve(np.arange(last + 1)))


def test_outside_it_goes_on_with_the_secants_of_the_end_segments():
    curve = MonotoneCurve([10.0, 20.0, 40.0], [1.0, 3.0, 11.0])
    assert curve.at(5.0) == 1.0 - 0.2 * 5.0
    assert curve.at(50.0) == 11.0 + 0.4 * 10.0


def test_several_curves_over_the_same_knots_are_the_single_ones():
    x, y = [1.0, 2.0, 5.0, 9.0], np.array([[1.0, 2.0], [1.5, 4.0], [1.5, 9.0], [7.0, 9.5]])
    q = np.linspace(0.0, 12.0, 50)
    together = MonotoneCurve(x, y)(q)
    for j in range(2):
        assert np.array_equal(together[:, j], MonotoneCurve(x, y[:, j])(q))
