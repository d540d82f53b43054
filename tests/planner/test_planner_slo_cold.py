"""New instances have yet to compute what the prefix caches of others hold."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from sagescale.planner.policy.slo.cold import ColdCaches

SIZES = st.integers(0, 500)


def caches(*windows: tuple[int, float | None]) -> ColdCaches:
    made = ColdCaches()
    for ready, hit_rate in windows:
        made.observe(ready, hit_rate)
    return made


@given(SIZES, SIZES, st.floats(0.0, 1.0), st.floats(0.1, 1e4), st.floats(0.0, 1e4))
def test_never_fewer_and_no_more_than_without_any_hit(size, ready, hit_rate, answer, prompt):
    enough = caches((ready, hit_rate)).enough(size, ready, answer, prompt)
    assert enough >= size
    if size > ready:
        warm = answer + prompt * (1.0 - hit_rate)
        assert enough - ready <= (size - ready) * (answer + prompt) / warm + 0.5
    else:
        assert enough == size


def test_an_instance_that_computes_all_of_a_prompt_does_so_much_less():
    # Warm ones compute 200 of 1,000 tokens and an answer of 100, cold ones, for a while, 1,100.
    assert caches((10, 0.8)).enough(12, 10, 100.0, 1000.0) == 10 + round(2 * (300 + 1100) / 2 / 300)
    assert caches((10, 0.0)).enough(12, 10, 100.0, 1000.0) == 12
    assert caches((10, None)).enough(12, 10, 100.0, 1000.0) == 12


def test_where_nearly_all_is_found_the_new_ones_are_not_multiplied_without_end():
    # 100,000 tokens of context each, all but 500 in caches: 50 times the work, for as long as one window.
    assert caches((2, 0.995)).enough(3, 2, 100.0, 100_000.0) == 5


def test_few_hits_add_nothing():
    assert caches((3, 0.02)).enough(4, 3, 100.0, 1000.0) == 4


def test_where_new_instances_turn_out_warm_fewer_are_added_the_next_time():
    steady = [(10, 0.6)] * 4
    shared = caches(*steady, (20, 0.6), (20, 0.6), (20, 0.6))
    apart = caches(*steady, (20, 0.6), (20, 0.31), (20, 0.6))
    asked = [one.enough(30, 20, 100.0, 1000.0) for one in (caches(*steady), apart, shared)]
    assert asked[1] > asked[0] > asked[2] > 30
