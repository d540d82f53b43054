"""Whole-second arrivals make bursts that were none: said, and drawn apart on request."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from sagescale.errors import InputError
from sagescale.trace import Trace, TransformSpec, apply_transforms, read_trace, spread_stamps
from sagescale.trace.stamps import coarse_stamp_s, coarse_warning

if TYPE_CHECKING:
    from pathlib import Path

EXACT = np.sort(np.random.default_rng(1).uniform(0, 600, 3000))


def stamped(unit_s: float) -> Trace:
    return Trace.from_arrays(np.floor(EXACT / unit_s) * unit_s, [10] * 3000, [5] * 3000)


@pytest.mark.parametrize("unit_s", [0.5, 1.0, 3.0, 10.0])
def test_the_unit_of_the_stamps_is_found(unit_s: float) -> None:
    assert coarse_stamp_s(stamped(unit_s).arrival_s) == unit_s
    assert coarse_stamp_s(EXACT - EXACT[0]) is None


def test_slow_traffic_in_whole_seconds_does_no_harm() -> None:
    assert coarse_warning(np.arange(0.0, 3000.0, 7.0)) is None


@pytest.mark.parametrize("unit_s", [1.0, 3.0])
def test_spreading_keeps_every_request_within_its_stamp(unit_s: float) -> None:
    trace = stamped(unit_s)
    spread = spread_stamps(trace, seed=4)
    assert len(spread) == len(trace)
    assert np.abs(np.sort(spread.arrival_s) - trace.arrival_s).max() <= 2 * unit_s
    assert len(np.unique(spread.arrival_s)) == len(trace)
    assert spread.transforms == (f"stamps of {unit_s:g} s spread (seed 4)",)
    assert np.array_equal(spread_stamps(trace, seed=4).arrival_s, spread.arrival_s)
    assert not np.array_equal(spread_stamps(trace, seed=5).arrival_s, spread.arrival_s)


def test_fine_stamps_are_not_spread() -> None:
    with pytest.raises(InputError, match="not stamped coarsely"):
        spread_stamps(Trace.from_arrays(EXACT, [1] * 3000, [1] * 3000))


def test_the_reproduction_is_warned_of_and_mended(shared: Path) -> None:
    folder = shared / "repro/10-whole-second-arrivals"
    seconds = read_trace(folder / "seconds.csv")
    assert "whole seconds" in seconds.warnings[0]
    assert "--spread-stamps" in seconds.warnings[0]
    assert read_trace(folder / "exact.csv").warnings == ()
    assert apply_transforms(seconds, TransformSpec(spread_stamps=True)).warnings == ()
