"""The control loop: a fixed cadence, one tick after another, each from what is seen to what is ordered."""

from __future__ import annotations

import dataclasses
import logging
from functools import partial
from typing import TYPE_CHECKING, Literal, Protocol

from sagescale.errors import SagescaleError
from sagescale.live.guard import Guard, nothing
from sagescale.live.metrics.evenness import Evenness
from sagescale.live.mover import Mover
from sagescale.live.past import Past
from sagescale.live.records import SETTINGS_KEPT, Event, Note, TickRecord
from sagescale.live.rhythm import SAME_S, Rhythm
from sagescale.live.safeguards import Safeguards
from sagescale.live.sensor import Reading, Sensor, least_pools
from sagescale.planner import (
    Decision,
    Observation,
    Planner,
    Reason,
    ReasonCode,
    keys_of,
    make_load_predictors,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sagescale.fleet import Fleet, Sizes
    from sagescale.live.actuators.protocol import Actuator, PoolStates
    from sagescale.live.clock import Clock
    from sagescale.live.config import LiveConfig
    from sagescale.live.journal import Journal
    from sagescale.live.lock import Right
    from sagescale.live.metrics.source import Source
    from sagescale.perf import PerfModel
    from sagescale.planner import AutoscalerConfig
    from sagescale.planner.policy import Policy
    from sagescale.planner.policy.twin import EngineTwin

logger = logging.getLogger(__name__)

_POLLS_A_TICK = 20
_REPLAYED = 2000


class Watcher(Protocol):
    """Sees every tick and every event: the screen, the log, the exporter."""

    def ticked(self, record: TickRecord, decision: Decision, states: PoolStates) -> None:
        """Take note of a tick."""

    def happened(self, event: Event) -> None:
        """Take note of something between ticks."""


class ControlLoop:
    """Reads metrics, asks the planner, keeps the journal and moves the pools, once an interval.

    A tick that comes late leaves out the ones it missed. A policy that wants it is shown a short window
    between ticks as well (a burst check), and may then have instances added at once.

    Args:
        config: The autoscaler's configuration; with ``no_operation`` nothing is ever acted on.
        live: The loop's own.
        perf_model: What the planner sizes with.
        source: Where metrics come from.
        actuator: Who acts.
        journal: Where everything is kept.
        clock: The machine's, or a test's.
        watchers: They see every tick and event.
        twin: Simulated engines, for a policy that tries sizes on them (``live.twin``).
        right: Without which nothing is done to the pools, from the moment that it is lost.
        fleet: The pools, where they are not those of the configuration's flat keys.
        policy: In place of the one that the configuration names.
    """

    def __init__(
        self,
        config: AutoscalerConfig,
        live: LiveConfig,
        perf_model: PerfModel,
        source: Source,
        actuator: Actuator,
        journal: Journal,
        clock: Clock,
        watchers: tuple[Watcher, ...] = (),
        twin: EngineTwin | None = None,
        right: Right | None = None,
        fleet: Fleet | None = None,
        policy: Policy | None = None,
    ) -> None:
        self.config = config
        self._fleet = config.fleet if fleet is None else fleet
        self.live = live
        self.journal = journal
        self.clock = clock
        self.source = source
        self._watchers = watchers
        self._acts = live.actuator != "none" and not config.no_operation
        # A planner that knows it is not acted on does not wonder why nothing changes.
        if not self._acts:
            config = dataclasses.replace(config, no_operation=True)
        predictors = make_load_predictors(config)
        self.planner = Planner(
            config, perf_model, predictors=predictors, policy=policy, twin=twin, fleet=self._fleet
        )
        self.mover = Mover(
            actuator, self._fleet, drain_wait_s=live.drain_wait_s, scale_up_timeout_s=live.scale_up_timeout_s
        )
        # Only policies that try sizes on engines believe anything of who gets a request.
        self._believes_balance = bool(getattr(twin, "balances_load", False))
        self._evenness = Evenness()
        self.rhythm = Rhythm(clock, journal, float(config.adjustment_interval_sec), live.time_scale)
        self._guard = Guard(self._report_failure)
        self._sensor = Sensor(self._fleet, self.mover, journal, self.rhythm, self._guard, acts=self._acts)
        self.safeguards = Safeguards(live, self._fleet, self.mover, journal, self.rhythm, right)
        self._past = Past(self.planner, predictors, source, self.rhythm, self._guard, self._event)
        self._checked_s = 0.0  # the end of the last burst check's window, in the pools' own time
        self._at_tick = least_pools(self._fleet).asked
        self._shown = 0  # the last tick that the planner was shown
        self.ticks = 0

    # --- running -------------------------------------------------------------------------------

    def run(self, *, ticks: int | None = None) -> None:
        """Tick until asked to stop, or for so many ticks."""
        number = 1
        try:
            self.start()
            while ticks is None or number <= ticks:
                if self._wait_for(number):
                    break
                self._guarded_tick(number)
                number = self._after(number)
        finally:
            self.finish()

    def run_once(self) -> TickRecord:
        """Read, decide and (unless it is a dry run) act once, now.

        Raises:
            SagescaleError: nothing could be decided; the pools stay as they are.
        """
        wall_interval_s = self.rhythm.wall_interval_s
        try:
            self.start()
            if self.live.prometheus_url is None and self.live.scrapes:
                # A window needs two readings.
                self.clock.wait_until(self.clock.monotonic_s() + wall_interval_s)
            self.rhythm.begin_now()
            if (record := self._guarded_tick(0)) is None:
                raise SagescaleError(f"nothing could be decided: {self._guard.failure}")
            # What waits for GPUs to become free is still ordered, within an interval.
            while self.mover.moving and self.clock.monotonic_s() < self.rhythm.due_s(1):
                if self.clock.wait_until(self.clock.monotonic_s() + wall_interval_s / _POLLS_A_TICK):
                    break
                self._guarded_advance(record.id)
            return record
        finally:
            self.finish()

    def start(self) -> None:
        """Find the rhythm, take up where the last run ended, and get ready for the first window."""
        self._checked_s = self.rhythm.begin()
        self.safeguards.begin()
        self._event("started", f"{self.source.describe()}; {self.mover.actuator.target}")
        self._watch_journal()
        self._guard.run("getting ready to read metrics", self.source.prime, nothing)
        self._guard.run("taking up the last run", self._resume, nothing)

    def _resume(self) -> None:
        past = self.journal.last_ticks(_REPLAYED)
        self._watch_journal()
        self._sensor.recall(past, self.live.safe_floor_lookback_s)
        if not self._past.resume(past):
            self._past.warm_up(self.live.warm_start_windows)

    def finish(self) -> None:
        """Close everything, in order; the pools stay as they are."""
        self._event("stopped", "the pools stay as they are")
        self._guard.run("closing the metric source", self.source.close, nothing)
        self._guard.run("closing the actuator", self.mover.actuator.close, nothing)
        self._guard.run("closing the journal", self.journal.close, nothing)
        self._watch_journal()

    def _wait_for(self, number: int) -> bool:
        """Sleep until a tick, with burst checks and what is left of the last move; say whether to stop."""
        due_s, a_poll_s = self.rhythm.due_s(number), self.rhythm.wall_interval_s / _POLLS_A_TICK
        while True:
            now_s = self.clock.monotonic_s()
            if now_s >= due_s:
                return self.clock.wait_until(now_s)
            poll_s = now_s + max(0.02, a_poll_s)
            # A poll close to the tick would only make the tick late.
            if not self.mover.moving or poll_s >= due_s - a_poll_s:
                poll_s = due_s
            check_s = self._next_burst_check_s(now_s, due_s)
            if self.clock.wait_until(min(poll_s, check_s)):
                return True
            if check_s <= poll_s and check_s < due_s:
                self._guard.run(
                    "the burst check", partial(self._burst_check, number, check_s, due_s), nothing
                )
            elif poll_s < due_s and self.safeguards.hindrance(known=True) is None:
                self._guarded_advance(None)

    def _next_burst_check_s(self, now_s: float, due_s: float) -> float:
        """Return when the next burst check is due, or the tick; what has passed is left out."""
        if not self.ticks:
            return due_s
        start_s = due_s - self.rhythm.wall_interval_s
        # The one right before the tick belongs to the tick.
        checks = (start_s + check_s / self.live.time_scale for check_s in self.planner.burst_checks_s[:-1])
        return next((check_s for check_s in checks if check_s > now_s + SAME_S), due_s)

    def _after(self, number: int) -> int:
        """Return the next tick's number; those whose time has passed are left out."""
        following = self.rhythm.following(number)
        missed = following - number - 1
        if missed:
            self._event("ticks_missed", f"{missed} ticks passed while tick {number} was under way: left out")
            self._feed_unknown(missed, number)
        return following

    def _feed_unknown(self, windows: int, after: int) -> None:
        self._past.unknown(windows, self.rhythm.time_s(after), self._sensor.last_states.pools)

    def _guarded_tick(self, number: int) -> TickRecord | None:
        """Do a tick; one that fails leaves the pools as they are, and the next begins anew."""

        def leave_pools(_: str) -> None:
            self._release()
            if self._shown != number:
                self._feed_unknown(1, number - 1)

        return self._guard.run(f"tick {number}", partial(self.tick, number), leave_pools)

    def _guarded_advance(self, tick: int | None) -> None:
        self._guard.run("moving the pools", partial(self._advance, tick), lambda _: self._release())

    # --- one tick ------------------------------------------------------------------------------

    def tick(self, number: int) -> TickRecord:
        """Do everything that belongs to one tick."""
        self.ticks += 1
        if (step_s := self.rhythm.clock_step_s()) is not None:
            self._event("clock_step", f"the wall clock was set by {step_s:+.1f} s: ticks keep their rhythm")
        late_s = self.rhythm.late_s(number)
        time_s, interval_s = self.rhythm.time_s(number), self.rhythm.interval_s
        reading = self._sensor.read(self.source.collect, time_s, interval_s, late_s)
        self._at_tick = reading.current
        self._notice_router(reading)
        last_burst_check = None
        if self.planner.fast_interval_s is not None and reading.usable:
            last_burst_check = self._guard.run(
                "the burst check", partial(self._check_before_tick, reading, late_s), nothing
            )
        self._shown = number
        decision = self._guard.run("deciding", partial(self._decide, reading.observation), nothing)
        if decision is None:
            reading.notes.append(Note("loop_failed", f"{self._guard.failure}: the pools stay as they are"))
            reading, decision = dataclasses.replace(reading, usable=False), _no_decision(reading)
        goal = self.safeguards.goal(decision, reading)
        return self._conclude(reading, decision, goal, last_burst_check=last_burst_check)

    def _notice_router(self, reading: Reading) -> None:
        """Say so where instances are less equal than the router that sizes are tried behind leaves them."""
        decode = dict(reading.states.pools.items()).get("decode")
        if not reading.decode_loads or decode is None or decode.starting or decode.draining:
            return
        self._evenness.observe(reading.decode_loads)
        if self._believes_balance and self._evenness.dealt_blindly:
            reading.notes.append(
                Note(
                    "router_uneven",
                    "decode instances are as unequal as if requests were dealt out in turns, but sizes are "
                    "tried behind a router that balances load and may be too small: let the router look at "
                    "the load, or set routing_strategy: round_robin",
                )
            )

    def _decide(self, seen: Observation) -> Decision:
        decision = self.planner.step(seen)
        _ = decision.estimate.findings  # is written down: what goes wrong in working it out goes wrong now
        return decision

    def _conclude(
        self,
        reading: Reading,
        decision: Decision,
        goal: Sizes,
        *,
        kind: Literal["tick", "look"] = "tick",
        last_burst_check: Observation | None = None,
    ) -> TickRecord:
        """Write a decision down, begin to act on it where that is allowed, and tell the watchers."""
        hindrance = self.safeguards.hindrance(known=reading.known)
        acting = self._acts and hindrance is None
        if self._acts and hindrance is not None:
            reading.notes.append(Note(hindrance.code, f"{hindrance.text}: decided, not acted on"))
        record = TickRecord(
            id=self.journal.next_id(),
            time_s=reading.observation.time_s,
            observation=reading.observation,
            problems=tuple(reading.problems),
            decision=decision.to_dict(),
            goal=goal,
            notes=tuple(reading.notes),
            acted=acting,
            settings=self._settings(),
            kind=kind,
            last_burst_check=last_burst_check,
        )
        self.journal.add_tick(record)
        if acting:
            self._sensor.decided(goal)
            self.mover.begin(goal, record.decision, f"{self.journal.identity}-{record.id}")
            self._advance(record.id)
        else:
            self._release()
        self._tell(lambda watcher: watcher.ticked(record, decision, reading.states))
        self._watch_journal()
        return record

    # --- between ticks -------------------------------------------------------------------------

    def _burst_check(self, number: int, check_s: float, due_s: float) -> TickRecord | None:
        """Show the planner what happened since the last burst check; it may add instances, never remove any.

        Whatever is not known is nothing to act on, and left for the tick to report.
        """
        rhythm = self.rhythm
        late_s = self.clock.monotonic_s() - check_s
        if late_s > rhythm.wall_interval_s / rhythm.interval_s * (self.planner.fast_interval_s or 0.0) / 2:
            return None
        time_s = rhythm.time_s(number) - (due_s - check_s) * rhythm.time_scale
        window_s = self._since_last_check(time_s)
        reading = self._sensor.read(self.source.collect_burst, time_s, window_s, late_s)
        if not reading.known or not reading.usable or self.mover.rollout:
            return None
        decision = self.planner.check(reading.observation)
        if decision is None:
            return None
        current = reading.current
        wanted = current.map(max, self.safeguards.capped(decision.targets, reading, self._at_tick))
        if wanted == current:
            return None
        # What the last decision still has to take away elsewhere stays to be done.
        by_others = self.planner.changed_by_others(current)
        standing = self.mover.goal if self.mover.moving and not by_others else None
        goal = wanted.map(lambda to, at, keep: to if to > at else keep, current, standing or current)
        return self._conclude(reading, decision, goal, kind="look")

    def _check_before_tick(self, reading: Reading, late_s: float) -> Observation:
        """Do the last burst check before a tick, at the pools as the tick found them."""
        at = reading.observation
        metrics, window_s = self._sensor.metrics(
            self.source.collect_burst,
            self._since_last_check(at.time_s),
            reading.states if reading.known else None,
            late_s,
        )
        last_burst_check = Observation(at.time_s, window_s, at.pools, lengths=None, **metrics.values)
        self.planner.check(last_burst_check)  # the tick decides, and knows what was seen last
        return last_burst_check

    def _since_last_check(self, time_s: float) -> float:
        """Return how long the window is that ends now, and begin the next."""
        since_s, self._checked_s = time_s - self._checked_s, time_s
        return min(max(since_s, 0.001), self.rhythm.interval_s)

    # --- the pools -----------------------------------------------------------------------------

    def _advance(self, tick: int | None) -> None:
        """Take the next step of a move; what comes of it is journalled."""
        moves, meant = self.mover.advance(self.rhythm.now_s())
        self.planner.applied(meant)
        for move in moves:
            detail = (
                {} if move.order is None else {"key": move.order.key, "sizes": move.order.sizes.as_dict()}
            )
            self._event(move.kind, move.text, tick, detail)

    def _release(self) -> None:
        """Leave the pools to whoever wants to change them."""
        self.mover.release()
        self.planner.applied(None)

    # --- records -------------------------------------------------------------------------------

    def _settings(self) -> Mapping[str, object]:
        kept = {name: getattr(self.config, name) for name in SETTINGS_KEPT}
        for pool in self._fleet.pools:
            keys = keys_of(pool.name)
            kept |= {keys.least: pool.least, keys.most: pool.most, keys.gpus: pool.gpus}
        return kept

    def _event(
        self, kind: str, text: str, tick: int | None = None, detail: Mapping[str, object] | None = None
    ) -> None:
        event = Event(self.rhythm.epoch_now_s(), tick, kind, text, detail or {})
        self.journal.add_event(event)
        self._tell(lambda watcher: watcher.happened(event))

    def _report_failure(self, text: str, at: list[str]) -> None:
        self._event(
            "loop_failed", f"{text} (at {at[-1]}); the pools stay, please report it", None, {"at": at}
        )

    def _watch_journal(self) -> None:
        """Say what is wrong with the journal: to the watchers where it cannot be written there."""
        notices, self.journal.notices = self.journal.notices, []
        for text in notices:
            self._event("journal_damaged", text)
        if self.journal.waiting:
            event = Event(
                self.clock.wall_s(),
                None,
                "journal_failed",
                f"{self.journal.waiting} records wait in memory: {self.journal.failure}",
            )
            self._tell(lambda watcher: watcher.happened(event))

    def _tell(self, news: Callable[[Watcher], None]) -> None:
        """Tell every watcher; one whose output is gone (a closed pipe, a full disk) is no reason to stop."""

        def tell(watcher: Watcher) -> None:
            try:
                news(watcher)
            except (OSError, ValueError) as error:
                logger.warning("%s: %s", type(watcher).__name__, error)

        for watcher in self._watchers:
            self._guard.run(f"telling {type(watcher).__name__}", partial(tell, watcher), nothing)


def _no_decision(reading: Reading) -> Decision:
    """Hold both pools, for want of a planner that decides."""
    return Decision(
        time_s=reading.observation.time_s,
        targets=reading.current,
        current=reading.current,
        raw=reading.current,
        reasons_after=(Reason(ReasonCode.HOLD_UNKNOWN_METRICS, "nothing could be decided: held"),),
    )
