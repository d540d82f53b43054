"""The run tick by tick, as columns for tables and plots."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sagescale.document import Timeline

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sagescale.sim.measures import Served
    from sagescale.sim.run import Run

__all__ = ["timeline"]


def timeline(run: Run, served: Served) -> Timeline:
    """Build the columns; every one has an entry a tick."""
    ticks = run.ticks
    gpus = (run.world.prefill_gpus, run.world.decode_gpus)
    edges = np.array([tick.observation.time_s for tick in ticks])
    arrivals = np.searchsorted(run.trace.arrival_s, edges, side="right")
    ttft = _each_window(served.ttft_ms, arrivals)
    itl = _each_window(served.itl_ms, arrivals)
    return Timeline(
        time_s=[tick.observation.time_s for tick in ticks],
        requests=[tick.observation.requests for tick in ticks],
        requests_forecast=[tick.decision.forecast.requests for tick in ticks],
        requests_forecast_p90=[tick.decision.forecast.requests_p90 for tick in ticks],
        isl=[tick.observation.isl_mean for tick in ticks],
        osl=[tick.observation.osl_mean for tick in ticks],
        ttft_mean_ms=[tick.observation.ttft_ms_mean for tick in ticks],
        ttft_p50_ms=ttft[0],
        ttft_p99_ms=ttft[1],
        itl_mean_ms=[tick.observation.itl_ms_mean for tick in ticks],
        itl_p50_ms=itl[0],
        itl_p99_ms=itl[1],
        attainment=_attainment(served, arrivals),
        queued_prefill=[tick.observation.queued_prefill for tick in ticks],
        queued_decode=[tick.observation.queued_decode for tick in ticks],
        running_decode=[tick.observation.running_decode for tick in ticks],
        kv_usage=[tick.observation.kv_usage for tick in ticks],
        prefill_ready=[tick.observation.pools.prefill.ready for tick in ticks],
        prefill_starting=[tick.observation.pools.prefill.starting for tick in ticks],
        prefill_draining=[tick.observation.pools.prefill.draining for tick in ticks],
        prefill_waiting=[tick.observation.pools.prefill.waiting for tick in ticks],
        prefill_target=[tick.decision.targets.prefill for tick in ticks],
        decode_ready=[tick.observation.pools.decode.ready for tick in ticks],
        decode_starting=[tick.observation.pools.decode.starting for tick in ticks],
        decode_draining=[tick.observation.pools.decode.draining for tick in ticks],
        decode_waiting=[tick.observation.pools.decode.waiting for tick in ticks],
        decode_target=[tick.decision.targets.decode for tick in ticks],
        gpus=[
            sum(each * held for each, held in zip(gpus, tick.observation.pools.holding, strict=True))
            for tick in ticks
        ],
        prefill_correction=[tick.decision.corrections.prefill for tick in ticks],
        decode_correction=[tick.decision.corrections.decode for tick in ticks],
        reasons=[[str(reason.code) for reason in tick.decision.reasons] for tick in ticks],
    )


def _attainment(served: Served, arrivals: NDArray[np.int64]) -> list[float | None]:
    """Share of the requests that arrived in each window and were good; None without arrivals."""
    ttft, itl = served.good
    good = np.concatenate([[0], np.cumsum(ttft & itl)])
    cuts = np.concatenate([[0], arrivals])
    arrived, met = np.diff(cuts).tolist(), np.diff(good[cuts]).tolist()
    return [part / whole if whole else None for part, whole in zip(met, arrived, strict=True)]


def _each_window(
    values: NDArray[np.float64], cuts: NDArray[np.int64]
) -> tuple[list[float | None], list[float | None]]:
    """Median and 99th percentile of each window's values, interpolated, NaN left out; None without any."""
    result: tuple[list[float | None], list[float | None]] = ([], [])
    start = 0
    for stop in cuts.tolist():
        group = values[start:stop]
        start = stop
        group = group[~np.isnan(group)]
        if not len(group):
            for column in result:
                column.append(None)
            continue
        ranks = [share * (len(group) - 1) for share in (0.5, 0.99)]
        places = [(int(rank), min(int(rank) + 1, len(group) - 1)) for rank in ranks]
        group.partition(sorted({place for pair in places for place in pair}))
        for column, rank, (low, high) in zip(result, ranks, places, strict=True):
            column.append(float(group[low] + (group[high] - group[low]) * (rank - low)))
    return result
