"""End to end: on the emulator and a real Prometheus server, decisions are the simulator's."""

from __future__ import annotations

import pytest
from parity import assert_decisions_are_the_simulators

pytestmark = pytest.mark.e2e


def test_live_decisions_are_the_simulators(world, conversation, capsys):
    assert_decisions_are_the_simulators(world, conversation, capsys)
