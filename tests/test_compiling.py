"""Compiled code is kept, and that compiling takes its time is said while it does."""

from __future__ import annotations

import os
import subprocess
import sys

PROGRAM = """
from pathlib import Path
from sagescale.compiling import compiler

SOURCES = (Path(__file__),)


@compiler("quick", SOURCES)
def one(x):
    return x + 1


@compiler("slow", SOURCES, announced="compiling, once: a while")
def two(x):
    return x + 2


@compiler("slow", SOURCES, announced="compiling, once: a while")
def three(x):
    return x + 3


print(one(1), two(1), three(1), three(1.5))
"""


def test_what_is_compiled_is_announced_once_and_what_is_kept_is_not(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "kept")}
    said = []
    for _ in range(2):
        command = [sys.executable, tmp_path / "program.py"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        assert done.stdout == "2 3 4 4.5\n"
        said.append(done.stderr)
    assert said == ["compiling, once: a while\n", ""]
