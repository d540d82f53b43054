"""Progress of many tasks on a terminal; nothing in a pipe."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["task_progress"]


@contextmanager
def task_progress(words: str) -> Iterator[Callable[[int, int], None] | None]:
    """Show how many tasks are done, and the time left.

    Yields:
        What to call with tasks done and tasks known; None where nobody watches.
    """
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(words), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)

        def reached(done: int, known: int) -> None:
            bar.update(task, completed=done, total=known)

        yield reached
