"""What commands write: to a standard output whose reader may go away (head, less), logs, documents."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import logging
import os
import re
import sys
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from sagescale.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from _typeshed import ReadableBuffer
    from rich.console import Console
    from typer._click import Context

    from sagescale.perf.profile import FitError


class ReaderGoneError(Exception):
    """Nobody reads standard output any more."""


class StandardOutputError(InputError):
    """Standard output cannot be written, on a full disk for one."""


class _RawStandardOutput(io.FileIO):
    """Says of its own errors what they are: of an ``OSError`` alone nobody could tell."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise StandardOutputError(
                f"standard output: cannot be written: {error.strerror or error}"
            ) from error


def prepare_stdout() -> None:
    """See that all that is printed can be, whatever a file's name holds, or raises what says why not.

    Raises:
        StandardOutputError: there is none.
    """
    if sys.stdout is None:
        raise StandardOutputError("standard output: is closed; expected one to write to, if only /dev/null")
    if sys.stdout is not sys.__stdout__ or not isinstance(sys.stdout, io.TextIOWrapper):
        return  # of somebody who calls us
    was = sys.stdout
    raw = _RawStandardOutput(was.fileno(), "wb", closefd=False)
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=was.encoding,
        errors="backslashreplace",  # a file's name need not be text
        line_buffering=was.line_buffering,
        write_through=was.write_through,
    )


class PipedGroup(TyperGroup):
    """A group whose commands end with :class:`ReaderGoneError`, where typer itself would exit with 1."""

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        """Read the command line, which may print help."""
        with _stops_without_reader(), _usage_in_one_line(ctx.command_path):
            try:
                return super().parse_args(ctx, args)
            finally:
                sys.stdout.flush()

    def invoke(self, ctx: Context) -> object:
        """Run the command, and see that what it printed leaves the buffer."""
        from sagescale.files import documents_alone, inputs_kept

        if ctx.parent is not None:
            return super().invoke(ctx)
        args = [*ctx._protected_args, *ctx.args]  # noqa: SLF001 - what is left of the command line
        command: Any = self
        names = [ctx.command_path]
        while args and isinstance(command, TyperGroup) and args[0] in command.commands:
            names.append(args[0])
            command = command.commands[args.pop(0)]
        outputs = _outputs(command, args)
        alone = documents_alone() if "-" in outputs else contextlib.nullcontext()
        with _stops_without_reader(), inputs_kept(outputs), alone:
            try:
                with _usage_in_one_line(" ".join(names)):
                    return super().invoke(ctx)
            finally:
                sys.stdout.flush()


def _outputs(command: Any, args: Sequence[str]) -> list[str]:  # noqa: ANN401 - typer's, or click's
    """Return the files that a command is told to write.

    Raises:
        InputError: one is named as a folder, which a path does not say any more, or twice.
    """
    names = {
        name
        for option in getattr(command, "params", ())
        if option.name.endswith("out") and not getattr(option, "is_flag", False)
        for name in option.opts
    }
    # --out FILE, and --out=FILE
    words = [*itertools.pairwise([*args, ""]), *(tuple(word.split("=", 1)) for word in args if "=" in word)]
    outputs = [value for name, value in words if name in names]
    for value in outputs:
        if value.endswith("/"):
            raise InputError(f"{value}: is the name of a folder; expected a file to write")
        if outputs.count(value) > 1:
            raise InputError(f"{value}: is to be written twice; give each output a file of its own")
    return outputs


@contextlib.contextmanager
def _usage_in_one_line(command: str) -> Iterator[None]:
    """Say what is wrong with a command line in one line, where typer takes four.

    Raises:
        InputError: for typer's error; help that was asked for with no word at all stays what it is.
    """
    try:
        yield
    except _UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            raise
        raise InputError(f"{command}: {_usage(error)}; `{command} --help` has more") from None


_UsageError: Any = typer.BadParameter.__base__
"""Of typer's own copy of click, or of click: where it is depends on typer's version."""


def _usage(error: Any) -> str:  # noqa: ANN401 - as above
    from sagescale.declare import shown

    param = getattr(error, "param", None)
    if param is None:
        message = error.format_message().rstrip(".")
        return f"{message[:1].lower()}{message[1:]}"
    option = param.param_type_name == "option"
    if hasattr(error, "param_type"):  # of a parameter that is missing alone
        name = f"{param.opts[0]} {param.metavar or 'VALUE'}" if option else param.metavar or param.name
        return f"{name} is missing ({(param.help or 'required').rstrip('.')})"
    name = param.opts[0] if option else param.metavar or param.name
    found: list[Any] = getattr(error.__cause__, "errors", list)()  # pydantic's, where typer's has them
    value = f" is {shown(found[0]['input'])}" if found else ""
    expected = re.sub(r"^Input should be (.*?)(, unable to .*)?$", r"expected \1", error.message.rstrip("."))
    return f"{name}{value}; {expected.removeprefix('Value error, ')}"


@contextlib.contextmanager
def _stops_without_reader() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise ReaderGoneError from None


def forget_stdout() -> None:
    """Let what is still in the buffer go nowhere: the interpreter flushes it at its end."""
    if sys.stdout is None:
        return
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
