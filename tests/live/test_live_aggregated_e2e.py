"""End to end: live decisions on aggregated engines are the simulator's."""

from __future__ import annotations

import pytest
from parity import assert_decisions_are_the_simulators

pytestmark = pytest.mark.e2e


def test_live_decisions_on_aggregated_engines_are_the_simulators(world, conversation, capsys):
    assert_decisions_are_the_simulators(
        world, conversation, capsys, serving="aggregated", max_instances="60", target_itl_ms="12"
    )
