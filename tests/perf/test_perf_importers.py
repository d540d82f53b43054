from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pytest
from sagescale.errors import InputError
from sagescale.perf import (
    ImportOptions,
    Wanted,
    build_profile,
    load_profile,
    profile_from_source,
    read_sources,
    write_profile,
)
from sagescale.perf.importers import IMPORTERS, importer_for

ISL = np.array([100, 1000, 4000])
CONTEXT = np.array([300.0, 300.0, 4000.0, 4000.0])
LOADS = np.array([1.0, 60.0, 1.0, 40.0])
KV = 200_000


def itl(n, c):
    return 5.0 + 0.1 * n + 1e-5 * n * c


def prefill_arrays(gpus: int = 1) -> dict:
    ttft = 10 + 0.02 * ISL
    return {"prefill_isl": ISL, "prefill_ttft": ttft, "prefill_thpt_per_gpu": ISL / ttft * 1000 / gpus}


def decode_arrays(gpus: int = 1) -> dict:
    return {
        "x_kv_usage": LOADS * CONTEXT / KV,
        "y_context_length": CONTEXT,
        "z_itl": itl(LOADS, CONTEXT),
        "z_thpt_per_gpu": LOADS / itl(LOADS, CONTEXT) * 1000 / gpus,
        "max_kv_tokens": np.array([KV]),
    }


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("dynamo_h200_llama-3.1-8b-fp8", Wanted()),
        *(("dynamo_pre_swept_h100_llama-3.3-70b-fp8", Wanted(tensor_parallel=tp)) for tp in (2, 4, 8)),
        ("h200_pd_measured", Wanted()),
        ("h200_pd_measured/profile.json", Wanted()),
        *(
            ("splitwise_perf_model.csv", Wanted(model="llama2", gpu="a100", tensor_parallel=tp))
            for tp in (2, 8)
        ),
    ],
)
def test_every_source_at_hand_is_imported(shared, name, wanted):
    profile = build_profile(read_sources([shared / "profiles" / name], wanted=wanted), ImportOptions())
    assert profile.prefill.fit_error.median < 0.05
    assert profile.decode.fit_error.median < 0.05
    assert profile.source.files[0].path.startswith(name.rpartition("/")[2])


def test_a_folder_of_measurements_is_their_rows_whatever_else_lies_there(tmp_path):
    rows = [{"kind": "prefill", "isl": int(isl), "batch": 1, "ms": 10 + 0.02 * isl} for isl in ISL]
    steps = [
        {"kind": "decode", "batch": n, "context": c, "ms": itl(n, c)} for n in (1, 60) for c in (300, 4000)
    ]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    (tmp_path / "b.json").write_text(json.dumps(steps))
    (tmp_path / "requests.csv").write_text("arrival_s,isl\n0,1\n")
    (tmp_path / "meta.json").write_text("{}")
    profile = profile_from_source(tmp_path)
    assert [file.path for file in profile.source.files] == [
        f"{tmp_path.name}/a.json",
        f"{tmp_path.name}/b.json",
    ]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no JSON list of measured rows"):
        IMPORTERS["measurement"].read(tmp_path / "empty")


@pytest.fixture
def dynamo(tmp_path):
    """Write a profiler folder; the callers' changes go over the good arrays."""

    def write(gpus: int = 1, **changes):
        root = tmp_path / "run"
        for role, arrays in (("prefill", prefill_arrays(gpus)), ("decode", decode_arrays(gpus))):
            folder = root / f"selected_{role}_interpolation"
            folder.mkdir(parents=True, exist_ok=True)
            np.savez(folder / "raw_data.npz", **{k: changes.get(k, v) for k, v in arrays.items()})
        return root

    return write


class TestDynamo:
    def test_a_folder_is_read_with_its_gpus_found_in_its_own_figures(self, dynamo):
        profile = profile_from_source(dynamo(gpus=4))
        assert profile.prefill.gpus_per_instance == profile.decode.gpus_per_instance == 4
        assert profile.decode.max_kv_tokens == KV
        assert profile.decode.measured.concurrency == pytest.approx(LOADS)
        assert profile.decode.assumed == ("max_num_seqs",)
        assert [f.path for f in profile.source.files] == [
            "run/selected_prefill_interpolation/raw_data.npz",
            "run/selected_decode_interpolation/raw_data.npz",
        ]

    def test_the_json_twins_are_the_same_profile(self, dynamo, tmp_path):
        twin = tmp_path / "twin"
        twin.mkdir()
        decode = {k: v.tolist() for k, v in decode_arrays().items()} | {"max_kv_tokens": KV}
        (twin / "prefill_raw_data.json").write_text(
            json.dumps({k: v.tolist() for k, v in prefill_arrays().items()})
        )
        (twin / "decode_raw_data.json").write_text(json.dumps(decode))
        one, other = profile_from_source(dynamo()), profile_from_source(twin)
        assert one.prefill == other.prefill
        assert one.decode == other.decode

    def test_a_single_file_has_one_pool_and_two_make_a_profile(self, dynamo):
        root = dynamo()
        files = [root / f"selected_{role}_interpolation" / "raw_data.npz" for role in ("prefill", "decode")]
        with pytest.raises(InputError, match="no decode points"):
            profile_from_source(files[0])
        joined = build_profile(read_sources(files), ImportOptions(name="x"))
        assert joined.decode == profile_from_source(root).decode

    def test_a_saturated_engines_stated_concurrency_is_not_believed(self, dynamo):
        stated = LOADS * np.array([1, 2, 1, 1])
        profile = profile_from_source(dynamo(x_kv_usage=stated * CONTEXT / KV))
        assert profile.decode.measured.concurrency == pytest.approx(LOADS)
        assert "at 1 of 4 decode points; worst at context 300: 120.0 stated, 60.0 by" in profile.notes[0]

    def test_a_lone_request_is_a_batch_of_one_however_much_the_source_prefills(self, dynamo):
        share = np.array([1.0, 1.0, 0.4, 0.4])
        profile = profile_from_source(dynamo(z_thpt_per_gpu=LOADS / itl(LOADS, CONTEXT) * 1000 * share))
        assert profile.decode.measured.concurrency == pytest.approx(LOADS)
        assert any("1 of 2 contexts (least: 40% at 4000 tokens)" in note for note in profile.notes)

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            (
                "prefill_ttft",
                np.array([1.0, np.nan, 3.0]),
                r"prefill_ttft\[1\]: nan \(expected a number > 0\)",
            ),
            ("prefill_ttft", np.array([1.0, -2.0, 3.0]), r"prefill_ttft\[1\]: -2.0"),
            (
                "prefill_ttft",
                np.array([1.0, 2.0]),
                r"prefill_isl \(3,\), prefill_ttft \(2,\) \(expected equal",
            ),
            ("prefill_ttft", np.array([[1.0, 2.0, 3.0]]), "expected equal shapes"),
            ("prefill_ttft", np.array(["a", "b", "c"]), "expected numbers"),
            ("prefill_isl", np.array([1.5, 2.0, 3.0]), r"1.5 \(expected whole tokens\)"),
            ("z_itl", np.array([1.0, np.inf, 1.0, 1.0]), r"z_itl\[1\]: inf"),
            ("max_kv_tokens", np.array([0]), r"max_kv_tokens\[0\]: 0 \(expected a whole number >= 1\)"),
            ("prefill_ttft", np.array([1.0, {}, 3.0], dtype=object), "pickled objects"),
        ],
    )
    def test_bad_arrays_are_named(self, dynamo, name, value, message):
        with pytest.raises(InputError, match=message):
            profile_from_source(dynamo(**{name: value}))

    def test_a_huge_declared_array_is_refused_before_it_is_loaded(self, tmp_path):
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)}
        )
        path = tmp_path / "bomb.npz"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("prefill_isl.npy", header.getvalue())
            archive.writestr("prefill_ttft.npy", header.getvalue())
        with pytest.raises(InputError, match="8000000000000 bytes"):
            profile_from_source(path)

    def test_too_few_points_are_refused(self, dynamo):
        with pytest.raises(InputError, match=r"2 prompt lengths measured alone .expected at least 3"):
            profile_from_source(dynamo(prefill_isl=np.array([100, 100, 1000])))
        with pytest.raises(InputError, match=r"at 1 contexts .expected at least 2 by 2"):
            profile_from_source(dynamo(y_context_length=np.full(4, 300.0), x_kv_usage=LOADS * 300 / KV))

    def test_the_users_gpus_must_not_contradict_the_sources(self, dynamo):
        with pytest.raises(InputError, match="have 1 GPUs by the source's own figures, not 2"):
            build_profile(read_sources([dynamo()]), ImportOptions(name="x", decode_gpus=2))


class TestPreSwept:
    @pytest.fixture
    def source(self, tmp_path):
        root = tmp_path / "swept"
        root.mkdir()
        common = {
            "tp": np.array([[4], [2]]),
            "gpu_count": np.array([[8], [8]]),
            "model": np.array([["m"], ["m"]]),
        }
        prefill = {k: np.stack([v, v]) for k, v in prefill_arrays(8).items()}
        decode = {k: np.stack([v, v]) for k, v in decode_arrays(8).items()}
        np.savez(root / "a.npz", **prefill, **common)
        np.savez(root / "b.npz", **decode, **common, max_batch_size=np.array([[64], [32]]))
        return root

    def test_one_configuration_is_chosen_with_its_own_gpus_and_slots(self, source):
        chosen = build_profile(
            read_sources([source], wanted=Wanted(tensor_parallel=2)), ImportOptions(name="x")
        )
        assert chosen.decode.gpus_per_instance == chosen.tensor_parallel == 2
        assert chosen.decode.max_num_seqs == 32
        assert chosen.decode.measured.concurrency == pytest.approx(LOADS)

    def test_without_a_choice_the_choices_are_listed(self, source):
        with pytest.raises(InputError, match=r"2 configurations .choose one of: --tp 2, --tp 4."):
            profile_from_source(source)
        with pytest.raises(
            InputError, match=r"no configuration with --tp 8 .expected one of: --tp 2, --tp 4."
        ):
            read_sources([source], wanted=Wanted(tensor_parallel=8))


class TestMeasurementJson:
    ROWS = (
        *({"kind": "prefill", "isl": n, "batch": 1, "ms": [10 + n / 50, 1.0, 2.0]} for n in (100, 500, 900)),
        *({"kind": "decode", "batch": n, "context": c, "ms": 5.0 + n} for n in (1, 8) for c in (64, 900)),
        {"kind": "kv_transfer", "tokens": 1000, "ms": 0.5},
    )

    @pytest.fixture
    def source(self, tmp_path):
        def write(*rows):
            path = tmp_path / "rows.json"
            path.write_text(json.dumps(rows))
            return path

        return write

    def test_rows_become_a_profile_whose_limits_are_assumed(self, source):
        profile = profile_from_source(source(*self.ROWS))
        assert profile.prefill.ttft_ms == (12.0, 20.0, 28.0)
        assert profile.assumed == ("max_num_seqs 256", "max_kv_tokens unlimited")
        assert profile.kv_transfer.ms_per_1k_tokens == 0.5

    def test_limits_and_gpus_can_be_given(self, source):
        options = ImportOptions(name="x", max_num_seqs=8, max_kv_tokens=999, prefill_gpus=2, decode_gpus=4)
        profile = build_profile(read_sources([source(*self.ROWS)]), options)
        assert profile.assumed == ()
        assert (profile.prefill.gpus_per_instance, profile.decode.gpus_per_instance) == (2, 4)

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            ({"kind": "prefil", "isl": 1}, r"row 8: kind: 'prefil' .*did you mean 'prefill'"),
            (
                {"kind": "prefill", "isl": 1.5, "batch": 1, "ms": 1},
                r"row 8: isl: 1.5 \(expected a whole number",
            ),
            (
                {"kind": "prefill", "isl": 5, "batch": 1},
                r"row 8: ms: missing \(expected milliseconds above 0",
            ),
            ({"kind": "decode", "batch": 1, "context": 5, "ms": [0.0]}, r"row 8: ms: \[0.0\]"),
            ({"kind": "decode", "batch": 1, "context": 5, "ms": float("nan")}, "row 8: ms: nan"),
            ({"kind": "decode", "batch": True, "context": 5, "ms": 1}, "row 8: batch: True"),
            (
                {"kind": "decode", "batch": 1, "ctx": 5, "ms": 1},
                r"row 8: ctx: 5 \(expected only batch, context, ms",
            ),
            ([1, 2], r"row 8: \[1, 2\] \(expected an object with 'kind'\)"),
        ],
    )
    def test_a_malformed_row_is_named_by_its_index(self, source, row, message):
        with pytest.raises(InputError, match=message):
            profile_from_source(source(*self.ROWS, row))

    def test_roles_take_each_pool_from_its_own_source(self, source, dynamo):
        parts = read_sources([source(*self.ROWS), dynamo()], roles=("prefill", "decode"))
        profile = build_profile(parts, ImportOptions(name="x"))
        assert profile.prefill.ttft_ms == (12.0, 20.0, 28.0)
        assert profile.decode.max_kv_tokens == KV
        with pytest.raises(InputError, match="--role 'both': unknown"):
            read_sources([dynamo()], roles=("both",))
        with pytest.raises(InputError, match="--role given 2 times"):
            read_sources([dynamo()], roles=("prefill", "decode"))


class TestRecognition:
    def test_content_decides_not_the_name(self, dynamo, tmp_path):
        renamed = tmp_path / "anything.bin"
        renamed.write_bytes((dynamo() / "selected_prefill_interpolation" / "raw_data.npz").read_bytes())
        assert importer_for(renamed, None).name == "dynamo"

    @pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip", b"[]", b"{}", b"a,b\n1,2\n"])
    def test_nothing_known_is_one_line_that_names_the_formats(self, tmp_path, content):
        path = tmp_path / "x.json"
        path.write_bytes(content)
        with pytest.raises(InputError, match="expected one of: dynamo, dynamo_pre_swept, measurement"):
            profile_from_source(path)
        for name in IMPORTERS:
            with pytest.raises(InputError, match=r"x.json"):
                IMPORTERS[name].read(path)

    def test_a_missing_source_and_an_unknown_format_are_named(self, tmp_path):
        with pytest.raises(InputError, match="no such file or folder"):
            profile_from_source(tmp_path / "gone")
        with pytest.raises(InputError, match=r"format 'dynamoo': unknown .*did you mean 'dynamo'"):
            importer_for(tmp_path, "dynamoo")

    def test_a_profile_document_is_a_source_too(self, tmp_path):
        profile = load_profile("h200-llama-3.1-8b-fp8")
        write_profile(profile, tmp_path / "copy.yaml")
        assert profile_from_source(tmp_path / "copy.yaml") == profile
