"""A file that a command cannot take, and another can, is called what it is, with the command for it."""

from __future__ import annotations

import json
import sqlite3
import sys
from pathlib import Path

import pytest
from sagescale.cli.app import main

sys.path.append(str(Path(__file__).parents[1] / "perf"))
sys.path.append(str(Path(__file__).parents[1] / "report"))
from perf_runs import RUNS, aiperf, genai_perf, guidellm, sglang, vllm
from report_documents import document

TRACE = "arrival_s,isl,osl\n0,10,5\n1,10,5\n"
BENCHMARKS = {
    "vllm_bench": "\n".join(json.dumps(vllm(run)) for run in RUNS),
    "vllm_bench ": json.dumps(vllm(RUNS[0]), indent=2),
    "sglang_bench": "\n".join(json.dumps(sglang(run)) for run in RUNS),
    "guidellm": json.dumps(guidellm(RUNS)),
    "aiperf": json.dumps(aiperf(RUNS[0])),
    "aiperf ": json.dumps(genai_perf(RUNS[0]), indent=1),
    "measurement": json.dumps([{"kind": "prefill", "isl": 100, "batch": 1, "ms": 9}]),
}
COMMANDS = {
    "a request trace": ["trace", "info", "FILE"],
    "a result document": ["report", "FILE"],
    "a profile source": ["profile", "import", "FILE", "--out", "out.yaml"],
    "a profile document": ["profile", "show", "./FILE"],
    "a journal": ["explain", "FILE"],
}


def refused(words, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["sagescale", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    printed = capsys.readouterr()
    assert ended.value.code == 2
    assert printed.err.count("\n") == 1
    return printed.err


@pytest.mark.parametrize("tool", BENCHMARKS)
def test_a_benchmark_given_as_a_trace_is_one_to_import(tool, tmp_path, monkeypatch, capsys):
    path = tmp_path / "bench.json"
    path.write_text(BENCHMARKS[tool])
    error = refused(["trace", "info", str(path)], monkeypatch, capsys)
    assert f"is a benchmark of an engine ({tool.strip()}); expected a request trace" in error
    assert error.endswith(f"Try: sagescale profile import {path} --out PROFILE.yaml\n")


def test_every_command_knows_the_files_of_the_others(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with sqlite3.connect("journal") as journal:
        journal.execute("CREATE TABLE ticks (id)")
    files = {
        "a journal of sagescale plan": (Path("journal").read_bytes(), "sagescale explain FILE"),
        "a result of sagescale": (json.dumps(document()).encode(), "sagescale report FILE"),
        "a profile": (b"schema: sagescale.profile/v1\nname: x\n", "--profile FILE"),
        "a benchmark of an engine (vllm_bench)": (BENCHMARKS["vllm_bench"].encode(), "profile import FILE"),
        "a request trace (sagescale)": (TRACE.encode(), "sagescale trace info FILE"),
    }
    own = {
        "a request trace": 4,
        "a result document": 1,
        "a profile source": 3,
        "a profile document": 2,
        "a journal": 0,
    }
    for expected, command in COMMANDS.items():
        for place, (kind, (content, use)) in enumerate(files.items()):
            if place == own[expected]:
                continue
            Path("FILE").write_bytes(content)
            error = refused(command, monkeypatch, capsys)
            assert f"FILE: is {kind}; expected {expected}. Try: " in error
            assert use in error


def test_a_result_that_is_refused_is_not_sent_to_where_it_was_refused(tmp_path, monkeypatch, capsys):
    path = tmp_path / "run.json"
    path.write_text(json.dumps(document()).replace('"goodput_rps": 19.3', '"goodput_rps": NaN'))
    error = refused(["report", str(path)], monkeypatch, capsys)
    assert "'NaN' is no number of a result" in error
    assert "Try" not in error
    path.write_text('{"schema_version": 1,\n"runs": []\n')
    error = refused(["report", str(path)], monkeypatch, capsys)
    assert "not JSON" in error
    assert "Try" not in error


def test_what_no_command_knows_is_refused_in_the_words_of_the_one_asked(tmp_path, monkeypatch, capsys):
    path = tmp_path / "notes.txt"
    path.write_text("hello\n")
    assert "no known trace format" in refused(["trace", "info", str(path)], monkeypatch, capsys)
