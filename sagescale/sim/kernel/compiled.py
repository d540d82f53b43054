"""How the kernel's functions are compiled, and where their code is kept between runs."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numba

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["compiled", "entry", "inlined"]

logger = logging.getLogger(__name__)


def _digest() -> str:
    """Of all sources the kernel is compiled from.

    Numba compares a function's own file alone, but constants and inlined functions come from others.
    """
    sources = Path(__file__).parent
    found = hashlib.sha256()
    for path in (sources.parent / "state.py", *sorted(sources.glob("*.py"))):
        found.update(path.read_bytes())
    return found.hexdigest()[:16]


def _places() -> Iterator[Path]:
    """Where code may be kept: what ``NUMBA_CACHE_DIR`` says, beside the sources, the user's cache."""
    if numba.config.CACHE_DIR:
        yield Path(numba.config.CACHE_DIR)
        return
    yield Path(__file__).parent / "__pycache__"
    cache = os.environ.get("XDG_CACHE_HOME")
    home = os.environ.get("HOME")
    if cache or home:
        yield Path(cache or f"{home}/.cache") / "sagescale"


def _cache_folder() -> str | None:
    """Return the first of them that can be written, None without one: a container may have none."""
    for place in _places():
        folder = place / f"kernel-{_digest()}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return str(folder)
    logger.warning(
        "compiled code cannot be kept, every start compiles anew (a minute): let NUMBA_CACHE_DIR name a "
        "folder that can be written"
    )
    return None


_CACHE_FOLDER = _cache_folder()


def _compiler(**options: object) -> Callable[[Callable[..., Any]], Any]:
    decorate = numba.njit(
        cache=_CACHE_FOLDER is not None, nogil=True, error_model="numpy", _nrt=False, **options
    )

    def compile_(function: Callable[..., Any]) -> Any:  # as numba has it
        before = numba.config.CACHE_DIR
        numba.config.CACHE_DIR = _CACHE_FOLDER or before  # asked for as a function is decorated, not later
        try:
            return decorate(function)
        finally:
            numba.config.CACHE_DIR = before

    return compile_


_INTERNAL = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
"""To take ``State`` from Python compiles to more code than most functions are."""

entry = _compiler()
"""For functions that Python calls."""

compiled = _compiler(**_INTERNAL)
"""For functions that only the kernel calls: Python must not."""

inlined = _compiler(**_INTERNAL, forceinline=True)
"""The same, expanded where they are called: a call that passes ``State`` passes 150 numbers.

LLVM expands them. Numba's own ``inline="always"`` copies their source into each caller, which is typed and
compiled anew every time: a third of all compile time.
"""
