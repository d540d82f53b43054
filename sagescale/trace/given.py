"""A trace as it was asked for: files, format and how to read a log, before anything is read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sagescale.trace.log.names import guessed
from sagescale.trace.log.rows import column_names
from sagescale.trace.log.spec import LogSpec
from sagescale.trace.read import files_meant, read_trace, shipped_traces
from sagescale.trace.source import open_source, read_head

if TYPE_CHECKING:
    from sagescale.trace.trace import Trace


@dataclass(frozen=True, slots=True)
class GivenTrace:
    """What a command was given as its trace.

    Attributes:
        files: names, patterns, ``-``, or one shipped trace's name.
        format: as of :func:`sagescale.trace.read_trace`.
        log: likewise.
    """

    files: tuple[str, ...]
    format: str | None = None
    log: LogSpec = LogSpec()  # noqa: RUF009 - frozen

    def read(self) -> Trace:
        """Read it.

        Raises:
            InputError: as :func:`sagescale.trace.read_trace`.
        """
        return read_trace(self.files, format=self.format, log=self.log)

    def calibration_command(self) -> str | None:
        """Return the command that fits a profile to the log, where it also says when tokens came; else None.

        Raises:
            InputError: the first file cannot be opened.
        """
        source = open_source(files_meant(self.files)[0]) if not self._is_shipped else None
        if source is None:
            return None
        names = column_names(source, read_head(source))
        known = guessed(names) | dict(self.log.columns)
        if not {"arrival", "isl", "osl", "ttft", "done"} <= known.keys():
            return None
        ours = {"arrival_s": "arrival", "isl": "isl", "osl": "osl", "first_token_s": "ttft", "done_s": "done"}
        pairs = ",".join(f"{name}={known[log]}" for name, log in ours.items())
        return (
            f"sagescale profile calibrate PROFILE --requests {source.path} --columns {pairs} --out NEW.yaml"
        )

    @property
    def _is_shipped(self) -> bool:
        return len(self.files) == 1 and self.files[0] in shipped_traces() and not Path(self.files[0]).exists()

    def beside(self, file: str) -> GivenTrace:
        """Return another file that is to be read the same way."""
        return replace(self, files=(file,))

    def __str__(self) -> str:
        return " ".join(self.files)
