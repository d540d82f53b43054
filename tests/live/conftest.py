"""What the end-to-end runs of the conversation hour share."""

from __future__ import annotations

import pytest
from live_processes import SPEED, World


@pytest.fixture
def world(tmp_path):
    """An emulator and a Prometheus server to be, ended with the test."""
    made = World(tmp_path, SPEED)
    yield made
    made.stop()


@pytest.fixture
def conversation(shared):
    return shared / "traces" / "azure_llm_2023_conv.csv"
