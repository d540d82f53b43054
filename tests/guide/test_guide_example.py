"""examples/example_autoscaling.py, which the guide names, runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]


def test_the_example_runs_and_shows_the_pools():
    words = [sys.executable, REPO / "examples" / "example_autoscaling.py", "--minutes", "4", "--speed", "60"]
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    shown = [
        re.match(r"minute +(\d): prefill \d, decode \d, corrections [\d.]+ and [\d.]+$", li) for li in lines
    ]
    assert [match[1] for match in shown[:4] if match] == ["1", "2", "3", "4"]
    assert re.match(r"prefill it at prefill-\d", lines[4])
    assert re.match(r"decode it at decode-\d", lines[5])
    assert lines[6].startswith("why: ")
