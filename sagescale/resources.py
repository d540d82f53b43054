"""Where the shipped profiles and traces are, installed from a wheel or run from a checkout."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def shipped(kind: str) -> Path:
    """Return the folder of shipped ``"profiles"`` or ``"traces"``.

    In a wheel they lie inside the package (``_data/``); in a checkout at the repository's top level.
    """
    inside = _PACKAGE / "_data" / kind
    return inside if inside.is_dir() else _PACKAGE.parent / kind
