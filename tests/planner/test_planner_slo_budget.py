"""Both pools within a GPU budget."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sagescale.fleet import PoolSpec, Role
from sagescale.planner.policy.slo.budget import Budget
from sagescale.planner.policy.slo.demand import Scenarios, certain
from sagescale.planner.policy.slo.misses import MissCurves
from sagescale.planner.policy.slo.pool import Pool
from slo_world import minute, share_missed, slo_planner

EACH = 1000.0


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
    budget = Budget(gpus, 0.01, *both)
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
        assert Budget(24, 0.01, *both).share((30, 30), current, come) == current
    assert Budget(24, 0.01, *both).share((30, 30), (20, 4), come) == (12, 12)


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
