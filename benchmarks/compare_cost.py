"""Time comparisons: `python benchmarks/compare_cost.py TRACE [options of compare-predictors ...]`.

Runs the command twice, the first time to compile and warm the caches, and prints wall time, CPU time of it
and all its processes, and the load of the machine, since other work on it stretches the former.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time


def main() -> None:
    arguments = sys.argv[1:]
    command = [
        sys.executable,
        "-c",
        "from sagescale.cli.app import main; main()",
        "compare-predictors",
        *arguments,
    ]
    for what in ("cold", "warm"):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        wall_s = time.perf_counter() - began
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        load = os.getloadavg()[0]
        print(f"{what}: {wall_s:.1f} s wall, {cpu_s:.1f} s CPU, load {load:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
