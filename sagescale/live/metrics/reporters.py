"""Who should report: a partial outage is no smaller pool, for as long as it lasts."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sagescale.live.metrics.window import Problem, Reports

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sagescale.live.metrics.observe import Metrics

_SETTLING_S = 900.0
"""How long after a size was decided whoever acts on it may still be on the way there."""


@dataclass(slots=True)
class GroupReporters:
    """Which instances of one group should report.

    Where somebody counts the instances that are ready, it is as many as were ready throughout the grace (one
    that has just become ready may not have been read yet), but no more than discovery lists. Elsewhere it is
    those that have reported, until discovery lists them no longer, or until there are as many as a size that
    was decided. Nothing else makes a missing instance one that is not missed: time does not.

    Attributes:
        grace_s: How long an instance may have been ready without having been read.
        names: Those that have reported and should go on; only where no ready count is known.
        counted: How many there are by the operator's own query.
    """

    grace_s: float
    names: frozenset[str] = frozenset()
    counted: int | None = None
    _ready: list[tuple[float, int]] = field(default_factory=list)
    _decided: list[tuple[float, int]] = field(default_factory=list)

    def count(self, ready: int, now_s: float) -> None:
        """Take note of how many are ready, from somebody who counts them."""
        self._ready = [item for item in self._ready if item[0] >= now_s - self.grace_s]
        self._ready.append((now_s, ready))

    def decide(self, size: int, now_s: float) -> None:
        """Take note of a size that was decided on metrics that were whole."""
        self._decided = [item for item in self._decided if item[0] >= now_s - _SETTLING_S]
        self._decided.append((now_s, size))

    def missing(self, reports: Reports) -> int:
        """Return how many instances that should report do not, and take note of those that do."""
        complete = reports.names if reports.complete is None else reports.complete
        self.counted = reports.counted
        # A list of which nobody reports is one of something else.
        listed = reports.listed if reports.listed is not None and reports.listed & reports.names else None
        if self._ready:
            expected = min(ready for _, ready in self._ready)
            if listed is not None:
                expected = min(expected, len(listed))  # several may share a page, or have been taken off
            return max(0, expected - len(complete))
        if listed is not None:
            self.names &= listed | reports.names
            gone = len(self.names - complete)
        else:
            # Names change when instances are replaced; without a list only their number can be compared.
            gone = max(0, len(self.names) - len(complete))
        if gone and self._decided and len(complete) >= min(size for _, size in self._decided):
            self.names, gone = reports.names, 0
        if gone:
            if listed is not None:
                self.names |= reports.names
            return gone
        if len(reports.names) > len(self.names):
            # It has grown since: what was decided before no longer says how small it may be.
            del self._decided[:-1]
        self.names = reports.names
        return 0


class Reporters:
    """Judges windows by who reports in them.

    Args:
        grace_s: See :class:`GroupReporters`.
    """

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._groups: dict[str, GroupReporters] = {}

    @property
    def names(self) -> dict[str, list[str]]:
        """Those that should report where no ready count is known, by group: what is to outlive a restart."""
        return {name: sorted(group.names) for name, group in self._groups.items() if group.names}

    def recall(self, names: Mapping[str, list[str]]) -> None:
        """Expect those that were expected before a restart."""
        for name, expected in names.items():
            self._group(name).names = frozenset(expected)

    def decided(self, sizes: Mapping[str, int], now_s: float) -> None:
        """Take note of sizes that were decided, or published, on metrics that were whole."""
        for name, size in sizes.items():
            self._group(name).decide(size, now_s)

    def expected(self, group: str) -> int:
        """Return how many there are taken to be, where no ready count is known."""
        found = self._group(group)
        return len(found.names) if found.counted is None else found.counted

    def judge(self, metrics: Metrics, ready: Mapping[str, int | None], now_s: float) -> Metrics:
        """Return the metrics with what is not known, because somebody is not heard, taken out.

        Args:
            metrics: What a window showed.
            ready: Instances that are ready, by group, as somebody counts them now.
            now_s: The time, by any clock that does not jump.
        """
        for name, count in ready.items():
            if count is not None:
                self._group(name).count(count, now_s)
        values, problems = dict(metrics.values), list(metrics.problems)
        for name, reports in metrics.reporting.items():
            missing = self._group(name).missing(reports)
            if not missing or reports.complete is None:
                continue
            there = len(reports.complete)
            problems.append(
                Problem(
                    "instances_silent",
                    f"{there} of {there + missing} {name} instances report: the others are not seen",
                )
            )
            if name != "decode":
                values["requests"] = None  # a sum with a part missing is not the sum
        return dataclasses.replace(metrics, values=values, problems=tuple(problems))

    def _group(self, name: str) -> GroupReporters:
        return self._groups.setdefault(name, GroupReporters(self._grace_s))
