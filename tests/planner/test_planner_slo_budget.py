"""Both pools within a GPU budget."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sagescale.fleet import Fleet, PoolSpec, Role, Service
from sagescale.planner.policy.slo.budget import Budget
from sagescale.planner.policy.slo.demand import Scenarios, certain
from sagescale.planner.policy.slo.misses import MissCurves
from sagescale.planner.policy.slo.pool import Pool
from slo_world import minute, share_missed, slo_planner

EACH = 1000.0
MINUTE_S = 60.0
DAY = 24 * 60


def pools(gpus: tuple[int, int] = (1, 1)) -> tuple[Pool, Pool]:
    both = tuple(
        Pool(PoolSpec(role.value, role, gpus=each, least=1, most=60), 60.0, 60.0)
        for role, each in zip((Role.PREFILL, Role.DECODE), gpus, strict=True)
    )
    for pool in both:
        pool.curves = MissCurves(
            lambda size, rps: share_missed(size, rps * 100.0 / EACH), EACH / 100.0, 100.0
        )
    return both


def budget_of(gpus: int, both: tuple[Pool, Pool]) -> Budget:
    service = Service("service", tuple(pool.limits for pool in both), 1000.0, 50.0)
    return Budget(Fleet((service,), {"gpu": gpus}), MINUTE_S, 0.01, *both)


def cost(both, sizes, loads):
    return sum(pool.missed(size, load) for pool, size, load in zip(both, sizes, loads, strict=True))


loads = st.lists(st.floats(1.0, 40_000.0), min_size=1, max_size=4).map(
    lambda values: Scenarios(np.sort(np.array(values)), np.full(len(values), 1.0 / len(values)))
)
sizes = st.tuples(st.integers(1, 60), st.integers(1, 60))


@given(st.tuples(loads, loads), sizes, sizes, st.integers(10, 100), st.sampled_from([(1, 1), (1, 2), (4, 3)]))
def test_what_is_shared_fits_and_no_affordable_pair_within_what_is_wanted_misses_more_than_a_little_less(
    come, wanted, current, gpus, each
):
    both = pools(each)
    budget = budget_of(gpus, both)
    pair = budget.share(wanted, current, come)
    if budget.fits(*wanted):
        assert pair == wanted
        return
    assert budget.fits(*pair)
    others = [
        (mine, other)
        for mine in range(1, wanted[0] + 1)
        if (other := min(wanted[1], (gpus - mine * each[0]) // each[1])) >= 1
    ]
    best = min(cost(both, other, come) for other in others)
    assert cost(both, pair, come) <= best + 0.01 + 1e-3 * 100.0


def test_a_pair_that_misses_hardly_more_than_the_best_is_not_moved():
    both = pools()
    come = (certain(8000.0), certain(8000.0))
    for current in ((12, 12), (11, 13), (13, 11)):
        assert budget_of(24, both).share((30, 30), current, come) == current
    assert budget_of(24, both).share((30, 30), (20, 4), come) == (12, 12)


@pytest.mark.parametrize("short", [0, 1])
def test_where_not_all_fits_nothing_idles_that_the_other_pool_lacks(short):
    planner, there = slo_planner(max_gpu_budget=30), (12, 12)
    for number in range(1, 40):
        there = tuple(planner.step(minute(number, 6000.0, *there)).targets)
    heavy = [minute(40, 6000.0, *there), minute(40, 2400.0, *there, osl_mean=1500.0)][short]
    after = planner.step(heavy).targets
    # Prefill has two thirds less to do: in its own time it would go down minutes later.
    assert (after.prefill < there[0]) == bool(short)
    assert sum(after) <= 30


def test_what_idles_in_one_pool_makes_room_for_the_other():
    """It would stay for minutes yet; the planner fits what is left into the budget, and may take it where it
    is needed."""
    budget = budget_of(8, pools())
    assert budget.kept((5, 3), (5, 4), (4, 4)) == (5, 3)
    assert budget.kept((2, 3), (4, 4), (4, 4)) == (4, 4)


@given(
    st.lists(st.tuples(sizes, sizes), min_size=1, max_size=30),
    sizes,
    st.integers(4, 100),
    st.sampled_from([(1, 1), (1, 2), (4, 3)]),
)
@example([((1, 19), (1, 1))] * 10 + [((1, 1), (1, 18))], (2, 1), 37, (1, 2))
def test_what_is_kept_fits_and_is_between_what_is_wanted_and_what_there_is(steps, current, gpus, each):
    both = pools(each)
    budget = budget_of(max(gpus, sum(each)), both)
    for wanted, more in steps:
        if budget.share(wanted, current, (certain(8000.0), certain(8000.0))) != wanted:
            continue
        stay = tuple(max(pair) for pair in zip(wanted, more, strict=True))
        kept = budget.kept(wanted, stay, current)
        assert budget.fits(*kept)
        most = [max(pair) for pair in zip(stay, current, strict=True)]
        assert all(low <= size <= high for low, size, high in zip(wanted, kept, most, strict=True))
        assert all(size >= own for size, own in zip(kept, stay, strict=True)) or not budget.fits(*stay)


@pytest.mark.parametrize(("minutes", "held"), [(9, False), (10, True)])
def test_a_budget_that_was_too_small_for_ten_minutes_keeps_what_it_has_for_a_day(minutes, held):
    budget, come = budget_of(24, pools()), (certain(8000.0), certain(8000.0))
    for _ in range(minutes):
        budget.share((30, 30), (12, 12), come)
    for minute_ in range(DAY):
        assert budget.share((3, 4), (12, 12), come) == (3, 4)
        kept = budget.kept((3, 4), (3, 4), (12, 12))
        # The first of them leaves the day, and one minute less is not long enough.
        assert kept == ((12, 12) if held and minute_ < DAY - minutes else (3, 4))
    assert budget.kept((14, 4), (14, 4), (12, 12)) == (14, 4)


def test_after_a_peak_beyond_the_budget_the_planner_gives_nothing_up_and_says_why():
    sized, most = {}, {}
    for gpus in (24, 200):
        most[gpus] = 0
        planner, there = slo_planner(max_gpu_budget=gpus), (8, 8)
        for number in range(1, 720):
            decision = planner.step(minute(number, 9000.0 if 20 <= number < 50 else 2000.0, *there))
            there = tuple(decision.targets)
            most[gpus] = max(most[gpus], sum(there))
        sized[gpus] = sum(there)
        said = " ".join(reason.text for reason in decision.reasons)
        assert ("max_gpu_budget was too small within the last day" in said) == (gpus == 24)
    assert sized[24] == most[24] == 24
    assert sized[200] < most[200]
