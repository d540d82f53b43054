"""The trace type keeps its promises."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from sagescale.trace import Trace
from trace_strategies import same_columns, traces


@given(traces())
def test_columns_are_typed_read_only_sorted_and_start_at_zero(trace: Trace) -> None:
    assert trace.arrival_s.dtype == np.float64
    assert trace.isl.dtype == trace.osl.dtype == np.int32
    assert trace.arrival_s[0] == 0
    assert (np.diff(trace.arrival_s) >= 0).all()
    assert trace.duration_s == trace.arrival_s[-1]
    with pytest.raises(ValueError, match="read-only"):
        trace.arrival_s[0] = 1.0


def test_from_arrays_sorts_stably_and_rebases() -> None:
    trace = Trace.from_arrays([5.0, 3.0, 5.0], [1, 2, 3], [4, 5, 6], [0, 1, 2])
    assert trace.arrival_s.tolist() == [0, 2, 2]
    assert trace.isl.tolist() == [2, 1, 3]
    assert trace.osl.tolist() == [5, 4, 6]
    assert trace.cached_tokens is not None
    assert trace.cached_tokens.tolist() == [1, 0, 2]


def test_from_arrays_leaves_its_arguments_alone() -> None:
    arrival_s = np.array([1.0, 2.0])
    Trace.from_arrays(arrival_s, [1, 1], [1, 1])
    arrival_s[0] = 7.0
    assert arrival_s.tolist() == [7.0, 2.0]


@pytest.mark.parametrize(
    ("columns", "complaint"),
    [
        (([], [], []), "at least one request"),
        (([0.0], [1, 2], [1]), "one length"),
        (([0.0], [0], [1]), "at least 1"),
        (([0.0], [1], [0]), "at least 1"),
        (([0.0], [2**31], [1]), "fit int32"),
        (([0.0], [1.5], [1]), "whole numbers"),
        (([0.0, np.nan], [1, 1], [1, 1]), "finite"),
        (([0.0, np.inf], [1, 1], [1, 1]), "finite"),
        (([0.0], [5], [1], [5]), "less than isl"),
        (([0.0], [5], [1], [-1]), "at least 0"),
    ],
)
def test_broken_columns_are_refused(columns: tuple, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Trace.from_arrays(*columns)


def test_traces_without_a_file_are_identified_by_their_columns() -> None:
    one, same, other = (Trace.from_arrays([0, 1], [1, 2], [3, osl]) for osl in (4, 4, 5))
    assert one.sha256 == same.sha256 != other.sha256


@given(traces())
def test_a_trace_survives_pickling(trace: Trace) -> None:
    assert same_columns(pickle.loads(pickle.dumps(trace)), trace)
