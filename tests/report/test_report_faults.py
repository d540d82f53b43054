"""The lines about faults on the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from sagescale.document import RunDocument, from_keys
from sagescale.report.facts import fault_costs
from sagescale.report.layout import Page


def event(kind: str, time_s: float, until_s: float | None = None) -> dict[str, Any]:
    return {
        "kind": kind,
        "time_s": time_s,
        "until_s": until_s,
        "pool": None,
        "instance": None,
        "restarted": 0,
    }


def printed(faults: dict[str, Any] | None) -> str:
    console = Console(width=100, record=True, quiet=False, force_terminal=False)
    run = {
        "requests": {"restarted": 12},
        "sla": {"attainment": 0.9},
        "gpu_hours": {"total": 8.0},
        "faults": faults,
    }
    with console.capture() as capture:
        for place, parts in enumerate(fault_costs(from_keys(RunDocument, run))):
            Page(console).field("" if place else "faults", *parts)
    return capture.get()


def faults(*events: dict[str, Any], without: dict[str, Any] | None = None) -> dict[str, Any]:
    kinds = [each["kind"] for each in events]
    return {
        "events": list(events),
        "counts": {kind: kinds.count(kind) for kind in kinds},
        "restarts": 13,
        "restarted_missed": 5,
        "gpu_hours_lost": {"total": 0.25},
        "without": without,
    }


def test_what_went_wrong_is_counted_and_outages_are_added_up():
    text = printed(
        faults(
            event("crash", 5.0),
            event("crash", 9.0),
            event("no_gpus", 0.0, 300.0),
            event("no_gpus", 600.0, 900.0),
        )
    )
    assert "2 crashes · no GPUs for 10 min" in text
    assert "12 requests restarted · ▲ 5 of them missed · 0.250 GPU-hours lost in starts" in text
    assert "without" not in text


def test_the_run_without_faults_stands_beside():
    text = printed(faults(event("stuck_start", 5.0), without={"attainment": 0.99, "gpu_hours": 7.5}))
    assert "1 stuck start" in text
    assert "attainment 90.00 %, without faults 99.00 % · GPU-hours 8.00, without 7.50" in text


def test_a_kind_that_is_not_known_is_named():
    assert "1 meteor" in printed(faults(event("meteor", 1.0)))


def test_without_faults_nothing_is_printed():
    assert printed(None) == ""
    assert printed(faults()) == ""
