"""Keys that contradict the engines' scheduler are refused in one line, wherever they are given."""

from __future__ import annotations

import dataclasses

import pytest
from sagescale.errors import InputError
from sagescale.live.setup import configured
from sagescale.perf import ProfileModel, aggregated_engines, compile_steps, load_profile


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (["prefix_cache=true"], "prefix_cache is true but engine_scheduler is batch where serving is dis"),
    ],
)  # fmt: skip
def test_keys_of_another_scheduler_are_refused(keys, expected):
    with pytest.raises(InputError, match=expected) as refused:
        configured(None, [], keys)
    assert "\n" not in str(refused.value)


def test_a_lone_prompt_takes_the_steps_that_it_needs():
    engines = aggregated_engines(load_profile("h200-llama-3.1-8b-fp8"), 2048)
    steps, model = compile_steps(engines.aggregated), ProfileModel(engines)
    assert model.ttft_ms(512) == pytest.approx(steps.step_ms(0, 0, 0, [(512, 0)]))
    three = [steps.step_ms(0, 0, 0, [(2048, done)]) for done in (0, 2048, 4096, 6144)]
    assert model.ttft_ms(8192) == pytest.approx(sum(three))
    assert model.itl_ms(8, 1000) == pytest.approx(steps.step_ms(8, 8000, 1000))
    assert aggregated_engines(engines, 2048) is engines


def test_engines_of_other_gpus_for_prefill_are_no_aggregated_engine():
    profile = load_profile("h200-llama-3.1-8b-fp8")
    two = dataclasses.replace(profile.prefill, gpus_per_instance=2)
    unlike = dataclasses.replace(profile, prefill=two)
    with pytest.raises(InputError, match="prefill instances have 2 GPUs and decode ones 1"):
        aggregated_engines(unlike, 2048)
