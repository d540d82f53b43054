"""What came lately, replayed on other sizes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sagescale.planner.policy.slo.in_service import InService
from sagescale.planner.policy.slo.misses import MissCurves
from sagescale.planner.policy.slo.recording import Recording
from slo_world import share_missed

LIMIT = 1000.0
CURVES = MissCurves(share_missed, 1.0, LIMIT)
loads = st.lists(st.floats(0.0, 20_000.0), min_size=1, max_size=40)


def recorded(values: list[float], in_time_s: float | None = 1.0, to_go_s: float = 0.0):
    recording, in_service = Recording(1800.0, in_time_s), InService()
    in_service.to_go_s = to_go_s
    for number, load in enumerate(values, 1):
        recording.add(15.0 * number, 15.0, load, in_service.observe(15.0, load))
    return recording


@given(loads, st.integers(1, 40), st.sampled_from([None, 0.3, 5.0]))
def test_more_instances_never_miss_more(values, size, in_time_s):
    recording = recorded(values, in_time_s)
    assert 0.0 <= recording.missed(size + 1, CURVES) <= recording.missed(size, CURVES) + 1e-9 <= 1.0 + 1e-9


@given(loads, st.integers(1, 20), st.integers(1, 40), st.floats(0.001, 0.2))
def test_the_fewest_keep_it_all_and_one_less_does_not(values, wanted, current, allowed):
    recording = recorded(values)
    size = recording.fewest(wanted, current, CURVES, allowed)
    if wanted >= current:
        assert size == wanted
        return
    assert wanted <= size <= current
    assert size == current or recording.missed(size, CURVES) <= allowed
    assert size == wanted or recording.missed(size - 1, CURVES) > allowed


def test_a_queue_that_built_up_makes_those_late_who_come_after():
    calm, burst = [300.0] * 20, [3000.0] * 2
    lone = recorded(calm + burst + calm).missed(1, CURVES)
    # Two looks of three times what one gets through leave 60 s of work; 0.7 s of it go a second.
    late_looks = 60 / 0.7 / 15
    assert lone == pytest.approx((2 * 3000 + late_looks * 300) / (40 * 300 + 2 * 3000), rel=0.05)
    assert recorded(calm + burst + calm).missed(10, CURVES) == 0.0


def test_where_requests_share_a_short_clump_is_averaged_over_their_time():
    clump = [500.0] * 20 + [1500.0] + [500.0] * 20
    assert recorded(clump, None, to_go_s=300.0).missed(2, CURVES) < recorded(clump, None).missed(2, CURVES)


def test_what_is_older_is_forgotten():
    recording = recorded([9000.0] * 10 + [100.0] * 120)
    assert recording.highest == 100.0
    assert recording.missed(1, CURVES) == 0.0


def test_nothing_recorded_keeps_any_size():
    assert Recording(1800.0, 1.0).fewest(1, 9, CURVES, 0.005) == 1


def test_a_little_load_keeps_no_large_pool_where_few_at_a_time_already_miss():
    curves = MissCurves(lambda size, rate: min(1.0, 0.5 * (rate / size) ** 3), 1.0, LIMIT)
    assert recorded([500.0] * 120).fewest(1, 47, curves, 0.0075) <= 3
