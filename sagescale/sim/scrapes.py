"""What a tick sees of the cluster: scrapes, as old, as frozen or as missing as the metrics are.

Metrics of age ``a`` at the tick at t describe the window ``(t - T - a, t - a]``, and the gauges at its end.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from sagescale.fleet import AGGREGATED
from sagescale.planner import Observation
from sagescale.sim.faults import Outages
from sagescale.sim.injector import FaultEvent

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sagescale.fleet import Pools
    from sagescale.sim.config import SimulatorConfig
    from sagescale.sim.engine import Cluster, Counters, Gauges
    from sagescale.sim.faults import Faults, Span

BEFORE = -1.0
"""Stands for the instant before 0: no arrival yet, not even those at 0."""


class Seen(NamedTuple):
    """The window ``(start_s, end_s]``, either end perhaps :data:`BEFORE`."""

    start_s: float
    end_s: float


class Visibility:
    """What a planner that decides every ``interval_s`` gets to see. It depends on nothing that runs do.

    Args:
        interval_s: seconds between ticks.
        simulator: says how old metrics are, and when there are none.
        faults: says when they vanish, freeze or lag besides.

    Attributes:
        oldest_s: the greatest age that metrics can have.
    """

    def __init__(self, interval_s: float, simulator: SimulatorConfig, faults: Faults) -> None:
        self._interval_s = interval_s
        self._delay_s = simulator.scrape_delay_s
        self._outage_s = simulator.metric_outage_s
        seed = simulator.simulation_seed
        self._vanish = Outages("metrics_vanish", faults, seed)
        self._freeze = Outages("metrics_freeze", faults, seed)
        self._lag = Outages("metrics_lag", faults, seed)
        self.oldest_s = self._delay_s + self._lag.longest_lag_s
        self._ahead = 1 + math.ceil(self.oldest_s / interval_s)

    def window(self, tick: int) -> Seen:
        """The window that tick number ``tick`` sees where nothing hides it; the first begins before all."""
        end_s = tick * self._interval_s
        start_s = (tick - 1) * self._interval_s
        age_s = self._delay_s
        if lags := self._lag.at(end_s):
            age_s += max(span.lag_s for span in lags)
        if age_s:
            start_s, end_s = start_s - age_s, end_s - age_s
        return Seen(start_s if start_s >= 0.0 and tick > 1 else BEFORE, end_s if end_s >= 0.0 else BEFORE)

    def at(self, tick: int) -> Seen | Literal["unknown", "frozen"]:
        """What a tick sees: a window, nothing, or whatever was last seen once more."""
        time_s = tick * self._interval_s
        if time_s in self._outage_s or self._vanish.at(time_s):
            return "unknown"
        if self._freeze.at(time_s):
            return "frozen"
        window = self.window(tick)
        return "unknown" if window.end_s == BEFORE else window  # nothing is that old yet

    def current(self, time_s: float) -> bool:
        """Whether metrics are to be had at an instant, and are of that instant."""
        return not (
            self._delay_s
            or time_s in self._outage_s
            or any(outages.at(time_s) for outages in (self._vanish, self._freeze, self._lag))
        )

    def edges(self, tick: int) -> list[float]:
        """The instants after tick ``tick - 1``, up to tick ``tick``, at which some window begins or ends."""
        start_s, end_s = (tick - 1) * self._interval_s, tick * self._interval_s
        edges = {edge for later in range(tick, tick + self._ahead + 1) for edge in self.window(later)}
        return sorted(edge for edge in edges if (start_s < edge or tick == 1) and 0.0 <= edge <= end_s)

    def outages(self, horizon_s: float) -> Iterable[tuple[Outages, Span]]:
        """The metrics faults that began by the horizon."""
        for outages in (self._vanish, self._freeze, self._lag):
            for span in outages.begun_by(horizon_s):
                yield outages, span


_LENGTHS = 128
"""Completed requests of a window whose lengths are shown."""


class _Scrape(NamedTuple):
    """Counters and gauges at one instant."""

    counters: Counters
    gauges: Gauges
    kv_usage: float | None
    caches: tuple[int, int] | None = None
    """Prompt tokens asked of prefix caches and found there; None without any."""


class Scrapes:
    """Collects what ticks will need and makes observations of it.

    Args:
        cluster: looked at.
        interval_s: seconds between ticks.
        max_kv_tokens: KV memory of a decode instance; None is unlimited.
        simulator: says how old metrics are, and when there are none.
        faults: says when they vanish, freeze or lag besides.
        lengths: whether a sample of the requests' lengths is wanted.
    """

    def __init__(
        self,
        cluster: Cluster,
        interval_s: float,
        max_kv_tokens: int | None,
        simulator: SimulatorConfig,
        faults: Faults,
        *,
        lengths: bool = True,
    ) -> None:
        self._lengths = lengths
        self._cluster = cluster
        self._interval_s = interval_s
        self._max_kv_tokens = max_kv_tokens
        self._visibility = Visibility(interval_s, simulator, faults)
        self._oldest_s = self._visibility.oldest_s
        self._has_caches = simulator.prefix_cache
        self._settled, self._asked_before, self._found_before = 0, 0, 0
        self._taken = {BEFORE: self._scrape()}
        self._last_seen: Observation | None = None
        self._checked: _Scrape | None = None

    def due(self, tick: int) -> list[float]:
        """The instants after tick ``tick - 1``, up to tick ``tick``, at which to call :meth:`take`."""
        return self._visibility.edges(tick)

    def take(self) -> None:
        """Remember the cluster as it is now, and forget what no tick can ask for any more."""
        now_s = self._cluster.now_s
        since_s = now_s - self._oldest_s - 2 * self._interval_s
        self._taken = {
            time_s: scrape for time_s, scrape in self._taken.items() if time_s >= since_s or time_s == BEFORE
        }
        self._taken[now_s] = self._scrape()

    def observation(self, tick: int) -> Observation:
        """What the planner sees; the pools are known whatever becomes of the metrics."""
        time_s = tick * self._interval_s
        taken = self._taken.get(time_s)
        pools = self._cluster.pools() if taken is None else taken.gauges.pools
        seen = self._visibility.at(tick)
        if seen == "frozen" and self._last_seen is not None:
            return replace(self._last_seen, time_s=time_s, pools=pools)
        if isinstance(seen, str):
            return Observation(time_s, self._interval_s, pools)
        before, now = self._taken[seen.start_s], self._taken[seen.end_s]
        lengths = None
        if self._lengths:
            lengths = self._cluster.completed_lengths(
                before.counters.completed, now.counters.completed, _LENGTHS
            )
        self._last_seen = _observed(time_s, self._interval_s, pools, before, now, lengths)
        return self._last_seen

    def burst_check(self) -> Observation | None:
        """What happened since the last burst check; None at the first, and while metrics are not of now."""
        now = self._scrape() if self._visibility.current(self._cluster.now_s) else None
        before, self._checked = self._checked, now
        if before is None or now is None:
            return None
        time_s = now.counters.time_s
        return _observed(time_s, time_s - before.counters.time_s, now.gauges.pools, before, now)

    def events(self, horizon_s: float) -> list[FaultEvent]:
        """The metrics faults that began by the horizon."""
        return [
            FaultEvent(span.from_s, outages.kind, until_s=min(span.to_s, horizon_s))
            for outages, span in self._visibility.outages(horizon_s)
        ]

    def _scrape(self) -> _Scrape:
        gauges = self._cluster.gauges()
        if gauges.pools.names == AGGREGATED:  # an instance either runs a request or has it wait
            gauges = gauges._replace(queued=(sum(gauges.queued), 0), running=(0, sum(gauges.running)))
        usage = None
        if self._max_kv_tokens is not None:
            decode = gauges.pools.decode
            memory = self._max_kv_tokens * (decode.ready + decode.draining)
            usage = gauges.kv_tokens / memory if memory else None
        counters = self._cluster.counters()
        caches = self._asked_and_found(counters.arrived) if self._has_caches else None
        return _Scrape(counters, gauges, usage, caches)

    def _asked_and_found(self, arrived: int) -> tuple[int, int]:
        """Prompt tokens asked of prefix caches and found there so far.

        Requests are admitted nearly as they arrive: those that all are settled up to are not looked at again.
        """
        asked, found, settled = self._cluster.asked_of_caches(self._settled, arrived)
        sums = self._asked_before + int(asked.sum()), self._found_before + int(found.sum())
        upto = len(settled) if settled.all() else int(np.argmin(settled))
        self._asked_before += int(asked[:upto].sum())
        self._found_before += int(found[:upto].sum())
        self._settled += upto
        return sums


def _observed(
    time_s: float,
    window_s: float,
    pools: Pools,
    before: _Scrape,
    now: _Scrape,
    lengths: tuple[tuple[int, int], ...] | None = None,
) -> Observation:
    """The window between two scrapes. A ratio over nothing is unknown, not zero."""
    a, b, gauges = before.counters, now.counters, now.gauges
    requests = b.arrived - a.arrived
    completed = b.completed - a.completed
    isl_sum = b.isl_sum - a.isl_sum
    first_tokens = b.first_tokens - a.first_tokens
    itl_count = b.itl_count - a.itl_count
    return Observation(
        time_s,
        window_s,
        pools,
        requests=float(requests),
        completed=float(completed),
        isl_mean=_ratio(isl_sum, requests),
        osl_mean=_ratio(b.osl_sum - a.osl_sum, completed),
        ttft_ms_mean=_ratio((b.ttft_sum_s - a.ttft_sum_s) * 1000.0, first_tokens),
        itl_ms_mean=_ratio((b.itl_sum_s - a.itl_sum_s) * 1000.0, itl_count),
        duration_s_mean=_ratio(b.duration_sum_s - a.duration_sum_s, completed),
        queued_prefill=float(gauges.queued[0]),
        queued_decode=float(gauges.queued[1]),
        running_prefill=float(gauges.running[0]),
        running_decode=float(gauges.running[1]),
        kv_usage=now.kv_usage,
        prefix_hit_rate=_hit_rate(before, now),
        ttft_attainment=_ratio(b.ttft_met - a.ttft_met, first_tokens),
        itl_attainment=_ratio(b.itl_met - a.itl_met, itl_count),
        lengths=lengths,
    )


def _hit_rate(before: _Scrape, now: _Scrape) -> float | None:
    """As engines count it: of prompts first admitted in the window, whenever they came.

    Recorded cache hits are known at arrival.
    """
    if before.caches is None or now.caches is None:
        a, b = before.counters, now.counters
        return _ratio(b.cached_sum - a.cached_sum, b.isl_sum - a.isl_sum)
    asked, found = (after - ahead for after, ahead in zip(now.caches, before.caches, strict=True))
    return _ratio(found, asked)


def _ratio(total: float, count: float) -> float | None:
    return total / count if count > 0 else None
