"""A program of the operator's own: the order as JSON on its standard input."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import signal
import subprocess
import time
from typing import TYPE_CHECKING

from sagescale.errors import InputError
from sagescale.fleet import DISAGGREGATED
from sagescale.live.actuators.protocol import ActuatorError, parse_pool_states
from sagescale.live.secret import foreign_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sagescale.live.actuators.protocol import Order, PoolStates

_MAX_OUTPUT = 1_000_000
_ERROR_BYTES = 4096
"""Of what a program says on standard error the end is kept: that is where it says what ended it."""

_PIECE_BYTES = 65_536

_POLL_S = 0.02
"""How often a program whose output stays open is asked whether it has exited."""

_GONE_S = 1.0
"""How long a killed program is waited for; one that hangs in the kernel is left to the kernel."""


class CommandActuator:
    """Runs one program a scale order; another, where given, prints the pools' state.

    No shell is involved. Exit code 0 means done; what the program started may go on. A program that
    outlives the time limit, or prints more than a megabyte of state, is killed with everything in its
    session. What left the session is not, and not waited for either.

    Raises:
        InputError: there is no such program.
    """

    def __init__(
        self,
        command: Sequence[str],
        state_command: Sequence[str],
        timeout_s: float,
        pools: Sequence[str] = DISAGGREGATED,
    ) -> None:
        self._pools = pools
        self._command = tuple(command)
        self._state_command = tuple(state_command)
        self._timeout_s = timeout_s
        for key, words in (
            ("actuator_command", self._command),
            ("actuator_state_command", self._state_command),
        ):
            if words and shutil.which(words[0]) is None:
                raise InputError(f"{key}: there is no program '{words[0]}'; expected one that can be run")

    @property
    def target(self) -> str:
        """The program; its arguments may be anything and are left out."""
        return f"command {self._command[0]}"

    def states(self) -> PoolStates | None:
        """Ask the state program, where there is one."""
        if not self._state_command:
            return None
        output = self._run(self._state_command, b"", _MAX_OUTPUT)
        return parse_pool_states(output, f"actuator_state_command {self._state_command[0]}", self._pools)

    def carry_out(self, order: Order) -> None:
        """Run the program with the order on its standard input."""
        self._run(self._command, json.dumps(order.to_dict()).encode() + b"\n", 0)

    def close(self) -> None:
        """Do nothing: no program is left running between calls."""

    def _run(self, words: tuple[str, ...], given: bytes, most_bytes: int) -> bytes:
        name = words[0]
        try:
            process = subprocess.Popen(  # noqa: S603  # the operator's own program, without a shell
                words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if most_bytes else subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise ActuatorError(f"{name}: cannot be run: {error.strerror}") from None
        try:
            output, errors = _talk(process, given, most_bytes, self._timeout_s)
        except _EndedError as error:
            raise ActuatorError(f"{name}: {error}, killed") from None
        finally:
            _end(process)
        if process.returncode != 0:
            said = errors.decode("utf-8", "replace").strip().splitlines()
            raise ActuatorError(
                f"{name}: exit code {process.returncode}"
                + (f": {foreign_text(said[-1], 200)}" if said else "")
            )
        return output


class _EndedError(Exception):
    """A program is not to go on: it took too long, or printed too much."""


def _talk(
    process: subprocess.Popen[bytes], given: bytes, most_bytes: int, timeout_s: float
) -> tuple[bytes, bytes]:
    """Give a program its input and take its output until it exits.

    Its exit ends it, not the end of its output: whatever it has started may keep that open for ever.

    Returns:
        What it printed, and the end of what it said on standard error.

    Raises:
        _EndedError: it has not exited in time, or printed more than ``most_bytes``.
    """
    deadline_s = time.monotonic() + timeout_s
    output, errors = bytearray(), bytearray()
    assert process.stdin is not None
    with selectors.DefaultSelector() as waiting:
        for stream, into in ((process.stdout, output), (process.stderr, errors)):
            if stream is not None:
                os.set_blocking(stream.fileno(), False)
                waiting.register(stream, selectors.EVENT_READ, into)
        os.set_blocking(process.stdin.fileno(), False)
        waiting.register(process.stdin, selectors.EVENT_WRITE)
        while True:
            exited = process.poll() is not None
            left_s = deadline_s - time.monotonic()
            if left_s <= 0 and not exited:
                raise _EndedError(f"not done within {timeout_s:g} s")
            # Without streams to wait for, this only waits. A program that has exited is heard out, no more.
            ready = waiting.select(0 if exited else min(left_s, _POLL_S))
            for key, _ in ready:
                if key.data is None:
                    given = _write(key.fd, given)
                    done = not given
                else:
                    piece = os.read(key.fd, _PIECE_BYTES)
                    key.data.extend(piece)
                    done = not piece
                if done:
                    waiting.unregister(key.fileobj)
                    key.fileobj.close()  # type: ignore[union-attr]  # streams, not numbers
            if len(output) > most_bytes:
                raise _EndedError(f"printed more than {most_bytes} bytes")
            del errors[:-_ERROR_BYTES]
            if exited and (not ready or left_s <= 0):
                return bytes(output), bytes(errors)


def _write(fd: int, data: bytes) -> bytes:
    """Write what fits and return the rest; nothing is left for one who has closed its end."""
    try:
        return data[os.write(fd, data) :]
    except BrokenPipeError:
        return b""


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let go of a program; one that still runs is killed first, with whatever it started in its session."""
    if process.poll() is None:
        with contextlib.suppress(OSError):  # it has ended meanwhile, or runs as somebody else
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GONE_S)
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
