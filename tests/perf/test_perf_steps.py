"""Steps of an aggregated engine: their sum, their arrays, and the section where none was measured."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from perf_builders import built, profiles
from sagescale.errors import InputError
from sagescale.perf import (
    AggregatedProfile,
    ProfileModel,
    compile_steps,
    estimate_aggregated,
    list_profiles,
    load_profile,
    profile_to_yaml,
    read_profile,
    write_profile,
)

SECTION = AggregatedProfile(
    gpus_per_instance=2,
    concurrency=(1.0, 8.0),
    context_tokens=(100.0, 1000.0),
    itl_ms=((4.0, 5.0), (6.0, 12.0)),
    max_num_seqs=8,
    max_kv_tokens=5000,
    spread_requests=(2.0, 6.0),
    spread_ms=(0.0, 0.004),
    tokens=(1.0, 256.0, 1024.0),
    tokens_ms=(10.0, 12.0, 36.0),
    running_ms=0.05,
    kv_ms=2e-4,
    cross_ms=1e-6,
    square_ms=2e-6,
    longest_ms=5e-4,
)
STEPS = compile_steps(SECTION)


def aggregated_profile():
    return replace(built(lambda n: 8.0 + n, lambda n, c: 4.0 + n + n * c / 1000), aggregated=SECTION)


class TestAStep:
    def test_with_chunks_is_the_sum_of_its_parts(self):
        step_ms = STEPS.step_ms(4, 3000, 900, [(256, 512), (100, 0)])
        tokens_ms = 12.0 + (360 - 256) * 24.0 / 768
        pairs = 1e-6 * 256 * 512 + 2e-6 * (256**2 + 100**2) / 2
        assert step_ms == pytest.approx(tokens_ms + 0.05 * 4 + 2e-4 * 3000 + pairs + 5e-4 * 900)

    def test_takes_the_longest_context_of_decodes_and_chunks_alike(self):
        chunk = STEPS.step_ms(1, 100, 100, [(100, 700)]) - STEPS.step_ms(1, 100, 800, [(100, 700)])
        assert chunk == 0.0
        longer = STEPS.step_ms(1, 900, 900, [(100, 700)]) - STEPS.step_ms(1, 900, 0, [(100, 700)])
        assert longer == pytest.approx(5e-4 * 100)

    def test_without_chunks_is_a_decode_step(self):
        model = ProfileModel(replace(aggregated_profile(), decode=SECTION))
        assert STEPS.step_ms(8, 8 * 500, 500) == pytest.approx(model.itl_ms(8, 500))

    def test_of_unequal_contexts_takes_longer_by_the_spread(self):
        equal, unequal = STEPS.step_ms(4, 2000, 500), STEPS.step_ms(4, 2000, 800)
        assert unequal - equal == pytest.approx(0.002 * (4 * 800 - 2000) / 4)
        spread_ms = [0, 0, 0, 0.001, 0.002, 0.003, 0.004, 0.004, 0.004]
        assert STEPS.table.spread_ms.tolist() == pytest.approx(spread_ms)

    def test_of_a_padded_batch_minds_unequal_contexts_as_the_size_it_is_padded_to(self):
        padded = compile_steps(replace(SECTION, padded_batch_sizes=(2, 6, 8))).table.spread_ms
        assert padded.tolist() == pytest.approx([0, 0, 0, 0.004, 0.004, 0.004, 0.004, 0.004, 0.004])

    @pytest.mark.parametrize(("n", "chunks"), [(0, []), (9, []), (9, [(1, 0)]), (-1, [(1, 0)])])
    def test_of_nothing_or_more_than_the_slots_is_no_step(self, n, chunks):
        with pytest.raises(ValueError, match="a step needs chunks or 1 to 8 requests"):
            STEPS.step_ms(n, 100, 100, chunks)

    @given(
        n=st.integers(0, 8),
        kv=st.integers(0, 5000),
        longest=st.integers(0, 5000),
        chunk=st.tuples(st.integers(1, 2048), st.integers(0, 5000)),
        more=st.tuples(st.integers(0, 100), st.integers(0, 100)),
    )
    def test_never_takes_less_with_more_work(self, n, kv, longest, chunk, more):
        larger = (chunk[0] + more[0], chunk[1] + more[1])
        assert STEPS.step_ms(n, kv, longest, [larger]) >= STEPS.step_ms(n, kv, longest, [chunk])


def test_the_table_of_tokens_is_the_curve_at_every_token_to_the_bit():
    table = STEPS.tokens_table_ms(3000)
    assert table.tolist() == [STEPS.of_tokens_ms(x) for x in range(3001)]
    assert table[0] == table[1] == 10.0
    assert table[3000] == pytest.approx(36.0 + 1976 * 24.0 / 768)


class TestTheDocument:
    def test_with_an_aggregated_section_is_v2_and_read_back_the_same(self, tmp_path):
        profile = aggregated_profile()
        write_profile(profile, tmp_path / "p.yaml")
        assert (tmp_path / "p.yaml").read_text().startswith("schema: sagescale.profile/v2\n")
        assert read_profile(tmp_path / "p.yaml") == profile

    def test_with_unequal_lengths_alone_is_v2(self, tmp_path):
        profile = built(lambda n: 8.0 + n, lambda n, c: 4.0 + n + n * c / 1000)
        decode = replace(profile.decode, spread_requests=(16.0, 32.0), spread_ms=(0.0, 0.001))
        write_profile(replace(profile, decode=decode), tmp_path / "p.yaml")
        assert "schema: sagescale.profile/v2\n" in (tmp_path / "p.yaml").read_text()
        table = ProfileModel(read_profile(tmp_path / "p.yaml")).decode_table()
        assert table.spread_ms[[0, 1, 16, 24, 128]].tolist() == [0.0, 0.0, 0.0, 0.0005, 0.001]

    def test_without_either_stays_v1(self):
        text = profile_to_yaml(built(lambda n: 8.0 + n, lambda n, c: 4.0 + n + n * c / 1000))
        assert text.startswith("schema: sagescale.profile/v1\n")
        assert "aggregated" not in text
        assert "spread" not in text

    @pytest.mark.parametrize(
        ("key", "value", "expected"),
        [
            ("tokens_ms", [5.0, 4.0, 6.0], "aggregated.tokens_ms: falls from 5.0 to 4.0 at tokens 256"),
            ("tokens_ms", [5.0, 6.0], "aggregated.tokens_ms: 2 values (expected 3, as many as tokens)"),
            ("kv_ms", -1.0, "aggregated.kv_ms: -1.0 (expected a number >= 0)"),
            ("spread_ms", [1.0], "aggregated.spread_ms: 1 values (expected 2, as many as spread_requests)"),
            ("spread_requests", [6.0, 2.0], "aggregated.spread_requests[1]: 2.0 after 6.0 (expected"),
            ("max_batched_tokens", 0, "aggregated.max_batched_tokens: 0 (expected a whole number >= 1)"),
            ("assumed", ["kv"], "aggregated.assumed: 'kv' (expected max_num_seqs or max_kv_tokens or max"),
            ("longest", 1, "aggregated.longest: unknown key"),
        ],
    )
    def test_of_a_bad_section_is_refused_in_one_line(self, tmp_path, key, value, expected):
        document = yaml.safe_load(profile_to_yaml(aggregated_profile()))
        document["aggregated"][key] = value
        path = tmp_path / "bad.yaml"
        path.write_text(yaml.safe_dump(document))
        with pytest.raises(InputError) as error:
            read_profile(path)
        assert expected in str(error.value)
        assert "\n" not in str(error.value)

    def test_v1_has_no_aggregated_section(self, tmp_path):
        text = profile_to_yaml(aggregated_profile()).replace("profile/v2", "profile/v1")
        (tmp_path / "p.yaml").write_text(text)
        with pytest.raises(InputError, match=r"aggregated: \(expected only with schema 'sagescale"):
            read_profile(tmp_path / "p.yaml")


class TestAnEstimatedSection:
    @pytest.mark.parametrize("name", list_profiles())
    def test_of_a_lone_prompt_is_its_ttft_and_without_chunks_the_decode_step(self, name):
        model = ProfileModel(load_profile(name))
        if model.profile.aggregated is not None:
            pytest.skip("measured, not estimated")
        steps = model.step_model()
        assert steps.estimated
        for isl in model.profile.prefill.isl_tokens:
            assert steps.step_ms(0, 0, 0, [(int(isl), 0)]) == pytest.approx(model.ttft_ms(isl), rel=0.03)
        n = min(16, steps.max_num_seqs)
        assert steps.step_ms(n, 1000 * n, 1000) == pytest.approx(model.itl_ms(n, 1000))

    @given(profiles(), st.integers(1, 3000), st.integers(0, 3000))
    @settings(deadline=None, max_examples=50)
    def test_is_a_section_whatever_the_profile(self, profile, tokens, before):
        profile = replace(profile, decode=replace(profile.decode, gpus_per_instance=1))
        section = estimate_aggregated(profile)
        assert section.estimated
        assert np.isfinite(compile_steps(section).step_ms(1, 100, 100, [(tokens, before)]))

    def test_of_pools_of_different_gpus_is_refused(self):
        profile = built(lambda n: 8.0 + n, lambda n, c: 4.0 + n + n * c / 1000)
        odd = replace(profile, decode=replace(profile.decode, gpus_per_instance=4))
        with pytest.raises(InputError, match="prefill instances have 1 GPUs and decode ones 4; expected the"):
            ProfileModel(odd).step_model()


def test_limits_are_those_of_both_ways_of_serving():
    profile = aggregated_profile().with_limits(max_num_seqs=4, max_kv_tokens=777)
    assert ProfileModel(profile).step_model().max_num_seqs == 4
    assert ProfileModel(profile).step_model().max_kv_tokens == 777
    assert ProfileModel(profile).max_num_seqs == 4
