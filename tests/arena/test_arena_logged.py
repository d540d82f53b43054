"""What was logged of judged runs is set side by side as the run itself would."""

from __future__ import annotations

import csv
import sys

import logged
import pytest
from judged_log import COLUMNS

SLO, RIVALS = "aaaaaaaaaaaa", "bbbbbbbbbbbb"


@pytest.fixture
def shown(tmp_path, monkeypatch, capsys):
    def show(rows, slo=SLO):
        with (tmp_path / "judged.csv").open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(COLUMNS)
            for commit, scenario, entry, attainment, hours in rows:
                writer.writerow(
                    ("2026-11-30", commit, "no", "arena", scenario, entry, 1, 5, attainment, hours, 9, 0)
                )
        monkeypatch.setattr(logged, "LOG", tmp_path / "judged.csv")
        monkeypatch.setattr(sys, "argv", ["logged.py", "--slo", slo[:7], "--rivals", RIVALS[:7]])
        assert logged.main() == 0
        return capsys.readouterr().out

    return show


@pytest.mark.usefixtures("shared")  # how long a scenario lasts is its trace's to say
def test_who_holds_is_compared_and_ties_are_ties(shown):
    told = shown(
        [
            (SLO, "mid_day", "slo", 0.995, 120.0),
            (SLO, "r1_day", "slo", 0.992, 800.0),
            (RIVALS, "mid_day", "classic/constant", 0.991, 100.0),
            (RIVALS, "mid_day", "slo", 0.999, 1.0),
            (RIVALS, "mid_day", "with the true load", 0.999, 1.0),
            (RIVALS, "mid_day", "static (hindsight) 2+1", 0.999, 1.0),
            (RIVALS, "r1_day", "classic/constant", 0.991, 790.0),
            (RIVALS, "r1_day", "static 1+9", 0.98, 500.0),
        ]
    )
    assert "| classic/constant | 2 of 2 | 2 | 2 | 1.10 | 1.20 |" in told, "10 GPU-hours of 790 are a tie"
    assert "| static | 0 of 1 | 1 | 0 |  |  |" in told
    assert "NO  nowhere over 1.15 of a rival that holds; not in: mid_day (classic/constant 1.20)" in told


@pytest.mark.usefixtures("shared")  # how long a scenario lasts is its trace's to say
def test_the_last_row_counts(shown):
    told = shown(
        [
            (SLO, "mid_day", "slo", 0.9, 500.0),
            (RIVALS, "mid_day", "classic/constant", 0.991, 100.0),
            (SLO, "mid_day", "slo", 0.995, 200.0),
        ]
    )
    assert "| 2.00 | 2.00 |" in told


def test_a_commit_without_rows_is_said(shown, capsys):
    with pytest.raises(SystemExit):
        shown([(SLO, "mid_day", "slo", 0.995, 120.0)], slo="ccccccc")
    assert "no scenario has rows of both ccccccc and bbbbbbb" in capsys.readouterr().err
