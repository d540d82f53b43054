"""How functions are compiled, and where their code is kept between runs."""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numba
from numba.core import event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

logger = logging.getLogger(__name__)


def compiler(
    name: str,
    sources: Sequence[Path],
    *,
    keep: bool = True,
    announced: Callable[[Sequence[Any]], str] | None = None,
    **options: object,
) -> Callable[[Callable[..., Any]], Any]:
    """Return a decorator that compiles a function and keeps its code where that can be.

    Args:
        name: of the folder that the code is kept in, beside the last of the sources if it can be.
        sources: all files that the code comes from: numba compares a function's own file alone, but constants
            and inlined functions come from others. Changed, they make another folder.
        keep: whether the code is kept. What is kept has the code of all that it calls in it: to keep
            functions that only others call takes five times the space, and saves little.
        announced: says by the numba types of its arguments what to log as a function is compiled that is to
            be kept, since it takes long: each text once a process, "" is nothing. One that is loaded is not
            announced.
        options: numba's own.
    """
    folder = _cache_folder(sources[-1].parent, f"{name}-{_digest(sources)}") if keep else None
    decorate = numba.njit(cache=folder is not None, nogil=True, error_model="numpy", _nrt=False, **options)

    def compile_(function: Callable[..., Any]) -> Any:  # noqa: ANN401 - as numba has it
        before = numba.config.CACHE_DIR
        numba.config.CACHE_DIR = folder or before  # asked for as a function is decorated, not later
        if announced is not None:
            _announcer().texts[function] = announced if folder else _nothing
        try:
            return decorate(function)
        finally:
            numba.config.CACHE_DIR = before

    return compile_


def _nothing(arguments: Sequence[Any]) -> str:
    del arguments
    return ""


def _digest(sources: Sequence[Path]) -> str:
    found = hashlib.sha256()
    for path in sources:
        found.update(path.read_bytes())
    return found.hexdigest()[:16]


def _places(beside: Path) -> Iterator[Path]:
    """Where code may be kept: what ``NUMBA_CACHE_DIR`` says, beside the sources, the user's cache."""
    if numba.config.CACHE_DIR:
        yield Path(numba.config.CACHE_DIR)
        return
    yield beside / "__pycache__"
    cache = os.environ.get("XDG_CACHE_HOME")
    home = os.environ.get("HOME")
    if cache or home:
        yield Path(cache or f"{home}/.cache") / "sagescale"


@functools.cache
def _cache_folder(beside: Path, name: str) -> str | None:
    """Return the first of them that can be written, None without one: a container may have none."""
    for place in _places(beside):
        folder = place / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return str(folder)
    _log_once(
        "compiled code cannot be kept, every start compiles anew: let NUMBA_CACHE_DIR name a "
        "folder that can be written"
    )
    return None


class _Announcer(event.Listener):  # type: ignore[misc]  # numba has no types
    """Logs that functions are being compiled, each with a text of its own, and counts the seconds.

    Those without a text are compiled within others.
    """

    def __init__(self) -> None:
        self.texts: dict[Callable[..., Any], Callable[[Sequence[Any]], str]] = {}
        self.began_s: list[float] = []
        self.seconds = 0.0

    def on_start(self, event: Any) -> None:  # noqa: ANN401
        text = self.texts.get(event.data["dispatcher"].py_func)
        if text is not None:
            self.began_s.append(time.perf_counter())
            if said := text(event.data["args"]):
                _log_once(said)

    def on_end(self, event: Any) -> None:  # noqa: ANN401
        if event.data["dispatcher"].py_func in self.texts:
            took_s = time.perf_counter() - self.began_s.pop()
            self.seconds += 0.0 if self.began_s else took_s


@functools.cache
def _announcer() -> _Announcer:
    announcer = _Announcer()
    event.register("numba:compile", announcer)
    return announcer


def work_clock_s() -> float:
    """Return seconds of a clock that stands still while functions that are announced are compiled."""
    return time.perf_counter() - _announcer().seconds


@functools.cache
def _log_once(text: str) -> None:
    logger.warning(text)
