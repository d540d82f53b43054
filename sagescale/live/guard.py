"""The one place where an error that nothing foresaw ends."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sagescale.live.secret import foreign_text

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")

_FRAMES_KEPT = 5


class Guard:
    """Runs what may fail in ways that nothing foresees: an error is named and reported, and the loop goes on.

    Memory or stack that ran out is such an error: what the call used is free again here. KeyboardInterrupt
    and SystemExit are none; they end the loop, in order.

    Args:
        report: Is given what failed, and the last places in the code, innermost last.
    """

    def __init__(self, report: Callable[[str, list[str]], None]) -> None:
        self.failure = ""
        """What failed last, in words."""
        self._report = report
        self._reporting = False

    def run(self, doing: str, call: Callable[[], _T], otherwise: Callable[[str], _T]) -> _T:
        """Return what a call returns; where it fails, what ``otherwise`` makes of the words for that."""
        try:
            return call()
        except Exception as error:  # noqa: BLE001  # no error may end a loop that runs unattended
            text = self.failed(doing, error)
        return otherwise(text)

    def failed(self, doing: str, error: Exception) -> str:
        """Report an error and return the words for it."""
        self.failure = text = foreign_text(f"{doing} failed: {type(error).__name__}: {error}")
        if not self._reporting:  # a watcher that cannot take the report is no news to it
            self._reporting = True
            frames = traceback.extract_tb(error.__traceback__)[-_FRAMES_KEPT:]
            self._report(
                text, [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]
            )
            self._reporting = False
        return text


def nothing(_: str) -> None:
    """Make nothing of a failure but its report."""
    return
