"""The run tick by tick, as columns for tables and plots."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from sagescale.document import Timeline
from sagescale.sim.measures import Served

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from sagescale.sim.run import Run

__all__ = ["timeline"]


def timeline(run: Run) -> Timeline:
    """Build the columns; every one has an entry a tick."""
    ticks = run.ticks
    gpus = (run.world.prefill_gpus, run.world.decode_gpus)
    served = Served(run)
    by_arrival = _Windows(run, run.requests["arrival_s"])
    ttft_ok, itl_ok = served.good()
    attainment = by_arrival.each((ttft_ok & itl_ok).astype(np.float64), np.mean)
    ttft = _Windows(run, run.requests["first_token_s"]).each(served.ttft_ms(), _p99)
    itl = _Windows(run, run.requests["done_s"]).each(served.itl_ms(), _p99)
    return Timeline(
        time_s=[tick.observation.time_s for tick in ticks],
        requests=[tick.observation.requests for tick in ticks],
        requests_forecast=[tick.decision.forecast.requests for tick in ticks],
        isl=[tick.observation.isl_mean for tick in ticks],
        osl=[tick.observation.osl_mean for tick in ticks],
        ttft_mean_ms=[tick.observation.ttft_ms_mean for tick in ticks],
        ttft_p99_ms=ttft,
        itl_mean_ms=[tick.observation.itl_ms_mean for tick in ticks],
        itl_p99_ms=itl,
        attainment=attainment,
        queued_prefill=[tick.observation.queued_prefill for tick in ticks],
        queued_decode=[tick.observation.queued_decode for tick in ticks],
        running_decode=[tick.observation.running_decode for tick in ticks],
        kv_usage=[tick.observation.kv_usage for tick in ticks],
        prefill_ready=[tick.prefill.ready for tick in ticks],
        prefill_starting=[tick.prefill.starting for tick in ticks],
        prefill_draining=[tick.prefill.draining for tick in ticks],
        prefill_waiting=[tick.prefill.waiting for tick in ticks],
        prefill_target=[tick.decision.targets.prefill for tick in ticks],
        decode_ready=[tick.decode.ready for tick in ticks],
        decode_starting=[tick.decode.starting for tick in ticks],
        decode_draining=[tick.decode.draining for tick in ticks],
        decode_waiting=[tick.decode.waiting for tick in ticks],
        decode_target=[tick.decision.targets.decode for tick in ticks],
        gpus=[
            gpus[0] * (tick.prefill.ready + tick.prefill.starting + tick.prefill.draining)
            + gpus[1] * (tick.decode.ready + tick.decode.starting + tick.decode.draining)
            for tick in ticks
        ],
        prefill_correction=[tick.decision.corrections.prefill for tick in ticks],
        decode_correction=[tick.decision.corrections.decode for tick in ticks],
        reasons=[[str(reason.code) for reason in tick.decision.reasons] for tick in ticks],
    )


class _Windows:
    """Requests grouped by the tick window an event of theirs falls in: ``(t - T, t]``, 0 in the first."""

    def __init__(self, run: Run, event_s: NDArray[np.float64]) -> None:
        edges = np.array([tick.observation.time_s for tick in run.ticks])
        order = np.argsort(event_s, kind="stable")  # NaN, what never happened, comes last
        self._order = order[: np.count_nonzero(~np.isnan(event_s))]
        self._cuts = np.searchsorted(event_s[self._order], edges, side="right")

    def each(
        self, values: NDArray[np.float64], summary: Callable[[NDArray[np.float64]], float]
    ) -> list[float | None]:
        """Summarise each window's values, NaN left out; None where a window has none."""
        result: list[float | None] = []
        start = 0
        for stop in self._cuts.tolist():
            group = values[self._order[start:stop]]
            group = group[~np.isnan(group)]
            summarised = float(summary(group)) if len(group) else math.nan
            result.append(None if math.isnan(summarised) else summarised)
            start = stop
        return result


def _p99(values: NDArray[np.float64]) -> float:
    return float(np.percentile(values, 99.0))
