"""What faults cost in each run of a comparison, for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from sagescale.report.faults import happened
from sagescale.report.formats import NOTHING, count, figure, plain, share
from sagescale.report.layout import DIM

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sagescale.document import FaultsResult, RunDocument
    from sagescale.report.layout import Page

__all__ = ["print_fault_costs"]

_WIDE = 100


def print_fault_costs(page: Page, runs: Sequence[RunDocument], names: Sequence[str]) -> None:
    """Print a row a run, in the order and by the names given; nothing where nothing was to go wrong."""
    befallen = [
        (name, run, faults)
        for name, run in zip(names, runs, strict=True)
        if (faults := run.get("faults")) is not None
    ]
    if not befallen:
        return
    name, _, faults = befallen[0]
    what = ", ".join(happened(faults)) if faults["events"] else "nothing went wrong"
    page.blank()
    page.field("faults", plain(faults["file"]) or "given", f"in {name}: {what}")
    wide = page.width >= _WIDE
    named = max(len(name) for name, _, _ in befallen)
    rows = [("", _cells(name.ljust(named), run, faults, wide=wide)) for name, run, faults in befallen]
    more = ("of them missed", "GPU-h lost") if wide else ()
    page.table("", ["", "restarted", *more, "attained w/o", "GPU-h w/o"], rows)
    page.field("", Text("w/o: the same run with nothing going wrong", style=DIM))


def _cells(name: str, run: RunDocument, faults: FaultsResult, *, wide: bool) -> list[Text]:
    without = faults["without"]
    more = (count(faults["restarted_missed"]), figure(faults["gpu_hours_lost"]["total"]))
    texts = (
        name,
        count(run["requests"]["restarted"]),
        *(more if wide else ()),
        NOTHING if without is None else share(without["attainment"]),
        NOTHING if without is None else figure(without["gpu_hours"]),
    )
    return [Text(text) for text in texts]
