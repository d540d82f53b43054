"""How the kernel's functions are compiled."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from numba import types
from numba.extending import overload

from sagescale.compiling import compiler

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["choose", "compiled", "entry", "inlined"]

_FOLDER = Path(__file__).parent
_SOURCES = (_FOLDER.parent / "state.py", *sorted(_FOLDER.glob("*.py")))

_INTERNAL: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "keep": False}
"""To take ``State`` from Python compiles to more code than most functions are."""


def _has(state: Any, field: str) -> bool:
    """Whether a field of a ``State`` of this type is not None."""
    return not isinstance(state.types[state.fields.index(field)], types.NoneType)


def _announced(arguments: Sequence[Any]) -> str:
    if not isinstance(arguments[0], types.NamedTuple):
        return ""  # small
    long = "two minutes" if _has(arguments[0], "stepped") else "half a minute"
    return f"compiling the simulator for this machine, once: about {long}"


entry = compiler("kernel", _SOURCES, announced=_announced)
"""For functions that Python calls."""

compiled = compiler("kernel", _SOURCES, **_INTERNAL)
"""For functions that only the kernel calls: Python must not."""

inlined = compiler("kernel", _SOURCES, **_INTERNAL, forceinline=True)
"""The same, expanded where they are called: a call that passes ``State`` passes 150 numbers.

LLVM expands them. Numba's own ``inline="always"`` copies their source into each caller, which is typed and
compiled anew every time: a third of all compile time.
"""


def choose(
    name: Callable[..., Any], field: str, with_it: Callable[..., Any], without: Callable[..., Any]
) -> None:
    """Compile a function as one of two, whether or not a field of the ``State`` at hand is None.

    It is expanded where it is called, as ``inlined`` ones are.
    """

    @overload(name, strict=False, jit_options={"error_model": "numpy", "forceinline": True})
    def chosen(s: Any, *arguments: Any) -> Callable[..., Any]:
        del arguments
        return with_it if _has(s, field) else without
