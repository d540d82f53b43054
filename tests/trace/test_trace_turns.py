"""Turns that wait for answers: checked, written and read, whole through every transform."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sagescale.errors import InputError
from sagescale.experiment.workload import shift_blocks
from sagescale.trace import (
    Prefixes,
    Trace,
    Turns,
    describe,
    rate_scale,
    read_trace,
    session_starts,
    slice_trace,
    speed_up,
    tile,
    write_trace,
)
from trace_strategies import same_columns, session_traces, waited_for

HEADER = "arrival_s,isl,osl,session_id,after,think_s\n"


@pytest.fixture
def trace() -> Trace:
    """Two sessions: one forks and joins, one has two turns."""
    turns = Turns.of([[], [], [0], [0], [1], [2, 3]], [0, 0, 1, 2, 3, 4])
    return Trace.from_arrays(
        [0, 5, 10, 11, 12, 20], [10, 20, 30, 40, 50, 60], [1] * 6, session_id=[7, 8, 7, 7, 8, 7], turns=turns
    )


def sessions(trace: Trace) -> Counter[tuple[object, ...]]:
    """Everything about each session but when it begins and what it is called, however often it is there."""
    starts, waited = session_starts(trace), waited_for(trace)
    found: dict[int, list[object]] = {}
    for row, session in enumerate(trace.session_id.tolist()):
        at = round(float(trace.arrival_s[row] - starts[session]), 6)
        found.setdefault(session, []).append(
            (at, int(trace.isl[row]), float(trace.turns.think_s[row]), *waited[row])
        )
    return Counter(tuple(map(str, rows)) for rows in found.values())


def test_turns_that_make_no_sense_are_refused(trace):
    for after, think_s, why in (
        ([[1], []], [0, 0], "earlier ones only"),
        ([[], [1]], [0, 0], "wait for itself"),
        ([[], [2]], [0, 0], "name rows"),
        ([[], [0]], [0, -1.0], "0 or more"),
        ([[], [0]], [1, 0], "nothing is waited for"),
        ([[]], [0], "as many requests"),
    ):
        with pytest.raises(ValueError, match=why):
            Trace.from_arrays([0, 1], [9, 9], [1, 1], session_id=[0, 0], turns=Turns.of(after, think_s))
    for session_id in ([0, 1], None):
        with pytest.raises(ValueError, match="session"):
            Trace.from_arrays(
                [0, 1], [9] * 2, [1] * 2, session_id=session_id, turns=Turns.of([[], [0]], [0, 0])
            )
    assert trace.with_own_hash().sha256 == trace.sha256
    assert speed_up(trace, 2).with_own_hash().sha256 != trace.sha256


def test_sorting_keeps_who_waits_for_whom():
    turns = Turns.of([[2], [], [1]], [1, 0, 2])
    made = Trace.from_arrays([9, 0, 5], [1, 2, 3], [1] * 3, session_id=[0, 0, 0], turns=turns)
    assert made.isl.tolist() == [2, 3, 1]
    assert made.turns.lists(0, 3) == [[], [0], [1]]
    assert made.turns.think_s.tolist() == [0, 2, 1]


@given(trace=session_traces(hashed=True))
def test_files_keep_turns(tmp_path_factory, trace):
    folder = tmp_path_factory.mktemp("turns")
    assert same_columns(read_trace(write_trace(trace, folder / "a.parquet")), trace)
    read = read_trace(write_trace(trace, folder / "a.csv"))
    assert waited_for(read) == waited_for(trace)
    assert np.array_equal(read.turns.think_s, trace.turns.think_s)


@given(trace=session_traces(hashed=True), factor=st.floats(0.3, 3.5), seed=st.integers(0, 9))
def test_transforms_keep_sessions_whole(trace, factor, seed):
    whole = sessions(trace)
    many = len(session_starts(trace))
    if round(factor * many):
        scaled = rate_scale(trace, factor, seed)
        assert len(session_starts(scaled)) == (
            round(factor * many) if factor < 1 else many * int(factor) + round((factor % 1) * many)
        )
        assert set(sessions(scaled)) <= set(whole)
        if factor >= 1:
            assert sessions(scaled) >= whole
    assert sessions(shift_blocks(trace, seed, 20.0)) == whole
    if trace.duration_s:
        assert sessions(tile(trace, 3)) == Counter({rows: 3 * count for rows, count in whole.items()})
    end = float(np.median(session_starts(trace)))
    if end:
        first, last = slice_trace(trace, 0, end), slice_trace(trace, end, np.inf)
        assert sessions(first) + sessions(last) == whole


def test_a_slice_keeps_sessions_that_begin_in_it_to_their_ends(trace):
    kept = slice_trace(trace, 0, 5)
    assert kept.isl.tolist() == [10, 30, 40, 60]
    assert kept.arrival_s.tolist() == [0, 10, 11, 20]
    assert kept.turns.lists(0, 4) == [[], [0], [0], [1, 2]]
    with pytest.raises(InputError, match=r"no session begins then; the last one does at 5 s"):
        slice_trace(trace, 6, 9)


def test_copies_share_the_ids_that_several_sessions_have(trace):
    prefixes = Prefixes.of([[1, 2], [1, 3], [1, 2, 4], [1, 5], [1, 3], [1, 2]], 4)
    hashed = Trace.from_arrays(
        trace.arrival_s,
        trace.isl,
        trace.osl,
        session_id=trace.session_id,
        turns=trace.turns,
        prefixes=prefixes,
    )
    for made in (rate_scale(hashed, 2, jitter_s=0), tile(hashed, 2)):
        assert made.prefixes.shared_units(made.session_id).tolist().count(True) == 1
        assert len(made.prefixes.ids) == 1 + 2 * 4
    assert describe(rate_scale(hashed, 2, jitter_s=0)).prefixes.distinct_ids == 9


def test_a_file_says_which_rows_are_waited_for(tmp_path):
    path = tmp_path / "own.csv"
    path.write_text(f"{HEADER}3,5,5,1,1,2.5\n0,6,6,1,,0\n9,7,7,1,0; 1,1\n9,8,8,2,,0\n")
    read = read_trace(path)
    assert read.isl.tolist() == [6, 5, 7, 8]
    assert read.turns.lists(0, 4) == [[], [0], [0, 1], []]
    assert read.turns.think_s.tolist() == [0, 2.5, 1, 0]
    for row, where in (
        ("1,5,5,1,7,0", "column 'after': found 7, expected a row from 0 to 1"),
        ("1,5,5,1,1,0", "column 'after': found 1, expected another row; this one is 1 itself"),
        ("1,5,5,2,0,0", "column 'after': found 0, expected a row of the same session"),
        ("1,5,5,1,x,0", "column 'after': found 'x', expected rows of the file"),
        ("1,5,5,1,2000000000,0", "column 'after': found 2000000000, expected a row from 0 to 1"),
        (f"1,5,5,1,{'7' * 5000},0", "expected rows of the file"),
        ("1,5,5,1,-1,0", "column 'after': found '-1', expected rows of the file"),
        ("1,5,5,1,,3", "column 'think_s': found 3.0, expected 0 where no row is waited for"),
        ("1,5,5,1,0,-3", "column 'think_s': found '-3', expected a finite number"),
    ):
        path.write_text(f"{HEADER}0,6,6,1,,0\n{row}\n")
        with pytest.raises(InputError, match="line 3, ") as refused:
            read_trace(path)
        assert where in str(refused.value)
    path.write_text(f"{HEADER}4,6,6,1,1,0\n4,6,6,1,0,0\n")
    with pytest.raises(
        InputError, match="line 2, column 'after': found 1, expected a row that arrives before"
    ):
        read_trace(path)
    path.write_text("arrival_s,isl,osl,after\n0,5,5,\n")
    with pytest.raises(InputError, match="column 'session_id' is missing; it goes with 'after'"):
        read_trace(path)


def test_parquet_that_names_no_rows_is_refused_where_it_stands(tmp_path):
    rows = {
        "arrival_s": [0.0, 1.0],
        "isl": [1, 1],
        "osl": [1, 1],
        "session_id": [1, 1],
        "think_s": [0.0, 0.0],
    }
    path = tmp_path / "own.parquet"
    pd.DataFrame({**rows, "after": [[], [2_000_000_000]]}).to_parquet(path)
    with pytest.raises(InputError, match="row 2, column 'after': found 2000000000, expected a row from 0"):
        read_trace(path)


def test_turns_of_no_request_are_no_trace(tmp_path):
    path = tmp_path / "own.csv"
    path.write_text(HEADER)
    with pytest.raises(InputError, match="no request"):
        read_trace(path)


def test_rows_that_asked_nothing_are_bridged(tmp_path):
    path = tmp_path / "own.csv"
    path.write_text(
        f"{HEADER}0,6,6,1,,0\n1,6,0,1,0,2\n2,6,0,1,1,3\n3,7,7,1,2,4\n4,8,8,1,3;2,5\n5,0,5,2,,0\n6,5,5,2,5,1\n"
    )
    read = read_trace(path)
    assert read.isl.tolist() == [6, 7, 8, 5]
    assert read.turns.lists(0, 4) == [[], [0], [0, 1], []]
    assert read.turns.think_s.tolist() == [0, 9, 5, 0]


def test_several_files_count_rows_from_their_own_beginnings(tmp_path):
    for number in range(2):
        (tmp_path / f"{number}.csv").write_text(
            f"{HEADER}{number},6,6,{number},,0\n{number + 2},7,7,{number},0,1\n"
        )
    read = read_trace([tmp_path / "0.csv", tmp_path / "1.csv"])
    assert read.turns.lists(0, 4) == [[], [], [0], [1]]
