"""Sessions of a trace: read, numbered by arrival, and apart in copies."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from sagescale.errors import InputError
from sagescale.trace import (
    LogSpec,
    Trace,
    describe,
    parse_columns,
    parse_where,
    rate_scale,
    read_trace,
    slice_trace,
    tile,
    write_trace,
)
from trace_strategies import same_columns, traces


@pytest.fixture
def trace() -> Trace:
    return Trace.from_arrays([0, 1, 2, 3], [9] * 4, [1] * 4, session_id=[70, -5, 70, 10**12])


def test_sessions_are_numbered_by_first_arrival(trace):
    assert trace.session_id.tolist() == [0, 1, 0, 2]
    assert Trace.from_arrays([1, 0], [9] * 2, [1] * 2, session_id=[5, 3]).session_id.tolist() == [0, 1]
    assert describe(trace).sessions == 3
    with pytest.raises(ValueError, match="numbered from 0"):
        Trace(trace.arrival_s, trace.isl, trace.osl, session_id=np.array([1, 0, 1, 2], np.int32))


def test_copies_are_sessions_of_their_own(trace):
    assert tile(trace, 2).session_id.tolist() == [0, 1, 0, 2, 3, 4, 3, 5]
    many = rate_scale(trace, 3, jitter_s=0)
    assert many.session_id.max() == 8
    assert np.bincount(many.session_id).tolist().count(2) == 3
    assert slice_trace(trace, 1, 9).session_id.tolist() == [0, 1, 2]


@given(trace=traces())
def test_files_keep_them(tmp_path_factory, trace):
    folder = tmp_path_factory.mktemp("sessions")
    for name in ("a.csv", "a.parquet"):
        assert same_columns(read_trace(write_trace(trace, folder / name)), trace)


def test_a_file_may_call_them_anything_whole(tmp_path):
    path = tmp_path / "own.csv"
    path.write_text("arrival_s,isl,osl,session_id\n0,5,5,-9\n1,6,6,9000000000000\n2,6,6,-9\n")
    assert read_trace(path).session_id.tolist() == [0, 1, 0]
    assert read_trace(path).warnings == ()
    chosen = read_trace(path, log=LogSpec(where=parse_where(["isl=6"])))
    assert chosen.session_id.tolist() == [0, 1]
    path.write_text("arrival_s,isl,osl,session_id\n0,5,5,1\n1,6,6,x\n")
    with pytest.raises(InputError, match="line 3, column 'session_id': found 'x'"):
        read_trace(path)


def test_a_log_names_its_sessions(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("at,p,c,chat\n0.5,5,5,b\n0.1,6,6,a\n0.7,6,6,b\n0.8,6,6,\n0.9,6,6,\n")
    columns = parse_columns(["arrival=at,isl=p,osl=c,session_id=chat"])
    found = read_trace(path, log=LogSpec(columns, time_unit="s"))
    assert found.session_id.tolist() == [0, 1, 1, 2, 3]
