"""The lines about faults in what ``simulate`` prints: what went wrong, and what it cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from sagescale.report.formats import count, duration, figure, known, plain, plural, share
from sagescale.report.layout import MARK, POOR

if TYPE_CHECKING:
    from sagescale.document import FaultsResult, RunDocument
    from sagescale.report.layout import Page

__all__ = ["happened", "print_faults"]

_HAPPENED = {
    "crash": ("crash", "crashes"),
    "failed_start": ("failed start", "failed starts"),
    "stuck_start": ("stuck start", "stuck starts"),
    "start_timeout": ("start given up", "starts given up"),
    "slow_start": ("slow start", "slow starts"),
    "cold_start": ("cold start", "cold starts"),
    "no_such_instance": ("crash of no instance there", "crashes of no instance there"),
}
_LASTED = {
    "no_gpus": "no GPUs for",
    "metrics_vanish": "no metrics for",
    "metrics_freeze": "metrics frozen for",
    "metrics_lag": "metrics late for",
}


def print_faults(page: Page, run: RunDocument) -> None:
    """Print what went wrong and what it cost; nothing where nothing did."""
    faults = run.get("faults")
    if not faults or not faults["events"]:
        return
    page.field("faults", *(Text(part) for part in happened(faults)))
    thrown_back = known(run["requests"]["restarted"])
    missed = known(faults["restarted_missed"])
    lost = known(faults["gpu_hours_lost"]["total"])
    page.field(
        "",
        f"{plural(thrown_back, 'request')} restarted",
        Text(f"{MARK} {count(missed)} of them missed", style=POOR) if missed else "",
        f"{figure(lost)} GPU-hours lost in starts" if lost else "",
    )
    without = faults["without"]
    if without is not None:
        page.field(
            "",
            f"attainment {share(run['sla']['attainment'])}, without faults {share(without['attainment'])}",
            f"GPU-hours {figure(run['gpu_hours']['total'])}, without {figure(without['gpu_hours'])}",
        )


def happened(faults: FaultsResult) -> list[str]:
    """Say what went wrong: how often, or for how long in all."""
    counts = faults["counts"]
    parts = [plural(counts[kind], one, many) for kind, (one, many) in _HAPPENED.items() if counts.get(kind)]
    for kind, words in _LASTED.items():
        if counts.get(kind):
            spans = [event for event in faults["events"] if event["kind"] == kind]
            lasted_s = [known(event["until_s"]) for event in spans]
            together = sum(
                until_s - event["time_s"] for event, until_s in zip(spans, lasted_s, strict=True) if until_s
            )
            parts.append(f"{words} {duration(together)}")
    known_kinds = {*_HAPPENED, *_LASTED}
    parts += [f"{count(number)} {plain(kind)}" for kind, number in counts.items() if kind not in known_kinds]
    return parts
