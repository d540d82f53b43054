"""What a file says of who waits for whom, before it is known to make sense."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sagescale.trace.sessions import Turns

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Waits:
    """Rows of a file, and the rows of it that each waits for.

    Attributes:
        after: int64[waits] >= 0, the rows waited for, one list after the other.
        counts: int64[n], how long each list is.
        think_s: float64[n] >= 0, from the last of those answers to the arrival.
    """

    after: NDArray[np.int64]
    counts: NDArray[np.int64]
    think_s: NDArray[np.float64]

    def fault(
        self, arrival: NDArray[Any], session_id: NDArray[Any], arrival_name: str
    ) -> tuple[int, object, str] | None:
        """Find the first row that waits for what it cannot wait for: a circle is never in order of arrival.

        Returns:
            The row, what was found there and what was expected; None when all is well.
        """
        n = len(self.counts)
        owner = np.repeat(np.arange(n), self.counts)
        if len(beyond := np.flatnonzero(self.after >= n)):
            return self._at(owner, beyond[0], f"a row from 0 to {n - 1}")
        if len(itself := np.flatnonzero(self.after == owner)):
            return self._at(owner, itself[0], f"another row; this one is {owner[itself[0]]} itself")
        if len(other := np.flatnonzero(session_id[self.after] != session_id[owner])):
            return self._at(owner, other[0], "a row of the same session")
        before, now = arrival[self.after], arrival[owner]
        if len(late := np.flatnonzero((before > now) | ((before == now) & (self.after > owner)))):
            expected = f"a row that arrives before this one ({arrival_name}; at one time, above it)"
            return self._at(owner, late[0], expected)
        idle = np.flatnonzero((self.counts == 0) & (self.think_s != 0))
        if len(idle):
            return int(idle[0]), float(self.think_s[idle[0]]), "0 where no row is waited for"
        return None

    def _at(self, owner: NDArray[np.int64], place: np.int64, expected: str) -> tuple[int, object, str]:
        return int(owner[place]), int(self.after[place]), expected

    def turns(self) -> Turns:
        """Return the same as turns of the file's rows; what is named twice counts once."""
        owner = np.repeat(np.arange(len(self.counts)), self.counts)
        pairs = np.unique(np.stack([owner, self.after], axis=1), axis=0)
        counts = np.bincount(pairs[:, 0], minlength=len(self.counts))
        start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return Turns(start, pairs[:, 1].astype(np.int32), self.think_s)
