from __future__ import annotations

import subprocess
import sys

import pytest
from sagescale.cli.profile import profile_app
from sagescale.errors import InputError
from typer.testing import CliRunner

runner = CliRunner()


def invoke(*words: str) -> str:
    result = runner.invoke(profile_app, list(words), catch_exceptions=False, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return result.output


def test_list_names_every_shipped_profile_with_its_limits():
    output = invoke("list")
    assert "h200-llama-3.1-8b-fp8" in output
    assert "945029" in output


def test_show_tells_source_limits_assumptions_errors_and_surfaces():
    output = invoke("show", "h200-llama-3.1-8b-fp8")
    for expected in (
        "Apache-2.0",
        "slots",
        "256 (assumed: the source does not say)",
        "decode fit error",
        "19.53",
        "over concurrency and context",
        "Little's law",
    ):
        assert expected in output


def test_import_reports_the_fit_error_and_writes_one_file(shared, tmp_path):
    source = shared / "profiles" / "h200_pd_measured" / "profile.json"
    output = invoke("import", str(source), "--out", str(tmp_path / "mine.yaml"))
    assert "prefill fit error over 17 points: median 0.00%" in output
    assert "prefill batches fit error over 11 points" in output
    assert "assumed: max_num_seqs 256" in output
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]
    assert "mine" in invoke("show", str(tmp_path / "mine.yaml"))


def test_a_missing_output_folder_is_told_before_anything_is_read(tmp_path):
    with pytest.raises(InputError, match=r"no such folder .*create it first"):
        invoke("import", str(tmp_path / "gone"), "--out", str(tmp_path / "no" / "x.yaml"))


def test_a_failed_import_leaves_an_existing_file_alone(tmp_path):
    out = tmp_path / "x.yaml"
    out.write_text("mine\n")
    (tmp_path / "bad.json").write_text("[]")
    with pytest.raises(InputError):
        invoke("import", str(tmp_path / "bad.json"), "--out", str(out))
    assert out.read_text() == "mine\n"


def test_the_command_module_imports_nothing_heavy():
    code = (
        "import sys, sagescale.cli.profile\n"
        "print([m for m in ('numpy', 'scipy', 'yaml', 'pandas', 'sagescale.perf') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
