"""CSV sources: splitwise-sim's measurements and aiconfigurator's predictions."""

from __future__ import annotations

import csv

import pytest
from perf_runs import itl_ms, ttft_ms
from sagescale.errors import InputError
from sagescale.perf import ImportOptions, Wanted, build_profile, profile_from_source, read_sources
from sagescale.perf.importers import importer_for

SPLITWISE = (
    *("model", "hardware", "prompt_size", "batch_size", "token_size", "peak_power", "average_power"),
    *("prompt_time", "token_time", "e2e_time", "tensor_parallel"),
)


def write(path, rows):
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def splitwise_row(prompt, batch, tokens, *, generated=None, model="m", hardware="h100", tp=2, **changes):
    prompt_ms = ttft_ms(prompt) * batch
    token_ms = itl_ms(batch, prompt + (generated or tokens) / 2)
    values = (model, hardware, prompt, batch, tokens, 1.0, 0.5, prompt_ms, token_ms)
    row = dict(zip(SPLITWISE, values, strict=False))
    return {**row, "e2e_time": prompt_ms + token_ms * (generated or tokens), "tensor_parallel": tp, **changes}


def splitwise_rows(**identity):
    """One factor at a time around 512 tokens, batch 1, 128 generated."""
    points = [
        *((prompt, 1, 128) for prompt in (128, 512, 2048, 8192)),
        *((512, batch, 128) for batch in (2, 8, 32)),
    ]
    return [splitwise_row(*point, **identity) for point in points for _ in range(2)]


class TestSplitwise:
    def test_rows_become_one_point_for_each_operating_point(self, tmp_path):
        path = write(tmp_path / "any.txt", splitwise_rows())
        assert importer_for(path, None).name == "splitwise"
        profile = profile_from_source(path)
        assert (profile.model, profile.gpu, profile.tensor_parallel) == ("m", "h100", 2)
        assert profile.decode.gpus_per_instance == 2
        assert profile.prefill.isl_tokens == (128, 512, 2048, 8192)
        rows = profile.decode.measured
        assert len(rows.itl_ms) == 7
        for n, context, itl in zip(rows.concurrency, rows.context_tokens, rows.itl_ms, strict=True):
            assert itl == pytest.approx(itl_ms(n, context), rel=1e-6)

    def test_a_batch_measures_the_batch_formula_not_the_lone_prompt(self, tmp_path):
        profile = profile_from_source(write(tmp_path / "a.csv", splitwise_rows()))
        assert profile.prefill.batch_error is not None
        assert profile.prefill.batch_error.n == 3

    def test_context_counts_the_tokens_that_were_generated(self, tmp_path):
        stopped = splitwise_row(512, 1, 8192, generated=1000)
        profile = profile_from_source(write(tmp_path / "a.csv", [*splitwise_rows(), stopped]))
        assert max(c for c in profile.decode.measured.context_tokens if c < 2000) == 1012
        assert any("1 of 15 rows stopped generating early" in note for note in profile.notes)

    def test_a_batch_that_ran_in_parts_is_left_out_and_said(self, tmp_path):
        split = splitwise_row(512, 64, 128, e2e_time=1e6)
        profile = profile_from_source(write(tmp_path / "a.csv", [*splitwise_rows(), split]))
        assert max(profile.decode.measured.concurrency) == 32
        assert any("batch 64 of 512 + 128 tokens" in note for note in profile.notes)

    @pytest.mark.parametrize(
        ("wanted", "message"),
        [
            (
                Wanted(),
                r"4 configurations .choose one of: --model bloom --gpu a100, --model bloom",
            ),
            (
                Wanted(model="bloom"),
                r"2 configurations .choose one of: --model bloom --gpu a100, --model bl",
            ),
            (Wanted(model="gpt"), r"no configuration with --model gpt .expected one of: --model bloom"),
            (Wanted(model="llama", tensor_parallel=4), "no configuration with --model llama --tp 4"),
        ],
    )
    def test_an_ambiguous_choice_lists_the_configurations(self, tmp_path, wanted, message):
        rows = [
            row
            for model, gpu in (
                ("llama", "h100"),
                ("llama", "h100-pcap"),
                ("bloom", "a100"),
                ("bloom", "h100"),
            )
            for row in splitwise_rows(model=model, hardware=gpu)
        ]
        path = write(tmp_path / "a.csv", rows)
        with pytest.raises(InputError, match=message):
            read_sources([path], wanted=wanted)

    def test_a_whole_word_is_chosen_before_its_longer_neighbours(self, tmp_path):
        rows = [*splitwise_rows(hardware="h100"), *splitwise_rows(hardware="h100-pcap")]
        (chosen,) = read_sources([write(tmp_path / "a.csv", rows)], wanted=Wanted(gpu="H100"))
        assert chosen.gpu == "h100"

    def test_mixed_units_and_bad_cells_are_named_by_line(self, tmp_path):
        seconds = [{**row, "e2e_time": row["e2e_time"] / 1000} for row in splitwise_rows()]
        with pytest.raises(InputError, match=r"line 2: e2e_time is not .*wrong units. expected milliseconds"):
            profile_from_source(write(tmp_path / "a.csv", seconds))
        bad = [*splitwise_rows(), splitwise_row(512, 1, 128, token_time="nan")]
        with pytest.raises(InputError, match=r"b.csv: line 16: token_time: 'nan' .expected a number > 0"):
            profile_from_source(write(tmp_path / "b.csv", bad))
        half = write(tmp_path / "c.csv", splitwise_rows())
        half.write_text(half.read_text()[:-30])
        with pytest.raises(InputError, match=r"c.csv: line 15: 9 cells .expected 11"):
            profile_from_source(half)

    def test_the_real_table_imports_every_configuration(self, shared):
        path = shared / "profiles" / "splitwise_perf_model.csv"
        found = importer_for(path, None).read(path)
        assert len(found) == 12
        for one in found:
            profile = build_profile([one], ImportOptions(name="x"))
            assert profile.prefill.fit_error.max < 0.12
            assert profile.decode.fit_error.median < 0.05


def aggregated_row(isl, osl, n, *, tp=1, **changes):
    tpot = itl_ms(n, isl + osl / 2)
    return {
        "model": "QWEN3_32B",
        "isl": isl,
        "osl": osl,
        "concurrency": n,
        "bs": n,
        "ttft": ttft_ms(isl) * (1 if n == 1 else 2),
        "tpot": tpot,
        "tokens/s/gpu": n / tpot * 1000 / tp,
        "tp": tp,
        "pp": 1,
        "dp": 1,
        "backend": "trtllm",
        "version": "1.0.0",
        "system": "h200_sxm",
        **changes,
    }


def disaggregated_row(isl, osl, n, p_batch, *, workers=(2, 1)):
    roles = {
        f"({role}){name}": value
        for role, tp in zip("pd", workers, strict=True)
        for name, value in (("tp", tp), ("pp", 1), ("dp", 1), ("system", "h200_sxm"), ("backend", "vllm"))
    }
    return {
        "model": "QWEN3_32B",
        "isl": isl,
        "osl": osl,
        "concurrency": 4 * n,
        "(p)bs": p_batch,
        "(d)bs": n,
        "(d)workers": 4,
        "ttft": ttft_ms(isl) * p_batch,
        "tpot": itl_ms(n, isl + osl / 2),
        **roles,
    }


class TestAiconfigurator:
    GRID = tuple((isl, 100, n) for isl in (500, 1000, 4000) for n in (1, 8, 64))

    def test_aggregated_rows_are_one_engine(self, tmp_path):
        path = write(tmp_path / "pareto.csv", [aggregated_row(*point) for point in self.GRID])
        assert importer_for(path, None).name == "aiconfigurator"
        profile = profile_from_source(path)
        assert profile.prefill.ttft_ms == pytest.approx([ttft_ms(n) for n in (500, 1000, 4000)])
        assert (profile.gpu, profile.engine, profile.engine_version) == ("h200_sxm", "trtllm", "1.0.0")
        rows = profile.decode.measured
        for n, context, itl in zip(rows.concurrency, rows.context_tokens, rows.itl_ms, strict=True):
            assert itl == pytest.approx(itl_ms(n, context), rel=1e-6)
        assert any("predicted by a tool, not measured" in note for note in profile.notes)

    def test_disaggregated_rows_are_two_workers(self, tmp_path):
        rows = [disaggregated_row(*point, batch) for point in self.GRID for batch in (1, 4)]
        profile = profile_from_source(write(tmp_path / "d.csv", rows))
        assert (profile.prefill.gpus_per_instance, profile.decode.gpus_per_instance) == (2, 1)
        assert profile.prefill.isl_tokens == (500, 1000, 4000)
        assert profile.prefill.batch_error.n == 3
        assert sorted(set(profile.decode.measured.concurrency)) == [1, 8, 64]

    def test_parallelism_tells_configurations_apart(self, tmp_path):
        rows = [
            aggregated_row(*point, tp=tp, moe_ep=ep)
            for point in self.GRID
            for tp, ep in ((1, 1), (2, 1), (2, 2))
        ]
        path = write(tmp_path / "a.csv", rows)
        with pytest.raises(InputError, match=r"3 configurations .*: --tp 1, --tp 2 --config '.*moe_ep 1"):
            profile_from_source(path)
        (one,) = read_sources([path], wanted=Wanted(tensor_parallel=2, config="moe_ep 2"))
        assert one.decode_gpus == 2

    def test_throughput_that_contradicts_concurrency_is_refused(self, tmp_path):
        rows = [aggregated_row(*point) for point in self.GRID]
        rows[3]["tpot"] /= 1000
        with pytest.raises(InputError, match=r"line 5: concurrency: 1 .throughput x tpot gives 0.0"):
            profile_from_source(write(tmp_path / "a.csv", rows))
        with pytest.raises(InputError, match=r"line 2: osl: '' .expected a number > 0"):
            profile_from_source(write(tmp_path / "b.csv", [{**rows[0], "osl": ""}]))
