"""The ``trace`` commands, as a user types them."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

import pytest
from sagescale.cli.trace import trace_app
from sagescale.errors import InputError
from sagescale.files import shipped
from sagescale.trace import read_trace, shipped_traces
from typer.testing import CliRunner, Result

if TYPE_CHECKING:
    from pathlib import Path

STEADY = "synth --pattern steady --duration-s 100 --rps 5 --isl constant:10 --osl constant:5"


def run(line: str, *more: str | Path) -> Result:
    return CliRunner().invoke(trace_app, [*shlex.split(line), *map(str, more)])


def refused(line: str, *more: str | Path) -> str:
    result = run(line, *more)
    assert isinstance(result.exception, InputError)
    return str(result.exception)


def succeeded(line: str, *more: str | Path) -> Result:
    result = run(line, *more)
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    file = tmp_path / "disordered.csv"
    file.write_text("arrival_s,isl,osl\n" + "".join(f"{t},{t + 1},5\n" for t in (3, 1, 2, 900)))
    return file


def test_the_shipped_traces_are_what_their_recipe_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = (shipped("traces") / "recipe.sh").read_text().splitlines()
    commands = [line.removeprefix("sagescale trace ") for line in recipe if line.startswith("sagescale")]
    monkeypatch.chdir(tmp_path)
    for command in commands:
        succeeded(command)
    made = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert made == {file.name: file.read_bytes() for file in shipped("traces").glob("*.csv")}
    assert all(len(content) < 300_000 for content in made.values())


def test_the_shipped_readme_names_every_trace() -> None:
    readme = (shipped("traces") / "README.md").read_text()
    assert all(f"`{name}`" in readme for name in shipped_traces())


def test_info_prints_figures_and_keeps_warnings_apart(trace: Path) -> None:
    result = succeeded("info", trace)
    assert read_trace(trace).sha256 in result.stdout
    assert "sagescale" in result.stdout
    assert (
        result.stderr
        == f"warning: {trace}: arrivals out of order: 1 rows earlier than the row before; sorted\n"
    )


def test_info_json_is_a_document(trace: Path) -> None:
    document = json.loads(succeeded("info --json", trace).stdout)
    assert document["requests"] == 4
    assert document["isl"]["max"] == 901
    assert len(document["warnings"]) == 1


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".parquet"])
def test_convert_keeps_every_request(trace: Path, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"out{suffix}"
    result = succeeded("convert", trace, "--out", out)
    assert result.stdout == f"{out}: 4 requests over 899.0 s\n"
    assert read_trace(out).arrival_s.tolist() == [0, 1, 2, 899]


def test_transform_says_what_it_did(trace: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    options = "--slice 0:10 --rate-scale 2 --jitter-s 1 --seed 3 --speedup 0.5 --tile 2"
    result = succeeded("transform", trace, "--out", out, *options.split())
    assert (
        "after slice 0:10, rate-scale 2 (copies jittered ±1 s, seed 3), speedup 0.5, tile 2" in result.stdout
    )
    assert len(read_trace(out)) == 12


def test_transform_without_a_transform_is_refused(trace: Path, tmp_path: Path) -> None:
    assert "nothing to do" in refused("transform", trace, "--out", tmp_path / "out.csv")


@pytest.mark.parametrize("command", ["convert nope.csv", "transform nope.csv --tile 2", STEADY])
def test_a_missing_folder_is_refused_before_any_work(tmp_path: Path, command: str) -> None:
    assert "does not exist" in refused(command, "--out", tmp_path / "nowhere" / "x.csv")


def test_synth_makes_the_same_file_twice(tmp_path: Path) -> None:
    for name in ("a.csv.gz", "b.csv.gz"):
        succeeded(STEADY, "--seed", "7", "--out", tmp_path / name)
    assert (tmp_path / "a.csv.gz").read_bytes() == (tmp_path / "b.csv.gz").read_bytes()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ("--pattern steady --cv 2", "--cv 2: has no effect on --pattern steady"),
        ("--pattern steady --family gamma", "--family gamma: has no effect"),
        ("--pattern ramp", "--end-rps: --pattern ramp needs it"),
        ("--pattern spikes", "--spike-rps: --pattern spikes needs it"),
        ("--pattern bursty --family pareto", "--family pareto: expected gamma or weibull"),
        ("--pattern steady --correlation 3", "--correlation 3"),
    ],
)
def test_synth_refuses_options_that_do_not_fit(tmp_path: Path, options: str, complaint: str) -> None:
    line = STEADY.replace("--pattern steady", options)
    assert complaint in refused(line, "--out", tmp_path / "x.csv")
    assert list(tmp_path.iterdir()) == []
