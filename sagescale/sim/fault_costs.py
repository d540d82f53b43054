"""What a run's faults cost: requests thrown back, GPU time lost in starts, and the same run without them."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from sagescale.document import FaultRecord, FaultsResult, LostGpuHours, WithoutFaults
from sagescale.sim.measures import Served, gpu_hours

if TYPE_CHECKING:
    from sagescale.sim.injector import FaultLog
    from sagescale.sim.run import Run

__all__ = ["faults_result"]

_LOST = {"stuck_start": "stuck_starts", "start_timeout": "timed_out_starts", "failed_start": "failed_starts"}


def faults_result(run: Run, served: Served, without: Run | None) -> FaultsResult | None:
    """Sum up what went wrong; None where nothing was to.

    Args:
        run: the run.
        served: its latencies.
        without: the same run without its faults, if there is one to compare with.
    """
    log = run.faults
    if log is None:
        return None
    ttft_ok, itl_ok = served.good
    thrown_back = run.requests["restarts"] > 0
    return FaultsResult(
        file=log.faults.file,
        seed=log.faults.seed,
        events=[
            FaultRecord(
                time_s=event.time_s,
                until_s=event.until_s,
                kind=event.kind,
                pool=event.pool,
                instance=event.instance,
                restarted=event.restarted,
            )
            for event in log.events
        ],
        counts=dict(sorted(Counter(event.kind for event in log.events).items())),
        restarts=log.restarts,
        restarted_missed=int(np.count_nonzero(thrown_back & ~(ttft_ok & itl_ok))),
        gpu_hours_lost=_lost(run, log),
        without=None if without is None else _without(without),
    )


def _lost(run: Run, log: FaultLog) -> LostGpuHours:
    """GPU time that went into starts for nothing, up to the horizon; each instance counts once."""
    gpus = {True: run.world.prefill_gpus, False: run.world.decode_gpus}
    lives = {(bool(life["pool"] == 0), int(life["number"])): life for life in run.lifetimes}
    hours = dict.fromkeys((*_LOST.values(), "slow_starts", "cold_starts"), 0.0)
    # A stuck start that was given up is counted as given up.
    ends: dict[tuple[bool, int], str] = {}
    for event in log.events:
        if event.instance is None:
            continue
        key = (event.pool == "prefill", event.instance)
        if event.kind in _LOST:
            ends[key] = _LOST[event.kind]
        elif event.kind == "slow_start":
            assert event.until_s is not None
            waited_s = min(float(lives[key]["stop_s"]), event.until_s) - (event.until_s - event.lost_s)
            hours["slow_starts"] += max(0.0, waited_s) * gpus[key[0]] / 3600.0
    for key, end in ends.items():
        hours[end] += float(lives[key]["stop_s"] - lives[key]["launch_s"]) * gpus[key[0]] / 3600.0
    for in_prefill, of_pool in gpus.items():
        cold_s = run.lifetimes["cold_s"][(run.lifetimes["pool"] == 0) == in_prefill]
        hours["cold_starts"] += float(cold_s.sum()) * of_pool / 3600.0
    return LostGpuHours(
        total=math.fsum(hours.values()),
        failed_starts=hours["failed_starts"],
        stuck_starts=hours["stuck_starts"],
        timed_out_starts=hours["timed_out_starts"],
        slow_starts=hours["slow_starts"],
        cold_starts=hours["cold_starts"],
    )


def _without(run: Run) -> WithoutFaults:
    sla = Served(run).sla()
    return WithoutFaults(
        attainment=sla["attainment"],
        ttft_attainment=sla["ttft_attainment"],
        itl_attainment=sla["itl_attainment"],
        completed=len(run.completed),
        gpu_hours=gpu_hours(run)["total"],
    )
