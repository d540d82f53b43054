"""Compiled code is kept, and that compiling takes its time is said while it does."""

from __future__ import annotations

import os
import subprocess
import sys

PROGRAM = """
from pathlib import Path
import time
from sagescale.compiling import compiler, work_clock_s

SOURCES = (Path(__file__),)


def said(arguments):
    return f"compiling for {arguments[0]}, once: a while"


@compiler("quick", SOURCES)
def one(x):
    return x + 1


@compiler("slow", SOURCES, announced=said)
def two(x):
    return x + 2


@compiler("slow", SOURCES, announced=said)
def three(x):
    return x + 3


began_s, worked_s = time.perf_counter(), work_clock_s()
print(one(1), two(1), three(1), three(1.5))
compiling_s = time.perf_counter() - began_s - (work_clock_s() - worked_s)
print("compiling took", "time" if compiling_s > 0.01 else "none")
"""


def test_what_is_compiled_is_announced_once_and_is_no_work_and_what_is_kept_is_neither(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "kept")}
    said = []
    for took in ("time", "none"):
        command = [sys.executable, tmp_path / "program.py"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        assert done.stdout == f"2 3 4 4.5\ncompiling took {took}\n"
        said.append(done.stderr)
    assert said == [
        "compiling for int64, once: a while\ncompiling for float64, once: a while\n",
        "",
    ]
