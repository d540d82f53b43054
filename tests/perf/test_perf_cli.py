from __future__ import annotations

import shlex
import subprocess
import sys

import pytest
from sagescale.cli.profile import profile_app
from sagescale.errors import InputError
from sagescale.perf import load_profile
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
    with pytest.raises(InputError, match=r"no/x.yaml: the folder .*does not exist; create it first"):
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


def test_the_commands_heavy_libraries_wait_for_the_plots():
    code = (
        "import sys, sagescale.cli.profile_figure, sagescale.report.picture, sagescale.report.text_plots\n"
        "print([m for m in ('numpy', 'matplotlib', 'plotly', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "matplotlib" not in done.stdout
    assert "plotly" not in done.stdout


def _closed(*_):
    raise BrokenPipeError


def test_show_draws_the_panels_in_the_terminal_and_to_files(tmp_path, monkeypatch):
    monkeypatch.setattr("sagescale.report.picture.png_picture", lambda figure, title: b"png")
    monkeypatch.setattr("sagescale.report.html.render_plots", lambda figure, title, **more: f"<p>{title}")
    png, html = tmp_path / "p.png", tmp_path / "p.html"
    output = invoke(
        "show", "h200-llama-3.1-8b-fp8", "--target-itl-ms", "20", "--png", str(png), "--html", str(html)
    )
    assert "Decode throughput against step time" in output
    assert "┊ target 20 ms" in output
    assert png.read_bytes() == b"png"
    assert html.read_text() == "<p>h200-llama-3.1-8b-fp8 · h200 · vllm"
    png.unlink()
    with monkeypatch.context() as patched:
        patched.setattr("sagescale.report.text_plots.panel_text", _closed)
        with pytest.raises(BrokenPipeError):
            invoke("show", "h200-llama-3.1-8b-fp8", "--png", str(png))
    assert png.exists(), "files are written before a reader of the terminal's part may go"
    with pytest.raises(InputError, match="is a directory; expected a file to write"):
        invoke("show", "h200-llama-3.1-8b-fp8", "--png", str(tmp_path))
    with pytest.raises(InputError, match="--target-itl-ms 0 "):
        invoke("show", "h200-llama-3.1-8b-fp8", "--target-itl-ms", "0")


def test_validate_says_fit_or_unfit_by_its_exit_code(shared):
    assert "fit: 11 checks" in invoke("validate", "h200-llama-3.1-8b-fp8")
    trace = str(shared / "traces" / "azure_llm_2023_conv.csv")
    assert "7.9% below, 0.0% above" in invoke("validate", "h200-llama-3.1-8b-fp8", "--trace", trace)
    long_prompts = str(shared / "traces" / "mooncake_synthetic.jsonl")
    result = runner.invoke(
        profile_app, ["validate", "h200-llama-3.1-8b-fp8", "--trace", long_prompts], env={"COLUMNS": "200"}
    )
    assert result.exit_code == 1
    assert "unfit: 2 of 15 checks failed" in result.output


class TestEstimate:
    def test_a_known_model_and_gpu_are_enough(self, tmp_path):
        out = tmp_path / "e.yaml"
        words = ("--model", "Llama-3.1-8B", "--gpu", "h200", "--precision", "fp8", "--out", str(out))
        output = invoke("estimate", *words, "--against", "h200-llama-3.1-8b-fp8")
        assert "an estimate: measure the engine before trusting a plan to it" in output
        assert "decode error at 34 points measured for h200-llama-3.1-8b-fp8: median 4.8%" in output
        assert "Roofline estimate: nothing was measured" in invoke("show", str(out))
        command = load_profile(out).source.command
        assert command == shlex.join(["sagescale", "profile", "estimate", *words[:-1], "e.yaml"])

    def test_numbers_describe_what_is_not_known(self, tmp_path):
        words = (
            "--parameters 7.25 --layers 32 --hidden 4096 --heads 32 --kv-heads 8 --head-dim 128 --vocab 32768"
        )
        card = "--memory-gib 80 --bandwidth-gb-s 2000 --bf16-tflops 400"
        out = str(tmp_path / "e.yaml")
        invoke("estimate", "--model", "mine", *words.split(), "--gpu", "ours", *card.split(), "--out", out)
        profile = load_profile(out)
        assert (profile.model, profile.gpu) == ("mine", "ours")
        assert "numbers given" in profile.source.description

    def test_a_token_meets_all_parameters_of_a_dense_model_whose_size_is_given(self, tmp_path):
        sizes = []
        for more in (("--parameters", "16"), ("--parameters", "16", "--active-parameters", "16")):
            out = tmp_path / "e.yaml"
            invoke("estimate", "--model", "Llama-3.1-8B", *more, "--gpu", "h200", "--out", str(out))
            sizes.append(load_profile(out).decode)
        assert sizes[0] == sizes[1]

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ("--model Llama-3.1-8B --gpu h300", "GPU 'h300': not known"),
            ("--model mine --layers 3 --gpu h200", "model 'mine': shape not known"),
            ("--model Llama-3.1-8B --gpu h200 --parameters -1", "--parameters -1 .expected more than"),
            ("--model Llama-3.1-8B --gpu h200 --active-parameters 9", "9 of --parameters 8.03 .*at most"),
            ("--model Llama-3.1-8B --gpu h200 --memory-gib 1", "1 x h200 have 0.0 GiB for them"),
            (
                "--model Llama-3.1-8B --gpu h200 --bandwidth-gb-s 0",
                r"--bandwidth-gb-s 0 .expected a number > 0",
            ),
            (
                "--model Llama-3.1-8B --gpu h200 --assume speed=2",
                r"--assume speed=2: unknown .expected one of",
            ),
            ("--model Llama-3.1-8B --gpu h200 --assume request_ms=x", r"'x' .expected a number"),
        ],
    )
    def test_what_is_wrong_is_told(self, tmp_path, words, message):
        with pytest.raises(InputError, match=message):
            invoke("estimate", *words.split(), "--out", str(tmp_path / "e.yaml"))
        assert list(tmp_path.iterdir()) == []


def test_import_chooses_among_configurations_by_model_and_gpu(shared, tmp_path):
    source = str(shared / "profiles" / "splitwise_perf_model.csv")
    out = str(tmp_path / "s.yaml")
    with pytest.raises(InputError, match="12 configurations"):
        invoke("import", source, "--out", out)
    words = ("--model", "llama2-70b", "--gpu", "a100", "--tp", "4", "--licence", "MIT")
    assert "decode fit error over" in invoke("import", source, *words, "--out", out)
    profile = load_profile(out)
    assert (profile.tensor_parallel, profile.source.licence) == (4, "MIT")
