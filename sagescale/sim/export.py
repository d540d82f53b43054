"""A run's raw material as tables, for people's own analyses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sagescale.document import as_keys
from sagescale.files import written_whole
from sagescale.sim.measures import Served
from sagescale.sim.state import DONE, REJECTED, TIMED_OUT

if TYPE_CHECKING:
    from pathlib import Path

    from sagescale.document import Timeline
    from sagescale.sim.run import Run

__all__ = ["write_requests", "write_timeline"]

_OUTCOMES = ("unfinished", "done", "rejected", "timed_out")


def write_timeline(path: Path, timeline: Timeline) -> None:
    """Write the run tick by tick as CSV, a row a tick; unknown is empty, reasons are joined by ``;``.

    Raises:
        InputError: the file cannot be written.
    """
    import pandas as pd

    columns = {**as_keys(timeline), "reasons": [";".join(codes) for codes in timeline.reasons]}
    text = pd.DataFrame(columns).to_csv(index=False, lineterminator="\n")
    with written_whole(path) as stream:
        stream.write(text.encode())


def write_requests(path: Path, run: Run) -> None:
    """Write every request as Parquet: arrival_s, isl, osl, outcome, first_token_s, done_s, ttft_ms, itl_ms.

    And ``priority`` where the trace has it. What never happened is null. ``sla_met`` says whether the request
    met both targets.

    Raises:
        InputError: the file cannot be written.
    """
    import pyarrow as pa
    from pyarrow import parquet

    requests = run.requests
    served = Served(run)
    ttft_ok, itl_ok = served.good
    outcome = np.zeros(len(requests), np.int8)
    for code, state in enumerate((DONE, REJECTED, TIMED_OUT), start=1):
        outcome[requests["state"] == state] = code
    columns = {"arrival_s": run.trace.arrival_s, "isl": run.trace.isl, "osl": run.trace.osl}
    if run.trace.priority is not None:
        columns["priority"] = run.trace.priority
    times = {
        "first_token_s": np.ascontiguousarray(requests["first_token_s"]),
        "done_s": np.ascontiguousarray(requests["done_s"]),
        "ttft_ms": served.ttft_ms,
        "itl_ms": served.itl_ms,
    }
    table = pa.table(
        {
            **columns,
            "cached_tokens": run.trace.isl - run.prompt,
            "restarts": np.ascontiguousarray(requests["restarts"]),
            "outcome": pa.DictionaryArray.from_arrays(outcome, list(_OUTCOMES)),
            **{name: pa.array(values, mask=np.isnan(values)) for name, values in times.items()},
            "sla_met": ttft_ok & itl_ok,
        }
    )
    with written_whole(path) as stream:
        parquet.write_table(table, stream, compression="zstd")
