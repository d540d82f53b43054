"""Calls into code that may never return: given up at a time limit, and not let pile up."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Any, TypeVar

from sagescale.live.actuators.protocol import ActuatorError

if TYPE_CHECKING:
    from collections.abc import Callable

_MOST_UNFINISHED = 8

_Found = TypeVar("_Found")


class TimedCalls:
    """Makes each call in a thread of its own, and waits for it no longer than ``timeout_s``.

    A thread cannot be stopped: a call that does not return in time is left to itself, a few of them at most.
    None keeps the process from ending.
    """

    def __init__(self, target: str, timeout_s: float) -> None:
        self._target = target
        self._timeout_s = timeout_s
        self._unfinished: list[Future[Any]] = []
        self._mine = threading.local()

    def left_s(self) -> float:
        """Return the seconds that the call of this thread has left.

        Raises:
            ActuatorError: there are none: whoever waited has gone, and may have ordered something else since.
        """
        left_s: float = (
            getattr(self._mine, "deadline_s", time.monotonic() + self._timeout_s) - time.monotonic()
        )
        if left_s <= 0:
            raise self._late()
        return left_s

    def call(self, function: Callable[..., _Found], *given: object) -> _Found:
        """Return what a function returns.

        Raises:
            ActuatorError: not in time, or too many calls before have not returned yet.
            Exception: what the function raises.
        """
        self._unfinished = [call for call in self._unfinished if not call.done()]
        if len(self._unfinished) >= _MOST_UNFINISHED:
            raise ActuatorError(
                f"{self._target}: {len(self._unfinished)} calls have not returned; expected each to end by "
                "itself: none is made until one does"
            )
        call: Future[_Found] = Future()
        deadline_s = time.monotonic() + self._timeout_s

        def finish() -> None:
            self._mine.deadline_s = deadline_s
            try:
                call.set_result(function(*given))
            except Exception as error:  # noqa: BLE001  # raised again where it is waited for
                call.set_exception(error)
            except BaseException as error:  # noqa: BLE001  # it may leave, but not take the planner along
                call.set_exception(RuntimeError(f"{type(error).__name__}: {error}"))

        threading.Thread(target=finish, name=self._target, daemon=True).start()
        if not wait([call], self._timeout_s).done:
            self._unfinished.append(call)
            raise self._late()
        return call.result()

    def _late(self) -> ActuatorError:
        return ActuatorError(f"{self._target}: not done within {self._timeout_s:g} s")
