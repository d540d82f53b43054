"""Decode batches padded to fixed sizes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from perf_builders import built
from sagescale.perf import ProfileModel, load_profile
from sagescale.perf.document import profile_to_yaml, read_profile

SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


def padded(sizes=SIZES, **limits):
    profile = built(lambda n: 10 + 0.02 * n, lambda n, c: 5 + 0.1 * n + 1e-5 * n * c).with_limits(**limits)
    return dataclasses.replace(profile, decode=dataclasses.replace(profile.decode, padded_batch_sizes=sizes))


def test_a_step_costs_the_padded_size_and_the_tokens_really_held():
    table = ProfileModel(padded()).decode_table()
    for n, size in ((1, 1), (3, 4), (9, 16), (33, 64), (64, 64), (65, 128)):
        assert table.step_ms(n, n * 1000) == pytest.approx(5 + 0.1 * size + 1e-5 * n * 1000)


def test_model_and_table_agree_at_whole_and_fractional_loads():
    model = ProfileModel(padded())
    table = model.decode_table()
    for n in (1, 5, 31, 32, 33, 100):
        assert model.itl_ms(n, 700) == pytest.approx(table.step_ms(n, n * 700))
    assert model.itl_ms(32.5, 700) == pytest.approx((model.itl_ms(32, 700) + model.itl_ms(33, 700)) / 2)


def test_capacity_fills_a_padded_size():
    # At 5 + 0.1 n + ... the target allows the steps of 64, and none of 65 and more, which cost as 128.
    model = ProfileModel(padded())
    target = model.itl_ms(64, 700) + 0.5
    point = model.decode_throughput_per_gpu(target, 700)
    assert (point.concurrency, point.feasible) == (64, True)
    assert point.itl_ms == pytest.approx(model.itl_ms(64, 700))


def test_slots_between_two_sizes_pad_beyond_the_slots():
    table = ProfileModel(padded(max_num_seqs=100)).decode_table()
    assert table.slots == 100
    assert table.step_ms(100, 50_000) == pytest.approx(5 + 12.8 + 0.5)


def test_above_the_last_size_nothing_is_padded():
    table = ProfileModel(padded(sizes=(1, 16))).decode_table()
    assert table.step_ms(17, 17_000) == pytest.approx(5 + 1.7 + 0.17)


def test_no_sizes_change_nothing():
    profile = load_profile("h200-llama-3.1-8b-bf16")
    assert "padded_batch_sizes" not in profile_to_yaml(profile)
    table, plain = ProfileModel(padded(sizes=())).decode_table(), ProfileModel(padded(SIZES)).decode_table()
    assert np.array_equal(table.base_ms[list(SIZES)], plain.base_ms[list(SIZES)])


def test_sizes_survive_the_document(tmp_path):
    path = tmp_path / "padded.yaml"
    path.write_text(profile_to_yaml(padded()))
    assert read_profile(path) == padded()


@pytest.mark.parametrize("sizes", [(0, 1), (4, 2), (2, 2)])
def test_sizes_that_do_not_increase_are_refused(sizes):
    with pytest.raises(ValueError, match="padded_batch_sizes"):
        padded(sizes=sizes)
