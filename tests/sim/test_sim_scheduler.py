"""Keys that contradict the engines' scheduler are refused in one line, wherever they are given."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from sagescale.errors import InputError
from sagescale.live.setup import configured
from sagescale.perf import ProfileModel, aggregated_engines, compile_steps, load_profile
from sagescale.sim.config import SimulatorConfig
from sagescale.sim.unused import unused_warnings
from sagescale.sim.world import computed_tokens
from sagescale.trace import Prefixes, Trace

PLAIN = Trace.from_arrays([0.0, 1.0], [64, 100], [4, 4])
HASHED = dataclasses.replace(PLAIN, prefixes=Prefixes.of([(1, 2), (1, 3)], 16))
RECORDED = dataclasses.replace(HASHED, cached_tokens=np.array([0, 16], np.int32))


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (["prefix_cache=true"], "prefix_cache is true but engine_scheduler is batch where serving is dis"),
        (["engine_scheduler=vllm", "prefix_cache=true", "prefix_hit_rate=0.5"], "but prefix_cache is true;"),
    ],
)  # fmt: skip
def test_keys_of_another_scheduler_are_refused(keys, expected):
    with pytest.raises(InputError, match=expected) as refused:
        configured(None, [], keys)
    assert "\n" not in str(refused.value)


def unused(trace: Trace, *runs: str) -> list[str]:
    """What is said of runs with such keys."""
    found = [configured(None, [], keys.split()) for keys in runs]
    return unused_warnings(trace, [(one.config, one.simulator) for one in found])


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ("serving=aggregated first_token=decode", "serving is aggregated"),
        ("serving=aggregated kv_transfer_latency_ms=5000", "serving is aggregated"),
        ("serving=aggregated join_ms_per_1k_tokens=1", "serving is aggregated"),
        ("serving=aggregated initial_decode=2", "serving is aggregated"),
        ("initial_instances=2", "serving is disaggregated"),
        ("max_batched_tokens=4096", "engine_scheduler is batch"),
        ("mixed_chunk=true", "engine_scheduler is batch"),
        ("engine_scheduler=vllm mixed_chunk=true", "engine_scheduler is vllm"),
        ("engine_scheduler=sglang reserve_full_isl=false", "engine_scheduler is sglang"),
        ("router_temperature=1", "routing_strategy is load_balanced"),
        ("routing_strategy=prefix_affinity overlap_credit=2", "routing_strategy is prefix_affinity"),
        ("routing_strategy=round_robin router_staleness_s=5", "routing_strategy is round_robin"),
        ("serving=aggregated prefix_cache=true", "the trace has no hashes of its prompts' blocks"),
    ],
)
def test_a_key_without_effect_is_said(keys, why):
    key = keys.split()[-1].partition("=")[0]
    assert unused(PLAIN, keys) == [f"{key} has no effect: {why}"]


@pytest.mark.parametrize(
    "keys",
    [
        "first_token=decode kv_transfer_latency_ms=5 initial_decode=2",
        "serving=aggregated initial_instances=2 max_batched_tokens=4096 reserve_full_isl=false",
        "engine_scheduler=sglang mixed_chunk=true chunked_prefill=false",
        "routing_strategy=kv_aware router_temperature=1 overlap_credit=2 prefill_load_scale=2",
        "prefix_hit_rate=0.5",
    ],
)
def test_nothing_is_said_of_keys_that_have_an_effect(keys):
    assert unused(PLAIN, keys) == []


def test_a_key_that_some_run_of_a_comparison_uses_is_no_mistake():
    key = "kv_transfer_latency_ms=5"
    assert unused(PLAIN, key, f"{key} serving=aggregated") == []
    assert unused(PLAIN, "", f"{key} serving=aggregated") == [
        "kv_transfer_latency_ms has no effect: serving is aggregated"
    ]


def test_simulated_caches_alone_say_what_they_hold():
    caches = SimulatorConfig(engine_scheduler="vllm", prefix_cache=True)
    assert computed_tokens(HASHED, caches).tolist() == [64, 100]
    assert computed_tokens(RECORDED, caches).tolist() == [64, 100]
    (line,) = unused(RECORDED, "serving=aggregated prefix_cache=true")
    assert line.startswith("the trace's cached_tokens are not used")


def test_a_given_hit_rate_is_of_traces_that_do_not_say():
    half = SimulatorConfig(prefix_hit_rate=0.5)
    assert computed_tokens(PLAIN, half).tolist() == computed_tokens(HASHED, half).tolist() == [32, 50]
    assert computed_tokens(RECORDED, half).tolist() == [64, 84]
    (line,) = unused(HASHED, "prefix_hit_rate=0.5")
    assert "prefix_hit_rate does not go by them" in line
    assert unused(RECORDED, "prefix_hit_rate=0.5") == [
        "prefix_hit_rate has no effect: the trace has cached_tokens"
    ]


def test_aggregated_engines_hand_nothing_over_that_could_be_assumed():
    profile = load_profile("h200-llama-3.1-8b-fp8")
    assert any("kv_transfer" in words for words in profile.assumed)
    assert not any("kv_transfer" in words for words in aggregated_engines(profile, 2048).assumed)


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
