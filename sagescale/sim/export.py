"""A run's raw material as tables, for people's own analyses."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from sagescale.document import as_keys
from sagescale.files import written_whole
from sagescale.sim.measures import Served
from sagescale.sim.state import DONE, REJECTED, TIMED_OUT

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    import pyarrow as pa
    from numpy.typing import NDArray

    from sagescale.document import Timeline
    from sagescale.sim.run import Run

T = TypeVar("T", bound=np.generic)

_OUTCOMES = ("unfinished", "done", "rejected", "timed_out", "never_arrived")


def timeline_frame(timeline: Timeline, started_at: str | None = None) -> pd.DataFrame:
    """Return the run tick by tick, a row a tick; unknown is NaN, reasons are joined by ``;``.

    With date and time of the trace's start (ISO 8601) the first column is ``time``, that of each tick.
    """
    import pandas as pd

    columns = {**as_keys(timeline), "reasons": [";".join(codes) for codes in timeline.reasons]}
    if started_at is not None:
        start = datetime.fromisoformat(started_at)
        columns = {"time": [(start + timedelta(seconds=at)).isoformat() for at in timeline.time_s], **columns}
    return pd.DataFrame(columns)


def write_timeline(path: Path, timeline: Timeline, started_at: str | None = None) -> None:
    """Write ``timeline_frame`` as CSV; unknown is empty.

    Raises:
        InputError: the file cannot be written.
    """
    text = timeline_frame(timeline, started_at).to_csv(index=False, lineterminator="\n")
    with written_whole(path) as stream:
        stream.write(text.encode())


def write_requests(path: Path, run: Run) -> None:
    """Write ``requests_table`` as Parquet.

    Raises:
        InputError: the file cannot be written.
    """
    from pyarrow import parquet

    with written_whole(path) as stream:
        parquet.write_table(requests_table(run), stream, compression="zstd")


def requests_table(run: Run) -> pa.Table:
    """Return every request: arrival_s, isl, osl, outcome, first_token_s, done_s, ttft_ms, itl_ms.

    And ``priority`` where the trace has it. What never happened is null. ``sla_met`` says whether the request
    met both targets. With engines that step also hit_tokens (of the prefix cache), preemptions and
    recomputed_tokens; where gaps between tokens were measured, as with those, also max_gap_ms and late_gaps,
    how many were longer than the ITL target. Rows are those of the trace; where turns waited for answers
    ``arrival_s`` is when each came, null where it never did, and ``session_id`` is there too.
    """
    import pyarrow as pa

    requests = run.requests
    served = Served(run)
    ttft_ok, itl_ok = served.good
    outcome = np.zeros(len(requests), np.int8)
    for code, state in enumerate((DONE, REJECTED, TIMED_OUT), start=1):
        outcome[requests["state"] == state] = code
    loop = run.closed_loop
    given = run.trace if loop is None else loop.given
    columns = {"isl": given.isl, "osl": given.osl}
    if given.priority is not None:
        columns["priority"] = given.priority
    if loop is not None and given.session_id is not None:
        columns["session_id"] = given.session_id
    times = {
        "first_token_s": np.ascontiguousarray(requests["first_token_s"]),
        "done_s": np.ascontiguousarray(requests["done_s"]),
        "ttft_ms": served.ttft_ms,
        "itl_ms": served.itl_ms,
    }
    known = {
        "cached_tokens": run.trace.isl - run.prompt,
        "restarts": np.ascontiguousarray(requests["restarts"]),
    }
    return pa.table(
        {
            "arrival_s": _by_row(run, run.trace.arrival_s),
            **columns,
            **{name: _by_row(run, values) for name, values in known.items()},
            "outcome": pa.DictionaryArray.from_arrays(
                _placed(run, outcome, len(_OUTCOMES) - 1), list(_OUTCOMES)
            ),
            **{name: _by_row(run, values) for name, values in times.items()},
            "sla_met": _placed(run, ttft_ok & itl_ok, fill=False),
            **{name: _by_row(run, values) for name, values in _stepped_columns(run).items()},
            **{name: _by_row(run, values) for name, values in _gap_columns(run).items()},
        }
    )


def _placed(run: Run, values: NDArray[T], fill: object) -> NDArray[T]:
    """Values of the requests that arrived, at their rows of the trace; ``fill`` where one never did."""
    if run.closed_loop is None:
        return values
    placed = np.full(run.asked, fill, values.dtype)
    placed[run.closed_loop.rows] = values
    return placed


def _by_row(run: Run, values: NDArray[np.generic]) -> pa.Array:
    """The same, null where a request never arrived; NaN is null too."""
    import pyarrow as pa

    placed = _placed(run, values, 0)
    missing = ~_placed(run, np.ones(len(values), bool), fill=False)
    if placed.dtype.kind == "f":
        missing |= np.isnan(placed)
    return pa.array(placed, mask=missing)


def _stepped_columns(run: Run) -> dict[str, NDArray[np.generic]]:
    if run.stepped is None:
        return {}
    records = run.stepped.requests
    names = {"hit_tokens": "hit_tokens", "preemptions": "preemptions", "recomputed_tokens": "recomputed"}
    return {name: np.ascontiguousarray(records[field]) for name, field in names.items()}


def _gap_columns(run: Run) -> dict[str, NDArray[np.generic]]:
    if run.gaps is None:
        return {}
    records = run.gaps.requests
    return {"max_gap_ms": records["gap_s"] * 1000.0, "late_gaps": np.ascontiguousarray(records["late"])}
