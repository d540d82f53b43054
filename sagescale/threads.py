"""Threads of the maths libraries: one, however many cores there are.

Matrices here are small: threads would spin against each other, and what they share out rounds otherwise.
"""

from __future__ import annotations

import os

ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OPENBLAS", "OMP", "MKL", "NUMEXPR")}
"""What the environment has to say before any of the libraries is loaded."""


def use_one_thread() -> None:
    """Have them use one, unless the environment says how many already."""
    for name, one in ONE_THREAD.items():
        os.environ.setdefault(name, one)
