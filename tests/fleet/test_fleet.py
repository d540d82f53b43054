"""A fleet is a value, and how its pools move is arithmetic that holds for any number of them."""

from __future__ import annotations

import dataclasses
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sagescale.errors import InputError
from sagescale.fleet import (
    Fleet,
    PoolCounts,
    Pools,
    PoolSpec,
    Role,
    Service,
    Sizes,
    fit,
    gpus_of,
    grow,
    next_launches,
    resize,
    within_limits,
)
from strategies import sampled

TYPES = ("h100", "h200")


@st.composite
def fleets(draw: st.DrawFn) -> Fleet:
    """One to three services of two to four pools on two types of GPU."""
    services = []
    for service in range(draw(st.integers(1, 3))):
        pools = []
        for number in range(draw(st.integers(2, 4))):
            least = draw(st.integers(0, 2))
            role = Role.PREFILL if number == 0 else draw(sampled(Role.PREFILL, Role.DECODE))
            pools.append(
                PoolSpec(
                    f"pool-{number}",
                    role,
                    draw(st.integers(1, 8)),
                    least,
                    least + draw(st.integers(0, 9)),
                    draw(sampled(*TYPES)),
                )
            )
        services.append(Service(f"service-{service}", tuple(pools), 500.0, 50.0))
    least_of = {
        kind: sum(pool.least * pool.gpus for one in services for pool in one.pools if pool.gpu_type == kind)
        for kind in TYPES
    }
    stock = {kind: least_of[kind] + draw(st.integers(0, 40)) for kind in TYPES}
    return Fleet(tuple(services), stock)


@st.composite
def asked(draw: st.DrawFn) -> tuple[Fleet, Sizes, Sizes]:
    fleet = draw(fleets())
    names = [f"{service.name}/{pool.name}" for service in fleet.services for pool in service.pools]
    wanted, current = (Sizes(*(draw(st.integers(0, 12)) for _ in names), names=names) for _ in range(2))
    return fleet, wanted, current


def free(sizes: Sizes, fleet: Fleet) -> dict[str, int]:
    taken = gpus_of(sizes, fleet)
    return {kind: fleet.stock[kind] - taken[kind] for kind in fleet.stock}


@given(asked())
def test_what_is_fitted_is_within_limits_and_stock_and_nobody_gets_more_than_asked(case):
    fleet, wanted, _ = case
    limited = within_limits(wanted, fleet)
    got = fit(limited, fleet)
    assert all(left >= 0 for left in free(got, fleet).values())
    assert all(pool.least <= size for pool, size in zip(fleet.pools, got, strict=True))
    assert all(size <= most for size, most in zip(got, limited, strict=True))
    assert got.names == wanted.names


@given(asked())
def test_no_gpu_is_stranded_that_an_asked_for_instance_would_fit_in(case):
    fleet, wanted, _ = case
    limited = within_limits(wanted, fleet)
    got = fit(limited, fleet)
    left = free(got, fleet)
    for pool, size, most in zip(fleet.pools, got, limited, strict=True):
        assert size == most or pool.gpus > left[pool.gpu_type]


@given(asked())
def test_growing_takes_nothing_away_that_is_wanted(case):
    fleet, wanted, current = case
    least = Sizes(*(pool.least for pool in fleet.pools), names=current.names)
    needed, spare = gpus_of(current.map(max, least), fleet), free(least, fleet)
    fleet = dataclasses.replace(fleet, stock={kind: needed[kind] + spare[kind] for kind in TYPES})
    got = grow(wanted, current, fleet)
    assert all(to >= min(at, want) for to, at, want in zip(got, current, wanted, strict=True))
    assert all(left >= 0 for left in free(got, fleet).values())


@given(asked())
def test_launches_leave_no_gpu_free_that_one_of_them_would_fit_in(case):
    fleet, missing, there = case
    goal = missing.map(int.__add__, there)
    spare = {kind: gpus // 2 for kind, gpus in fleet.stock.items()}
    more = next_launches(missing, goal, fleet, spare)
    taken = gpus_of(more, fleet)
    assert all(taken[kind] <= spare[kind] for kind in spare)
    for pool, got, want in zip(fleet.pools, more, missing, strict=True):
        assert 0 <= got <= want
        assert got == want or pool.gpus > spare[pool.gpu_type] - taken[pool.gpu_type]


@given(st.builds(PoolCounts, *[st.integers(0, 6)] * 4), st.integers(0, 20), st.integers(0, 20))
def test_a_resized_pool_is_asked_to_be_its_target_and_drains_last(pool, target, room):
    change = resize(pool, target)
    after = change.applied(pool, room)
    assert after.asked == target
    assert after.present <= pool.present + room
    if change.drain:
        assert after.waiting == after.starting == 0
    if change.cancel:
        assert after.waiting == 0
    assert min(after.ready, after.starting, after.draining, after.waiting) >= 0


def test_entries_are_known_by_name_and_survive_pickling():
    sizes = Sizes.of({"prefill": 2, "decode": 3, "decode-small": 4})
    assert (sizes.prefill, sizes["decode-small"], sizes[1]) == (2, 4, 3)
    assert sizes == (2, 3, 4)
    assert sizes.as_dict() == {"prefill": 2, "decode": 3, "decode-small": 4}
    again = pickle.loads(pickle.dumps(sizes))
    assert (again, again.names) == (sizes, sizes.names)
    assert repr(sizes) == "Sizes(prefill=2, decode=3, decode-small=4)"
    with pytest.raises(KeyError, match="no pool 'other'; expected one of prefill, decode, decode-small"):
        _ = sizes["other"]
    with pytest.raises(ValueError, match="1 entries for the pools prefill, decode"):
        Sizes(1)
    pools = Pools(PoolCounts(1, 2, 3, 4), PoolCounts(5))
    assert pools.asked == (7, 5)
    assert pools.present == (6, 5)


def pool(name: str = "a", **changes: object) -> PoolSpec:
    values = {"role": Role.DECODE, "gpus": 2, "least": 1, "most": 3, "gpu_type": "h100"}
    return PoolSpec(name, **(values | changes))


@pytest.mark.parametrize(
    ("services", "stock", "words"),
    [
        ([("x", [pool("a"), pool("a")])], {"h100": 8}, "two pools of service 'x' are called 'a'"),
        ([("x", [pool()]), ("x", [pool()])], {"h100": 8}, "two services are called 'x'"),
        ([("x", [pool(gpu_type="b200")])], {"h100": 8}, "GPUs of type 'b200'; expected one of 'h100'"),
        ([("x", [pool(), pool("b")])], {"h100": 3}, "the minima need 4 GPUs of type 'h100'"),
    ],
)
def test_what_contradicts_itself_is_refused(services, stock, words):
    with pytest.raises(InputError, match=words):
        Fleet(tuple(Service(name, tuple(pools), 500.0, 50.0) for name, pools in services), stock)


def test_a_role_is_a_set_of_phases():
    assert Role.PREFILL in Role.AGGREGATED
    assert Role.DECODE in Role.AGGREGATED
    assert Role.PREFILL not in Role.DECODE
