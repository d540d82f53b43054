"""Where KV memory binds, longer requests are more work a token; elsewhere a token is a token."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planner_world import RoundNumbers
from sagescale.perf import ProfileModel, load_profile
from sagescale.perf.model import DecodeCapacity
from sagescale.planner.policy.slo.decode_work import DecodeWork
from sagescale.planner.policy.twin import Lengths


def sample(isl: float = 1000.0, osl: float = 500.0) -> Lengths:
    random = np.random.default_rng(0)
    prompts, answers = (
        np.maximum(1, np.rint(mean * random.lognormal(-0.32, 0.8, 2000))).astype(np.int32)
        for mean in (isl, osl)
    )
    return Lengths(prompts, prompts, answers)


class _Full(RoundNumbers):
    """Steps of 10 ms, of as many requests as slots and KV memory hold."""

    def decode_throughput_per_gpu(self, itl_ms, context_tokens):
        fits = self.max_num_seqs
        if self.max_kv_tokens is not None:
            fits = max(1, min(fits, int(self.max_kv_tokens / context_tokens)))
        return DecodeCapacity(fits / self.step_floor_ms * 1e3, fits, self.step_floor_ms, feasible=True)


def work(lengths: Lengths, kv_tokens: int | None) -> DecodeWork:
    """Steps take as long whatever is in them: throughput is the number that runs."""
    return DecodeWork(lengths, _Full(max_kv_tokens=kv_tokens, step_ms_per_request=0.0), 50.0)


@pytest.mark.parametrize("kv_tokens", [None, 1_000_000, 50_000])
def test_at_the_samples_own_means_a_token_is_a_token(kv_tokens):
    lengths = sample()
    isl, osl = float(lengths.isl.mean()), float(lengths.osl.mean())
    assert work(lengths, kv_tokens).tokens(isl, osl) == pytest.approx(osl)


def test_where_slots_bind_memory_is_nothing():
    lengths = sample()
    assert work(lengths, 10_000_000).tokens(1200.0, 600.0) == pytest.approx(600.0)
    assert work(lengths, None).tokens(1200.0, 600.0) == pytest.approx(600.0)


def test_where_memory_binds_work_is_memory_times_time():
    lengths = sample()
    isl, osl = float(lengths.isl.mean()), float(lengths.osl.mean())
    longer = work(lengths, 50_000).tokens(1.2 * isl, 1.2 * osl)
    assert longer == pytest.approx(1.2 * 1.2 * osl), "so much longer, and so much less room for others"
    assert work(lengths, 50_000).tokens(1.2 * isl, osl) > osl, "prompts are held as well"


def test_far_from_the_sample_it_is_not_carried_on():
    lengths = sample()
    isl, osl = float(lengths.isl.mean()), float(lengths.osl.mean())
    assert work(lengths, 50_000).tokens(isl, 10.0 * osl) <= 1.5 * 10.0 * osl


@given(st.floats(1.0, 1e5), st.floats(1.0, 1e5), st.sampled_from([None, 3_000, 50_000, 400_000]))
def test_longer_answers_are_never_less_work(isl, osl, kv_tokens):
    made = work(sample(), kv_tokens)
    assert 0.0 < made.tokens(isl, osl) <= made.tokens(isl, 1.01 * osl) * (1.0 + 1e-9)


def test_on_a_measured_profile_work_moves_smoothly_with_the_lengths():
    profile = load_profile("h200-llama-3.1-8b-fp8")
    profile = dataclasses.replace(profile, decode=dataclasses.replace(profile.decode, max_kv_tokens=40_000))
    lengths = sample()
    made = DecodeWork(lengths, ProfileModel(profile), 30.0)
    each = [made.tokens(1000.0, osl) / osl for osl in np.linspace(420.0, 600.0, 60)]
    assert each == sorted(each)
    assert max(after / before for before, after in pairwise(each)) < 1.01


def test_requests_in_service_make_what_steps_of_so_many_do_and_stay_for_what_they_have_to_go():
    lengths = sample()
    isl, osl = float(lengths.isl.mean()), float(lengths.osl.mean())
    made = work(lengths, None)
    step_s = _Full().step_floor_ms / 1000.0
    assert made.made(40.0, 10.0, isl, osl) == pytest.approx(40.0 / step_s)
    to_go = float((lengths.osl.astype(float) ** 2).mean() / (2.0 * lengths.osl.mean()))
    assert made.to_go_s(10.0) == made.to_go_s(made.full) == pytest.approx(to_go * step_s)


def test_where_more_run_steps_take_longer_and_requests_stay():
    lengths = sample()
    made = DecodeWork(lengths, RoundNumbers(), 50.0)
    assert made.to_go_s(80.0) > made.to_go_s(10.0)
    assert made.made(80.0, 80.0, 1000.0, 500.0) < 8.0 * made.made(10.0, 10.0, 1000.0, 500.0)
