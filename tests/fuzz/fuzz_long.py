"""Hostile files for as long as you like: `python tests/fuzz/fuzz_long.py SECONDS [--only NAME] [--seed N]`.

Each file is read in a worker process, which is ended after 10 s of processor time on one file and fails above
1 GiB of resident memory. Prints cases, seconds, the largest memory and every failure with its name and seed;
`python tests/fuzz/fuzz_long.py --case NAME SEED` repeats one. Exit code 1 if anything failed.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from random import Random

CASE_S = 10.0
MOST_BYTES = 1 << 30
CASES_A_WORKER = 2000


def case(name: str, seed: int, folder: Path) -> str:
    """Read one hostile file; return what was wrong, if anything."""
    from fuzz_mutations import mutated
    from fuzz_subjects import SUBJECTS
    from sagescale.errors import InputError

    subject = SUBJECTS[name]
    path = folder / subject.name
    path.write_bytes(mutated(subject.sample, Random(seed)))
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak so far was ours
    # Of this process alone: a busy machine makes nothing slow.
    signal.setitimer(signal.ITIMER_PROF, CASE_S)
    try:
        subject.read(path)
    except InputError as error:
        message = str(error)
        return "" if message and message.isprintable() and len(message) <= 2000 else f"message {message!r}"
    except Exception:  # noqa: BLE001  # whatever escapes is what is looked for
        return traceback.format_exc(limit=-4)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
    return ""


def peak_bytes() -> int:
    """Return the largest resident memory since it was last cleared, in bytes. Linux only."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def work(names: list[str], first: int, count: int, until_s: float) -> None:
    """Run cases and print a line before and after each: the parent sees which one was the last."""
    warnings.simplefilter("error")
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(first, first + count):
            if time.monotonic() > until_s:
                break
            name = names[seed % len(names)]
            print(f"begin {name} {seed}", flush=True)
            problem = case(name, seed, Path(folder))
            peak = peak_bytes()
            if peak > MOST_BYTES:
                problem += f" {peak >> 20} MiB of memory"
            print(f"end {peak} {problem!r}", flush=True)
            if peak > MOST_BYTES:
                break


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("seconds", nargs="?", type=float, default=600.0)
    parser.add_argument("--only", default="", help="part of the names of what to fuzz")
    parser.add_argument("--seed", type=int, default=0, help="of the first case")
    parser.add_argument("--case", nargs=2, metavar=("NAME", "SEED"), help="repeat one")
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.case:
        with tempfile.TemporaryDirectory() as folder:
            print(case(given.case[0], int(given.case[1]), Path(folder)) or "fine")
        return 0
    from fuzz_subjects import SUBJECTS

    names = [name for name in SUBJECTS if given.only in name]
    if given.work:
        first, count, until_s = given.work
        work(names, int(first), int(count), float(until_s))
        return 0
    began_s = time.monotonic()
    until_s, seed, cases, most, failures = began_s + given.seconds, given.seed, 0, 0, []
    while time.monotonic() < until_s:
        words = [
            sys.executable,
            __file__,
            "--only",
            given.only,
            "--work",
            str(seed),
            str(CASES_A_WORKER),
            str(until_s),
        ]
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)  # ourselves
        last = ""
        for line in done.stdout.splitlines():
            if line.startswith("begin "):
                last = line.removeprefix("begin ")
                cases += 1
            elif line.startswith("end "):
                peak, problem = line.removeprefix("end ").split(" ", 1)
                most = max(most, int(peak))
                if problem != "''":
                    failures.append(f"{last}: {problem}")
                    print(failures[-1].encode().decode("unicode_escape", "replace"), flush=True)
                seed, last = int(last.rpartition(" ")[2]) + 1, ""
        if last:
            failures.append(f"{last}: ended by signal {-done.returncode} (27: after {CASE_S:g} s)")
            print(failures[-1], flush=True)
            seed = int(last.rpartition(" ")[2]) + 1
        elif not done.stdout and time.monotonic() < until_s:
            return 1  # the worker does not start
    print(
        f"{cases} cases of {len(names)} kinds in {time.monotonic() - began_s:.0f} s, "
        f"at most {most >> 20} MiB, {len(failures)} failures"
    )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
