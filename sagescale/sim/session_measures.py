"""What became of the sessions of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sagescale.document import FinishTimes, SessionsResult
from sagescale.sim.state import DONE

if TYPE_CHECKING:
    from sagescale.sim.measures import Served
    from sagescale.sim.run import Run


def sessions_result(run: Run, served: Served) -> SessionsResult | None:
    """Sum up a run's sessions; None where the trace does not say which answers turns wait for."""
    loop, came = run.closed_loop, run.trace
    given = came if loop is None else loop.given
    if given.turns is None or given.session_id is None:
        return None
    session = given.session_id if loop is None else given.session_id[loop.rows]
    requests = np.bincount(given.session_id)
    total = len(requests)
    ttft, itl = served.good
    done = run.requests["state"] == DONE
    finished = np.bincount(session[done], minlength=total) == requests
    first_s, last_s = np.full(total, np.inf), np.zeros(total)
    np.minimum.at(first_s, session, came.arrival_s)
    np.maximum.at(last_s, session[done], run.requests["done_s"][done])
    times = (last_s - first_s)[finished]
    p50, p90, p99 = np.percentile(times, (50, 90, 99)).tolist() if len(times) else (None, None, None)
    return SessionsResult(
        total=total,
        started=int(np.isfinite(first_s).sum()),
        finished=int(finished.sum()),
        attainment=int((np.bincount(session[ttft & itl], minlength=total) == requests).sum()) / total,
        finish_s=FinishTimes(p50=p50, p90=p90, p99=p99),
    )
