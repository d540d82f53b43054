"""sagescale's own metrics: what it wants, what it sees, and whether it is well."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from sagescale.errors import InputError
from sagescale.fleet import STATES

if TYPE_CHECKING:
    from prometheus_client import Gauge

    from sagescale.fleet import Fleet
    from sagescale.live.actuators.protocol import PoolStates
    from sagescale.live.journal import Journal
    from sagescale.live.records import Event, TickRecord
    from sagescale.planner import AutoscalerConfig, Decision

_OBSERVED = (
    "requests", "isl_mean", "osl_mean", "ttft_ms_mean", "ttft_ms_p99", "itl_ms_mean", "itl_ms_p99",
    "ttft_attainment", "itl_attainment", "itl_attainment_estimate", "kv_usage",
)  # fmt: skip


class Exporter:
    """Keeps the metrics and serves them; a ``Watcher`` of the loop.

    ``sagescale_desired_replicas`` is absent until pools or load have been known once, then stays at its last
    value for as long as this process lives; an HPA or KEDA that reads it holds its own last value when
    sagescale is gone.

    Args:
        config: Whose targets and budget are exported.
        journal: Whose health is.
        dry_run: Exported with the build's information, so that nobody scales on a rehearsal.
        model: Whose engines are scaled; with ``target`` it tells one planner from another on one server.
        target: What is scaled.
    """

    def __init__(
        self,
        config: AutoscalerConfig,
        journal: Journal,
        *,
        dry_run: bool,
        model: str = "",
        target: str = "",
        fleet: Fleet | None = None,
    ) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge

        from sagescale.version import __version__

        self.registry = registry = CollectorRegistry()
        self._journal = journal

        def gauge(name: str, about: str, *labels: str) -> Gauge:
            return Gauge(f"sagescale_{name}", about, labels, registry=registry)

        def counter(name: str, about: str, *labels: str) -> Counter:
            return Counter(f"sagescale_{name}", about, labels, registry=registry)

        self._desired = gauge("desired_replicas", "Instances the pool is to have.", "pool")
        self._replicas = gauge("replicas", "Instances of the pool by state.", "pool", "state")
        self._gpus = gauge("gpus", "GPUs held, starting and draining instances included.")
        self._forecast = gauge("forecast", "Load expected over the next interval.", "series")
        self._observed = gauge("observed", "What the last window showed; absent while unknown.", "series")
        self._correction = gauge("correction_factor", "Measured over expected latency.", "pool")
        self._known = gauge("metrics_usable", "1 while the load is known, 0 while it is not.")
        self._last_tick = gauge("last_tick_timestamp_seconds", "When it last decided.")
        self._waiting = gauge("journal_waiting_records", "Records the disk has not taken yet.")
        self._ticks = counter("ticks", "Decisions made.")
        self._moves = counter("scalings", "Decisions that changed a pool.", "pool", "direction")
        self._problems = counter("problems", "What was wrong, by kind.", "code")
        self._events = counter("events", "Orders, failures, starts and ends.", "kind")
        self._failures = counter(
            "loop_failures", "Errors that nothing foresaw; the pools stayed. Report them."
        )
        self._reasons = counter("reasons", "Why decisions were what they were.", "code")
        gauge("target_ttft_ms", "Target TTFT.").set(config.target_ttft_ms)
        gauge("target_itl_ms", "Target ITL.").set(config.target_itl_ms)
        gauge("target_attainment", "Share of the requests that is to meet the targets.").set(
            config.target_attainment
        )
        gauge("gpu_budget", "max_gpu_budget.").set(config.max_gpu_budget)
        gauge("adjustment_interval_seconds", "Interval between decisions.").set(
            config.adjustment_interval_sec
        )
        gauge(
            "build_info", "Always 1.", "version", "policy", "predictor", "dry_run", "model", "target"
        ).labels(
            __version__, config.policy, config.load_predictor_type, str(dry_run).lower(), model, target
        ).set(1)
        self._gpus_each = {pool.name: pool.gpus for pool in (config.fleet if fleet is None else fleet).pools}

    def serve(self, address: str, port: int) -> int:
        """Serve the metrics in the background; return the port.

        Raises:
            InputError: the address cannot be listened on.
        """
        from prometheus_client import start_http_server

        try:
            server, _ = start_http_server(port, address, self.registry)
        except OSError as error:
            raise InputError(
                f"exporter_port: {address}:{port}: cannot be listened on: {error.strerror}; "
                "expected a free port, or 0 for none"
            ) from None
        return int(server.server_port)

    def ticked(self, record: TickRecord, decision: Decision, states: PoolStates) -> None:
        """Export a tick."""
        gpus = 0
        # Whoever acts on these would shrink pools of unknown size to a guess.
        known = all(note.code != "hold_pools_unknown" for note in record.notes)
        for (pool, counts), to, at in zip(states.pools.items(), record.goal, record.current, strict=True):
            if known:
                self._desired.labels(pool).set(to)
            for state in STATES:
                self._replicas.labels(pool, state).set(getattr(counts, state))
            gpus += counts.present * self._gpus_each[pool]
            if to != at:
                self._moves.labels(pool, "up" if to > at else "down").inc()
        self._gpus.set(gpus)
        forecast, seen = decision.forecast, record.observation
        for name in ("requests", "isl", "osl"):
            _set(self._forecast, name, getattr(forecast, name))
        if record.kind == "tick":  # the window of a burst check is a short one
            for name in _OBSERVED:
                _set(self._observed, name, getattr(seen, name))
        for role, factor in decision.corrections._asdict().items():
            self._correction.labels(role).set(factor)
        self._known.set(seen.requests is not None)
        self._last_tick.set(time.time())
        self._waiting.set(self._journal.waiting)
        self._ticks.inc()
        for problem in record.problems:
            self._problems.labels(problem.code).inc()
        for code in [str(reason.code) for reason in decision.reasons] + [note.code for note in record.notes]:
            self._reasons.labels(code).inc()

    def happened(self, event: Event) -> None:
        """Count an event."""
        self._events.labels(event.kind).inc()
        if event.kind == "loop_failed":
            self._failures.inc()
        self._waiting.set(self._journal.waiting)


def _set(gauge: Gauge, name: str, value: float | None) -> None:
    if value is not None:
        gauge.labels(name).set(value)
    else:  # unknown is never the last value, nor zero
        with contextlib.suppress(KeyError):
            gauge.remove(name)
