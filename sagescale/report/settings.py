"""What a run was configured with, as far as a result document tells."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sagescale.report.formats import duration, known, plain

if TYPE_CHECKING:
    from sagescale.document import ResultDocument, RunDocument

__all__ = ["delay", "interval_s", "number", "setting", "uses_predictor"]

_NO_FORECAST = {"none", "peak", "cheapest"}
"""What stands in place of a predictor where there is none."""


def setting(document: ResultDocument, run: RunDocument, key: str) -> object:
    """Return a configuration value of the run: its own, else the document's."""
    return (run["config"] or {}).get(key, (document["config"] or {}).get(key))


def number(document: ResultDocument, run: RunDocument, key: str) -> float | None:
    """Return a configuration value that is a number, else None."""
    value = setting(document, run, key)
    return known(value) if isinstance(value, int | float) else None


def interval_s(document: ResultDocument, run: RunDocument) -> float | None:
    """Return seconds between ticks: as configured, else as found (the first tick ends the first window)."""
    configured = number(document, run, "adjustment_interval_sec")
    time_s = run["timeline"]["time_s"]
    first = known(time_s[0]) if time_s else None
    return next((each for each in (configured, first) if each is not None and each > 0), None)


def uses_predictor(run: RunDocument) -> bool:
    """Say whether a predictor, or the truth, stood behind the run's decisions."""
    return run["predictor"] not in _NO_FORECAST


def delay(value: object) -> str:
    """Write a startup delay: seconds, as a number or in a string, or the name of a distribution."""
    try:
        return duration(float(str(value)))
    except ValueError:
        return plain(value)
