"""Makes faults happen: stops the cluster where one is due, and spoils starts as they begin.

The kernel knows crashes, launch times and cold first batches; everything that is drawn, timed or
scripted is decided here, at the few instants where it matters.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from sagescale.sim.faults import Outages

if TYPE_CHECKING:
    from collections.abc import Generator

    from sagescale.sim.engine import Cluster, Launch, Pool
    from sagescale.sim.faults import Faults

FaultKind = Literal[
    "crash",
    "no_such_instance",
    "slow_start",
    "stuck_start",
    "failed_start",
    "start_timeout",
    "cold_start",
    "no_gpus",
    "metrics_vanish",
    "metrics_freeze",
    "metrics_lag",
]

_SHORTEST_FAILURE_S = 1.0
"""A failing start takes at least this long, so that one after the other does not stop time."""


@dataclass(frozen=True, slots=True)
class FaultEvent:
    """One thing that went wrong.

    Attributes:
        time_s: when it happened; of slow, stuck and cold starts, when the instance was launched.
        until_s: when it was over, for what lasts.
        instance: counted from 0 in its pool.
        restarted: requests it threw back.
        lost_s: what a start took longer than it should have.
    """

    time_s: float
    kind: FaultKind
    pool: Pool | None = None
    instance: int | None = None
    until_s: float | None = None
    restarted: int = 0
    lost_s: float = 0.0


@dataclass(frozen=True, slots=True)
class FaultLog:
    """What went wrong in a run, by time, and how often requests were thrown back."""

    faults: Faults
    events: tuple[FaultEvent, ...]
    restarts: int


class _Due(NamedTuple):
    """Something to be done to an instance, unless it is gone by then."""

    time_s: float
    order: int
    kind: FaultKind
    pool: Pool
    instance: int | None
    scripted: bool


class Injector:
    """Advances a cluster through its faults.

    Args:
        faults: what goes wrong.
        cluster: made with ``watch_launches``, at time 0.
        simulation_seed: drawn from together with the faults' own seed.

    Raises:
        InputError: a fault is of a pool that there is not.
    """

    def __init__(self, faults: Faults, cluster: Cluster, simulation_seed: int) -> None:
        faults.check_pools(cluster.pool_names)
        self._faults = faults
        self._cluster = cluster
        self._seed = simulation_seed
        self._events: list[FaultEvent] = []
        self._due: list[_Due] = []
        self._ordered = 0
        self._noted = 0
        self._no_gpus = Outages("no_gpus", faults, simulation_seed)
        self._gpus_turn_s = 0.0
        for crash in faults.crashes:
            for _ in range(crash.count):
                self._plan(crash.at_s, "crash", crash.pool, crash.instance, scripted=True)
        for launch in cluster.launches():  # READY and warm, as if they had always been there
            self._plan_crash(launch, 0.0)
            self._noted += 1
        self._turn_gpus()

    def advance(self, until_s: float) -> Generator[float, bool, None]:
        """Go on to ``until_s``, what goes wrong at an instant coming last in it.

        Yields:
            Until when nothing goes wrong; to be sent whether launches stopped the cluster before.
        """
        while True:
            due_s = self._due[0].time_s if self._due else math.inf
            stop_s = min(until_s, self._gpus_turn_s, due_s)
            if (yield stop_s):
                self._note_launches()
            elif self._gpus_turn_s == stop_s:
                self._turn_gpus()
            elif due_s == stop_s:
                self._happen(heapq.heappop(self._due))
            else:
                return

    def scale(self, *targets: int) -> None:
        """Set the pools' targets now; what that launches may be spoilt."""
        self._cluster.scale(*targets)
        self._note_launches()

    @property
    def next_relief_s(self) -> float:
        """When a fault will be over that may keep everything waiting; inf if none will."""
        starts = min(
            (due.time_s for due in self._due if due.kind in {"failed_start", "start_timeout"}),
            default=math.inf,
        )
        spans = self._no_gpus.at(self._cluster.now_s)
        return min([starts, *(span.to_s for span in spans)])

    def log(self, horizon_s: float, metrics: list[FaultEvent]) -> FaultLog:
        """What went wrong by the horizon, what ``metrics`` says included."""
        gpus = [
            FaultEvent(span.from_s, "no_gpus", until_s=min(span.to_s, horizon_s))
            for span in self._no_gpus.begun_by(horizon_s)
        ]
        events = sorted((*self._events, *gpus, *metrics), key=lambda event: event.time_s)
        return FaultLog(
            self._faults,
            tuple(event for event in events if event.time_s <= horizon_s),
            self._cluster.restarts,
        )

    def _plan(
        self, time_s: float, kind: FaultKind, pool: Pool, instance: int | None, *, scripted: bool = False
    ) -> None:
        heapq.heappush(self._due, _Due(time_s, self._ordered, kind, pool, instance, scripted))
        self._ordered += 1

    def _turn_gpus(self) -> None:
        """A span without GPUs begins or ends now."""
        now_s = self._cluster.now_s
        self._cluster.hold_launches(held=bool(self._no_gpus.at(now_s)))
        self._gpus_turn_s = self._no_gpus.next_edge_s(now_s)
        self._note_launches()

    def _happen(self, due: _Due) -> None:
        cluster, instance = self._cluster, due.instance
        if instance is None:
            instance = next(iter(cluster.ready_instances(due.pool)), None)
        before = cluster.restarts
        if instance is None or not cluster.crash(due.pool, instance):
            if due.scripted:  # somebody expects it
                self._events.append(FaultEvent(due.time_s, "no_such_instance", due.pool, due.instance))
            return
        self._events.append(
            FaultEvent(due.time_s, due.kind, due.pool, instance, restarted=cluster.restarts - before)
        )
        self._note_launches()

    # Starts

    def _note_launches(self) -> None:
        for launch in self._cluster.launches(self._noted):
            self._noted += 1
            self._spoil(launch)

    def _draws(self, launch: Launch, purpose: Literal["start", "crash"]) -> np.random.Generator:
        """What an instance draws depends on its pool and number alone, not on what others draw."""
        words = (0 if launch.pool == "prefill" else 1, launch.instance, 0 if purpose == "start" else 1)
        return np.random.default_rng((self._faults.seed, self._seed, *words))

    def _plan_crash(self, launch: Launch, ready_s: float) -> None:
        rate = self._faults.rates.crash_per_instance_hour / 3600.0
        if rate:
            up_s = float(self._draws(launch, "crash").exponential(1.0 / rate))
            self._plan(ready_s + up_s, "crash", launch.pool, launch.instance)

    def _spoil(self, launch: Launch) -> None:
        """Draw what befalls a start: failing comes before stuck, stuck before slow; cold may be added."""
        draws = self._draws(launch, "start")
        pool, instance, launch_s = launch
        rates = self._faults.rates
        slow, stuck, failing, cold = (
            draws.random(4)
            < (
                rates.slow_start_probability,
                rates.stuck_start_probability,
                rates.failing_start_probability,
                rates.cold_start_probability,
            )
        ).tolist()
        factor = rates.slow_start_factor if slow else 1.0
        extra_s = rates.cold_start_extra_s if cold else 0.0
        for fault in self._faults.starts:
            hit = draws.random() < fault.probability
            if hit and fault.covers(pool, launch_s):
                failing |= fault.kind == "failing_starts"
                stuck |= fault.kind == "stuck_starts"
                factor *= fault.factor if fault.kind == "slow_starts" else 1.0
                extra_s += fault.extra_s if fault.kind == "cold_starts" else 0.0
        delay_s = self._cluster.ready_due_s(pool, instance) - launch_s
        ready_s = launch_s + delay_s * factor
        if failing or stuck:
            self._cluster.ready_at(pool, instance, math.inf)
        if failing:
            fails_s = launch_s + max(delay_s * factor, _SHORTEST_FAILURE_S)
            self._plan(fails_s, "failed_start", pool, instance)
            ready_s = fails_s
        elif stuck:
            self._events.append(FaultEvent(launch_s, "stuck_start", pool, instance))
            ready_s = math.inf
        else:
            if factor > 1.0:
                self._cluster.ready_at(pool, instance, ready_s)
                self._events.append(
                    FaultEvent(
                        launch_s, "slow_start", pool, instance, ready_s, lost_s=ready_s - launch_s - delay_s
                    )
                )
            if extra_s:
                self._cluster.chill(pool, instance, extra_s)
                self._events.append(FaultEvent(launch_s, "cold_start", pool, instance, lost_s=extra_s))
            self._plan_crash(launch, ready_s)
        timeout_s = self._faults.start_timeout_s
        if timeout_s is not None and launch_s + timeout_s < ready_s:
            self._plan(launch_s + timeout_s, "start_timeout", pool, instance)
