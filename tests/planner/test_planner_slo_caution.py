"""The factor on a pool's load: raised by what is missed, lowered by time without misses."""

from __future__ import annotations

import pytest
from sagescale.planner.policy.slo.caution import Caution

USUAL = {
    "late": 0.0,
    "explained": 0.0,
    "windows": 2,
    "weight": 1.0,
    "other": 0.0,
    "starting": False,
    "full": False,
}


def after(missed: list[float], **changes: object) -> float:
    caution = Caution(60.0, 0.01)
    for share in missed:
        caution.learn(share, **(USUAL | changes))
    return caution.factor


def test_misses_raise_it_and_none_bring_it_back_to_one():
    assert after([0.05] * 10) > 1.3
    assert after([0.05] * 10 + [0.0] * 100) == 1.0


def test_it_has_a_bound():
    assert after([1.0] * 1000) == pytest.approx(4.0)


def test_one_window_says_no_more_than_a_tenth():
    assert after([1.0]) == pytest.approx(after([0.107]))


def test_what_the_simulation_explains_teaches_nothing():
    assert after([0.5] * 10, explained=0.5) == 1.0


@pytest.mark.parametrize("changes", [{"full": True}, {"starting": True, "explained": 0.02}])
def test_what_no_order_can_change_does_not_raise_it(changes):
    assert after([0.5] * 10, **changes) == 1.0


def test_who_waits_beyond_the_target_counts_at_once_and_once():
    caution = Caution(60.0, 0.01)
    caution.learn(0.0, **(USUAL | {"late": 0.05}))
    raised = caution.factor
    assert raised > 1.0
    caution.learn(0.05, **USUAL)
    assert caution.factor < raised
