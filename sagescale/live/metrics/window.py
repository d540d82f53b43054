"""One window of raw series, as any source gives them: increases, gauges and buckets by instance."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from sagescale.live.secret import foreign_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sagescale.live.metrics.presets import Preset

ByInstance = dict[str, float]

Cadence = Literal["ticks", "bursts"]
"""Windows that follow one another: those of ticks, or the short ones of the burst checks between."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with what a source said; ``code`` is stable, ``text`` is for people."""

    code: str
    text: str

    def __post_init__(self) -> None:
        # It may quote labels and answers, which are anybody's.
        object.__setattr__(self, "text", foreign_text(self.text, 500))


@dataclass(slots=True)
class SeriesWindow:
    """The series of one group of instances over a window. What is not there is unknown.

    Attributes:
        increases: How much each counter grew, by metric and instance.
        now: Each gauge at the end, by metric and instance.
        last: Its last value in the window, also of instances that have gone since.
        before: Its value at the window's start.
        buckets: Growth of each cumulative bucket, pooled: upper edge to count, by bucket series.
        resets: Instances whose counters fell: they restarted.
        invalid: Metrics that were reported as something that is no number.
        incomplete: Instances not read at one end of the window, or whose page stood still when it began (the
            exporter had used no CPU): what they did in it is not known.
        doubled: Instances that are read twice, so that each request counts twice, and how the two differ.
        stale: Instances whose last scrape failed: what they did since the one before is missing.
        alive_cpu: CPU seconds each exporter used in the window, where it says.
        listed: The instances that discovery lists, reporting or not; ``None`` where nobody says.
        scrapes: How often each instance was read in the window; empty where every read is a window's edge.
    """

    increases: dict[str, ByInstance] = field(default_factory=dict)
    now: dict[str, ByInstance] = field(default_factory=dict)
    last: dict[str, ByInstance] = field(default_factory=dict)
    before: dict[str, ByInstance] = field(default_factory=dict)
    buckets: dict[str, dict[float, float]] = field(default_factory=dict)
    resets: set[str] = field(default_factory=set)
    invalid: set[str] = field(default_factory=set)
    incomplete: set[str] = field(default_factory=set)
    doubled: dict[str, str] = field(default_factory=dict)
    stale: set[str] = field(default_factory=set)
    alive_cpu: ByInstance = field(default_factory=dict)
    listed: set[str] | None = None
    scrapes: ByInstance = field(default_factory=dict)

    @property
    def instances(self) -> set[str]:
        """The instances that report now."""
        return {name for values in self.now.values() for name in values}

    def first(self, kind: Mapping[str, ByInstance], names: tuple[str, ...]) -> ByInstance | None:
        """Return the values of the first of several metrics that exists."""
        return next((kind[name] for name in names if kind.get(name)), None)


@dataclass(frozen=True, slots=True)
class RawWindow:
    """What a source saw of one window: ``prefill`` and ``decode``, or ``frontend`` alone.

    ``own`` are the numbers of the operator's own queries, by observation field; ``own_before`` those of
    them that are gauges, at the window's start.
    """

    window_s: float
    groups: Mapping[str, SeriesWindow]
    own: Mapping[str, float | None]
    problems: tuple[Problem, ...] = ()
    own_before: Mapping[str, float | None] = field(default_factory=dict)


class Reports(NamedTuple):
    """Who reported of one group of instances in a window.

    Attributes:
        names: The instances that report now.
        complete: Those of which everything is there; ``None`` where the load is not the sum of their reports.
        listed: The instances that discovery lists, reporting or not; ``None`` where nobody says.
        counted: How many there are, where a query of the operator's own says.
    """

    names: frozenset[str]
    complete: frozenset[str] | None
    listed: frozenset[str] | None = None
    counted: int | None = None


class WindowReader(Protocol):
    """A place where metrics come from."""

    def describe(self) -> str:
        """Say in a few words what it reads, without secrets."""

    def prime(self) -> None:
        """Read once, so that the first window has a beginning; failures are left to ``read``."""

    def read(
        self, preset: Preset, window_s: float, late_s: float = 0.0, cadence: Cadence = "ticks"
    ) -> RawWindow:
        """Read the window that ended ``late_s`` of the clock's seconds ago, or ends now where that is past.

        A reader that cannot look back begins it where the last one of its cadence ended.

        Raises:
            SagescaleError: nothing could be read; the message says why.
        """

    def close(self) -> None:
        """Let go of connections."""


_FEW = 3.0
"""Requests that do not matter."""


def counts_from_before(completed: float, busiest: float) -> bool:
    """Say whether an instance that is seen for the first time has served for longer than it can be new.

    Args:
        completed: Requests it had completed by then.
        busiest: Requests that the busiest instance completed in the time it may have served unseen.
    """
    return completed > busiest + _FEW


def bucket_quantile(q: float, buckets: Mapping[float, float]) -> float | None:
    """Return a quantile of a histogram, interpolated linearly inside its bucket (``histogram_quantile``).

    Args:
        q: Between 0 and 1.
        buckets: Upper edge to cumulative count; the last edge is infinite.

    Returns:
        ``None`` for an empty histogram; the highest finite edge where the quantile lies beyond it.
    """
    edges, counts = _cumulative(buckets)
    if not edges:
        return None
    rank = q * counts[-1]
    index = next(position for position, count in enumerate(counts) if count >= rank)
    if index == len(edges) - 1:
        return edges[-2]
    low_edge = edges[index - 1] if index else min(0.0, edges[0])
    low_count = counts[index - 1] if index else 0.0
    inside = counts[index] - low_count
    share = (rank - low_count) / inside if inside > 0 else 1.0
    return low_edge + (edges[index] - low_edge) * share


def bucket_share(value: float, buckets: Mapping[float, float]) -> float | None:
    """Return the share of a histogram at or under a value, interpolated linearly inside its bucket.

    Args:
        value: In the buckets' unit.
        buckets: Upper edge to cumulative count; the last edge is infinite.

    Returns:
        ``None`` for an empty histogram; what lies beyond the highest finite edge counts as above any value.
    """
    edges, counts = _cumulative(buckets)
    if not edges:
        return None
    index = next(position for position, edge in enumerate(edges) if edge >= value)
    low_edge = edges[index - 1] if index else min(0.0, edges[0])
    low_count = counts[index - 1] if index else 0.0
    width = edges[index] - low_edge
    inside = (value - low_edge) / width if 0.0 < width < math.inf else 0.0
    return (low_count + inside * (counts[index] - low_count)) / counts[-1]


def _cumulative(buckets: Mapping[float, float]) -> tuple[list[float], list[float]]:
    """Return edges and counts in order; none where nothing was counted or the last edge is finite."""
    edges = sorted(edge for edge in buckets if not math.isnan(edge))
    if len(edges) < 2 or edges[-1] != math.inf:
        return [], []
    # Extrapolated increases need not be monotone: a cumulative count is.
    counts: list[float] = []
    for edge in edges:
        counts.append(max(buckets[edge], counts[-1] if counts else 0.0))
    return (edges, counts) if counts[-1] > 0 else ([], [])
