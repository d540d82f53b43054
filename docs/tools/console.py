"""The examples of a page: found, run, compared with what the page shows, and written anew.

A block ```` ```console ```` holds commands (``$ ...``, continued after a backslash) and what each prints,
standard error included. In what a page shows, ``...`` within a line stands for any text, and on a line of its
own for any lines. A command that ends in ``&`` goes on until the page ends. A block of another language whose
first line is ``# NAME``, or before which a line says ```NAME`:``, is a file that the reader is told to save.
Everything happens in order, in one empty folder a page.

A block that a test cannot run is written as ```` ```sh ````, after a comment that says why::

    <!-- not run: needs a Kubernetes cluster -->
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self
from unittest import mock

if TYPE_CHECKING:
    from collections.abc import Iterator

REPO = Path(__file__).resolve().parents[2]
TIMEOUT_S = 300.0
_FENCE = re.compile(
    r"^(?P<fence>`{3,})(?P<language>[a-z]*)\n(?P<body>.*?)^(?P=fence)$\n?", re.MULTILINE | re.DOTALL
)
_FILE = re.compile(r"# (?P<name>[\w./-]+\.[a-z]+)\n")
_FILE_BEFORE = re.compile(r"^`(?P<name>[\w./-]+\.[a-z]+)`:\n+\Z", re.MULTILINE)
_NOT_RUN = re.compile(r"<!-- not run: (?P<why>[^>]+) -->\n\Z")
_QUOTED = re.compile(r"""'[^']*'|"[^"$`]*\"""")
_FOR_A_SHELL = re.compile(r"[|<>;&$`*?(){}~#!\[\]]")
_TO_A_FILE = re.compile(r" > (?P<name>[\w./-]+)$")
_OF_A_PROCESS = frozenset({"emulate", "plan"})
"""They handle signals and send logs to standard error for as long as their process lives."""


@dataclass(frozen=True, slots=True)
class Example:
    """A command and the lines that the page shows after it."""

    command: str
    shown: tuple[str, ...]

    @property
    def background(self) -> bool:
        """Whether it goes on while the next commands run."""
        return self.command.endswith("&")

    @property
    def words(self) -> list[str] | None:
        """The command's words, if it is one of ours that needs neither a shell nor a process of its own."""
        command = _TO_A_FILE.sub("", self.command)
        if _FOR_A_SHELL.search(_QUOTED.sub("", command)):
            return None
        words = shlex.split(command.replace("\\\n", ""))
        return words if words[0] == "sagescale" and words[1] not in _OF_A_PROCESS else None

    @property
    def output_file(self) -> str | None:
        """The file that standard output goes to."""
        found = _TO_A_FILE.search(self.command)
        return None if found is None else found["name"]


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page: its place in the text, and what it is."""

    start: int
    end: int
    language: str
    body: str
    not_run: str | None
    file_name: str | None

    @property
    def examples(self) -> tuple[Example, ...]:
        """The commands of a ``console`` block."""
        return tuple(_examples(self.body)) if self.language == "console" else ()

    @property
    def file(self) -> tuple[str, str] | None:
        """Name and content, where the reader is told to save the block."""
        return None if self.file_name is None else (self.file_name, self.body)


def blocks(text: str) -> Iterator[Block]:
    """Find the fenced blocks of a page, in order."""
    for found in _FENCE.finditer(text):
        before = text[: found.start()]
        reason = _NOT_RUN.search(before)
        name = None
        if found["language"] not in {"console", "sh"}:
            name = _FILE.match(found["body"]) or _FILE_BEFORE.search(before)
        yield Block(
            found.start("body"),
            found.end("body"),
            found["language"],
            found["body"],
            None if reason is None else reason["why"],
            None if name is None else name["name"],
        )


def _examples(body: str) -> Iterator[Example]:
    lines = body.splitlines()
    at = 0
    while at < len(lines):
        assert lines[at].startswith("$ "), f"expected a command: {lines[at]!r}"
        command = [lines[at][2:]]
        while command[-1].endswith("\\"):
            at += 1
            command.append(lines[at])
        at += 1
        begin = at
        while at < len(lines) and not lines[at].startswith("$ "):
            at += 1
        yield Example("\n".join(command), tuple(lines[begin:at]))


def matches(shown: tuple[str, ...], printed: tuple[str, ...]) -> bool:
    """Tell whether what a page shows is what was printed, ``...`` standing for anything."""
    pattern = "".join(
        r"(?:[^\n]*\n)*?"
        if line.strip() == "..."
        else re.escape(line.rstrip()).replace(r"\.\.\.", r"[^\n]*") + r"\n"
        for line in shown
    )
    text = "".join(f"{line.rstrip()}\n" for line in printed)
    return re.fullmatch(pattern, text) is not None


def _lines(printed: str) -> tuple[str, ...]:
    """Return what was printed, but for what a machine says once of itself."""
    return tuple(
        line for line in printed.splitlines() if "compiling the simulator for this machine" not in line
    )


@dataclass
class Workplace:
    """A folder in which a page's commands run, with this interpreter's ``sagescale``, ``python`` and ``pip``.

    ``pip install`` goes to a folder of its own there, without an index: nothing outside is touched.
    """

    folder: Path
    running: list[tuple[subprocess.Popen[bytes], Path]] = field(default_factory=list)

    def __enter__(self) -> Self:
        tools = self.folder / ".tools"
        tools.mkdir(parents=True)
        for name, words in (
            ("sagescale", "-m sagescale"),
            ("python", ""),
            ("pip", "-m pip"),
            ("dask", "-m dask"),
        ):
            tool = tools / name
            tool.write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n')
            tool.chmod(0o755)
        return self

    def __exit__(self, *error: object) -> None:
        for process, _ in self.running:
            os.killpg(process.pid, signal.SIGTERM)
        for process, _ in self.running:
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    @property
    def environment(self) -> dict[str, str]:
        """What the commands find: 80 columns, no colours, UTF-8."""
        packages = self.folder / ".packages"
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("SAGESCALE_", "PIP_"))}
        return {
            **kept,
            "PATH": f"{self.folder / '.tools'}:{os.environ['PATH']}",
            "PYTHONPATH": f"{packages}:{REPO}",
            "PYTHONUNBUFFERED": "1",
            "COLUMNS": "80",
            "TERM": "dumb",
            "LC_ALL": "C.UTF-8",
            "PIP_TARGET": str(packages),
            "PIP_NO_INDEX": "1",
            "PIP_NO_DEPS": "1",
            "PIP_NO_BUILD_ISOLATION": "0",  # pip reads this one inverted: "0" switches isolation off
            "PIP_QUIET": "2",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }

    def save(self, name: str, content: str) -> None:
        """Write a file of the page."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    def run(self, example: Example) -> tuple[str, ...]:
        """Run a command; return what it printed, or for one that goes on, once it did, what is shown."""
        if example.background:
            return self._begin(example)
        # Not where what a reader installed is to be found: that is for a new process.
        if example.words is not None and not (self.folder / ".packages").exists():
            return self._run_here(example.words, example.output_file)
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", example.command],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            timeout=TIMEOUT_S,
            check=False,
        )
        printed = done.stdout.decode()
        assert done.returncode == 0, f"{example.command}\nexit code {done.returncode}\n{printed}"
        return _lines(printed)

    def _run_here(self, words: list[str], output_file: str | None) -> tuple[str, ...]:
        """Run one of our commands in this process alone: any other takes a second or two to get ready."""
        from sagescale.cli.app import main

        printed = io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True)
        to_file = None if output_file is None else (self.folder / output_file).open("w", encoding="utf-8")
        code: object = 0
        with (
            contextlib.nullcontext(printed) if to_file is None else to_file as output,
            contextlib.chdir(self.folder),
            mock.patch.dict(os.environ, self.environment, clear=True),
            mock.patch.object(sys, "argv", words),
            mock.patch("sagescale.experiment.execute.default_jobs", return_value=1),
            contextlib.redirect_stdout(output),
            contextlib.redirect_stderr(printed),
        ):
            try:
                main()
            except SystemExit as ended:
                code = ended.code
        text = printed.buffer.getvalue().decode()
        assert not code, f"{shlex.join(words)}\nexit code {code}\n{text}"
        return _lines(text)

    def _begin(self, example: Example) -> tuple[str, ...]:
        log = self.folder / f".background-{len(self.running)}.log"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                ["bash", "-c", "exec " + example.command.removesuffix("&")],
                cwd=self.folder,
                env=self.environment,
                stdout=stream,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self.running.append((process, log))
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            printed = _lines(log.read_text())
            if matches((*example.shown, "..."), printed):
                return example.shown  # it goes on printing: what is shown is how it begins
            assert process.poll() is None, f"{example.command}\nended\n{log.read_text()}"
            time.sleep(0.1)
        raise AssertionError(
            f"{example.command}\ndid not print what is shown in {TIMEOUT_S:g} s\n{log.read_text()}"
        )


@dataclass(frozen=True, slots=True)
class Page:
    """A page and its text."""

    path: Path
    text: str

    @classmethod
    def read(cls, path: Path) -> Page:
        """Read a page."""
        return cls(path, path.read_text())

    def replay(self, folder: Path) -> Iterator[tuple[Block, Example, tuple[str, ...]]]:
        """Do what the page says; yield each command with what it printed."""
        with Workplace(folder) as place:
            for block in blocks(self.text):
                if block.file is not None:
                    place.save(*block.file)
                for example in block.examples:
                    yield block, example, place.run(example)


def rewritten(shown: tuple[str, ...], printed: tuple[str, ...]) -> tuple[str, ...]:
    """Return what the page should show: what was printed, as far as it was shown, without wall times."""
    if matches(shown, printed):
        return shown
    lines = [line.rstrip() for line in printed]
    for number, line in enumerate(lines):
        if line.startswith("took "):
            lines[number] = "took ..."
        if line.startswith("simulated "):
            starts = (at for at, later in enumerate(lines) if later.startswith("what to do "))
            last = lines[next(starts, len(lines)) :]
            lines = [*lines[:number], re.sub(r" in .*", " in ...", line), "...", *last]
            break
    if "..." not in [line.strip() for line in shown]:
        return tuple(lines)
    # Parts left out stay out: what is between them begins where its first word stands.
    parts: list[list[str]] = [[]]
    for line in shown:
        if line.strip() == "...":
            parts.append([])
        else:
            parts[-1].append(line)
    kept: list[str] = []
    at = 0
    for number, part in enumerate(parts):
        if number:
            kept.append("...")
        if not part:
            continue
        if number:
            word = (part[0].split() or [""])[0]
            at = next((i for i in range(at, len(lines)) if lines[i].split()[:1] == [word]), len(lines))
        kept += [line for line in lines[at : at + len(part)] if line != "..."]
        at += len(part)
    return tuple(kept)
