"""A request log goes straight into every command that takes a trace, and documents out of standard output."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from sagescale.cli.app import app
from sagescale.trace import read_trace
from typer.main import get_command
from typer.testing import CliRunner

if TYPE_CHECKING:
    from pathlib import Path

    from typer.testing import Result

MAPPED = ["--columns", "arrival=at,isl=prompt_tokens,osl=completion_tokens", "--where", "status=200"]
TAKES_A_TRACE = [
    "trace info",
    "trace convert",
    "trace transform",
    "simulate",
    "compare-predictors",
    "tune",
    "forecast",
    "emulate",
    "profile validate",
]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("log") / "gateway.csv"
    rows = (
        f"2026-11-24T09:{at // 60:02}:{at % 60:02}.{at * 37 % 1000:03}Z,{200 if at % 50 else 503},"
        f"{300 + at},{20 if at % 50 else ''}\n"
        for at in range(600)
    )
    file.write_text("at,status,prompt_tokens,completion_tokens\n" + "".join(rows))
    return file


def run(*words: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "sagescale", *map(str, words)]
    return subprocess.run(command, input=stdin, capture_output=True, check=False, env=os.environ)


def run_here(*words: str | Path) -> Result:
    """The same in this process, where neither standard input nor the exit code is asked about."""
    return CliRunner().invoke(app, [*map(str, words)], catch_exceptions=False)


@pytest.mark.parametrize("name", TAKES_A_TRACE)
def test_every_command_that_takes_a_trace_takes_a_log(name: str) -> None:
    command = get_command(app)
    for word in name.split():
        command = command.commands[word]  # type: ignore[attr-defined]
    options = {option for parameter in command.params for option in parameter.opts}
    wanted = {"--columns", "--where", "--time-zone", "--time-unit", "--strict", "--max-dropped"}
    assert wanted <= options


def test_a_log_is_simulated_as_it_lies_and_its_document_says_what_was_left_out(log: Path) -> None:
    result = run_here("simulate", log, *MAPPED, "--json", "-")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["trace"]["requests"] == 588
    assert any("left out 12 of 600 rows by --where status=200" in line for line in document["warnings"])
    assert "attainment" in result.stderr


def test_a_log_comes_by_standard_input_and_a_trace_goes_by_standard_output(log: Path, tmp_path: Path) -> None:
    result = run("trace", "convert", "-", *MAPPED, "--out", "-", stdin=log.read_bytes())
    assert result.returncode == 0, result.stderr
    file = tmp_path / "trace.csv"
    file.write_bytes(result.stdout)
    trace = read_trace(file)
    assert len(trace) == 588
    assert b"-: 588 requests" in result.stderr
    assert not (tmp_path / "-").exists()


def test_json_of_trace_info_is_a_flag_and_standard_input_its_trace(log: Path) -> None:
    result = run("trace", "info", "--json", "-", *MAPPED, stdin=log.read_bytes())
    described = json.loads(result.stdout)
    assert described["started_at"] == "2026-11-24T09:00:01.037000+00:00"


def test_too_much_that_cannot_be_used_ends_with_exit_code_2(log: Path) -> None:
    result = run("simulate", log, *MAPPED[:2], "--max-dropped", "0.01")
    assert result.returncode == 2
    assert b"12 of 600 rows (2.0%) cannot be used" in result.stderr
    assert b"--where status=200" in result.stderr


def test_a_log_with_first_tokens_and_ends_points_to_calibration(tmp_path: Path) -> None:
    file = tmp_path / "served.csv"
    file.write_text("start_time,isl,osl,ttft_s,end_time\n0,5,5,0.1,1\n2,5,5,2.1,3\n")
    result = run_here("trace", "info", file, "--columns", "arrival=start_time,isl=isl,osl=osl")
    wanted = "arrival_s=start_time,isl=isl,osl=osl,first_token_s=ttft_s,done_s=end_time"
    assert f"profile calibrate PROFILE --requests {file} --columns {wanted}" in result.stderr


def test_the_date_of_a_log_goes_to_documents_and_tables(log: Path, tmp_path: Path) -> None:
    table = tmp_path / "timeline.csv"
    zone = ("--time-zone", "Europe/Berlin", "--slice", "60:")
    result = run_here("simulate", log, *MAPPED, *zone, "--json", "-", "--timeline", table)
    assert json.loads(result.stdout)["trace"]["started_at"].startswith("2026-11-24T10:01:01")
    header, first = table.read_text().splitlines()[:2]
    assert header.startswith("time,time_s,")
    assert first.startswith("2026-11-24T10:02:01")
