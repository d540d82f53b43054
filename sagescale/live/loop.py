"""The control loop: a fixed cadence, one tick after another, and rules for when things go wrong."""

from __future__ import annotations

import dataclasses
import logging
import math
import traceback
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

from sagescale.errors import SagescaleError
from sagescale.fleet import PoolCounts, Pools, Sizes, grow, within_limits
from sagescale.live.actuators.protocol import PoolStates
from sagescale.live.foreign_text import foreign_text
from sagescale.live.journal import Event, Note, TickRecord
from sagescale.live.metrics.evenness import Evenness
from sagescale.live.metrics.observe import Metrics
from sagescale.live.metrics.reporters import Reporters
from sagescale.live.metrics.window import Problem
from sagescale.live.mover import Mover
from sagescale.live.records import SETTINGS_KEPT
from sagescale.planner import (
    Decision,
    Observation,
    Planner,
    Reason,
    ReasonCode,
    make_load_predictors,
)
from sagescale.planner.observation import Window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from sagescale.fleet import Fleet
    from sagescale.live.actuators.protocol import Actuator
    from sagescale.live.clock import Clock
    from sagescale.live.config import LiveConfig
    from sagescale.live.journal import Journal
    from sagescale.live.lock import Right
    from sagescale.live.metrics.evenness import InstanceLoad
    from sagescale.live.metrics.source import Source
    from sagescale.perf import PerfModel
    from sagescale.planner import AutoscalerConfig
    from sagescale.planner.policy import Policy
    from sagescale.planner.policy.twin import EngineTwin

    _Collect = Callable[[float, float], tuple[Metrics, float]]

__all__ = ["ControlLoop", "Watcher"]

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

_POLLS_A_TICK = 20
_REPLAYED = 2000
_MOST_MISSED = 1000
_CLOCK_STEP_S = 2.0
_REPORTERS = "reporters"
_SAME_S = 1e-6
"""Moments nearer than this are one."""
_FRAMES_KEPT = 5

_HARMLESS = frozenset({"instance_unreachable"})
"""Problems that are none by themselves: an instance that is gone on purpose cannot be reached either."""


class Watcher(Protocol):
    """Sees every tick and every event: the screen, the log, the exporter."""

    def ticked(self, record: TickRecord, decision: Decision, states: PoolStates) -> None:
        """Take note of a tick."""

    def happened(self, event: Event) -> None:
        """Take note of something between ticks."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """A window and the pools at its end, with what was wrong with them and what a reader should know."""

    observation: Observation
    states: PoolStates
    known: bool
    usable: bool
    problems: list[Note]
    notes: list[Note]
    decode_loads: tuple[InstanceLoad, ...] | None = None

    @property
    def current(self) -> Sizes:
        return self.states.asked


class ControlLoop:
    """Reads metrics, asks the planner, keeps the journal and moves the pools, once an interval.

    Ticks fall on whole multiples of the interval on the clock at the start, and keep that rhythm by the
    monotonic clock: they do not drift, and a step of the wall clock moves none. A tick that comes late
    leaves out the ones it missed.

    A policy that wants it is shown a short window between ticks as well (a burst check), and may then have
    instances added at once.

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
        self._names = tuple(pool.name for pool in self._fleet.pools)
        self.live = live
        self.journal = journal
        self.clock = clock
        self.source = source
        self._watchers = watchers
        self._right = right
        self._acts = live.actuator != "none" and not config.no_operation
        # A planner that knows it is not acted on does not wonder why nothing changes.
        if not self._acts:
            config = dataclasses.replace(config, no_operation=True)
        self._predictors = make_load_predictors(config)
        self.planner = Planner(
            config, perf_model, predictors=self._predictors, policy=policy, twin=twin, fleet=self._fleet
        )
        self.mover = Mover(
            actuator, self._fleet, drain_wait_s=live.drain_wait_s, scale_up_timeout_s=live.scale_up_timeout_s
        )
        # Only policies that try sizes on engines believe anything of who gets a request.
        self._believes_balance = bool(getattr(twin, "balances_load", False))
        self._evenness = Evenness()
        self._interval_s = float(config.adjustment_interval_sec)
        self._wall_interval_s = self._interval_s / live.time_scale
        self._anchor_s = 0.0  # monotonic; tick k is at anchor + k wall intervals
        self._epoch_s = 0.0  # the pools' own time of the anchor
        self._wall_offset_s = 0.0
        self._last_usable_s = 0.0
        self._last_states: PoolStates | None = None
        # An instance ready for two whole intervals has been read, however rarely it is.
        self._reporters = Reporters(grace_s=2 * self._interval_s)
        self._reporters_kept: dict[str, list[str]] = {}
        self._checked_s = 0.0  # the end of the last burst check's window, in the pools' own time
        self._at_tick = self._minimum().asked
        self._shown = 0  # the last tick that the planner was shown
        self._failure = ""
        self._reporting = False
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
        try:
            self.start()
            if self.live.prometheus_url is None and self.live.scrapes:
                # A window needs two readings.
                self.clock.wait_until(self.clock.monotonic_s() + self._wall_interval_s)
            self._anchor_s = self.clock.monotonic_s()
            self._epoch_s = self._own_time_s(self.clock.wall_s())
            if (record := self._guarded_tick(0)) is None:
                raise SagescaleError(f"nothing could be decided: {self._failure}")
            # What waits for GPUs to become free is still ordered, within an interval.
            while self.mover.moving and self.clock.monotonic_s() < self._anchor_s + self._wall_interval_s:
                if self.clock.wait_until(self.clock.monotonic_s() + self._wall_interval_s / _POLLS_A_TICK):
                    break
                self._guarded_advance(record.id)
            return record
        finally:
            self.finish()

    def start(self) -> None:
        """Find the rhythm, take up where the last run ended, and get ready for the first window."""
        now_s, wall_s = self.clock.monotonic_s(), self.clock.wall_s()
        phase_s = wall_s % self._wall_interval_s
        self._anchor_s = now_s - phase_s
        self._epoch_s = self._own_time_s(wall_s - phase_s)
        self._wall_offset_s = wall_s - now_s
        self._last_usable_s = now_s
        self._checked_s = self._epoch_s + phase_s * self.live.time_scale
        self._event("started", f"{self.source.describe()}; {self.mover.actuator.target}")
        self._watch_journal()
        self._guarded("getting ready to read metrics", self.source.prime, _nothing)
        self._guarded("taking up the last run", self._resume, _nothing)

    def finish(self) -> None:
        """Close everything, in order; the pools stay as they are."""
        self._event("stopped", "the pools stay as they are")
        self._guarded("closing the metric source", self.source.close, _nothing)
        self._guarded("closing the actuator", self.mover.actuator.close, _nothing)
        self._guarded("closing the journal", self.journal.close, _nothing)
        self._watch_journal()

    def _wait_for(self, number: int) -> bool:
        """Sleep until a tick, with burst checks and what is left of the last move; say whether to stop."""
        due_s = self._anchor_s + number * self._wall_interval_s
        while True:
            now_s = self.clock.monotonic_s()
            if now_s >= due_s:
                return self.clock.wait_until(now_s)
            poll_s = now_s + max(0.02, self._wall_interval_s / _POLLS_A_TICK)
            # A poll close to the tick would only make the tick late.
            if not self.mover.moving or poll_s >= due_s - self._wall_interval_s / _POLLS_A_TICK:
                poll_s = due_s
            check_s = self._next_burst_check_s(now_s, due_s)
            if self.clock.wait_until(min(poll_s, check_s)):
                return True
            if check_s <= poll_s and check_s < due_s:
                self._guarded("the burst check", partial(self._burst_check, number, check_s, due_s), _nothing)
            elif poll_s < due_s and self._hindrance(known=True) is None:
                self._guarded_advance(None)

    def _next_burst_check_s(self, now_s: float, due_s: float) -> float:
        """Return when the next burst check is due, or the tick; what has passed is left out."""
        if not self.ticks:
            return due_s
        start_s = due_s - self._wall_interval_s
        # The one right before the tick belongs to the tick.
        checks = (start_s + check_s / self.live.time_scale for check_s in self.planner.burst_checks_s[:-1])
        return next((check_s for check_s in checks if check_s > now_s + _SAME_S), due_s)

    def _after(self, number: int) -> int:
        """Return the next tick's number; those whose time has passed are left out."""
        late_s = self.clock.monotonic_s() - self._anchor_s
        following = max(number + 1, math.ceil(late_s / self._wall_interval_s - 1e-9))
        missed = following - number - 1
        if missed:
            self._event("ticks_missed", f"{missed} ticks passed while tick {number} was under way: left out")
            self._feed_unknown(min(missed, _MOST_MISSED), self._time_s(number))
        return following

    # --- when something unforeseen fails -------------------------------------------------------

    def _guarded(self, doing: str, call: Callable[[], _T], otherwise: Callable[[str], _T]) -> _T:
        """Return what a call returns; where it fails, what ``otherwise`` makes of the words for that.

        The one place where an error that nothing foresaw ends: it is named, counted and journalled, and the
        loop goes on. Memory or stack that ran out is such an error: what the call used is free again here.
        KeyboardInterrupt and SystemExit are none; they end the loop, in order.
        """
        try:
            return call()
        except Exception as error:  # noqa: BLE001  # no error may end a loop that runs unattended
            text = self._failed(doing, error)
        return otherwise(text)

    def _failed(self, doing: str, error: Exception) -> str:
        self._failure = text = foreign_text(f"{doing} failed: {type(error).__name__}: {error}")
        if not self._reporting:  # a watcher that cannot take the report is no news to it
            self._reporting = True
            frames = traceback.extract_tb(error.__traceback__)[-_FRAMES_KEPT:]
            at = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]
            self._event(
                "loop_failed", f"{text} (at {at[-1]}); the pools stay, please report it", None, {"at": at}
            )
            self._reporting = False
        return text

    def _guarded_tick(self, number: int) -> TickRecord | None:
        """Do a tick; one that fails leaves the pools as they are, and the next begins anew."""

        def leave_pools(_: str) -> None:
            self._release()
            if self._shown != number:
                self._feed_unknown(1, self._time_s(number - 1))

        return self._guarded(f"tick {number}", partial(self.tick, number), leave_pools)

    def _guarded_advance(self, tick: int | None) -> None:
        self._guarded("moving the pools", partial(self._advance, tick), lambda _: self._release())

    # --- one tick ------------------------------------------------------------------------------

    def tick(self, number: int) -> TickRecord:
        """Do everything that belongs to one tick."""
        self.ticks += 1
        self._notice_clock_step()
        late_s = max(0.0, self.clock.monotonic_s() - self._anchor_s - number * self._wall_interval_s)
        seen = self._see(self.source.collect, self._time_s(number), self._interval_s, late_s)
        self._at_tick = seen.current
        self._notice_router(seen)
        last_look = None
        if self.planner.fast_interval_s is not None and seen.usable:
            last_look = self._guarded(
                "the burst check", partial(self._check_before_tick, seen, late_s), _nothing
            )
        self._shown = number
        decision = self._guarded("deciding", partial(self._decide, seen.observation), _nothing)
        if decision is None:
            seen.notes.append(Note("loop_failed", f"{self._failure}: the pools stay as they are"))
            seen, decision = dataclasses.replace(seen, usable=False), _no_decision(seen)
        goal = self._goal(decision, seen)
        return self._conclude(seen, decision, goal, last_look=last_look)

    def _notice_router(self, seen: _Seen) -> None:
        """Say so where instances are less equal than the router that sizes are tried behind leaves them."""
        decode = dict(seen.states.pools.items()).get("decode")
        if not seen.decode_loads or decode is None or decode.starting or decode.draining:
            return
        self._evenness.observe(seen.decode_loads)
        if self._believes_balance and self._evenness.dealt_blindly:
            seen.notes.append(
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

    def _see(self, collect: _Collect, time_s: float, window_s: float, late_s: float) -> _Seen:
        """Find out about the pools and a window; unknown is what cannot be found out."""
        notes: list[Note] = []
        problems: list[Note] = []
        states, known = self._states(self._now_s(), problems)
        metrics, seen_s = self._guarded(
            "reading the metrics",
            partial(self._read, collect, window_s, states if known else None, late_s),
            lambda text: (Metrics({}, (Problem("source_failed", text),), {}), window_s),
        )
        problems.extend(Note(item.code, item.text) for item in metrics.problems)
        if states is None:
            states, known = self._assume(metrics, notes)
        self._last_states = states
        observation = Observation(
            time_s,
            seen_s if seen_s > 0 else window_s,
            states.pools,
            lengths=metrics.lengths,
            **metrics.values,
        )
        return _Seen(observation, states, known, metrics.usable, problems, notes, metrics.decode_loads)

    def _read(
        self, collect: _Collect, window_s: float, states: PoolStates | None, late_s: float
    ) -> tuple[Metrics, float]:
        """Read a window, and take out what is not known because somebody who should report does not."""
        ready: dict[str, int | None] = dict.fromkeys(self._names)
        if states is not None and states.counted:
            ready = {name: pool.ready for name, pool in states.pools.items()}
        metrics, seen_s = collect(window_s, late_s)
        metrics = self._reporters.judge(metrics, ready, self._now_s())
        if (names := self._reporters.names) != self._reporters_kept:
            self._reporters_kept = names
            self.journal.remember(_REPORTERS, names)
        return metrics, seen_s

    def _conclude(
        self,
        seen: _Seen,
        decision: Decision,
        goal: Sizes,
        *,
        kind: Literal["tick", "look"] = "tick",
        last_look: Observation | None = None,
    ) -> TickRecord:
        """Write a decision down, begin to act on it where that is allowed, and tell the watchers."""
        hindrance = self._hindrance(known=seen.known)
        acting = self._acts and hindrance is None
        if self._acts and hindrance is not None:
            seen.notes.append(Note(hindrance.code, f"{hindrance.text}: decided, not acted on"))
        record = TickRecord(
            id=self.journal.next_id(),
            time_s=seen.observation.time_s,
            observation=seen.observation,
            problems=tuple(seen.problems),
            decision=decision.to_dict(),
            goal=goal,
            notes=tuple(seen.notes),
            acted=acting,
            settings=self._settings(),
            kind=kind,
            last_look=last_look,
        )
        self.journal.add_tick(record)
        if acting:
            self._reporters.decided(goal.as_dict(), self._now_s())
            self.mover.begin(goal, record.decision, f"{self.journal.identity}-{record.id}")
            self._advance(record.id)
        else:
            self._release()
        self._tell(lambda watcher: watcher.ticked(record, decision, seen.states))
        self._watch_journal()
        return record

    def _goal(self, decision: Decision, seen: _Seen) -> Sizes:
        """Apply the loop's own rules to what the planner decided."""
        current, goal, notes = seen.current, decision.targets, seen.notes
        now_s = self.clock.monotonic_s()
        if seen.usable:
            self._last_usable_s = now_s
        if not seen.known:
            notes.append(Note("hold_pools_unknown", "the pools' state is not known: they stay as they are"))
            return current
        if not seen.states.draining_seen and seen.states.counted:
            notes.append(
                Note(
                    "pods_unseen",
                    f"pods may not be listed: what drains is taken to occupy its GPUs for drain_wait_s "
                    f"({self.live.drain_wait_s:g} s); give the role `list` on pods",
                )
            )
        if self.mover.rollout:
            notes.append(
                Note("rollout_in_progress", f"{self.mover.rollout}: both pools stay until it is done")
            )
            return current
        if seen.states.rollout:
            notes.append(
                Note(
                    "rollout_stands_still",
                    f"{seen.states.rollout}, unchanged for {self.live.scale_up_timeout_s:g} s: scaled as "
                    "they are, all of them counted; finish the rollout or undo it",
                )
            )
        doubts = [item for item in seen.problems if item.code not in _HARMLESS]
        if doubts and any(to < at for to, at in zip(goal, current, strict=True)):
            goal = grow(goal.map(max, current), current, self._fleet)
            notes.append(
                Note("hold_bad_metrics", f"no scale-down while the metrics are in doubt: {doubts[0].text}")
            )
        blind_s = (now_s - self._last_usable_s) * self.live.time_scale
        if not seen.usable and blind_s >= self.live.no_data_timeout_s:
            floor = self._safe_floor()
            goal = grow(goal.map(max, current, floor), current, self._fleet)
            notes.append(
                Note(
                    "safe_floor",
                    f"no usable metrics for {blind_s:.0f} s (no_data_timeout_s "
                    f"{self.live.no_data_timeout_s:g}): at least {floor}",
                )
            )
        return self._capped(goal, seen, current)

    def _capped(self, goal: Sizes, seen: _Seen, since: Sizes) -> Sizes:
        """Keep what either pool changes by within the step cap, counted from the sizes at the last tick."""
        cap = self.live.max_step_instances
        if cap is None:
            return goal
        capped = goal.map(lambda to, at: min(max(to, at - cap), at + cap), since)
        if capped == goal:
            return goal
        seen.notes.append(
            Note(
                "step_capped",
                f"{goal} cut to {capped}: max_step_instances is {cap}",
            )
        )
        return grow(capped, seen.current, self._fleet)

    # --- between ticks -------------------------------------------------------------------------

    def _burst_check(self, number: int, check_s: float, due_s: float) -> TickRecord | None:
        """Show the planner what happened since the last burst check; it may add instances, never remove any.

        Whatever is not known is nothing to act on, and left for the tick to report.
        """
        late_s = self.clock.monotonic_s() - check_s
        if late_s > self._wall_interval_s / self._interval_s * (self.planner.fast_interval_s or 0.0) / 2:
            return None
        time_s = self._time_s(number) - (due_s - check_s) * self.live.time_scale
        seen = self._see(self.source.collect_burst, time_s, self._since_last_check(time_s), late_s)
        if not seen.known or not seen.usable or self.mover.rollout:
            return None
        decision = self.planner.check(seen.observation)
        if decision is None:
            return None
        current = seen.current
        wanted = current.map(max, self._capped(decision.targets, seen, self._at_tick))
        if wanted == current:
            return None
        # What the last decision still has to take away elsewhere stays to be done.
        by_others = self.planner.changed_by_others(current)
        standing = self.mover.goal if self.mover.moving and not by_others else None
        goal = wanted.map(lambda to, at, keep: to if to > at else keep, current, standing or current)
        return self._conclude(seen, decision, goal, kind="look")

    def _check_before_tick(self, seen: _Seen, late_s: float) -> Observation:
        """Do the last burst check before a tick, at the pools as the tick found them."""
        at = seen.observation
        metrics, window_s = self._read(
            self.source.collect_burst,
            self._since_last_check(at.time_s),
            seen.states if seen.known else None,
            late_s,
        )
        last_look = Observation(at.time_s, window_s, at.pools, lengths=None, **metrics.values)
        self.planner.check(last_look)  # the tick decides, and knows what was seen last
        return last_look

    def _since_last_check(self, time_s: float) -> float:
        """Return how long the window is that ends now, and begin the next."""
        since_s, self._checked_s = time_s - self._checked_s, time_s
        return min(max(since_s, 0.001), self._interval_s)

    def _safe_floor(self) -> Sizes:
        live = self.live
        seen = self.journal.largest_goal(self._epoch_now_s() - live.safe_floor_lookback_s)
        largest = self._minimum().asked if seen is None else seen
        given = {"prefill": live.safe_floor_prefill, "decode": live.safe_floor_decode}
        floor = [size if given.get(name) is None else given[name] or 0 for name, size in largest.items()]
        return within_limits(Sizes(*floor, names=largest.names), self._fleet)

    # --- the pools -----------------------------------------------------------------------------

    def _states(self, now_s: float, problems: list[Note]) -> tuple[PoolStates | None, bool]:
        """Return the pools and whether that is current; ``None`` where nobody can say yet."""

        def ask() -> tuple[PoolStates | None, bool]:
            try:
                return self.mover.states(now_s), True
            except SagescaleError as error:
                return unknown(str(error))

        def unknown(text: str) -> tuple[PoolStates | None, bool]:
            problems.append(Note("pools_unknown", text))
            return self._last_states or self._minimum(), False

        return self._guarded("reading the pools", ask, unknown)

    def _assume(self, metrics: Metrics, notes: list[Note]) -> tuple[PoolStates, bool]:
        """Take the instances that report, or should, for the pools where nobody else knows.

        Returns:
            The pools, and whether that is something to go by.
        """
        sizes = Sizes(*map(self._reporters.expected, self._names), names=self._names)
        if not self._acts and any(sizes):
            return _pools_of(sizes), True  # a dry run changes nothing: what there is reports
        if not all(sizes):
            last = [] if not self._acts else self.journal.last_ticks(1)
            if last and last[0].acted:
                sizes = last[0].goal
            elif metrics.usable:
                # Sizes are absolute: where the load is known, nothing needs to be known of the pools to set
                # them. Where it is not, holding at a guess could shrink them, so nothing is done.
                sizes = self._minimum().asked
                text = f"how many instances there are is not known: {sizes} are assumed"
                notes.append(Note("pools_assumed", text))
            else:
                return self._last_states or self._minimum(), False
        if self._acts:
            self.mover.assume(sizes)
        return _pools_of(sizes), True

    def _minimum(self) -> PoolStates:
        return _pools_of(Sizes(*(pool.least for pool in self._fleet.pools), names=self._names), counted=True)

    def _advance(self, tick: int | None) -> None:
        """Take the next step of a move; what comes of it is journalled."""
        moves, meant = self.mover.advance(self._now_s())
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

    def _hindrance(self, *, known: bool) -> Note | None:
        """Return why nothing may be done to the pools now; ``None`` where it may."""
        if not known:
            return Note("pools_unknown", "how many instances there are is not known")
        if self.live.pause_file is not None and Path(self.live.pause_file).exists():
            return Note("paused", f"{self.live.pause_file} exists")
        if self._right is not None and not self._right.holds():
            return Note("right_lost", f"{self._right.name} is not ours any more, or cannot be renewed")
        return None

    # --- time ----------------------------------------------------------------------------------

    def _time_s(self, number: int) -> float:
        """The pools' own time of a tick: the clock's at real speed."""
        return self._epoch_s + number * self._interval_s

    def _own_time_s(self, wall_s: float) -> float:
        """The pools' own time at a time of the clock: the same after a restart, whatever the scale."""
        scale = self.live.time_scale
        if scale == 1.0:
            return wall_s
        began_s = self.journal.recall("began_s")
        if not isinstance(began_s, float):
            began_s = wall_s
            self.journal.remember("began_s", began_s)
        return began_s + (wall_s - began_s) * scale

    def _now_s(self) -> float:
        """The pools' own time by the monotonic clock: it never jumps, and begins anywhere."""
        return self.clock.monotonic_s() * self.live.time_scale

    def _epoch_now_s(self) -> float:
        """The pools' own time since 1970, as records carry it."""
        return self._epoch_s + (self.clock.monotonic_s() - self._anchor_s) * self.live.time_scale

    def _notice_clock_step(self) -> None:
        offset_s = self.clock.wall_s() - self.clock.monotonic_s()
        step_s = offset_s - self._wall_offset_s
        if abs(step_s) > _CLOCK_STEP_S:
            self._wall_offset_s = offset_s
            self._event("clock_step", f"the wall clock was set by {step_s:+.1f} s: ticks keep their rhythm")

    # --- memory --------------------------------------------------------------------------------

    def _resume(self) -> None:
        """Feed the planner what it would know had it never stopped."""
        past = self.journal.last_ticks(_REPLAYED)
        self._watch_journal()
        self._recall_reporters(past)
        ticks = [record for record in past if record.kind == "tick"]
        if ticks:
            last = ticks[-1]
            ahead_s = last.time_s - self._epoch_s
            set_back_s = max(0.0, ahead_s)  # the clock was set back meanwhile
            with _quiet_planner():
                self._replay_all(past, set_back_s)
            self._event("resumed", f"{len(ticks)} ticks from the journal")
            gap = min(_MOST_MISSED, max(0, round(-ahead_s / self._interval_s)))
            self._bridge(gap, last.observation)
            self.planner.applied(None)  # what the pools have been set to since is not known
            return
        try:
            windows = self.source.history(self._interval_s, self.live.warm_start_windows)
        except SagescaleError as error:
            self._event("no_history", str(error))
            return
        for window in windows:
            self._predictors.observe(
                Window(self._interval_s, window.requests, window.isl, window.osl, None, None, None)
            )
        if windows:
            self._event("warm_start", f"{len(windows)} windows of history")

    def _recall_reporters(self, past: Sequence[TickRecord]) -> None:
        """Expect those to report who were expected before; an outage does not end by a restart."""
        now_s, epoch_s = self._now_s(), self._epoch_now_s()
        for record in past:
            if record.acted:
                self._reporters.decided(record.goal.as_dict(), now_s - max(0.0, epoch_s - record.time_s))
        names = self.journal.recall(_REPORTERS)
        if not past or past[-1].time_s < epoch_s - self.live.safe_floor_lookback_s:
            return  # so long ago that anything may have been changed on purpose
        if isinstance(names, dict) and all(_is_texts(group) for group in names.values()):
            self._reporters.recall(names)
            self._reporters_kept = self._reporters.names

    def _replay_all(self, past: Sequence[TickRecord], set_back_s: float) -> None:
        """Show the planner every record; one that it fails on is an unknown window, and costs only itself."""
        failed: list[tuple[TickRecord, Exception]] = []
        for record in past:
            try:
                self._replay(record, set_back_s)
            except Exception as error:  # noqa: BLE001  # reported below, once for all of them
                failed.append((record, error))
        if failed:
            record, first = failed[0]
            self._failed(
                f"replaying {len(failed)} of {len(past)} records, the first of them {record.id},", first
            )

    def _replay(self, record: TickRecord, set_back_s: float) -> None:
        """Show the planner what it was shown then; a burst check's short window is no tick's."""

        def moved(seen: Observation) -> Observation:
            return dataclasses.replace(seen, time_s=seen.time_s - set_back_s) if set_back_s else seen

        if record.kind == "look":
            self.planner.check(moved(record.observation))
            return
        if record.last_look is not None:
            self.planner.check(moved(record.last_look))
        self.planner.step(moved(record.observation))

    def _bridge(self, gap: int, last: Observation) -> None:
        """Fill the windows between the last run and this one from the source's own history."""
        if gap < 1:
            return
        try:
            windows = self.source.history(self._interval_s, gap)
        except SagescaleError as error:
            self._event("no_history", str(error))
            windows = []
        with _quiet_planner():
            for index in range(gap - len(windows)):
                self.planner.step(_unknown(last, last.time_s + (index + 1) * self._interval_s))
            for index, window in enumerate(windows):
                at_s = last.time_s + (gap - len(windows) + index + 1) * self._interval_s
                seen = dataclasses.replace(
                    _unknown(last, at_s),
                    requests=window.requests,
                    isl_mean=window.isl,
                    osl_mean=window.osl,
                )
                self.planner.step(seen)

    def _feed_unknown(self, windows: int, after_s: float) -> None:
        states = self._last_states or self._minimum()

        def feed() -> None:
            for index in range(windows):
                at_s = after_s + (index + 1) * self._interval_s
                self.planner.step(Observation(at_s, self._interval_s, states.pools))

        self.planner.applied(None)

        with _quiet_planner():
            self._guarded("noting a window that is unknown", feed, _nothing)

    # --- records -------------------------------------------------------------------------------

    def _settings(self) -> Mapping[str, object]:
        kept = {name: getattr(self.config, name) for name in SETTINGS_KEPT}
        for pool in self._fleet.pools:
            kept[f"min_{pool.name}_instances"] = pool.least
            kept[f"max_{pool.name}_instances"] = pool.most
            kept[f"{pool.name}_gpus_per_instance"] = pool.gpus
        return kept

    def _event(
        self, kind: str, text: str, tick: int | None = None, detail: Mapping[str, object] | None = None
    ) -> None:
        event = Event(self._epoch_now_s(), tick, kind, text, detail or {})
        self.journal.add_event(event)
        self._tell(lambda watcher: watcher.happened(event))

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
            self._guarded(f"telling {type(watcher).__name__}", partial(tell, watcher), _nothing)


def _nothing(_: str) -> None:
    return None


def _no_decision(seen: _Seen) -> Decision:
    """Hold both pools, for want of a planner that decides."""
    return Decision(
        time_s=seen.observation.time_s,
        targets=seen.current,
        current=seen.current,
        raw=seen.current,
        reasons_after=(Reason(ReasonCode.HOLD_UNKNOWN_METRICS, "nothing could be decided: held"),),
    )


def _pools_of(sizes: Sizes, *, counted: bool = False) -> PoolStates:
    return PoolStates(Pools(*map(PoolCounts, sizes), names=sizes.names), counted=counted)


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _unknown(last: Observation, time_s: float) -> Observation:
    return Observation(time_s, last.window_s, last.pools)


@contextmanager
def _quiet_planner() -> Iterator[None]:
    """Keep the past out of the log."""
    planner_log = logging.getLogger("sagescale.planner")
    level = planner_log.level
    planner_log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        planner_log.setLevel(level)
