from __future__ import annotations

import pytest
import yaml
from hypothesis import given, settings
from perf_builders import built, profiles
from sagescale.errors import InputError
from sagescale.files import shipped
from sagescale.perf import list_profiles, load_profile, profile_to_yaml, read_profile, write_profile


@pytest.fixture
def document() -> dict:
    return yaml.safe_load(profile_to_yaml(built(lambda n: 8.0 + n, lambda n, c: 4.0 + n + n * c / 1000)))


class Written(yaml.SafeDumper):
    """Equal lists are written out twice: references between them are refused."""

    def ignore_aliases(self, data: object) -> bool:
        return True


@pytest.fixture
def refusal(tmp_path):
    """Return the one line that a document's refusal consists of."""

    def refuse(document: dict | str) -> str:
        path = tmp_path / "bad.yaml"
        path.write_text(document if isinstance(document, str) else yaml.dump(document, Dumper=Written))
        with pytest.raises(InputError) as error:
            read_profile(path)
        message = str(error.value)
        assert message.startswith(str(path))
        assert "\n" not in message
        return message

    return refuse


@given(profiles())
@settings(deadline=None, max_examples=30)
def test_what_is_written_is_read_back_the_same(tmp_path_factory, profile):
    path = tmp_path_factory.mktemp("profile") / "p.yaml"
    write_profile(profile, path)
    again = read_profile(path)
    assert again == profile
    assert profile_to_yaml(again) == path.read_text()


def test_a_misspelt_key_is_named_with_its_nearest(document, refusal):
    document["prefill"]["isl_tokns"] = document["prefill"].pop("isl_tokens")
    assert "prefill.isl_tokens: missing" in refusal(document)
    document["prefill"]["isl_tokens"] = document["prefill"]["isl_tokns"]
    assert "prefill.isl_tokns: unknown key; did you mean 'isl_tokens'?" in refusal(document)


@pytest.mark.parametrize(
    ("section", "key", "value", "expected"),
    [
        ("prefill", "ttft_ms", [1.0, "fast"], "prefill.ttft_ms: [1.0, 'fast'] (expected a list of numbers"),
        ("prefill", "ttft_ms", [1.0, 2.0], "prefill.ttft_ms: 2 values (expected 4, as many as isl_tokens)"),
        ("prefill", "ttft_ms", [9.0, 2.0, 3.0, 4.0], "prefill.ttft_ms: falls from 9.0 to 2.0"),
        ("prefill", "isl_tokens", [1, 2, 2, 3], "prefill.isl_tokens[2]: 2.0 after 2.0 (expected increasing"),
        ("prefill", "gpus_per_instance", 0, "prefill.gpus_per_instance: 0 (expected a whole number >= 1)"),
        ("prefill", "quadratic_ms", -1.0, "prefill.quadratic_ms: -1.0 (expected a number >= 0)"),
        ("prefill", "quadratic_ms", float("nan"), "prefill.quadratic_ms: nan (expected a number >= 0)"),
        ("prefill", "floor_ms", 1e6, "prefill.floor_ms: 1000000.0 (expected above 0, at most"),
        ("decode", "max_num_seqs", True, "decode.max_num_seqs: True (expected a whole number"),
        ("decode", "max_kv_tokens", 1.5, "decode.max_kv_tokens: 1.5 (expected a whole number"),
        ("decode", "itl_ms", [[1.0, 2.0, 3.0]], "decode.itl_ms: 1 rows (expected 4, one per concurrency)"),
        ("decode", "itl_ms", "x", "decode.itl_ms: 'x' (expected a list of rows"),
        ("decode", "assumed", ["kv"], "decode.assumed: 'kv' (expected max_num_seqs or max_kv_tokens)"),
        ("kv_transfer", "blocks_prefill", 1, "kv_transfer.blocks_prefill: 1 (expected true or false)"),
        ("source", "files", [{"path": "x"}], "source.files[0].sha256: missing"),
    ],
)
def test_a_bad_value_is_named_with_what_was_expected(document, refusal, section, key, value, expected):
    document[section][key] = value
    assert expected in refusal(document)


def test_a_surface_that_falls_with_load_is_refused(document, refusal):
    document["decode"]["itl_ms"][1][0] = 0.5
    assert "decode.itl_ms at context 300: falls from" in refusal(document)


def test_another_schema_is_refused(document, refusal):
    document["schema"] = "sagescale.profile/v3"
    assert "schema: 'sagescale.profile/v3' (expected 'sagescale.profile/v1' or" in refusal(document)


def test_a_key_given_twice_is_refused_with_its_line(refusal):
    assert ":3: name is given twice, first on line 2" in refusal("schema: x\nname: a\nname: b\n")


@pytest.mark.parametrize(
    "text", ["", "- 1\n", "a: [1\n", "a: !!python/object/apply:os.system [ls]\n", "\x00"]
)
def test_anything_else_is_one_line(refusal, text):
    assert "expected" in refusal(text)


def test_what_may_be_left_out_has_its_default(document, tmp_path):
    for key in ("source", "kv_transfer", "join_ms_per_1k_tokens", "notes", "model", "tensor_parallel"):
        del document[key]
    for key in ("measured", "fit_error", "floor_ms", "quadratic_ms"):
        document["prefill"].pop(key)
    path = tmp_path / "short.yaml"
    path.write_text(yaml.safe_dump(document))
    profile = read_profile(path)
    assert profile.kv_transfer.assumed
    assert profile.prefill.floor_ms is None


class TestLibrary:
    def test_an_unknown_name_lists_the_known_ones_and_the_nearest(self):
        with pytest.raises(
            InputError, match=r"h100-llama-3.3-70b-fp8-tp2, .*did you mean 'h200-llama-3.1-8b-fp8'"
        ):
            load_profile("h200-llama-3.1-8b-f8")

    def test_a_path_is_read_from_there(self):
        path = shipped("profiles") / "h200-llama-3.1-8b-fp8.yaml"
        assert load_profile(path) == load_profile(str(path)) == load_profile("h200-llama-3.1-8b-fp8")

    def test_a_path_that_is_not_there_is_named(self):
        with pytest.raises(InputError, match=r"nowhere/x.yaml: cannot be read: No such file"):
            load_profile("nowhere/x.yaml")

    def test_the_shipped_ones_are_listed_by_name(self):
        assert list_profiles() == (
            "h100-llama-3.1-8b-bf16-agg",
            "h100-llama-3.3-70b-fp8-tp2",
            "h100-llama-3.3-70b-fp8-tp4",
            "h100-llama-3.3-70b-fp8-tp8",
            "h200-llama-3.1-8b-bf16",
            "h200-llama-3.1-8b-fp8",
            "h200-llama-3.1-8b-fp8-agg",
        )
