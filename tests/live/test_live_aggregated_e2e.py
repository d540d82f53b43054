"""End to end: live decisions on aggregated engines are the simulator's."""

from __future__ import annotations

import pytest
from live_processes import SPEED, World
from parity import assert_decisions_are_the_simulators

pytestmark = pytest.mark.e2e


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path, SPEED)
    yield made
    made.stop()


@pytest.fixture
def conversation(shared):
    return shared / "traces" / "azure_llm_2023_conv.csv"


def test_live_decisions_on_aggregated_engines_are_the_simulators(world, conversation, capsys):
    assert_decisions_are_the_simulators(
        world, conversation, capsys, serving="aggregated", max_instances="60", target_itl_ms="12"
    )
