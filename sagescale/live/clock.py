"""The loop's clocks, behind a seam so that tests live in virtual time."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Clock(Protocol):
    """Cadence follows ``monotonic_s``; ``wall_s`` only dates what is written down."""

    def monotonic_s(self) -> float:
        """Seconds that never jump."""

    def wall_s(self) -> float:
        """Seconds since 1970, which somebody may set."""

    def wait_until(self, monotonic_s: float) -> bool:
        """Sleep until then; return early with True when asked to stop."""


class SystemClock:
    """The machine's clocks; ``stop`` may be called from a signal handler or another thread."""

    def __init__(self) -> None:
        self._stop = threading.Event()

    def stop(self) -> None:
        """End the current and every later wait at once."""
        self._stop.set()

    def monotonic_s(self) -> float:
        """Seconds that never jump."""
        return time.monotonic()

    def wall_s(self) -> float:
        """Seconds since 1970."""
        return time.time()

    def wait_until(self, monotonic_s: float) -> bool:
        """Sleep until then; return early with True when asked to stop."""
        return self._stop.wait(max(0.0, monotonic_s - time.monotonic()))


@contextmanager
def stopping_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Have SIGTERM and SIGINT call ``stop`` for as long as the context lasts."""
    before = {number: signal.signal(number, lambda *_: stop()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
