"""Puts the live loop together from a configuration, runs it, and ends it cleanly."""

from __future__ import annotations

import dataclasses
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sagescale.errors import InputError, SagescaleError
from sagescale.live.actuators.make import DryRun, make_actuator
from sagescale.live.clock import SystemClock, stopping_on_signals
from sagescale.live.doctor import Finding, check
from sagescale.live.journal import Journal
from sagescale.live.lock import TargetLock
from sagescale.live.loop import ControlLoop
from sagescale.live.metrics.source import make_source
from sagescale.live.tick_text import tick_text
from sagescale.live.twin import make_twin
from sagescale.live.watchers import JsonLines, PlainLines, Screen
from sagescale.planner.policy import needs_twin

if TYPE_CHECKING:
    from sagescale.live.actuators.lease import Lease
    from sagescale.live.actuators.protocol import Actuator
    from sagescale.live.config import LiveConfig
    from sagescale.live.loop import Watcher
    from sagescale.live.setup import Configured
    from sagescale.planner import AutoscalerConfig

_SECONDS_A_DAY = 86400.0
_STANDBY_S = 0.25
_LEASE_POLL_S = 1.0


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """What the command line adds to the configuration."""

    dry_run: bool = False
    once: bool = False
    standby: bool = False
    ticks: int | None = None
    log: str | None = None


USUAL_SCRAPE_INTERVAL_S = 15.0
"""In which Prometheus has read an instance again, or discovery no longer lists it."""


def run_check(setup: Configured) -> int:
    """Print what ``check`` finds; return the exit code."""
    live = setup.live
    source, actuator = (
        make_source(live, setup.simulator.first_token, setup.config),
        make_actuator(live, setup.config.pool_names),
    )
    window_s = float(setup.config.adjustment_interval_sec)
    pause_s = window_s / live.time_scale
    clock = SystemClock()
    if live.prometheus_url is None and live.scrapes:
        print(f"reading twice, {pause_s:g} s apart", file=sys.stderr)
        source.prime()
        clock.wait_until(clock.monotonic_s() + pause_s)
    else:
        pause_s = min(pause_s, USUAL_SCRAPE_INTERVAL_S)
    try:
        findings = check(source, actuator, window_s, clock, pause_s)
    finally:
        source.close()
        actuator.close()
    if (question := _router_question(setup)) is not None:
        findings.append(question)
    for finding in findings:
        print(f"{finding.level:<5} {finding.what}" + (f"\n      -> {finding.fix}" if finding.fix else ""))
    bad = sum(finding.level == "bad" for finding in findings)
    print(f"\n{bad} to fix" if bad else "\nall there")
    return 1 if bad else 0


def _router_question(setup: Configured) -> Finding | None:
    """Ask who gets a request, where sizes are tried on engines behind a router and nobody said."""
    if "routing_strategy" in setup.settings.explicit or not needs_twin(setup.config.policy):
        return None
    return Finding(
        "note",
        f"routing_strategy is not given: policy {setup.config.policy} takes the router to be "
        f"{setup.simulator.routing_strategy}",
        "behind a proxy that deals requests out in turns set routing_strategy: round_robin, else say so too",
    )


def run_plan(setup: Configured, options: PlanOptions) -> None:
    """Run the loop until SIGTERM, SIGINT, or for as many ticks as wished.

    Raises:
        InputError: something in the configuration cannot be used.
        SagescaleError: another planner scales this target or writes this journal, or not everything could be
            written.
    """
    live, config = setup.live, setup.config
    if options.log not in {None, "screen", "plain", "json"}:
        raise InputError(f"--log {options.log}: expected screen, plain or json")
    if options.dry_run:
        config = dataclasses.replace(config, no_operation=True)
    dry = config.no_operation or live.actuator == "none"
    actuator = make_actuator(live, setup.config.pool_names)
    clock = SystemClock()
    lock = TargetLock(actuator.target, live.lock_dir)
    with stopping_on_signals(clock.stop):
        _plan(setup, config, options, actuator, clock, lock, dry=dry)


def _plan(
    setup: Configured,
    config: AutoscalerConfig,
    options: PlanOptions,
    actuator: Actuator,
    clock: SystemClock,
    lock: TargetLock,
    *,
    dry: bool,
) -> None:
    live = setup.live
    source = make_source(
        live, setup.simulator.first_token, setup.config
    )  # now: who stands by is to take over at once
    if not dry and not _take(lock, clock, standby=options.standby):
        return
    with lock, ExitStack() as ends:
        right = None if dry else _lease(live, actuator)
        if right is not None:
            if not _take_lease(right, clock, standby=options.standby):
                return
            ends.callback(right.release)
            right.keep()
        # A rehearsal does not mix its decisions with those of the planner that acts.
        path: Path | str = Path(live.journal)
        if dry:
            path = ":memory:" if options.once else Path(f"{live.journal}.dry-run")
        target = "a dry run" if dry else actuator.target
        journal = Journal(path, target, live.journal_retention_days * _SECONDS_A_DAY)
        unsaid = dry and actuator.target != DryRun.target
        heading = f"{source.describe()} -> {actuator.target}{' (dry run)' if unsaid else ''}"
        watchers, screen = _watchers(setup, options, journal, heading, actuator.target, dry=dry)
        twin = make_twin(config, setup.model, setup.simulator)
        loop = ControlLoop(config, live, setup.model, source, actuator, journal, clock, watchers, twin, right)
        try:
            if options.once:
                print(tick_text(loop.run_once(), heading=heading), end="")
            else:
                loop.run(ticks=options.ticks)
        finally:
            if screen is not None:
                screen.close()
        if missing := journal.waiting + journal.lost:
            raise SagescaleError(
                f"journal: {path}: {missing} of the {journal.added} records of this run are not in it "
                f"({journal.failure or 'it cannot take them'}): make room; the pools stay as decided"
            )


def _take(lock: TargetLock, clock: SystemClock, *, standby: bool) -> bool:
    """Take the lock, waiting for it if wished; say whether it was got."""
    if not standby:
        lock.acquire_or_refuse()
        return True
    announced = False
    while not lock.acquire():
        if not announced:
            print(f"standing by: another planner is scaling {lock.target}", file=sys.stderr)
            announced = True
        if clock.wait_until(clock.monotonic_s() + _STANDBY_S):
            return False
    return True


def _lease(live: LiveConfig, actuator: Actuator) -> Lease | None:
    """Return the right to scale that planners on all machines share, where there is a place for one."""
    if live.actuator != "kubernetes":
        return None
    from sagescale.live.actuators.kubernetes import KubernetesActuator

    assert isinstance(actuator, KubernetesActuator)
    return actuator.lease()


def _take_lease(lease: Lease, clock: SystemClock, *, standby: bool) -> bool:
    """Take the lease, waiting until a holder that has gone can be told from one that lives.

    Raises:
        SagescaleError: another planner holds it, or the API refuses.
    """
    began_s, announced = clock.monotonic_s(), ""
    while True:
        try:
            if lease.acquire():
                return True
            text = f"{lease.holder} holds the {lease.name}"
        except SagescaleError as error:
            if not standby:
                raise
            text = str(error)
        waited_s = clock.monotonic_s() - began_s
        if not standby and waited_s > lease.lasts_s + 2 * _LEASE_POLL_S:
            raise SagescaleError(
                f"another planner ({lease.holder}) holds the {lease.name}; stop it first, or start this one "
                "with --standby"
            )
        if text != announced:
            waiting = "standing by" if standby else f"waiting {lease.lasts_s:g} s to see whether it lives"
            print(f"{waiting}: {text}", file=sys.stderr)
            announced = text
        if clock.wait_until(clock.monotonic_s() + _LEASE_POLL_S):
            return False


def _watchers(
    setup: Configured, options: PlanOptions, journal: Journal, heading: str, target: str, *, dry: bool
) -> tuple[tuple[Watcher, ...], Screen | None]:
    if options.once:
        return (), None
    watchers: list[Watcher] = []
    screen = None
    log = options.log or ("screen" if sys.stdout.isatty() else "plain")
    if log == "screen":
        from rich.console import Console

        screen = Screen(Console(), heading)
        watchers.append(screen)
    else:
        watchers.append(JsonLines() if log == "json" else PlainLines())
    if setup.live.exporter_port:
        from sagescale.live.exporter import Exporter

        exporter = Exporter(
            setup.config,
            journal,
            dry_run=dry,
            model=setup.live.model_name or setup.profile.model,
            target=target,
        )
        exporter.serve(setup.live.exporter_address, setup.live.exporter_port)
        watchers.append(exporter)
    return tuple(watchers), screen
