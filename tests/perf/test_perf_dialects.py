"""What benchmark tools write in other versions and dialects is read right, or refused with what to do.

The made-up engine of the reproductions takes 20 + 0.05 isl ms to a first token and 8 + 0.05 n ms a step of n.
"""

from __future__ import annotations

import json
import shutil

import pytest
from sagescale.errors import InputError
from sagescale.perf.build import ImportOptions, build_profile, read_sources
from sagescale.perf.importers.benchmark import median_gap_ms

ENGINE = ImportOptions(gpu="h100", model="m", prefill_gpus=1, decode_gpus=1)


def profile(*paths):
    return build_profile(read_sources(paths), ENGINE)


def measured(path):
    (found,) = read_sources([path])
    return found


def assert_made_up_engine(found, runs):
    alone = {point.isl_tokens: point.ttft_ms for point in found.prefill}
    assert alone == pytest.approx({256: 32.8, 1024: 71.2, 4096: 224.8})
    assert len(found.decode) == runs
    for point in found.decode:
        # Clients that prefill or wait meanwhile are not in the step.
        assert point.itl_ms == pytest.approx(8.0 + 0.05 * point.stated_concurrency)
        assert 0.85 * point.stated_concurrency <= point.concurrency <= point.stated_concurrency


@pytest.mark.parametrize(
    ("source", "runs"),
    [
        ("01-aiperf-phases", 7),
        ("02-guidellm-v1", 7),
        ("03-sglang-pd-output-tokens/pd.jsonl", 7),
        ("03-sglang-pd-output-tokens/pd-low-load.jsonl", 11),
        ("17-coalesced-stream/all", 7),
        ("17-coalesced-stream/loaded", 7),
    ],
)
def test_the_made_up_engine_is_found_in_every_dialect(shared, source, runs):
    assert_made_up_engine(measured(shared / "repro" / source), runs)


@pytest.mark.parametrize("more", [{}, {"args": {"target": "http://localhost:8000"}}])
def test_a_report_of_guidellm_that_says_no_version_is_refused_by_name(shared, tmp_path, more):
    report = json.loads((shared / "repro" / "02-guidellm-v1" / "benchmarks.json").read_text())
    path = tmp_path / "benchmarks.json"
    path.write_text(json.dumps({"benchmarks": report["benchmarks"], **more}))
    with pytest.raises(InputError, match=r"metadata: missing .* guidellm before 0.5 .* run it again"):
        measured(path)


def test_a_strategy_is_called_type_or_kind(shared, tmp_path):
    report = json.loads((shared / "repro" / "02-guidellm-v1" / "benchmarks.json").read_text())
    for benchmark in report["benchmarks"]:
        strategy = benchmark["config"]["strategy"]
        strategy["kind"] = strategy.pop("type_")
    path = tmp_path / "benchmarks.json"
    path.write_text(json.dumps(report))
    assert_made_up_engine(measured(path), 7)


def test_a_warm_up_is_not_the_runs_concurrency(shared, tmp_path):
    source = shared / "repro" / "01-aiperf-phases" / "isl4096-c8" / "profile_export_aiperf.json"
    content = json.loads(source.read_text())
    content["input_config"]["phases"][0]["concurrency"] = 99
    (tmp_path / source.name).write_text(json.dumps(content))
    (point,) = measured(tmp_path).decode
    assert point.stated_concurrency == 8
    assert measured(tmp_path).model == "acme-8b"
    content["input_config"]["phases"].append({"name": "more", "concurrency": 16})
    (tmp_path / source.name).write_text(json.dumps(content))
    with pytest.raises(InputError, match="one concurrency in what is measured"):
        measured(tmp_path)


def test_counts_that_no_time_supports_are_refused_by_name(shared, tmp_path):
    lines = (shared / "repro" / "03-sglang-pd-output-tokens" / "pd.jsonl").read_text().splitlines()
    run = json.loads(lines[0])
    named = r"total_output_tokens 64 and total_output_tokens_retokenized .* of 64 requests"
    for change in (
        {"total_output_tokens_retokenized": 5 * 8192},
        {"mean_itl_ms": 0.0},
        {"mean_e2e_latency_ms": None},
    ):
        path = tmp_path / "run.jsonl"
        path.write_text(json.dumps({**run, **change}) + "\n")
        with pytest.raises(InputError, match=named):
            measured(path)
    # A recount that is wrong does no harm where the server's own count is supported.
    right = {**run, "total_output_tokens": 8192, "total_output_tokens_retokenized": 4000}
    path.write_text(json.dumps({**right, "mean_tpot_ms": 8.05, "median_tpot_ms": 8.05}) + "\n")
    (point,) = measured(path).decode
    assert point.context_tokens == 256 + 64


@pytest.mark.parametrize(
    ("median_itl", "mean_itl", "tpot", "gap"),
    [
        (8.0, 9.0, 9.0, 8.0),  # prefill comes between steps now and then
        (0.9, 9.6, 9.6, 9.6),  # tokens arrive together
        (24.0, 24.0, 8.0, 8.0),  # several tokens a chunk, one gap a chunk
        (None, None, 9.0, 9.0),
        (8.0, None, 9.0, 8.0),
    ],
)
def test_a_step_is_the_gap_that_tokens_have(median_itl, mean_itl, tpot, gap):
    assert median_gap_ms(median_itl=median_itl, mean_itl=mean_itl, median_tpot=tpot, tpot=tpot) == gap


@pytest.mark.parametrize(
    ("name", "isl", "gpus", "ttft_ms"),
    [
        ("plain.csv", (1024, 2048, 4096, 8192), 2, 50.96),
        ("prefix-half.csv", (512, 1024, 2048, 4096), 2, 30.48),
        ("cp2.csv", (1024, 2048, 4096, 8192), 4, 30.48),
    ],
)
def test_aiconfigurators_prefix_and_context_parallelism_count(shared, name, isl, gpus, ttft_ms):
    found = measured(shared / "repro" / "09-aiconfigurator-prefix-cp" / name)
    assert tuple(sorted(point.isl_tokens for point in found.prefill)) == isl
    assert (found.prefill_gpus, found.decode_gpus) == (gpus, gpus)
    assert min(found.prefill, key=lambda point: point.isl_tokens).ttft_ms == pytest.approx(ttft_ms)


def test_a_prompt_that_is_all_prefix_is_refused(shared, tmp_path):
    text = (shared / "repro" / "09-aiconfigurator-prefix-cp" / "prefix-half.csv").read_text()
    path = tmp_path / "t.csv"
    path.write_text(text.replace(",1024,512,512,", ",1024,512,1024,", 1))
    with pytest.raises(InputError, match=r"line 2: prefix: 1024 .expected fewer than isl, 1024"):
        measured(path)


def test_a_profile_is_read_out_of_its_config_map(shared, tmp_path):
    source = shared / "repro" / "08-dynamo-dgd" / "profile-configmap.yaml"
    found = build_profile(read_sources([source]), ImportOptions(gpu="h100", model="m"))
    assert found.prefill.isl_tokens == (100, 1000, 3000, 8000)
    assert found.prefill.ttft_ms == (20, 50, 140, 420)
    path = tmp_path / "broken.yaml"
    path.write_text("kind: ConfigMap\ndata:\n  prefill_raw_data.json: '{\"prefill_isl\": [1'\n")
    with pytest.raises(InputError, match=r"broken.yaml"):
        measured(path)


def test_inference_perfs_stages_are_runs_at_a_rate(shared):
    found = measured(shared / "repro" / "14-missing-formats" / "inference-perf")
    assert found.format == "inference_perf"
    assert len(found.decode) == 3
    assert min(point.itl_ms for point in found.decode) == pytest.approx(8.05152)


@pytest.mark.parametrize("unit", ["s", "ms"])
def test_genai_bench_is_read_in_the_unit_it_states(tmp_path, unit):
    scale = {"s": 1e-3, "ms": 1.0}[unit]
    for isl, osl, clients in ((256, 128, 1), (1024, 128, 1), (4096, 128, 1), (512, 256, 8), (4096, 256, 32)):
        step, ttft = 8.0 + 0.05 * clients, 20.0 + 0.05 * isl
        stats = {
            "ttft": ttft * scale,
            "tpot": step * scale,
            "num_input_tokens": isl,
            "num_output_tokens": osl,
        }
        run = {
            "_time_unit": unit,
            "aggregated_metrics": {
                "iteration_type": "num_concurrency",
                "num_concurrency": clients,
                "run_duration": 60.0,
                "requests_per_second": 1000.0 * clients / (ttft + (osl - 1) * step),
                "num_completed_requests": 64,
                "num_error_requests": 0,
                "stats": {name: {"mean": value, "p50": value} for name, value in stats.items()},
            },
        }
        (tmp_path / f"D{isl}_concurrency_{clients}.json").write_text(json.dumps(run))
    assert_made_up_engine(measured(tmp_path), 5)


def test_a_sweep_at_one_length_is_told_what_to_run(shared, tmp_path):
    for name in ("r1.json", "r3.json"):
        shutil.copy(shared / "repro" / "17-coalesced-stream" / "all" / name, tmp_path / name)
    with pytest.raises(
        InputError, match=r"run `--max-concurrency 1` at two more input lengths, e.g. 256 and 4096"
    ):
        profile(tmp_path)


def test_the_advice_is_in_the_words_of_the_tool_that_was_used(shared, tmp_path):
    with pytest.raises(
        InputError, match="run stages at a rate that leaves each request alone at three input"
    ):
        profile(shared / "repro" / "14-missing-formats" / "inference-perf")
    source = shared / "repro" / "01-aiperf-phases"
    for name in ("isl1024-c1", "isl4096-c8"):
        shutil.copytree(source / name, tmp_path / name)
    with pytest.raises(
        InputError, match=r"run `--concurrency 1` at two more input lengths, e.g. 256 and 4096"
    ):
        profile(tmp_path)


def test_genai_benchs_rate_is_not_taken_for_clients(tmp_path):
    stats = {"ttft": 0.05, "tpot": 0.01, "num_input_tokens": 512, "num_output_tokens": 128}
    metrics = {
        "iteration_type": "num_concurrency",
        "num_concurrency": 1.0,
        "total_arrivals": 60,
        "run_duration": 60.0,
        "requests_per_second": 1.0,
        "num_completed_requests": 60,
        "stats": {name: {"mean": value, "p50": value} for name, value in stats.items()},
    }
    (tmp_path / "run.json").write_text(json.dumps({"aggregated_metrics": metrics}))
    (point,) = measured(tmp_path).decode
    assert point.stated_concurrency is None
    assert not measured(tmp_path).prefill


def test_inference_perfs_later_name_of_prompts_is_read_and_cached_ones_are_refused(shared, tmp_path):
    source = shared / "repro" / "14-missing-formats" / "inference-perf" / "stage_0_lifecycle_metrics.json"
    report = json.loads(source.read_text())
    lengths = report["successes"].pop("prompt_len")
    report["successes"]["prompt_tokens"] = {"total": 30720.0, "cached": 0.0, "uncached": 30720.0, **lengths}
    path = tmp_path / source.name
    path.write_text(json.dumps(report))
    (point,) = measured(tmp_path).decode
    assert point.context_tokens == 512 + 64
    report["successes"]["prompt_tokens"]["cached"] = 15360.0
    path.write_text(json.dumps(report))
    with pytest.raises(InputError, match=r"prompt_tokens.cached: 15360.* .expected at most 5% of 30720"):
        measured(tmp_path)
