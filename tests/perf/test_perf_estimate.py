"""Roofline estimates: arithmetic that can be checked by hand, and near what was measured."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sagescale.errors import InputError
from sagescale.perf import ProfileModel, load_profile, profile_to_yaml, read_profile
from sagescale.perf.catalogue import GPUS, MODELS, find_gpu, find_model
from sagescale.perf.roofline import Assumptions, estimate_profile
from sagescale.perf.validate import decode_error, prefill_error

LLAMA, H200 = MODELS["Llama-3.1-8B"], GPUS["h200"]
PERFECT = Assumptions(
    compute_efficiency=1,
    attention_efficiency=1,
    memory_efficiency=1,
    step_ms_per_layer=0,
    request_ms=0,
    launch_ms_per_layer=0,
)

# As their model cards state, in 10^9; Qwen3-30B-A3B activates 3.3 and Mixtral-8x7B 12.9 of theirs.
STATED = {
    "Llama-3.1-8B": 8.03,
    "Llama-3.3-70B": 70.6,
    "Llama-3.1-405B": 406,
    "Qwen2.5-7B": 7.61,
    "Qwen2.5-14B": 14.7,
    "Qwen2.5-32B": 32.5,
    "Qwen2.5-72B": 72.7,
    "Qwen3-8B": 8.2,
    "Qwen3-14B": 14.8,
    "Qwen3-32B": 32.8,
    "Qwen3-30B-A3B": 30.5,
    "Mistral-7B-v0.3": 7.25,
    "Mixtral-8x7B": 46.7,
}


class TestCatalogue:
    def test_shapes_add_up_to_the_parameters_that_are_stated(self):
        assert MODELS.keys() == STATED.keys()
        for name, billions in STATED.items():
            assert MODELS[name].parameters / 1e9 == pytest.approx(billions, rel=0.01)
        assert MODELS["Qwen3-30B-A3B"].active_parameters / 1e9 == pytest.approx(3.3, rel=0.02)
        assert MODELS["Mixtral-8x7B"].active_parameters / 1e9 == pytest.approx(12.9, rel=0.01)

    def test_names_are_found_as_people_write_them(self):
        assert find_model("meta-llama/llama-3.1-8B-Instruct") is LLAMA
        assert find_gpu("H200") is H200
        with pytest.raises(InputError, match=r"model 'Llama-3.1-9B': .*did you mean 'Llama-3.1-8B'"):
            find_model("Llama-3.1-9B")
        with pytest.raises(InputError, match=r"GPU 'h20': not known .*did you mean 'h200'"):
            find_gpu("h20")

    @pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
    @pytest.mark.parametrize("gpu", GPUS.values(), ids=GPUS)
    def test_every_model_on_every_gpu_is_a_profile_or_too_large(self, model, gpu):
        if model.parameters > gpu.memory_gib * 0.85 * 2**30 * 4:
            with pytest.raises(InputError, match="raise --tp"):
                estimate_profile(model, gpu, precision="bf16", tensor_parallel=2)
        else:
            profile = estimate_profile(model, gpu, precision="fp8", tensor_parallel=4)
            assert profile.decode.max_kv_tokens is not None


class TestArithmetic:
    def test_a_lone_request_reads_the_weights_once_a_step(self):
        model = ProfileModel(estimate_profile(LLAMA, H200, assumptions=PERFECT))
        read = LLAMA.layer_parameters * 2 + 128256 * 4096 * 2  # bytes: layers and head, not the embedding
        kv = 1024 * 2 * 32 * 8 * 128 * 2
        assert model.itl_ms(1, 1024) == pytest.approx((read + kv) / 4.8e12 * 1000, rel=1e-9)

    def test_a_long_prompt_is_compute(self):
        model = ProfileModel(estimate_profile(LLAMA, H200, assumptions=PERFECT))
        flops = 2 * LLAMA.layer_parameters * 8192 + 2 * 32 * 4096 * 8192**2
        assert model.ttft_ms(8192) == pytest.approx(flops / 989e12 * 1000, rel=1e-9)
        assert model.quadratic_ms == pytest.approx(2 * 32 * 4096 / 989e12 * 1000, rel=1e-9)

    def test_fp8_halves_the_layers_and_leaves_the_tables(self):
        half = ProfileModel(estimate_profile(LLAMA, H200, precision="fp8", assumptions=PERFECT))
        read = LLAMA.layer_parameters + 128256 * 4096 * 2
        kv = 64 * 2 * 32 * 8 * 128 * 2
        assert half.itl_ms(1, 64) == pytest.approx((read + kv) / 4.8e12 * 1000, rel=1e-9)

    def test_a_gpu_without_fp8_computes_in_bf16(self):
        a100 = GPUS["a100-80gb"]
        plain, small = (
            ProfileModel(estimate_profile(LLAMA, a100, precision=p, assumptions=PERFECT))
            for p in ("bf16", "fp8")
        )
        assert plain.ttft_ms(8192) == small.ttft_ms(8192)
        assert plain.itl_ms(1, 64) > 1.5 * small.itl_ms(1, 64)

    def test_a_mixture_reads_only_the_experts_it_meets(self):
        mixtral = MODELS["Mixtral-8x7B"]
        model = ProfileModel(estimate_profile(mixtral, GPUS["mi300x"], assumptions=PERFECT))
        lone, many = model.itl_ms(1, 64), model.itl_ms(64, 64)
        head = 32000 * 4096 * 2
        kv = 64 * 2 * 32 * 8 * 128 * 2
        assert lone == pytest.approx(
            (2 * mixtral.active_layer_parameters + head + kv) / 5.3e12 * 1e3, rel=1e-6
        )
        assert many == pytest.approx((2 * mixtral.layer_parameters + head + 64 * kv) / 5.3e12 * 1e3, rel=1e-3)

    def test_kv_memory_is_what_weights_leave(self):
        profile = estimate_profile(LLAMA, H200, precision="fp8")
        weights = LLAMA.layer_parameters + 2 * 128256 * 4096 * 2
        left = (140.4 * 0.9 - 2) * 2**30 - weights
        assert profile.decode.max_kv_tokens == int(left / (2 * 32 * 8 * 128 * 2))
        assert profile.decode.assumed == ("max_num_seqs", "max_kv_tokens")

    def test_weights_that_do_not_fit_are_refused(self):
        with pytest.raises(InputError, match=r"Llama-3.3-70B: 131.4 GiB of weights, .*raise --tp"):
            estimate_profile(MODELS["Llama-3.3-70B"], GPUS["h100"])
        with pytest.raises(InputError, match="tensor parallel 3: does not divide 32"):
            estimate_profile(LLAMA, H200, tensor_parallel=3)
        with pytest.raises(InputError, match="precision 'int4': unknown"):
            estimate_profile(LLAMA, H200, precision="int4")
        with pytest.raises(InputError, match=r"memory_efficiency: 1\.5"):
            Assumptions(memory_efficiency=1.5)

    @given(bandwidth=st.floats(1.0, 3.0), compute=st.floats(1.0, 3.0), tp=st.sampled_from([1, 2, 4, 8]))
    def test_a_better_gpu_is_never_slower(self, bandwidth, compute, tp):
        better = replace(
            H200,
            bandwidth_gb_s=H200.bandwidth_gb_s * bandwidth,
            bf16_tflops=H200.bf16_tflops * compute,
        )
        one, other = (estimate_profile(LLAMA, gpu, tensor_parallel=tp) for gpu in (H200, better))
        assert np.all(np.array(other.prefill.ttft_ms) <= np.array(one.prefill.ttft_ms) * (1 + 1e-9))
        assert np.all(np.array(other.decode.itl_ms) <= np.array(one.decode.itl_ms) * (1 + 1e-9))


class TestAnEstimateIsOne:
    def test_it_says_so_and_on_which_assumptions(self, tmp_path):
        profile = estimate_profile(LLAMA, H200)
        assert profile.source.title == "Roofline estimate: nothing was measured"
        assert "data sheet" in profile.source.description
        assert profile.decode.measured.itl_ms == ()
        assert any("compute_efficiency 0.5" in note for note in profile.notes)
        (tmp_path / "e.yaml").write_text(profile_to_yaml(profile))
        assert read_profile(tmp_path / "e.yaml") == profile

    @pytest.mark.parametrize(
        ("measured", "model", "gpu", "precision", "tp", "prefill", "decode"),
        [
            ("h200-llama-3.1-8b-bf16", "Llama-3.1-8B", "h200", "bf16", 1, 0.06, 0.12),
            ("h200-llama-3.1-8b-fp8", "Llama-3.1-8B", "h200", "fp8", 1, 0.13, 0.06),
            ("h100-llama-3.3-70b-fp8-tp2", "Llama-3.3-70B", "h100", "fp8", 2, 0.11, 0.25),
            ("h100-llama-3.3-70b-fp8-tp4", "Llama-3.3-70B", "h100", "fp8", 4, 0.11, 0.25),
            ("h100-llama-3.3-70b-fp8-tp8", "Llama-3.3-70B", "h100", "fp8", 8, 0.11, 0.25),
        ],
    )
    def test_it_is_near_what_was_measured(self, measured, model, gpu, precision, tp, prefill, decode):
        estimated = ProfileModel(
            estimate_profile(MODELS[model], GPUS[gpu], precision=precision, tensor_parallel=tp)
        )
        other = load_profile(measured)
        assert prefill_error(estimated, other).median < prefill
        assert decode_error(estimated, other).median < decode

    def test_there_is_no_error_against_what_was_not_measured(self):
        profile = estimate_profile(LLAMA, H200)
        with pytest.raises(InputError, match="no measured prefill points"):
            prefill_error(ProfileModel(profile), profile)
        with pytest.raises(InputError, match="no measured decode points"):
            decode_error(ProfileModel(profile), profile)
