"""What the planner would know had it never stopped: the journal's ticks, the source's history, and gaps."""

from __future__ import annotations

import dataclasses
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sagescale.errors import SagescaleError
from sagescale.live.guard import nothing
from sagescale.planner import Observation
from sagescale.planner.observation import Window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sagescale.fleet import Pools
    from sagescale.live.guard import Guard
    from sagescale.live.metrics.prometheus import PastWindow
    from sagescale.live.metrics.source import Source
    from sagescale.live.records import TickRecord
    from sagescale.live.rhythm import Rhythm
    from sagescale.planner import LoadPredictors, Planner

_MOST_MISSED = 1000


class Past:
    """Feeds a planner windows that it was not there for; what it says of them is not logged.

    Args:
        source: Where windows of before the journal, or of a gap in it, come from.
        report: Is given the kind and the words of what happened.
    """

    def __init__(
        self,
        planner: Planner,
        predictors: LoadPredictors,
        source: Source,
        rhythm: Rhythm,
        guard: Guard,
        report: Callable[[str, str], None],
    ) -> None:
        self._planner = planner
        self._predictors = predictors
        self._source = source
        self._rhythm = rhythm
        self._guard = guard
        self._report = report

    def resume(self, past: Sequence[TickRecord]) -> bool:
        """Go on where a run ended; say whether it left any tick to go on from."""
        ticks = [record for record in past if record.kind == "tick"]
        if not ticks:
            return False
        last = ticks[-1]
        ahead_s = last.time_s - self._rhythm.epoch_s
        set_back_s = max(0.0, ahead_s)  # the clock was set back meanwhile
        with _quiet_planner():
            self._replay_all(past, set_back_s)
        self._report("resumed", f"{len(ticks)} ticks from the journal")
        gap = min(_MOST_MISSED, max(0, round(-ahead_s / self._rhythm.interval_s)))
        self._bridge(gap, last.observation)
        self._planner.applied(None)  # what the pools have been set to since is not known
        return True

    def warm_up(self, windows: int) -> None:
        """Show the predictors so many windows of the source's history."""
        found = self._history(windows)
        for window in found:
            self._predictors.observe(
                Window(self._rhythm.interval_s, window.requests, window.isl, window.osl, None, None, None)
            )
        if found:
            self._report("warm_start", f"{len(found)} windows of history")

    def _history(self, windows: int) -> list[PastWindow]:
        """Return so many windows of the source's history; none, reported, where it cannot be read."""
        try:
            return self._source.history(self._rhythm.interval_s, windows)
        except SagescaleError as error:
            self._report("no_history", str(error))
            return []

    def unknown(self, windows: int, after_s: float, pools: Pools) -> None:
        """Show the planner windows, at most a thousand, of which nothing is known."""

        def feed() -> None:
            for index in range(min(windows, _MOST_MISSED)):
                at_s = after_s + (index + 1) * self._rhythm.interval_s
                self._planner.step(Observation(at_s, self._rhythm.interval_s, pools))

        self._planner.applied(None)

        with _quiet_planner():
            self._guard.run("noting a window that is unknown", feed, nothing)

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
            self._guard.failed(
                f"replaying {len(failed)} of {len(past)} records, the first of them {record.id},", first
            )

    def _replay(self, record: TickRecord, set_back_s: float) -> None:
        """Show the planner what it was shown then; a burst check's short window is no tick's."""

        def moved(seen: Observation) -> Observation:
            return dataclasses.replace(seen, time_s=seen.time_s - set_back_s) if set_back_s else seen

        if record.kind == "look":
            self._planner.check(moved(record.observation))
            return
        if record.last_burst_check is not None:
            self._planner.check(moved(record.last_burst_check))
        self._planner.step(moved(record.observation))

    def _bridge(self, gap: int, last: Observation) -> None:
        """Fill the windows between the last run and this one from the source's own history."""
        if gap < 1:
            return
        interval_s = self._rhythm.interval_s
        windows = self._history(gap)
        with _quiet_planner():
            for index in range(gap - len(windows)):
                self._planner.step(_unknown(last, last.time_s + (index + 1) * interval_s))
            for index, window in enumerate(windows):
                at_s = last.time_s + (gap - len(windows) + index + 1) * interval_s
                seen = dataclasses.replace(
                    _unknown(last, at_s),
                    requests=window.requests,
                    isl_mean=window.isl,
                    osl_mean=window.osl,
                )
                self._planner.step(seen)


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
