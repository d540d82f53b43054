"""The loop's own rules: what is made of a decision where something is not known or not allowed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sagescale.fleet import Sizes, grow, within_limits
from sagescale.live.records import Note
from sagescale.live.sensor import least_pools

if TYPE_CHECKING:
    from sagescale.fleet import Fleet
    from sagescale.live.config import LiveConfig
    from sagescale.live.journal import Journal
    from sagescale.live.lock import Right
    from sagescale.live.mover import Mover
    from sagescale.live.rhythm import Rhythm
    from sagescale.live.sensor import Reading
    from sagescale.planner import Decision

_HARMLESS = frozenset({"instance_unreachable"})
"""Problems that are none by themselves: an instance that is gone on purpose cannot be reached either."""


class Safeguards:
    """Turns what the planner decided into sizes to go for, and says whether they may be gone for.

    Args:
        live: How careful to be.
        mover: Knows of a rollout under way.
        journal: Knows the sizes of lately, for when nothing is seen.
        right: Without which nothing is done to the pools, from the moment that it is lost.
    """

    def __init__(
        self,
        live: LiveConfig,
        fleet: Fleet,
        mover: Mover,
        journal: Journal,
        rhythm: Rhythm,
        right: Right | None,
    ) -> None:
        self.right = right
        self._live = live
        self._fleet = fleet
        self._mover = mover
        self._journal = journal
        self._rhythm = rhythm
        self._last_usable_s = 0.0

    def begin(self) -> None:
        """Count from now how long nothing usable was seen."""
        self._last_usable_s = self._rhythm.clock.monotonic_s()

    def goal(self, decision: Decision, reading: Reading) -> Sizes:
        """Return the sizes to go for; the reading's notes say what was changed, and why."""
        live, states, notes = self._live, reading.states, reading.notes
        current, goal = reading.current, decision.targets
        now_s = self._rhythm.clock.monotonic_s()
        if reading.usable:
            self._last_usable_s = now_s
        if not reading.known:
            notes.append(Note("hold_pools_unknown", "the pools' state is not known: they stay as they are"))
            return current
        if not states.draining_seen and states.counted:
            notes.append(
                Note(
                    "pods_unseen",
                    f"pods may not be listed: what drains is taken to occupy its GPUs for drain_wait_s "
                    f"({live.drain_wait_s:g} s); give the role `list` on pods",
                )
            )
        if self._mover.rollout:
            notes.append(
                Note("rollout_in_progress", f"{self._mover.rollout}: both pools stay until it is done")
            )
            return current
        if states.rollout:
            notes.append(
                Note(
                    "rollout_stands_still",
                    f"{states.rollout}, unchanged for {live.scale_up_timeout_s:g} s: scaled as "
                    "they are, all of them counted; finish the rollout or undo it",
                )
            )
        doubts = [item for item in reading.problems if item.code not in _HARMLESS]
        if doubts and any(to < at for to, at in zip(goal, current, strict=True)):
            goal = grow(goal.map(max, current), current, self._fleet)
            notes.append(
                Note("hold_bad_metrics", f"no scale-down while the metrics are in doubt: {doubts[0].text}")
            )
        blind_s = (now_s - self._last_usable_s) * self._rhythm.time_scale
        if not reading.usable and blind_s >= live.no_data_timeout_s:
            floor = self._safe_floor()
            goal = grow(goal.map(max, current, floor), current, self._fleet)
            notes.append(
                Note(
                    "safe_floor",
                    f"no usable metrics for {blind_s:.0f} s (no_data_timeout_s "
                    f"{live.no_data_timeout_s:g}): at least {floor}",
                )
            )
        return self.capped(goal, reading, current)

    def capped(self, goal: Sizes, reading: Reading, since: Sizes) -> Sizes:
        """Keep what every pool changes by within the step cap, counted from the sizes at the last tick."""
        cap = self._live.max_step_instances
        if cap is None:
            return goal
        capped = goal.map(lambda to, at: min(max(to, at - cap), at + cap), since)
        if capped == goal:
            return goal
        reading.notes.append(
            Note("step_capped", f"{goal} cut to {capped}: max_step_instances is {cap}"),
        )
        return grow(capped, reading.current, self._fleet)

    def hindrance(self, *, known: bool) -> Note | None:
        """Return why nothing may be done to the pools now; ``None`` where it may."""
        if not known:
            return Note("pools_unknown", "how many instances there are is not known")
        if self._live.pause_file is not None and Path(self._live.pause_file).exists():
            return Note("paused", f"{self._live.pause_file} exists")
        if self.right is not None and not self.right.holds():
            return Note("right_lost", f"{self.right.name} is not ours any more, or cannot be renewed")
        return None

    def _safe_floor(self) -> Sizes:
        live = self._live
        seen = self._journal.largest_goal(self._rhythm.epoch_now_s() - live.safe_floor_lookback_s)
        largest = least_pools(self._fleet).asked if seen is None else seen
        given = {
            "prefill": live.safe_floor_prefill,
            "decode": live.safe_floor_decode,
            "aggregated": live.safe_floor_instances,
        }
        floor = [size if given.get(name) is None else given[name] or 0 for name, size in largest.items()]
        return within_limits(Sizes(*floor, names=largest.names), self._fleet)
