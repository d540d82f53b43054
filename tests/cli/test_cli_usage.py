"""A command line that cannot be understood is one line that says what to give instead."""

from __future__ import annotations

import shlex

import pytest
import typer
from sagescale.cli.app import app, main


def error(line, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["sagescale", *shlex.split(line)])
    with pytest.raises(SystemExit) as ended:
        main()
    printed = capsys.readouterr()
    assert ended.value.code == 2
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1, printed.err
    return printed.err


def commands(group, *words):
    for name, command in group.commands.items():
        yield from commands(command, *words, name) if hasattr(command, "commands") else [(*words, name)]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("profile import x.csv", ["profile import: --out FILE.yaml is missing (Where to write"]),
        ("simulate", ["TRACE... is missing (Trace files"]),
        ("explain", ["JOURNAL is missing"]),
        ("simulat ramp", ["no such command 'simulat'", "'simulate'"]),
        ("simulate ramp --rate-scal 2", ["no such option: --rate-scal", "--rate-scale", "simulate --help"]),
        ("simulate ramp --rate-scale x", ["--rate-scale is 'x'; expected a valid number"]),
        ("simulate ramp --tile 1.5", ["--tile is '1.5'; expected a valid integer"]),
        ("simulate ramp --seed", ["simulate: ", "'--seed' requires an argument"]),
        ("report a.json b.json", ["unexpected extra argument", "b.json"]),
        ("trace synth --pattern flat", ["--pattern is 'flat'", "'steady'"]),
        ("--frobnicate", ["no such option: --frobnicate; `"]),
        ("simulate ramp --json out.txt/", ["out.txt/: is the name of a folder; expected a file to write"]),
        ("simulate ramp --json out --html out", ["out: is to be written twice"]),
        ("simulate ramp --json - --timeline=-", ["-: is to be written twice"]),
        ("simulate ramp --requests r.csv", ["r.csv: would hold Parquet; expected a name ending in .parquet"]),
        ("emulate ramp --secret-file nowhere", ["--secret-file: nowhere: cannot be read"]),
        (
            "trace from-prometheus --url http://127.0.0.1:1 --since soon --out t.parquet",
            ["--since soon: expected how long ago"],
        ),
        ("simulate ramp --html=out/", ["out/: is the name of a folder"]),
        ("profile show h200-llama-3.1-8b-fp8 --png pictures/", ["pictures/: is the name of a folder"]),
    ],
)
def test_the_line_says_what_is_wrong_and_what_to_give(line, words, monkeypatch, capsys):
    said = error(line, monkeypatch, capsys)
    for word in words:
        assert word in said


@pytest.mark.parametrize("words", list(commands(typer.main.get_command(app))), ids=" ".join)
def test_every_command_refuses_an_unknown_option(words, monkeypatch, capsys):
    said = error(f"{' '.join(words)} --frobnicate", monkeypatch, capsys)
    assert f"sagescale {' '.join(words)}: no such option: --frobnicate" in said


def test_memory_that_is_not_to_be_had_is_one_line(monkeypatch, capsys):
    def full() -> None:
        raise MemoryError("Unable to allocate 5 GiB")

    monkeypatch.setattr("sagescale.cli.app.app", full)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert capsys.readouterr().err.splitlines() == [
        "error: out of memory (Unable to allocate 5 GiB): take less of the trace, or smaller pools"
    ]


def test_a_group_without_a_command_shows_its_help(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["sagescale", "profile"])
    with pytest.raises(SystemExit):
        main()
    assert "calibrate" in "".join(capsys.readouterr())
