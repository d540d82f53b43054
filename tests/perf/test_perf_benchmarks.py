"""Runs of end-to-end benchmarks become the measurements of the engine behind them, or one clear line."""

from __future__ import annotations

import json
from dataclasses import replace

import perf_runs as runs
import pytest
from perf_runs import RUNS, TrueRun, changed, write_lines, write_tree
from sagescale.errors import InputError
from sagescale.perf import (
    ImportOptions,
    ProfileModel,
    Wanted,
    build_profile,
    profile_from_source,
    read_sources,
)
from sagescale.perf.importers import importer_for


def vllm_lines(folder, documents):
    return write_lines(folder / "results.jsonl", documents)


def vllm_list(folder, documents):
    path = folder / "summary.json"
    path.write_text(json.dumps(documents))
    return path


def sweep_tree(folder, documents):
    root = folder / "sweep"
    for index, document in enumerate(documents):
        inner = root / f"SERVE--BENCH--{index}"
        inner.mkdir(parents=True)
        (inner / "run=0.json").write_text(json.dumps(document))
        (inner / "summary.json").write_text(json.dumps([document]))
    (root / "summary.json").write_text(json.dumps(documents))
    return root


SOURCES = {
    "vllm lines": ("vllm_bench", lambda f: vllm_lines(f, [runs.vllm(run) for run in RUNS])),
    "vllm list": ("vllm_bench", lambda f: vllm_list(f, [runs.vllm(run) for run in RUNS])),
    "vllm sweep": ("vllm_bench", lambda f: sweep_tree(f, [runs.vllm(run) for run in RUNS])),
    "sglang": ("sglang_bench", lambda f: write_lines(f / "online.jsonl", [runs.sglang(r) for r in RUNS])),
    "aiperf": (
        "aiperf",
        lambda f: write_tree(f / "a", [runs.aiperf(r) for r in RUNS], "profile_export_aiperf.json"),
    ),
    "genai-perf": (
        "aiperf",
        lambda f: write_tree(f / "a", [runs.genai_perf(r) for r in RUNS], "anything.json"),
    ),
    "guidellm": ("guidellm", lambda f: write_lines(f / "benchmarks.json", [runs.guidellm(RUNS)])),
}


@pytest.mark.parametrize("source", SOURCES)
class TestEveryFormat:
    def test_the_engine_behind_the_runs_is_found(self, source, tmp_path):
        name, write = SOURCES[source]
        path = write(tmp_path)
        assert importer_for(path, None).name == name
        profile = profile_from_source(path)
        rows = profile.decode.measured
        assert len(rows.itl_ms) == len(RUNS)
        for n, context, itl in zip(rows.concurrency, rows.context_tokens, rows.itl_ms, strict=True):
            assert itl == pytest.approx(runs.itl_ms(n, context), rel=1e-6)
        assert set(rows.context_tokens) == {250, 1100, 4050}

    def test_prefill_is_from_lone_requests_only(self, source, tmp_path):
        profile = profile_from_source(SOURCES[source][1](tmp_path))
        assert profile.prefill.isl_tokens == (200, 1000, 4000)
        assert profile.prefill.ttft_ms == pytest.approx([runs.ttft_ms(n) for n in (200, 1000, 4000)])
        assert any("TTFT of 6 loaded runs is not used" in note for note in profile.notes)

    def test_every_file_used_is_recorded(self, source, tmp_path):
        path = SOURCES[source][1](tmp_path)
        files = profile_from_source(path).source.files
        assert all(file.path.startswith(path.name) and len(file.sha256) == 64 for file in files)
        assert not any(file.path.endswith("sweep/summary.json") for file in files)


class TestMerging:
    def test_prefill_and_decode_may_come_from_different_tools(self, tmp_path):
        lone = write_lines(tmp_path / "p.jsonl", [runs.vllm(r) for r in RUNS if r.clients == 1])
        loaded = write_lines(tmp_path / "d.json", [runs.guidellm(tuple(r for r in RUNS if r.clients > 1))])
        with pytest.raises(InputError, match=r"d.json: no prefill points .give a second source"):
            profile_from_source(loaded)
        parts = read_sources([lone, loaded], roles=("prefill", "decode"))
        profile = build_profile(parts, ImportOptions(name="x"))
        assert len(profile.prefill.isl_tokens) == 3
        assert len(profile.decode.measured.itl_ms) == 6
        assert profile.source.format == "vllm_bench + guidellm"
        assert [file.path for file in profile.source.files] == ["p.jsonl", "d.json"]

    def test_two_models_are_no_configuration(self, tmp_path):
        one = write_lines(tmp_path / "a.json", [runs.vllm(run) for run in RUNS[:5]])
        two = write_lines(
            tmp_path / "b.json", [changed(runs.vllm(r), "model_id", "org/other") for r in RUNS[5:]]
        )
        with pytest.raises(InputError, match=r"b.json: model: org/other .*a.json says org/m"):
            build_profile(read_sources([one, two]), ImportOptions(name="x"))
        mixed = write_lines(
            tmp_path / "c.json", [runs.vllm(RUNS[0]), changed(runs.vllm(RUNS[1]), "model_id", "n")]
        )
        with pytest.raises(InputError, match=r"c.json: line 2: model_id: 'n' .expected org/m"):
            profile_from_source(mixed)

    def test_runs_of_one_nominal_length_are_one_length(self, tmp_path):
        documents = [runs.vllm(replace(run, isl=run.isl + 2 * i)) for i, run in enumerate(RUNS)]
        profile = profile_from_source(vllm_lines(tmp_path, documents))
        assert len(set(profile.decode.measured.context_tokens)) == 3

    def test_a_sweep_over_servers_is_as_many_configurations(self, tmp_path):
        documents = [
            {**runs.vllm(run), "max_num_seqs": seqs, "tensor_parallel_size": tp}
            for run in RUNS
            for seqs, tp in ((64, 1), (128, 1), (128, 2))
        ]
        path = vllm_lines(tmp_path, documents)
        with pytest.raises(InputError, match=r"3 configurations .*--tp 1 --config 'tensor_para"):
            profile_from_source(path)
        wanted = Wanted(tensor_parallel=1, config="max_num_seqs 128")
        profile = build_profile(read_sources([path], wanted=wanted), ImportOptions(name="x"))
        assert (profile.decode.max_num_seqs, profile.tensor_parallel) == (128, 1)
        assert "max_num_seqs" not in profile.decode.assumed


class TestWhatARunMeans:
    def test_a_run_at_a_low_rate_is_a_lone_request_too(self, tmp_path):
        run = runs.vllm(RUNS[0])
        slow = {**run, "max_concurrency": None, "request_rate": 0.1, "duration": run["duration"] * 20}
        documents = [slow, *(runs.vllm(r) for r in RUNS[1:])]
        profile = profile_from_source(vllm_lines(tmp_path, documents))
        assert 200 in profile.prefill.isl_tokens
        assert min(profile.decode.measured.concurrency) == pytest.approx(1.0)

    def test_prefill_runs_of_one_output_token_give_no_decode(self, tmp_path):
        short = [
            {**runs.vllm(r), "total_output_tokens": r.completed, "mean_tpot_ms": 0.0, "median_itl_ms": 0.0}
            for r in RUNS
            if r.clients == 1
        ]
        parts = read_sources([vllm_lines(tmp_path, short)])
        assert len(parts[0].prefill) == 3
        assert parts[0].decode == ()

    def test_tokens_that_arrive_in_chunks_are_timed_one_by_one(self, tmp_path):
        documents = [{**runs.vllm(r), "mean_itl_ms": 3 * r.gap, "median_itl_ms": 3 * r.gap} for r in RUNS]
        profile = profile_from_source(vllm_lines(tmp_path, documents))
        assert profile.decode.measured.itl_ms == pytest.approx([r.gap for r in RUNS])

    def test_a_gap_with_prefill_in_it_does_not_count_as_a_step(self, tmp_path):
        documents = [{**runs.vllm(r), "mean_itl_ms": 1.1 * r.gap, "mean_tpot_ms": 1.1 * r.gap} for r in RUNS]
        profile = profile_from_source(vllm_lines(tmp_path, documents))
        assert profile.decode.measured.itl_ms == pytest.approx([r.gap for r in RUNS])

    def test_clients_that_wait_are_not_requests_that_decode(self, tmp_path):
        """Slots limit the engine to 64 whatever the client asks for; the wait shows in TTFT."""
        run = TrueRun(1000, 200, 64)
        asked = {**runs.vllm(run), "max_concurrency": 640, "median_ttft_ms": 9 * 199 * run.gap}
        profile = profile_from_source(vllm_lines(tmp_path, [*(runs.vllm(r) for r in RUNS), asked]))
        assert max(profile.decode.measured.concurrency) < 66
        assert any("640 clients, 6" in note and "line 10" in note for note in profile.notes)

    def test_the_model_runs_on_what_was_imported(self, tmp_path):
        model = ProfileModel(profile_from_source(vllm_lines(tmp_path, [runs.vllm(r) for r in RUNS])))
        assert model.itl_ms(20, 1100) == pytest.approx(runs.itl_ms(20, 1100), rel=0.02)
        assert model.ttft_ms(600) == pytest.approx(runs.ttft_ms(600), rel=0.02)


def refused(path, message):
    with pytest.raises(InputError, match=message) as caught:
        profile_from_source(path)
    assert "\n" not in str(caught.value)


class TestRefusals:
    @pytest.mark.parametrize(
        ("key", "value", "message"),
        [
            ("failed", 500000, r"line 4: 500000 of .* requests failed.*expected at most 10%"),
            (
                "num_prompts",
                10**6,
                r"line 4: .* of 1000000 requests failed, were cancelled or did not finish",
            ),
            ("completed", 0, "line 4: no request completed"),
            ("errors", ["", "timeout"] * 100000, "line 4: 100000 of .* requests failed"),
            ("median_ttft_ms", float("nan"), r"line 4: median_ttft_ms: nan .expected a number > 0"),
            (
                "median_ttft_ms",
                2e6,
                r"median_ttft_ms: 2000000.0 .expected at most the run's duration",
            ),
            ("mean_tpot_ms", "7", r"line 4: mean_tpot_ms: '7' .expected a number > 0"),
            ("mean_tpot_ms", ..., "line 4: mean_tpot_ms: missing"),
            ("duration", 0, r"line 4: duration: 0 .expected a number > 0"),
            ("duration", -1, "line 4: duration: -1"),
            ("duration", ..., "line 4: duration: missing"),
            ("total_input_tokens", True, "line 4: total_input_tokens: True"),
            (
                "max_concurrency",
                10**6,
                r"line 4: .*requests at a time, with 1e\+06 clients .expected",
            ),
        ],
    )
    def test_a_bad_vllm_run_is_named(self, tmp_path, key, value, message):
        documents = [runs.vllm(run) for run in RUNS]
        documents[3] = changed(documents[3], key, value)
        if key == "mean_tpot_ms" and value is ...:
            del documents[3]["median_tpot_ms"]
        refused(vllm_lines(tmp_path, documents), message)

    def test_seconds_are_not_milliseconds(self, tmp_path):
        documents = [runs.vllm(run) for run in RUNS]
        for key in ("median_ttft_ms", "mean_tpot_ms", "median_tpot_ms", "median_itl_ms", "mean_itl_ms"):
            documents[5][key] /= 1000
        refused(vllm_lines(tmp_path, documents), r"line 6: .*are the times in the units they should be")

    @pytest.mark.parametrize(
        ("key", "value", "message"),
        [
            ("was_cancelled", True, "run4/e.json: the run was cancelled"),
            ("error_summary", [{"count": 900000, "error_details": {}}], "900000 of .* requests failed"),
            ("error_request_count", {"unit": "requests", "avg": 900000}, "900000 of .* requests failed"),
            ("request_count.avg", 0, "no request completed"),
            (
                "time_to_first_token.unit",
                "fortnights",
                r"time_to_first_token.unit: 'fortnights' .expected one",
            ),
            ("time_to_first_token.unit", ..., "time_to_first_token.unit: missing"),
            ("inter_token_latency.unit", "tokens", "inter_token_latency.unit: 'tokens'"),
            ("time_to_first_token", ..., r"time_to_first_token: missing .expected a run with --streaming"),
            ("request_throughput.avg", None, r"request_throughput.avg: missing"),
            ("time_to_first_token.unit", "ms", "are the times in the units they should be"),
        ],
    )
    def test_a_bad_aiperf_run_is_named(self, tmp_path, key, value, message):
        documents = [runs.aiperf(run) for run in RUNS]
        documents[4] = changed(documents[4], key, value)
        if key == "time_to_first_token.unit" and value == "ms":
            documents[4]["inter_token_latency"]["unit"] = "ns"
            documents[4]["inter_token_latency"]["avg"] /= 1e3
        refused(write_tree(tmp_path / "a", documents, "e.json"), message)

    def test_summaries_over_runs_are_refused_by_name_and_by_shape(self, tmp_path):
        for name in ("profile_export_aiperf_aggregate.json", "profile_export_aiperf_collated.json"):
            path = write_lines(tmp_path / name, [runs.aiperf(RUNS[0])])
            refused(path, f"{name}: a summary over runs .expected the runs' own")
        renamed = tmp_path / "mine.json"
        renamed.write_text(json.dumps({"metadata": {"aggregation_type": "confidence"}, "metrics": {}}))
        refused(renamed, "mine.json: a summary over runs")

    def test_a_summary_beside_its_runs_is_passed_over(self, tmp_path):
        root = write_tree(tmp_path / "a", [runs.aiperf(run) for run in RUNS], "profile_export_aiperf.json")
        write_lines(root / "profile_export_aiperf_aggregate.json", [runs.aiperf(RUNS[0])])
        assert len(profile_from_source(root).source.files) == len(RUNS)

    @pytest.mark.parametrize(
        ("key", "value", "message"),
        [
            ("metadata.version", 3, r"metadata.version: 3.* .expected 1 or 2"),
            ("benchmarks", [], r"benchmarks: \[\] .expected at least one run"),
            ("benchmarks.2.metrics.request_totals.errored", 900000, "benchmark 2: 900000 of"),
            ("benchmarks.2.metrics.request_totals.incomplete", 900000, "benchmark 2: 899936 of"),
            (
                "benchmarks.2.metrics.time_to_first_token_ms.successful.median",
                0,
                "benchmark 2: metrics.time_to",
            ),
            (
                "benchmarks.2.metrics.inter_token_latency_ms",
                ...,
                "benchmark 2: metrics.inter_token_latency_ms: mi",
            ),
        ],
    )
    def test_a_bad_guidellm_run_is_named(self, tmp_path, key, value, message):
        refused(write_lines(tmp_path / "b.json", [changed(runs.guidellm(RUNS), key, value)]), message)

    def test_too_few_lengths_and_loads_are_refused(self, tmp_path):
        two = [runs.vllm(run) for run in RUNS if run.isl != 200]
        refused(vllm_lines(tmp_path, two), "2 prompt lengths measured alone .expected at least 3")
        lone = [runs.vllm(run) for run in RUNS if run.clients == 1]
        refused(vllm_lines(tmp_path, lone), "1 concurrencies at 3 contexts .expected at least 2 by 2")
        loaded = [runs.vllm(run) for run in RUNS if run.clients > 1]
        refused(vllm_lines(tmp_path, loaded), "no prefill points")

    def test_a_truncated_file_says_where_it_ends(self, tmp_path):
        whole = json.dumps(runs.vllm(RUNS[0]), indent=2)
        path = tmp_path / "cut.json"
        path.write_text(whole[: len(whole) // 2])
        refused(path, r"cut.json: .*line \d+ column \d+")
        lines = write_lines(tmp_path / "cut.jsonl", [runs.sglang(run) for run in RUNS])
        lines.write_text(lines.read_text()[:-200])
        refused(lines, r"cut.jsonl: line 9: .*expected JSON")
