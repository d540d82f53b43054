"""What is written reads back the same, equal traces make equal bytes, and nothing is half written."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sagescale.errors import InputError
from sagescale.trace import Trace, check_destination, read_trace, write_trace
from sagescale.trace.write import SUFFIXES
from trace_strategies import same_columns, traces

ONE = Trace.from_arrays([0.0, 0.1], [5, 6], [7, 8])


@settings(deadline=None)
@given(traces(), st.sampled_from(SUFFIXES))
def test_a_trace_reads_back_as_it_was(trace: Trace, suffix: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        again = read_trace(write_trace(trace, Path(folder) / f"x{suffix}"))
    assert same_columns(again, trace)
    assert again.warnings == ()


def test_csv_is_as_plain_as_can_be(tmp_path: Path) -> None:
    assert write_trace(ONE, tmp_path / "x.csv").read_bytes() == b"arrival_s,isl,osl\n0,5,7\n0.1,6,8\n"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_equal_traces_make_equal_files(tmp_path: Path, suffix: str) -> None:
    first = write_trace(ONE, tmp_path / f"a{suffix}").read_bytes()
    time.sleep(1.1 if suffix == ".csv.gz" else 0)  # gzip headers count seconds
    assert write_trace(ONE, tmp_path / f"b{suffix}").read_bytes() == first


def test_a_trace_may_be_written_over_the_file_it_came_from(tmp_path: Path) -> None:
    file = write_trace(ONE, tmp_path / "x.csv")
    write_trace(read_trace(file), file)
    assert same_columns(read_trace(file), ONE)


def test_a_failed_write_leaves_the_old_file_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "x.csv"
    file.write_text("precious")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sagescale.trace.write._write_csv", fail)
    with pytest.raises(InputError, match="No space left on device"):
        write_trace(ONE, file)
    assert file.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("name", "complaint"),
    [("x.txt", "ending in .csv, .csv.gz, .parquet"), ("nowhere/x.csv", "nowhere does not exist")],
)
def test_a_destination_that_cannot_work_is_refused(tmp_path: Path, name: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        check_destination(tmp_path / name)


def test_a_directory_is_no_destination(tmp_path: Path) -> None:
    (tmp_path / "x.csv").mkdir()
    with pytest.raises(InputError, match="is a directory"):
        check_destination(tmp_path / "x.csv")
