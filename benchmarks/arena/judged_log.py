"""Every judged run is logged: judged.csv only grows (SPLIT.md, rule 9)."""

from __future__ import annotations

import csv
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent
LOG = HERE / "judged.csv"
COLUMNS = (
    "at",
    "commit",
    "changed",
    "command",
    "scenario",
    "entry",
    "load_headroom",
    "seeds",
    "attainment",
    "gpu_hours",
    "launches",
    "relaunches",
)


def log(scenario, rows):
    """Add a row for every entry of a scenario that judges; others are none of its business."""
    if not scenario.judges:
        return
    new = not LOG.exists()
    at = datetime.now(UTC).isoformat(timespec="seconds")
    commit, changed = _commit()
    command = shlex.join(["arena", *sys.argv[1:]])
    with LOG.open("a", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        if new:
            writer.writerow(COLUMNS)
        for row in rows:
            writer.writerow(
                (
                    at,
                    commit,
                    changed,
                    command,
                    scenario.name,
                    row["name"],
                    "" if row["load_headroom"] is None else f"{row['load_headroom']:g}",
                    row["seeds"],
                    f"{row['attainment']['mean']:.6f}",
                    f"{row['gpu_hours']['mean']:.4f}",
                    row["launches"],
                    row["relaunches"],
                )
            )


def _commit():
    """The commit, and yes where files of the package or the arena differ from it."""
    try:
        commit = _git("rev-parse", "--short=12", "HEAD")
        paths = (":(top)sagescale", ":(top)benchmarks/arena/*.py", ":(top)examples/policies")
        return commit, "yes" if _git("status", "--porcelain", "--", *paths) else "no"
    except (OSError, subprocess.CalledProcessError):
        return "unknown", "unknown"


def _git(*arguments):
    return subprocess.run(
        ["git", "-C", str(HERE), *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()
