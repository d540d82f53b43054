"""What a window's raw samples tell: how often instances are read, whether its ends are, and by how many."""

from __future__ import annotations

import itertools
import math
import statistics
from typing import TYPE_CHECKING, NamedTuple

from sagescale.live.metrics.window import counts_from_before

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sagescale.live.metrics.answers import Samples
    from sagescale.live.metrics.presets import Preset
    from sagescale.live.metrics.window import ByInstance, SeriesWindow

_LOOKBACK_S = 300.0
_LOOKBACK_WINDOWS = 5.0

_MOST_INTERVALS = 2.0
"""How old the sample that stands for a window's end may be: one scrape may fail."""

_SPACINGS = 3
"""From so few the median of spacings is none: one of them may be a gap."""

_OF_ONE_PROCESS = frozenset(("instance", "pod", "engine"))
"""Labels that differ between engines, not between those who read one; all that name a rank are others."""


def lookback_s(window_s: float) -> float:
    """Return how far before a window samples are read, in the server's seconds."""
    return min(_LOOKBACK_S, _LOOKBACK_WINDOWS * window_s)


class _Read(NamedTuple):
    """When one instance was read."""

    times_s: Sequence[float]
    interval_s: float
    start_age_s: float
    end_age_s: float


class Sampling:
    """When the instances of one group were read, around one window.

    Args:
        series: Every sample of a gauge that each instance has, from ``lookback_s`` before the window on.
        instance_label: Which label says what instance a series is of.
        start_s: The window's start, in the server's time.
        end_s: Its end.
    """

    def __init__(self, series: Sequence[Samples], instance_label: str, start_s: float, end_s: float) -> None:
        self._label = instance_label
        self._start_s, self._window_s = start_s, end_s - start_s
        self._series = [item for item in series if item.times_s and item.labels.get(instance_label)]
        times: dict[str, set[float]] = {}
        for item in self._series:
            times.setdefault(item.labels[instance_label], set()).update(item.times_s)
        medians = {instance: _median_spacing(sorted(found)) for instance, found in times.items()}
        known = [median for median in medians.values() if median is not None]
        self.interval_s = max(known) if known else None
        # Two scrapes have to fit into a window.
        usual_s = self._window_s / 4 if self.interval_s is None else self.interval_s
        self._reads = {}
        for instance, found in times.items():
            by_start = max((at for at in found if at <= start_s), default=-math.inf)
            by_end = max((at for at in found if at <= end_s), default=-math.inf)
            own_s = medians[instance] or usual_s
            self._reads[instance] = _Read(sorted(found), own_s, start_s - by_start, end_s - by_end)
        self.edge_s = _MOST_INTERVALS * usual_s
        """How old a sample may be and still stand at one of the window's ends."""

    @property
    def empty(self) -> bool:
        """Whether there are no samples at all."""
        return not self._reads

    @property
    def gap(self) -> bool:
        """Whether nothing at all was read at one of the window's ends: the server was down, or is behind."""
        reads = self._reads.values()
        ages_s = ([read.start_age_s for read in reads], [read.end_age_s for read in reads])
        return any(min(ages, default=math.inf) > self.edge_s for ages in ages_s)

    def judge(self, window: SeriesWindow, preset: Preset, first: ByInstance) -> None:
        """Mark, in place, instances of which an end of the window is not known, and those read twice.

        Args:
            window: The series of the same instances over the window.
            preset: Whose names.
            first: What each instance that has no sample at the start had completed at its first.
        """
        window.doubled = self.doubled(preset)
        gone = {instance for instance in window.stale if self._removed(instance, window)}
        window.stale -= gone
        if window.listed is not None and window.instances:
            window.incomplete |= (window.listed & self._reads.keys()) - window.instances
        before = window.first(window.before, preset.running) or {}
        completed = window.first(window.increases, preset.completed) or {}
        busiest = max((value for name, value in completed.items() if name in before), default=0.0)
        for instance in window.instances - gone - window.doubled.keys():
            read = self._reads.get(instance)
            interval_s = self.edge_s / _MOST_INTERVALS if read is None else read.interval_s
            oldest_s = _MOST_INTERVALS * interval_s
            if read is not None and (read.end_age_s > oldest_s or oldest_s < read.start_age_s < math.inf):
                window.incomplete.add(instance)
            elif instance not in before and before:
                # It began in the window, or was not read before.
                share = oldest_s / self._window_s
                if counts_from_before(first.get(instance, 0.0), share * busiest):
                    window.incomplete.add(instance)

    def _removed(self, instance: str, window: SeriesWindow) -> bool:
        """Say whether an instance that was read earlier in the window is known to be there no longer."""
        read = self._reads.get(instance)
        if read is None or read.end_age_s <= _MOST_INTERVALS * read.interval_s:
            return False
        listed = window.listed
        if listed is not None and listed & window.instances:
            return instance not in listed
        # The page that it was on is still read.
        last_s = read.times_s[-1]
        return any(
            last_s in other.times_s and other.end_age_s <= _MOST_INTERVALS * other.interval_s
            for other in self._reads.values()
        )

    def doubled(self, preset: Preset) -> dict[str, str]:
        """Find instances whose series are read by two at once, and the labels that differ between the two.

        All samples of one scrape have one time: ranks share it, two who read the same engine do not.
        """
        found: dict[str, str] = {}
        series = sorted(self._series, key=lambda item: item.labels[self._label])
        for instance, group in itertools.groupby(series, key=lambda item: item.labels[self._label]):
            for one, other in itertools.combinations(group, 2):
                differ = _differing(one.labels, other.labels)
                if any(
                    name in _OF_ONE_PROCESS or name == preset.model_label or "rank" in name
                    for name in differ
                    if name in one.labels and name in other.labels
                ):
                    continue
                times, others = (self._inside(item.times_s) for item in (one, other))
                if not times or not others or set(times) & set(others):
                    continue
                if times[0] <= others[-1] and others[0] <= times[-1]:
                    found[instance] = ", ".join(
                        f"{name}: {one.labels.get(name, 'none')} and {other.labels.get(name, 'none')}"
                        for name in sorted(differ)
                    )
                    break
        return found

    def _inside(self, times_s: Sequence[float]) -> list[float]:
        return sorted(at for at in times_s if at >= self._start_s)


def _median_spacing(times_s: Sequence[float]) -> float | None:
    spacings = [later - earlier for earlier, later in itertools.pairwise(times_s)]
    return statistics.median(spacings) if len(spacings) >= _SPACINGS else None


def _differing(one: Mapping[str, str], other: Mapping[str, str]) -> set[str]:
    return {name for name in one.keys() | other.keys() if one.get(name) != other.get(name)} - {"__name__"}
