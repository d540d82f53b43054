"""The requests' lengths that engines are tried with."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planner_world import seen
from sagescale.planner.observation import read_window
from sagescale.planner.policy.slo.lengths import LengthMemory

pairs = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**5)), min_size=1, max_size=50)


def shown(memory: LengthMemory, **changes: object) -> LengthMemory:
    observation = seen(**changes)
    memory.observe(observation, read_window(observation, 60.0, []))
    return memory


@given(st.lists(pairs, min_size=1, max_size=10), st.floats(0.0, 1.0))
def test_a_sample_is_of_requests_that_came_and_can_be_served(windows, hit_rate):
    memory = LengthMemory()
    for lengths in windows:
        shown(memory, lengths=tuple(lengths), prefix_hit_rate=hit_rate)
    sample = memory.sample
    assert sample is not None
    came = {(max(isl, 1), max(osl, 1)) for lengths in windows for isl, osl in lengths}
    assert set(zip(sample.isl.tolist(), sample.osl.tolist(), strict=True)) <= came
    assert (sample.computed >= 1).all()
    assert (sample.computed <= sample.isl).all()


def test_nothing_is_known_before_a_request_was_seen():
    memory = shown(LengthMemory(), isl_mean=None, osl_mean=None)
    assert memory.sample is None
    assert memory.version == 0


def test_where_only_means_are_known_lengths_spread_about_them_as_requests_do():
    sample = shown(LengthMemory(), isl_mean=1000.0, osl_mean=200.0).sample
    assert sample is not None
    for values, mean in ((sample.isl, 1000.0), (sample.osl, 200.0)):
        assert values.mean() == pytest.approx(mean, rel=0.01)
        assert 0.5 < values.std() / mean < 1.5
    assert abs(np.corrcoef(sample.isl, sample.osl)[0, 1]) < 0.3


def test_what_the_prefix_cache_holds_is_not_computed():
    sample = shown(LengthMemory(), lengths=((1000, 100),) * 20, prefix_hit_rate=0.4).sample
    assert sample is not None
    assert set(sample.computed.tolist()) == {600}


def test_a_prompt_that_no_cache_had_stays_one_among_many_that_were_there():
    memory = LengthMemory(hits_by_window=True)
    for at in range(20):
        shown(memory, lengths=((1000, 100),) * 50, prefix_hit_rate=0.0 if at == 19 else 0.99)
    assert memory.sample is not None
    assert set(memory.sample.computed.tolist()) == {10, 1000}


def test_one_window_of_hits_is_not_believed_and_a_cache_that_is_lost_soon_is():
    memory = LengthMemory()

    def computed(*hit_rates: float) -> int:
        for hit_rate in hit_rates:
            shown(memory, lengths=((1000, 100),) * 20, prefix_hit_rate=hit_rate)
        assert memory.sample is not None
        return int(memory.sample.computed[0])

    assert computed(*[0.5] * 12, 0.99, *[0.5] * 12) == 500
    assert computed(0.99) == 500
    assert computed(0.0, 0.0, 0.0) == 1000


def test_equal_windows_leave_what_was_tried_true_for_a_while():
    memory = LengthMemory()
    versions = {shown(memory, lengths=((1000, 100), (500, 20)) * 20).version for _ in range(6)}
    assert len(versions) == 1


@pytest.mark.parametrize("changes", [{"lengths": ((3000, 100),) * 50}, {"lengths": ((1000, 400),) * 50}])
def test_lengths_that_move_are_sampled_anew_at_once(changes):
    memory = shown(LengthMemory(), lengths=((1000, 100),) * 50)
    assert shown(memory, **changes).version == 2


def test_lengths_of_long_ago_are_forgotten():
    memory = shown(LengthMemory(), lengths=((9999, 9999),) * 50)
    for _ in range(100):
        shown(memory, lengths=((1000, 100),) * 50)
    assert memory.sample is not None
    assert set(memory.sample.isl.tolist()) == {1000}


def test_late_requests_count_most():
    memory = LengthMemory()
    for _ in range(60):
        shown(memory, lengths=((1000, 100),) * 50)
    shares = []
    for _ in range(30):
        shown(memory, lengths=((1000, 800),) * 50)
        assert memory.sample is not None
        shares.append(float((memory.sample.osl == 800).mean()))
    assert shares == sorted(shares)
    assert shares[9] == pytest.approx(0.5, abs=0.06), "as much as all before, after ten windows"
    assert shares[-1] == pytest.approx(0.875, abs=0.06)


def test_weights_are_kept_whatever_the_number_of_requests():
    few = LengthMemory()
    for osl in (100, 200):
        for _ in range(15):
            shown(few, lengths=((1000, osl),))
    assert few.sample is not None
    assert float((few.sample.osl == 200).mean()) == pytest.approx(2 / 3, abs=0.1)


def test_a_sample_is_bounded_however_many_requests_there_are():
    memory = LengthMemory()
    for _ in range(5):
        shown(memory, lengths=tuple((isl, 10) for isl in range(1, 20_001)))
    assert memory.sample is not None
    assert len(memory.sample.isl) < 20_000


def test_equal_windows_give_equal_samples():
    lengths = tuple((isl, isl % 97 + 1) for isl in range(1, 5000))
    one, two = (shown(LengthMemory(), lengths=lengths).sample for _ in range(2))
    assert one is not None
    assert two is not None
    assert (one.isl == two.isl).all()
    assert (one.osl == two.osl).all()
