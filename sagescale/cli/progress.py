"""Progress of long work on a terminal; nothing in a pipe."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_REDRAW_S = 0.1


@contextmanager
def task_progress(words: str, *, counted: bool = True) -> Iterator[Callable[[float, float], None] | None]:
    """Show how much is done, as a count or in percent, and the time left.

    Yields:
        What to call with what is done and the whole; None where nobody watches.
    """
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    done_column = MofNCompleteColumn() if counted else TextColumn("{task.percentage:.0f} %")
    columns = (TextColumn(words), BarColumn(), done_column, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, known: bar.update(task, completed=done, total=known)


@contextmanager
def simulation_progress(duration_s: float) -> Iterator[Callable[[float], None] | None]:
    """Show how far through a trace of ``duration_s`` seconds a simulation is.

    Yields:
        What to call with the simulated time reached; None where nobody watches.
    """
    with task_progress("simulating", counted=False) as show:
        if show is None:
            yield None
            return
        drawn = 0.0

        def reached(simulated_s: float) -> None:
            nonlocal drawn
            now = time.monotonic()
            if now - drawn >= _REDRAW_S:
                drawn = now
                show(min(simulated_s, duration_s), max(duration_s, 1e-9))

        yield reached
