"""Fixtures every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes says more of the machine than of the code: a busy one fails no property.
settings.register_profile("sagescale", settings(), deadline=None)
settings.load_profile("sagescale")

REPO = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real traces and profiles; tests that need it skip, visibly, where it is missing."""
    folder = Path(os.environ.get("SAGESCALE_SHARED", REPO.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"real data not found: {folder} (set SAGESCALE_SHARED)")
    return folder
