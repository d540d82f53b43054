"""Calibration of aggregated instances: factors found again, gaps judged, options of the other way refused."""

from __future__ import annotations

import dataclasses

import pytest
from experiment_world import asked, calibration, write_log
from sagescale.errors import InputError
from sagescale.experiment.calibrate import calibrate, padding_candidates
from sagescale.experiment.replay import PoolSizes, replay
from sagescale.experiment.served import ServedLog, read_served
from sagescale.experiment.served_steps import StepFactors, apply_step_factors
from sagescale.perf import load_profile
from sagescale.sim.config import SimulatorConfig
from typer.testing import CliRunner

NAME = "h100-llama-3.1-8b-bf16-agg"
BASE = load_profile(NAME)
PADDED = padding_candidates(BASE)[1]
WORLD = SimulatorConfig()
ONE = PoolSizes.of_aggregated(1)
TRUTH = StepFactors(chunk_scale=1.07, decode_scale=0.94, spread_scale=1.2, padded_batch_sizes=PADDED)


def served(count: int = 700, per_s: float = 7.0, factors: StepFactors = TRUTH) -> ServedLog:
    """A log as an engine with these factors would have written it."""
    empty = asked(count, per_s, 1, (6.8, 0.7, 16, 7000), (5.0, 0.8, 1, 900))
    run = replay(empty, apply_step_factors(BASE, factors), ONE, WORLD)
    return dataclasses.replace(
        empty, first_token_s=run.first_token_s, done_s=run.done_s, gap_max_ms=run.gap_max_ms
    )


@pytest.fixture(scope="module")
def log():
    return served()


def test_known_factors_are_found_again(log):
    result = calibrate(BASE, log, ONE, WORLD, paddings=(PADDED,))
    assert result.good
    assert result.factors.chunk_scale == pytest.approx(1.07, abs=0.015)
    assert result.factors.decode_scale == pytest.approx(0.94, abs=0.02)
    assert result.factors.spread_scale == pytest.approx(1.2, abs=0.25)
    assert [error.name for error in result.errors] == [
        "TTFT p50", "TTFT p90", "TTFT p99", "ITL mean", "largest gap p50", "largest gap p90"
    ]  # fmt: skip
    assert all(abs(error.after) < 0.03 for error in result.errors)
    assert max(abs(error.before) for error in result.errors) > 0.05


def test_factors_of_one_leave_the_section_as_it_is():
    same = apply_step_factors(BASE, StepFactors(1.0, 1.0, 1.0, ())).aggregated
    assert same == dataclasses.replace(BASE.aggregated, fit_error=None, step_errors=())


def test_a_log_without_gaps_is_judged_without_them(log):
    result = calibrate(BASE, dataclasses.replace(log, gap_max_ms=None), ONE, WORLD, paddings=(PADDED,))
    assert {error.latency for error in result.errors} == {"ttft", "itl"}


def test_the_measured_engine_is_predicted(shared):
    """Fitted to the first half of the log, judged on the second."""
    served_log = read_served(shared / "profiles" / "h100_agg_measured" / "conv_mid_requests.csv")
    result = calibrate(BASE, served_log, ONE, WORLD)
    assert result.good
    assert result.factors.padded_batch_sizes == PADDED
    errors = {error.name: error.after for error in result.errors}
    assert max(abs(errors[f"TTFT p{percentile}"]) for percentile in (50, 90, 99)) < 0.05
    assert abs(errors["ITL mean"]) < 0.04
    for gap in ("p99 gap", "largest gap"):
        assert max(abs(errors[f"{gap} p{percentile}"]) for percentile in (50, 90)) < 0.06


def test_the_command_takes_the_way_the_profile_was_measured_for(log, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_log(log, tmp_path / "log.csv")
    shown = CliRunner().invoke(calibration(), [NAME, "--requests", "log.csv", "--out", "new.yaml"])
    assert shown.exit_code == 0, shown.output
    assert "steps with chunks" in shown.output
    profile = load_profile("new.yaml")
    assert profile.prefill.ttft_ms == pytest.approx(BASE.prefill.ttft_ms, rel=1e-8)
    assert profile.aggregated.tokens_ms[0] == pytest.approx(1.07 * BASE.aggregated.tokens_ms[0], rel=0.02)
    assert "--serving aggregated" in profile.source.command
    assert any(note.startswith("calibration: largest gap p50") for note in profile.notes)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--serving", "both"], "--serving 'both' (expected aggregated or disaggregated)"),
        (["--serving", "aggregated", "--prefill", "2"], "--prefill: is of separate pools"),
        (["--set", "serving=aggregated", "--decode", "2"], "--decode: is of separate pools"),
        (["--serving", "disaggregated", "--instances", "2"], "--instances: is of aggregated serving"),
    ],
)
def test_options_of_the_other_way_are_refused(log, tmp_path, words, message):
    path = write_log(log, tmp_path / "log.csv")
    result = CliRunner().invoke(
        calibration(), [NAME, "--requests", str(path), "--out", str(tmp_path / "new.yaml"), *words]
    )
    assert isinstance(result.exception, InputError)
    assert message in str(result.exception)
