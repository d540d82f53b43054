"""Rows that could not be used: counted by reason, the first of each remembered, too many refused."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sagescale.declare import shown
from sagescale.errors import InputError

if TYPE_CHECKING:
    from sagescale.trace.log.spec import LogSpec


@dataclass(slots=True)
class _Reason:
    count: int
    first: str


@dataclass(slots=True)
class Dropped:
    """The rows left out so far.

    Attributes:
        spec: says whether any may be, and how many.
    """

    spec: LogSpec
    _reasons: dict[str, _Reason] = field(default_factory=dict)

    def add(self, reason: str, path: str, line: int, value: object = None, expected: str = "") -> None:
        """Count one row.

        Raises:
            InputError: with ``--strict``, naming it.
        """
        found = "" if value is None else f", found {shown(value)}"
        if self.spec.strict:
            wanted = f", expected {expected}" if expected else ""
            raise InputError(
                f"{path}: line {line}: {reason}{found}{wanted} (--strict; without it such rows are left out)"
            )
        known = self._reasons.get(reason)
        if known is None:
            self._reasons[reason] = _Reason(1, f"{path} line {line}{found}")
        else:
            known.count += 1

    @property
    def count(self) -> int:
        """How many rows."""
        return sum(reason.count for reason in self._reasons.values())

    def by_reason(self) -> str:
        """Say how many for which reason, the most frequent first."""
        ordered = sorted(self._reasons.items(), key=lambda item: -item[1].count)
        return "; ".join(f"{reason.count:,} {text} (first: {reason.first})" for text, reason in ordered)

    def check(self, path: str, rows: int, choose: str = "") -> None:
        """Refuse a log of which too much was left out; ``choose`` is a condition that may help.

        Raises:
            InputError: naming the reasons, and what to do.
        """
        if self.count <= self.spec.max_dropped * rows:
            return
        share = self.count / rows
        raise InputError(
            f"{path}: {self.count:,} of {rows:,} rows ({share:.1%}) cannot be used: "
            f"{self.by_reason()}; expected at "
            f"most {self.spec.max_dropped:.3g} of them: choose rows with --where "
            f"{choose or 'COLUMN=VALUE'}, or allow it with "
            f"--max-dropped {math.ceil(100 * share) / 100:.2f}"
        )
