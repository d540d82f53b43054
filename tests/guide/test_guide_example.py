"""examples/example_autoscaling.py, which the guide names, runs."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]


def test_the_example_runs_and_shows_the_pools(monkeypatch, capsys):
    example = str(REPO / "examples" / "example_autoscaling.py")
    monkeypatch.setattr(sys, "argv", [example, "--minutes", "4", "--speed", "60"])
    runpy.run_path(example, run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    shown = [
        re.match(r"minute +(\d): prefill \d, decode \d, corrections [\d.]+ and [\d.]+$", li) for li in lines
    ]
    assert [match[1] for match in shown[:4] if match] == ["1", "2", "3", "4"]
    assert re.match(r"prefill it at prefill-\d", lines[4])
    assert re.match(r"decode it at decode-\d", lines[5])
    assert lines[6].startswith("why: ")
