"""Progress of long work on a terminal; nothing in a pipe."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["simulation_progress"]

_REDRAW_S = 0.1


@contextmanager
def simulation_progress(duration_s: float) -> Iterator[Callable[[float], None] | None]:
    """Show how far through a trace of ``duration_s`` seconds a simulation is.

    Yields:
        What to call with the simulated time reached; None where nobody watches.
    """
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("simulating"),
        BarColumn(),
        TextColumn("{task.percentage:.0f} %"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=max(duration_s, 1e-9))
        drawn = 0.0

        def reached(simulated_s: float) -> None:
            nonlocal drawn
            now = time.monotonic()
            if now - drawn >= _REDRAW_S:
                drawn = now
                bar.update(task, completed=min(simulated_s, duration_s))

        yield reached
