"""Fixtures every test may use."""

from __future__ import annotations

import functools
import gc
import os
from pathlib import Path

import pytest
import typer.main
import typer.testing
from hypothesis import settings
from sagescale.threads import ONE_THREAD

os.environ |= ONE_THREAD

# How long an example takes says more of the machine than of the code: a busy one fails no property.
# Where CI is set, settings() is Hypothesis's own profile "ci": the same examples until the test changes.
settings.register_profile("sagescale", settings(), deadline=None)
settings.load_profile("sagescale")

# A process runs one command, and makes all of them for it; tests run hundreds in one.
typer.main.get_command = typer.testing._get_command = functools.cache(typer.main.get_command)

REPO = Path(__file__).resolve().parent.parent

# Modules and tests are there to stay: to look through all of them for garbage, again and again while they
# are collected and then through the whole run, took a third of the time that collecting takes.
gc.disable()


def pytest_collection_finish() -> None:
    """What there is now is left alone from here on, and what is made later is seldom looked at twice.

    Small lots are cheap: what is new is still in the processor's cache.
    """
    gc.freeze()
    gc.set_threshold(2_000, 200, 20)
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A long hunt: ``SAGESCALE_EXAMPLES=20`` draws 20 times the examples of every property."""
    times = int(os.environ.get("SAGESCALE_EXAMPLES", "1"))
    if times == 1:
        return
    functions = {item.function for item in items if isinstance(item, pytest.Function)}
    machines = {item.cls for item in items if isinstance(item, pytest.Function) and item.cls is not None}
    for holder, name in (
        *((function, "_hypothesis_internal_use_settings") for function in functions),
        *((machine, "settings") for machine in machines),
    ):
        drawn = getattr(holder, name, None)
        if isinstance(drawn, settings):
            setattr(holder, name, settings(drawn, max_examples=times * drawn.max_examples))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real traces and profiles; tests that need it skip, visibly, where it is missing."""
    folder = Path(os.environ.get("SAGESCALE_SHARED", REPO.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"real data not found: {folder} (set SAGESCALE_SHARED)")
    return folder
