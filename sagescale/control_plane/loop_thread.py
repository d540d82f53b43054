"""The control loop in a thread beside the event loop, and what the log says of it."""

from __future__ import annotations

import asyncio
import logging
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING

from sagescale.live.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from sagescale.live.actuators.protocol import PoolStates
    from sagescale.live.clock import Clock
    from sagescale.live.loop import ControlLoop
    from sagescale.live.records import Event, TickRecord
    from sagescale.planner import Decision

logger = logging.getLogger(__name__)


class LoopThread:
    """One run of a control loop.

    The loop reads metrics and waits, so it has a thread of its own. That thread ends when ``stop`` is
    called, or when the event loop ends (``asyncio.run`` cancels what is left).

    Args:
        make: Builds the loop around a clock; called in the thread, where the journal has to be opened.
    """

    def __init__(self, make: Callable[[Clock], ControlLoop]) -> None:
        self.loop: ControlLoop | None = None
        self._make = make
        self._clock = SystemClock()
        self._made: Future[None] = Future()
        self._done: Future[None] = Future()
        self._failure: BaseException | None = None
        self._guard: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """Whether it ticks."""
        return self.loop is not None and not self._done.done()

    async def start(self) -> None:
        """Return once the loop has begun.

        Raises:
            SagescaleError: it could not be built.
        """
        threading.Thread(target=self._work, name="autoscaler", daemon=True).start()
        await asyncio.wrap_future(self._made)
        self._guard = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """End it between two steps and wait until it has ended.

        Raises:
            Exception: what ended it, if it failed.
        """
        self._clock.stop()
        await asyncio.wrap_future(self._done)
        if self._failure is not None:
            raise self._failure

    def _work(self) -> None:
        try:
            self.loop = self._make(self._clock)
        except BaseException as error:  # noqa: BLE001  # handed to whoever starts it
            self._made.set_exception(error)
            return
        self._made.set_result(None)
        try:
            self.loop.run()
        except BaseException as error:
            logger.exception("the autoscaler has stopped")
            self._failure = error
        finally:
            self._done.set_result(None)

    async def _watch(self) -> None:
        try:
            await asyncio.shield(asyncio.wrap_future(self._done))
        except asyncio.CancelledError:
            self._clock.stop()
            await asyncio.wrap_future(self._done)
            raise


class LoopLog:
    """A watcher; the planner itself logs what it saw, expects and decides."""

    def __init__(self) -> None:
        self.last_decision: Decision | None = None

    def ticked(self, record: TickRecord, decision: Decision, states: PoolStates) -> None:
        """Log what was wrong with the metrics and what the loop's rules changed."""
        del states
        self.last_decision = decision
        for note in (*record.problems, *record.notes):
            logger.warning("%s: %s", note.code, note.text)

    def happened(self, event: Event) -> None:
        """Log an order, a failure, a start or an end."""
        logger.log(logging.INFO if event.is_usual else logging.WARNING, "%s: %s", event.kind, event.text)
