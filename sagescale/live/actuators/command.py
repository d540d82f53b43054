"""A program of the operator's own: the order as JSON on its standard input."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING

from sagescale.errors import InputError
from sagescale.live.actuators.protocol import ActuatorError, parse_pool_states

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sagescale.live.actuators.protocol import Order, PoolStates

__all__ = ["CommandActuator"]

_MAX_OUTPUT = 1_000_000


class CommandActuator:
    """Runs one program a scale order; another, where given, prints the pools' state.

    No shell is involved. Exit code 0 means done. A program that outlives the time limit is killed with
    everything it started.

    Raises:
        InputError: there is no such program.
    """

    def __init__(self, command: Sequence[str], state_command: Sequence[str], timeout_s: float) -> None:
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
        output = self._run(self._state_command, b"")
        return parse_pool_states(output, f"actuator_state_command {self._state_command[0]}")

    def carry_out(self, order: Order) -> None:
        """Run the program with the order on its standard input."""
        self._run(self._command, json.dumps(order.to_dict()).encode() + b"\n")

    def close(self) -> None:
        """Do nothing: no program is left running between calls."""

    def _run(self, words: tuple[str, ...], given: bytes) -> bytes:
        name = words[0]
        try:
            process = subprocess.Popen(  # noqa: S603  # the operator's own program, without a shell
                words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise ActuatorError(f"{name}: cannot be run: {error.strerror}") from None
        with process:
            try:
                output, errors = process.communicate(given, timeout=self._timeout_s)
            except subprocess.TimeoutExpired:
                # Its session is its own: this ends whatever it started too, and nothing else.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
                raise ActuatorError(f"{name}: not done within {self._timeout_s:g} s, killed") from None
        if process.returncode != 0:
            said = errors.decode("utf-8", "replace").strip().splitlines()
            raise ActuatorError(
                f"{name}: exit code {process.returncode}" + (f": {said[-1][:200]}" if said else "")
            )
        return output[:_MAX_OUTPUT]
