"""Engines that are not what the planner was given: ``--actual-profile``."""

from __future__ import annotations

import dataclasses
import json

import pytest
from sagescale.errors import InputError
from sagescale.perf import estimate_of, load_profile
from sagescale.planner import AutoscalerConfig
from sagescale.sim.config import SimulatorConfig
from sagescale.sim.result import run_document
from sagescale.sim.simulate import simulate
from sagescale.trace import TransformSpec, apply_transforms, read_trace

TRUE = load_profile("h200-llama-3.1-8b-fp8")
SIMULATOR = SimulatorConfig()
ONE_GPU = {"prefill_gpus_per_instance": 1, "decode_gpus_per_instance": 1}


def slower(profile, by):
    """The engines of a profile, every time multiplied."""
    prefill, decode = profile.prefill, profile.decode
    return dataclasses.replace(
        profile,
        prefill=dataclasses.replace(
            prefill,
            ttft_ms=tuple(ms * by for ms in prefill.ttft_ms),
            quadratic_ms=prefill.quadratic_ms * by,
            floor_ms=None if prefill.floor_ms is None else prefill.floor_ms * by,
        ),
        decode=dataclasses.replace(
            decode, itl_ms=tuple(tuple(ms * by for ms in row) for row in decode.itl_ms)
        ),
    )


@pytest.fixture(scope="module")
def ramp():
    return apply_transforms(read_trace("ramp"), TransformSpec(rate_scale=6.0))


def test_a_world_that_is_as_told_changes_nothing(ramp):
    config = AutoscalerConfig(**ONE_GPU)
    told = simulate(ramp, TRUE, config, SIMULATOR)
    same = simulate(ramp, TRUE, config, SIMULATOR, world=TRUE)
    assert (told.requests == same.requests).all()
    assert [tick.decision for tick in told.ticks] == [tick.decision for tick in same.ticks]


def test_requests_are_served_by_the_world_and_sized_for_by_the_profile(ramp):
    blind = AutoscalerConfig(**ONE_GPU, enable_online_learning=False, no_operation=True)
    run = simulate(ramp, TRUE, blind, SIMULATOR, world=slower(TRUE, 1.5))
    as_told = simulate(ramp, TRUE, blind, SIMULATOR)
    assert run.initial == as_told.initial
    document, expected = run_document(run, "x"), run_document(as_told, "x")
    assert document.itl_ms.p50 > 1.4 * expected.itl_ms.p50
    for point in document.surfaces.ttft + document.surfaces.itl:
        assert point.learned_ms == point.told_ms
        assert point.true_ms == pytest.approx(1.5 * point.told_ms)


def test_what_is_learned_comes_nearer_to_the_truth(ramp):
    document = run_document(
        simulate(ramp, TRUE, AutoscalerConfig(**ONE_GPU), SIMULATOR, world=slower(TRUE, 1.5)), "x"
    )
    wrong = [abs(point.learned_ms / point.true_ms - 1) for point in document.surfaces.itl]
    assert sum(wrong) / len(wrong) < 0.15


def test_instances_of_other_gpus_are_refused(ramp):
    with pytest.raises(InputError, match="4 GPUs of prefill and 4 of decode instances; expected 1 and 1"):
        simulate(
            ramp,
            TRUE,
            AutoscalerConfig(**ONE_GPU),
            SIMULATOR,
            world=load_profile("h100-llama-3.3-70b-fp8-tp4"),
        )


@pytest.mark.parametrize("pool", ["prefill", "decode"])
def test_a_configuration_of_other_gpus_is_refused_as_on_the_command_line(ramp, pool):
    key = f"{pool}_gpus_per_instance"
    config = AutoscalerConfig(**{**ONE_GPU, key: 4})
    with pytest.raises(InputError, match=f"{key} is 4 but the instances of profile {TRUE.name} have 1 GPUs"):
        simulate(ramp, TRUE, config, SIMULATOR)


@pytest.mark.parametrize(
    "name", ["h100-llama-3.3-70b-fp8-tp2", "h200-llama-3.1-8b-bf16", "h200-llama-3.1-8b-fp8"]
)
def test_a_profiled_engine_is_estimated_from_its_identity_and_limits_alone(name):
    true = load_profile(name)
    guess = estimate_of(true)
    assert guess.is_estimate
    assert guess == estimate_of(slower(true, 3.0))
    assert guess.decode.max_num_seqs == true.decode.max_num_seqs
    assert true.decode.max_kv_tokens in (None, guess.decode.max_kv_tokens)
    assert guess.prefill.gpus_per_instance == true.prefill.gpus_per_instance


def test_an_engine_that_is_not_known_is_not_estimated():
    with pytest.raises(InputError, match=r"model 'Foo-1B' on 'h200' is not one of those known.*--profile"):
        estimate_of(dataclasses.replace(TRUE, model="Foo-1B"))
    with pytest.raises(InputError, match=r"Llama-3\.1-8Bx"):
        estimate_of(dataclasses.replace(TRUE, model="Llama-3.1-8Bx"))


@pytest.mark.parametrize(("scale", "sla"), [(4, []), (8, []), (8, ["load_headroom=1.3"])])
def test_with_no_profile_a_recorded_hour_is_served_as_with_the_true_one(shared, tmp_path, scale, sla):
    from sagescale.cli.app import app
    from typer.testing import CliRunner

    found = []
    for option in ("--profile", "--actual-profile"):
        out = tmp_path / f"{option}.json"
        trace = shared / "traces" / "azure_llm_2023_conv.csv"
        words = ["simulate", trace, "--rate-scale", scale, option, TRUE.name, "--json", out]
        words += [word for key in sla for word in ("--set", key)]
        result = CliRunner().invoke(app, [str(word) for word in words])
        assert result.exit_code == 0, result.output
        found.append((json.loads(out.read_text()), result.output))
    (true, _), (learned, shown) = found
    assert learned["profile"]["name"].startswith("estimate-h200-llama-3.1-8b-fp8")
    assert learned["world"] == true["profile"]
    attained, reached = (one["runs"][0]["sla"]["attainment"] for one in (true, learned))
    assert attained >= 0.95
    assert reached >= attained - 0.05
    spent, needed = (one["runs"][0]["gpu_hours"]["total"] for one in (learned, true))
    assert spent <= 1.25 * needed
    assert "error of learned" in shown


def test_the_former_name_of_the_option_still_works_but_not_beside_the_new_one(tmp_path):
    from sagescale.cli.app import app
    from typer.testing import CliRunner

    trace = tmp_path / "trace.csv"
    trace.write_text("arrival_s,isl,osl\n0,100,10\n1,100,10\n")
    words, found = ["simulate", str(trace), "--profile", TRUE.name], []
    for option in ("--actual-profile", "--world"):
        out = tmp_path / "out.json"
        result = CliRunner().invoke(app, [*words, option, TRUE.name, "--json", str(out)])
        assert result.exit_code == 0, result.output
        found.append(json.loads(out.read_text())["world"]["name"])
    assert found == [TRUE.name] * 2
    both = CliRunner().invoke(app, [*words, "--world", TRUE.name, "--actual-profile", TRUE.name])
    assert both.exit_code != 0
    assert "--world is the former name of --actual-profile" in str(both.exception)
