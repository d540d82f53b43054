"""Output whose reader may go away (head, less): the command ends there, quietly and without an error."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

from typer.core import TyperGroup

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console
    from typer._click import Context

__all__ = ["PipedGroup", "ReaderGoneError", "forget_stdout", "stdout_console"]


class ReaderGoneError(Exception):
    """Nobody reads standard output any more."""


class PipedGroup(TyperGroup):
    """A group whose commands end with :class:`ReaderGoneError`, where typer itself would exit with 1."""

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        """Read the command line, which may print help."""
        with _reader_gone_told():
            return super().parse_args(ctx, args)

    def invoke(self, ctx: Context) -> object:
        """Run the command, and see that what it printed leaves the buffer."""
        with _reader_gone_told():
            try:
                return super().invoke(ctx)
            finally:
                sys.stdout.flush()


@contextlib.contextmanager
def _reader_gone_told() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise ReaderGoneError from None


def forget_stdout() -> None:
    """Let what is still in the buffer go nowhere: the interpreter flushes it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def stdout_console(*, width: int | None = None, highlight: bool = True) -> Console:
    """Make a console on standard output; rich's own exits with 1 where the reader is gone."""
    from rich.console import Console

    class PipedConsole(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    return PipedConsole(width=width, highlight=highlight)
