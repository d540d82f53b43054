"""Files nobody vouches for are refused in little memory, with one line."""

from __future__ import annotations

import io
import json
import os
import pickle
import tracemalloc
import zipfile

import numpy as np
import pytest
from perf_runs import RUNS, vllm
from sagescale.cli.app import app
from sagescale.errors import InputError
from sagescale.perf import profile_from_source, read_profile
from typer.testing import CliRunner

MEMORY = 160 * 1024 * 1024


def refused(path, message, memory=MEMORY):
    """Refused with one line that names the file, within the memory allowed."""
    tracemalloc.start()
    with pytest.raises(InputError, match=message) as caught:
        profile_from_source(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert peak < memory


def sparse(path, start=b""):
    """Write ten gigabytes that take no space."""
    with path.open("wb") as stream:
        stream.write(start)
        stream.truncate(10 * 1024**3)
    return path


def npz(path, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return path


def header(shape):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return stream.getvalue()


class Boom:
    def __reduce__(self):
        return (pytest.fail, ("unpickled",))


class TestArchives:
    def test_pickled_arrays_are_not_unpickled(self, tmp_path):
        path = tmp_path / "p.npz"
        np.savez(path, prefill_isl=np.array([Boom()], dtype=object), prefill_ttft=np.array([1.0]))
        refused(path, "prefill_isl: pickled objects")

    def test_a_bare_pickle_is_nothing(self, tmp_path):
        path = tmp_path / "p.npz"
        path.write_bytes(pickle.dumps(Boom()))
        refused(path, "not a profile source")

    def test_a_bomb_is_refused_before_it_is_unpacked(self, tmp_path):
        zeros = header((10**7,)) + bytes(8 * 10**7)
        refused(npz(tmp_path / "b.npz", prefill_isl=zeros, prefill_ttft=zeros), "at most 67108864 in all")

    def test_many_arrays_are_counted_together(self, tmp_path):
        zeros = header((4 * 10**6,)) + bytes(32 * 10**6)
        bomb = npz(tmp_path / "b.npz", prefill_isl=zeros, prefill_ttft=zeros, a=zeros)
        refused(bomb, "at most 67108864 in all")

    def test_a_claimed_size_is_not_believed(self, tmp_path):
        bomb = npz(tmp_path / "b.npz", prefill_isl=header((10**12,)), prefill_ttft=header((3,)))
        refused(bomb, "prefill_isl: 8000000000000 bytes")

    def test_an_endless_header_is_not_read(self, tmp_path):
        endless = b"\x93NUMPY\x02\x00" + (2**32 - 1).to_bytes(4, "little") + b" " * (80 * 1024 * 1024)
        refused(npz(tmp_path / "b.npz", prefill_isl=endless, prefill_ttft=endless), "at most 67108864 in all")

    def test_a_huge_archive_is_not_opened(self, tmp_path):
        refused(sparse(tmp_path / "b.npz", b"PK\x03\x04"), r"10737418240 bytes .expected at most")

    def test_a_truncated_archive_is_nothing(self, tmp_path):
        whole = npz(tmp_path / "w.npz", prefill_isl=header((3,)) + bytes(24), prefill_ttft=header((3,)))
        cut = tmp_path / "c.npz"
        cut.write_bytes(whole.read_bytes()[:-40])
        refused(cut, "not a profile source")

    @pytest.mark.parametrize(
        ("name", "values", "message"),
        [
            ("max_kv_tokens", [np.inf], r"max_kv_tokens\[0\]: inf"),
            ("max_kv_tokens", [np.nan], r"max_kv_tokens\[0\]: nan"),
            ("prefill_isl", [1e308] * 3, r"prefill_isl\[0\]: 1e\+308"),
            ("prefill_isl", [5e9, 6e9, 7e9], r"isl_tokens\[0\]: 5000000000 .*at most 2"),
            ("z_thpt_per_gpu", [np.inf] * 4, r"z_thpt_per_gpu\[0\]: inf"),
            ("z_thpt_per_gpu", [5e5, 5e6, 2e7, 4e7], r"decode concurrency\[\d\]: .*at most 32768"),
        ],
    )
    def test_numbers_of_no_machine_are_refused_before_tables_are_made_of_them(
        self, tmp_path, name, values, message
    ):
        arrays = {
            "prefill_isl": [100.0, 1000.0, 4000.0],
            "prefill_ttft": [4.0, 40.0, 160.0],
            "x_kv_usage": [0.1, 0.5, 0.1, 0.9],
            "y_context_length": [100.0, 100.0, 1000.0, 1000.0],
            "z_itl": [5.0, 10.0, 5.5, 20.0],
            "z_thpt_per_gpu": [200.0, 500.0, 200.0, 800.0],
            "max_kv_tokens": [10_000.0],
        } | {name: values}
        np.savez(tmp_path / "x.npz", **arrays)
        refused(tmp_path / "x.npz", message)


class TestJson:
    def test_ten_sparse_gigabytes_are_refused_by_their_size(self, tmp_path):
        for start in (b"", b"{", json.dumps(vllm(RUNS[0])).encode() + b"\n"):
            refused(sparse(tmp_path / "s.json", start), r"10737418240 bytes .expected at most 1073741824")

    def test_one_document_of_a_gigabyte_is_refused_by_its_size(self, tmp_path):
        path = tmp_path / "s.json"
        path.write_bytes(b"[\n")
        os.truncate(path, 1024**3)
        refused(path, r"1073741824 bytes .expected at most 67108864")

    def test_a_line_without_end_is_refused(self, tmp_path):
        path = tmp_path / "s.jsonl"
        path.write_bytes(json.dumps(vllm(RUNS[0])).encode() + b"\n{")
        os.truncate(path, 512 * 1024**2)
        refused(path, "line 2: longer than 67108864 bytes")

    @pytest.mark.parametrize(("open_", "close"), [(b"[", b"]"), (b'{"a":', b"}")])
    def test_deep_nesting_is_refused(self, tmp_path, open_, close):
        path = tmp_path / "deep.json"
        path.write_bytes(open_ * 200_000 + b"1" + close * 200_000)
        refused(path, "deep.json: nested more than 100 deep")

    def test_many_small_parts_are_refused(self, tmp_path):
        path = tmp_path / "parts.json"
        path.write_bytes(b"[" + b"{}," * 5_000_000 + b"{}]")
        refused(path, "more than 1000000 objects and lists")

    def test_not_numbers_are_refused_where_they_stand(self, tmp_path):
        for bad in ("NaN", "Infinity", "-Infinity", "1e999", "-1"):
            text = json.dumps([vllm(run) for run in RUNS]).replace(
                '"median_ttft_ms": 14.0', f'"median_ttft_ms": {bad}'
            )
            path = tmp_path / "nan.json"
            path.write_text(text)
            refused(path, r"item 0: median_ttft_ms: .*expected a number > 0")

    def test_a_huge_integer_is_refused(self, tmp_path):
        path = tmp_path / "long.json"
        path.write_text('{"completed": ' + "9" * 10_000 + "}")
        refused(path, "long.json: .*expected JSON")

    def test_four_hundred_digits_are_no_milliseconds(self, tmp_path):
        path = tmp_path / "x.json"
        path.write_text('[{"kind": "prefill", "isl": 100, "batch": 1, "ms": ' + "9" * 400 + "}]")
        refused(path, "x.json: an integer of 400 digits")

    def test_bytes_that_are_no_text_are_refused(self, tmp_path):
        path = tmp_path / "x.json"
        path.write_bytes(b'{"a": "\xff\xfe"}')
        refused(path, "x.json: .*expected JSON")


class TestFiles:
    def test_what_is_no_file_is_not_read(self, tmp_path):
        os.mkfifo(tmp_path / "pipe.json")
        refused(tmp_path / "pipe.json", "not a regular file")
        with pytest.raises(InputError, match="/dev/zero: not a regular file"):
            profile_from_source("/dev/zero")

    def test_a_profile_document_that_is_no_file_is_not_read(self, tmp_path):
        os.mkfifo(tmp_path / "pipe.yaml")
        for path in (tmp_path / "pipe.yaml", "/dev/zero"):
            with pytest.raises(InputError, match="not a regular file"):
                read_profile(path)

    def test_a_link_to_itself_is_no_source(self, tmp_path):
        (tmp_path / "loop").symlink_to(tmp_path / "loop")
        words = ["profile", "import", str(tmp_path / "loop"), "--out", str(tmp_path / "out.yaml")]
        assert isinstance(CliRunner().invoke(app, words).exception, InputError)

    @pytest.mark.parametrize("factor", [1e-3, 1e3])
    def test_times_in_another_unit_are_those_of_no_engine(self, tmp_path, factor):
        rows: list[dict[str, object]] = [
            {"kind": "prefill", "isl": isl, "batch": 1, "ms": factor * (10.0 + 0.03 * isl)}
            for isl in (100, 1000, 4000)
        ]
        rows += [
            {"kind": "decode", "batch": n, "context": context, "ms": factor * (8.0 + 0.1 * n)}
            for n in (1, 8)
            for context in (500, 2000)
        ]
        path = tmp_path / "x.json"
        path.write_text(json.dumps(rows))
        refused(path, "the fastest prompt takes .* are these milliseconds")

    def test_a_folder_of_thousands_of_files_is_not_walked_through(self, tmp_path):
        for index in range(5100):
            (tmp_path / f"{index}.json").touch()
        refused(tmp_path, "not a profile source")

    def test_a_table_with_a_huge_cell_is_refused(self, tmp_path):
        path = tmp_path / "t.csv"
        path.write_text("model,isl,osl,ttft,tpot,concurrency,tp,tokens/s/gpu\n" + '"' + "x" * 10**6)
        refused(path, r"t.csv: line \d: field larger than field limit .*expected a CSV table")

    def test_a_table_of_too_many_cells_is_refused(self, tmp_path, monkeypatch):
        # A quarter of what may be: all of it takes ten seconds. Half of the memory goes to what is imported.
        monkeypatch.setattr("sagescale.perf.importers.table._MAX_CELLS", 500_000)
        path = tmp_path / "t.csv"
        head = "model,isl,osl,ttft,tpot,concurrency,tp,tokens/s/gpu\n"
        path.write_text(head + "m,1,1,1,1,1,1,1\n" * 62_501)
        refused(path, "line 62502: more than 500000 cells", memory=MEMORY // 2)

    def test_configurations_without_rows_are_refused(self, tmp_path):
        arrays = {"prefill_isl": [[100.0, 900.0]], "prefill_ttft": [[5.0, 9.0]], "tp": [2.0, 4.0]}
        np.savez(tmp_path / "x.npz", **arrays)
        refused(tmp_path / "x.npz", r"prefill_isl: 1 rows .expected 2")

    def test_a_configuration_of_an_unnamed_model_is_read(self, tmp_path):
        path = tmp_path / "t.csv"
        path.write_text("model,isl,osl,ttft,tpot,concurrency,tp,tokens/s/gpu\n,9,9,9,9,1,1,111\n")
        refused(path, "prompt lengths measured alone")
