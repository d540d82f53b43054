"""Why a run missed its targets, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sagescale.report.formats import count, known, plural, share
from sagescale.report.reasons import limits, times
from sagescale.report.settings import number

if TYPE_CHECKING:
    from sagescale.document import ResultDocument, RunDocument

__all__ = ["HELD", "why_missed"]

HELD = 0.99
"""From this attainment on a run counts as good: at most one request in a hundred misses, as p99 puts it."""


def why_missed(document: ResultDocument, run: RunDocument) -> str:
    """Say which side of the SLA failed and what kept the pools from growing; empty where nothing failed."""
    attainment = known(run["sla"]["attainment"])
    if attainment is None or attainment >= 1:
        return ""
    return f"{_blame(run)}; {_limited(document, run)}."


def _blame(run: RunDocument) -> str:
    """Say which side of the SLA fails most."""
    sla = run["sla"]
    ttft, itl = known(sla["ttft_attainment"]), known(sla["itl_attainment"])
    if ttft is None or itl is None:
        return "Not every request was within its targets"
    missed = {"TTFT": share(1.0 - ttft), "ITL": share(1.0 - itl)}
    if ttft == itl:
        return f"TTFT and ITL fail alike: each is missed by {missed['ITL']} of requests"
    worse, better = ("TTFT", "ITL") if ttft < itl else ("ITL", "TTFT")
    return f"{worse} fails most: {missed[worse]} of requests miss it, {missed[better]} miss {better}"


def _limited(document: ResultDocument, run: RunDocument) -> str:
    """Say what kept the pools from growing, as far as the planner's reasons tell."""
    reasons = run["reasons"] or {}
    of = f"of {plural(run['scaling']['ticks'], 'decision')}"
    said = [
        f"{words} in {count(found)} {of}"
        for code, words in (
            ("target_ttft_unreachable", "a lone prompt of mean length exceeds the TTFT target"),
            ("sla_infeasible", "no decode point meets the ITL target"),
        )
        if (found := times(reasons, code))
    ]
    said += [
        f"{key} {count(number(document, run, key))} cut the sizes in {count(found)} {of}"
        for found, key in limits(reasons)
    ]
    return ", ".join(said) or "no budget or instance limit was in the way"
