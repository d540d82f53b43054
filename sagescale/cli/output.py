"""What commands write: to a standard output whose reader may go away (head, less), logs, documents."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import sys
from typing import TYPE_CHECKING, Any

from typer.core import TyperGroup

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rich.console import Console
    from typer._click import Context

    from sagescale.perf.profile import FitError

__all__ = [
    "PipedGroup",
    "ReaderGoneError",
    "error_spread",
    "forget_stdout",
    "log_to_stderr",
    "stdout_console",
    "write_json",
]


class ReaderGoneError(Exception):
    """Nobody reads standard output any more."""


class PipedGroup(TyperGroup):
    """A group whose commands end with :class:`ReaderGoneError`, where typer itself would exit with 1."""

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        """Read the command line, which may print help."""
        with _stops_without_reader():
            return super().parse_args(ctx, args)

    def invoke(self, ctx: Context) -> object:
        """Run the command, and see that what it printed leaves the buffer."""
        from sagescale.files import documents_alone

        alone = ctx.parent is None and self._writes_to_stdout(ctx)
        with _stops_without_reader(), documents_alone() if alone else contextlib.nullcontext():
            try:
                return super().invoke(ctx)
            finally:
                sys.stdout.flush()

    def _writes_to_stdout(self, ctx: Context) -> bool:
        """Tell whether the command is given ``-`` as a file to write."""
        args = [*ctx._protected_args, *ctx.args]  # noqa: SLF001 - what is left of the command line
        command: Any = self
        while args and hasattr(command, "get_command"):
            command = command.get_command(ctx, args.pop(0))
        outputs = {
            name
            for option in getattr(command, "params", ())
            if option.name.endswith("out") and not getattr(option, "is_flag", False)
            for name in option.opts
        }
        return any(
            (name in outputs and value == "-") or (name.endswith("=-") and name[:-2] in outputs)
            for name, value in itertools.pairwise([*args, ""])
        )


@contextlib.contextmanager
def _stops_without_reader() -> Iterator[None]:
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


def error_spread(error: FitError, digits: int = 2) -> str:
    """Write how far a fit is from what was measured: ``median 0.41%, p90 1.20%, max 3.02%``."""
    return f"median {error.median:.{digits}%}, p90 {error.p90:.{digits}%}, max {error.max:.{digits}%}"


def log_to_stderr() -> None:
    """Send sagescale's log to stderr as ``LEVEL - message``, every level."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s - %(message)s"))
    logger = logging.getLogger("sagescale")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)


def write_json(path: Path, document: object) -> None:
    """Write a result document; equal documents make equal bytes.

    Raises:
        InputError: the file cannot be written.
    """
    from sagescale.document import as_keys
    from sagescale.files import written_whole

    text = json.dumps(document, default=as_keys, indent=1, allow_nan=False)
    with written_whole(path) as stream:
        stream.write(text.encode() + b"\n")
