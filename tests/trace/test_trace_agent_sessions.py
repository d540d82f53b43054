"""Recorded coding sessions: what waits for what, sub-agents, ids in runs, and files that are a little off."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from sagescale.errors import InputError
from sagescale.trace import LogSpec, Trace, parse_where, read_trace
from sagescale.trace.sessions import cap_thinking

if TYPE_CHECKING:
    from pathlib import Path


def request(name: str, t: float, blocks: list[list[int]] | None = None, **other: object) -> dict[str, object]:
    row = {"session": name, "t": t, "in": 640, "out": 20, "api_time": 2.0, "think_time": 3.0, "type": "n"}
    return row | {"hit_blocks": 0, "blocks": blocks or [[1, 10]]} | other


def header(name: str, **other: object) -> dict[str, object]:
    return {"header": {"id": name, "block_size": 64, "hash_id_scope": "local"} | other}


def marker(name: str, agent: str, end_s: float, took_s: float, **other: object) -> dict[str, object]:
    found = {"t": end_s, "type": "subagent", "agent_id": agent, "duration_ms": took_s * 1000}
    return {"session": name, "marker": found | other}


def read(path: Path, *rows: object) -> Trace:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return read_trace(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.jsonl"


def test_each_request_finds_as_many_blocks_as_were_recorded(shared: Path) -> None:
    file = shared / "traces/sessions/claude_code_300.jsonl.gz"
    with gzip.open(file, "rt") as lines:
        rows = [row for row in map(json.loads, lines) if "in" in row]
    trace = read_trace(file)
    found = zip(trace.isl.tolist(), trace.osl.tolist(), trace.prefixes.hits().tolist(), strict=True)
    assert sorted(found) == sorted((row["in"], max(row["out"], 1), row["hit_blocks"]) for row in rows)
    waits = np.diff(trace.turns.after_start)
    assert (len(trace), int(trace.session_id.max()) + 1, int((waits == 0).sum())) == (19_380, 300, 300)
    # 48 sub-agents: as many forks, and as many entries of joins, but for those that nobody waited for.
    assert len(trace.turns.after) == 19_380 - 300 + sum(waits[waits > 1] - 1)
    assert not any("out of order" in line for line in trace.warnings)


def test_a_request_waits_for_the_one_before_it(path):
    trace = read(path, header("a"), request("a", 0.0, think_time=0.0), request("a", 7.0, think_time=4.5))
    assert trace.turns.lists(0, 2) == [[], [0]]
    assert trace.turns.think_s.tolist() == [0, 4.5]
    assert trace.arrival_s.tolist() == [0, 7]


def test_sessions_begin_a_minute_apart_and_the_warning_says_how_to_draw_them(path):
    trace = read(path, header("b"), request("b", 0.0), request("b", 90.0), header("a"), request("a", 0.0))
    assert trace.arrival_s.tolist() == [0, 60, 90]
    assert trace.session_id.tolist() == [0, 1, 0]
    assert "not recorded: one begins every 60 s" in trace.warnings[-1]
    assert "--sessions poisson:60/h" in trace.warnings[-1]


@pytest.mark.parametrize("before", [False, True])
def test_a_sub_agent_waits_for_its_parent_which_waits_for_all_of_them(path, before):
    rows = [request("a/x", 0.0, [[20, 2]]), request("a/x", 10.0), request("a/y", 1.0)]
    marks = [marker("a", "x", 25.0, 20.0), marker("a", "y", 10.0, 5.0)]
    both = [*marks, *rows] if before else [rows[0], rows[1], marks[0], rows[2], marks[1]]
    trace = read(path, header("a"), request("a", 0.0), *both, request("a", 30.0, think_time=28.0))
    assert trace.arrival_s.tolist() == [0, 5, 6, 15, 30]
    assert trace.turns.lists(0, 5) == [[], [0], [0], [1], [0, 2, 3]]
    # The parent was answered at 2; the last of the sub-agents at 17.
    assert trace.turns.think_s.tolist() == [0, 3, 4, 3, 13]


def test_a_sub_agent_that_goes_on_beside_its_parent_is_waited_for_later(path):
    rows = [request("a/x", 0.0), request("a/x", 40.0), marker("a", "x", 52.0, 50.0, status="async_launched")]
    trace = read(path, header("a"), request("a", 0.0), *rows, request("a", 20.0), request("a", 60.0))
    assert trace.arrival_s.tolist() == [0, 2, 20, 42, 60]
    assert trace.turns.lists(0, 5) == [[], [0], [0], [1], [2, 3]]


def test_what_is_not_recorded_is_modelled_and_said(path):
    rows = [request("a", 0.0), request("a", 10.0, api_time=None, out=30), request("a", 20.0, think_time=15.0)]
    trace = read(path, header("a"), *rows)
    # 0.1 s a token: 20 took 2 s. The think time recorded is from the last answer recorded.
    assert trace.turns.think_s.tolist() == [0, 3, 7]
    assert any("not recorded how long they took" in line for line in trace.warnings)
    bare = [{"session": "a", "t": t, "in": 70, "out": 100} for t in (0.0, 1.0)]
    trace = read(path, *bare)
    assert trace.turns.think_s.tolist() == [0, 0]
    assert trace.prefixes.counts.tolist() == [0, 0]


def test_requests_side_by_side_wait_for_what_was_answered(path):
    trace = read(path, header("a"), request("a", 0.0, api_time=30.0), request("a", 5.0), request("a", 40.0))
    assert trace.turns.lists(0, 3) == [[], [], [1]]
    late = read(path, header("a"), request("a", 9.0), request("a", 0.0, think_time=0.0))
    assert late.arrival_s.tolist() == [0, 9]
    assert late.turns.lists(0, 2) == [[], [0]]


def test_ids_are_a_sessions_own_unless_they_are_said_to_be_global(path):
    one, other = request("a", 0.0), request("b", 0.0)
    assert read(path, header("a"), one, header("b"), other).prefixes.hits().tolist() == [0, 0]
    everywhere = {"hash_id_scope": "global"}
    rows = header("a", **everywhere), one, header("b", **everywhere), other, header("c"), request("c", 0.0)
    assert read(path, *rows).prefixes.hits().tolist() == [0, 10, 0]


def test_a_request_that_generated_nothing_still_fills_the_cache(path):
    trace = read(path, header("a"), request("a", 0.0, out=0), request("a", 9.0))
    assert trace.osl.tolist() == [1, 20]
    assert trace.prefixes.hits().tolist() == [0, 10]
    assert any("generated nothing" in line for line in trace.warnings)


def test_files_of_one_session_each_are_read_together(tmp_path):
    nested = {
        "id": "f64a",
        "block_size": 64,
        "requests": [
            {"t": 0.0, "type": "s", "in": 200, "out": 86, "hash_ids": [1, 2, 3]},
            {"type": "subagent", "requests": [{"t": 3.5, "type": "n", "in": 90, "out": 12, "hash_ids": []}]},
            {"t": 9.25, "type": "s", "in": 259, "out": 40, "hash_ids": [1, 2, 3, 4]},
        ],
    }
    for number in range(3):
        (tmp_path / f"trace_{number}.json").write_text(json.dumps(nested, indent=number))
    trace = read_trace(tmp_path / "trace_*.json")
    assert trace.session_id.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert trace.turns.lists(0, 3) == [[], [0], [0, 1]]
    assert trace.prefixes.hits().tolist() == [0, 0, 3] * 3
    assert len(trace.warnings) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"t": -1}, "line 2, 't': found -1, expected a finite number of seconds"),
        ({"t": "x"}, "line 2, 't': found 'x'"),
        ({"in": 1.5}, "line 2, prompt tokens 'in': found 1.5, expected a whole number"),
        ({"out": None}, "line 2, generated tokens 'out': found None"),
        ({"api_time": "fast"}, "line 2, 'api_time': found 'fast'"),
        (
            {"blocks": [[1, 11]]},
            r"line 2, 'blocks': found '11 ids', expected runs .first id, count. of at most 10",
        ),
        (
            {"in": 2**31 - 1, "blocks": [[1, 2**20 + 1]]},
            r"line 2, 'blocks': found '1048577 ids', expected runs .* at most 1048576 ids",
        ),
        ({"blocks": [[1, 2, 3]]}, r"line 2, 'blocks': found \[1, 2, 3\]"),
        ({"blocks": [[-1, 2]]}, r"line 2, 'blocks': found \[-1, 2\]"),
        ({"blocks": 7}, "line 2, 'blocks': found 7"),
        ({"session": 7}, "line 2, 'session': found 7, expected the name of a session"),
    ],
)
def test_a_bad_field_is_named_with_its_line(path, change, message):
    with pytest.raises(InputError, match=message):
        read(path, header("a"), request("a", 0.0) | change)


def test_other_lines_that_cannot_be_are_named(path):
    for row, message in (
        ({"session": "a", "note": 1}, "line 2: key 't' is missing; found session,note"),
        ({"header": {"block_size": 64}}, "line 2, 'header'"),
        (header("b", block_size=128), "line 2, 'block_size': found 128, expected 64, one size"),
        ([1], "line 2: found .1., expected an object"),
        ({"session": "a", "marker": 3}, "line 2, 'marker': found 3, expected an object"),
        (marker("a", "x", -3.0, 1.0), "line 2, 't': found -3.0"),
    ):
        with pytest.raises(InputError, match=message):
            read(path, header("a"), row, request("a", 0.0))
    with pytest.raises(InputError, match="has no requests"):
        read(path, header("a"))
    with pytest.raises(InputError, match=r"--where type=n: kv-cache-tester has no rows to choose from"):
        read_trace(path, log=LogSpec(where=parse_where(["type=n"])))


def test_fields_that_are_missing_or_unknown_do_no_harm(path):
    rows = [
        request("a", 0.0, type="x", surprise={"deep": 1}),
        {"session": "a", "t": 5, "in": 640.0, "out": 3},
        request("a", 9.0, think_time=-2.0, ttft=None),
        {"session": "a", "marker": {"agent_id": "gone"}},
    ]
    trace = read(path, *rows)
    assert len(trace) == 3
    assert trace.turns.lists(0, 3) == [[], [0], [1]]


def test_thinking_recorded_by_accident_is_warned_of(path):
    rows = [header("a"), request("a", 0.0), request("a", 7.0, think_time=1e9), request("b", 0.0)]
    trace = read(path, *rows)
    [said] = [line for line in trace.warnings if "thinking" in line and "more than a day" in line]
    assert f"{path}: line 3, session a: 1e+09 s" in said
    assert "--max-think-s 3600" in said
    capped = cap_thinking(trace, 3600.0)
    assert not any("more than a day" in line for line in capped.warnings)
    assert capped.turns.think_s.max() == 3600


def test_a_log_and_a_table_with_thinking_of_days_are_warned_of(tmp_path):
    table = tmp_path / "table.csv"
    table.write_text(
        "arrival_s,isl,osl,session_id,after,think_s\n0,5,5,1,,0\n3,5,5,1,0,90000\n4,5,5,1,1,99000\n"
    )
    [said] = [line for line in read_trace(table).warnings if "more than a day" in line]
    assert "line 4: 99000 s after the answer it waits for, and 1 more such" in said
    log = tmp_path / "log.csv"
    log.write_text("at,prompt,answer,who\n0,5,5,x\n200000,5,5,x\n")
    columns = {"arrival": "at", "isl": "prompt", "osl": "answer", "session": "who"}
    trace = read_trace(log, log=LogSpec(columns=tuple(columns.items()), time_unit="s"))
    assert any("request 2: 200000 s" in line for line in trace.warnings)


def test_a_header_may_name_its_session_with_slashes(path):
    agent = request("team/a/agent_1", 3.0, think_time=0.0)
    rows = [header("team/a"), request("team/a", 0.0), agent, header("team/b"), request("team/b", 0.0)]
    trace = read(path, *rows, marker("team/a", "agent_1", 9.0, 6.0), request("team/a", 12.0))
    assert np.bincount(trace.session_id).tolist() == [3, 1]
    assert trace.turns.lists(0, 4) == [[], [0], [0, 1], []]


def test_two_files_that_are_alike_are_sessions_apart(tmp_path):
    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for file in files:
        read(file, header("a"), request("a", 0.0), request("a", 7.0))
    trace = read_trace(files)
    assert np.bincount(trace.session_id).tolist() == [2, 2]
    assert trace.prefixes.hits().tolist() == [0, 10, 0, 10]
    assert any("b.jsonl has the same content as" in line for line in trace.warnings)
