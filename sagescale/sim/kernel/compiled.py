"""How the kernel's functions are compiled."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from numba import types
from numba.extending import overload

from sagescale.compiling import compiler

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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


def optional(field: str, otherwise: Any = None) -> Callable[[Any], Any]:
    """Return a decorator: a kernel has a compiled function only where a field of ``State`` is not None.

    Elsewhere it has ``otherwise``: another one, or what calls return. Either is expanded where it is called,
    as ``inlined`` ones are.
    """

    def decorate(function: Any) -> Any:
        def name(s: Any, *arguments: Any) -> Any:
            raise NotImplementedError

        @overload(name, strict=False, jit_options={"error_model": "numpy", "forceinline": True})
        def chosen(s: Any, *arguments: Any) -> Callable[..., Any]:
            del arguments
            there = _has(s, field)
            if not there and not callable(otherwise):
                return lambda s, *arguments: otherwise  # noqa: ARG005 - as the function has them
            one = function if there else otherwise
            return lambda s, *arguments: one(s, *arguments)  # noqa: PLW0108 - numba takes no compiled one

        return name

    return decorate
