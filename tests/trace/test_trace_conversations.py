"""Turns of other sources: chats that name their parents, AIPerf, AIBrix, and logs with a session column."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sagescale.errors import InputError
from sagescale.trace import LogSpec, Trace, parse_columns, parse_where, read_trace
from sagescale.trace.readers.answers import one_after_another

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "conversations.jsonl"


def read(path: Path, *rows: object, **other: object) -> Trace:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return read_trace(path, **other)


def chat(name: int, parent: int, at: float, **other: object) -> dict[str, object]:
    row = {
        "chat_id": name,
        "parent_chat_id": parent,
        "timestamp": at,
        "input_length": 32,
        "output_length": 50,
    }
    return row | {"type": "text", "turn": 1, "hash_ids": [1, 2]} | other


def test_a_chat_waits_for_its_parent(path):
    trace = read(
        path, chat(9, -1, 0.0), chat(4, 9, 10.0), chat(7, 9, 11.0), chat(5, -1, 12.0), chat(6, 4, 12.5)
    )
    assert trace.format == "qwen"
    assert trace.session_id.tolist() == [0, 0, 0, 1, 0]
    assert trace.turns.lists(0, 5) == [[], [0], [0], [], [1]]
    # 50 tokens at 20 ms; a gap shorter than that leaves nothing to think.
    assert trace.turns.think_s.tolist() == [0, 9, 10, 0, 1.5]
    assert "less 20 ms for each token" in trace.warnings[0]


def test_parents_that_cannot_be_waited_for_are_counted_or_refused(path):
    trace = read(path, chat(1, 77, 0.0), chat(2, 3, 1.0), chat(3, -1, 2.0))
    assert trace.turns.lists(0, 3) == [[], [], []]
    assert trace.warnings == (
        "1 turns come before the one they answer to: they begin a conversation",
        "1 turns answer to one that is not in the file: they begin a conversation",
    )
    with pytest.raises(
        InputError, match="line 2, column 'parent_chat_id': found 5, expected an earlier request's"
    ):
        read(path, chat(1, -1, 0.0), chat(5, 5, 1.0))
    with pytest.raises(InputError, match="line 1, column 'parent_chat_id': found 3"):
        read(path, chat(2, 3, 1.0), chat(3, 2, 2.0))


def test_mooncake_with_chats_has_turns_too(path):
    rows = [chat(1, -1, 0.0, hash_ids=[1]), chat(2, 1, 5000.0, hash_ids=[1])]
    for row in rows:
        del row["type"]
    trace = read(path, *rows, format="mooncake")
    assert trace.turns.lists(0, 2) == [[], [0]]
    assert trace.turns.think_s.tolist() == [0, 4]


@given(st.lists(st.tuples(st.integers(-1, 12), st.integers(0, 9)), min_size=1, max_size=12))
def test_any_forest_of_chats_is_read_or_refused(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("chats") / "a.jsonl"
    try:
        trace = read(path, *(chat(name, parent, float(at)) for name, (parent, at) in enumerate(rows)))
    except InputError:
        # Only what goes round is refused, and that needs a parent that is not before its child.
        assert any(parent >= name for name, (parent, _) in enumerate(rows))
        return
    assert len(trace) == len(rows)


def test_where_says_that_turns_are_lost(path):
    trace = read(path, chat(1, -1, 0.0), chat(2, 1, 5.0), log=LogSpec(where=parse_where(["type=text"])))
    assert trace.turns is None
    assert "leaves out which answers a request waits for" in trace.warnings[-1]


def turn(name: str, **other: object) -> dict[str, object]:
    return {"session_id": name, "input_length": 320, "output_length": 100} | other


def test_aiperf_turns_hold_what_was_said_before(path):
    rows = [turn("a", timestamp=0), turn("b", timestamp=500), turn("a", delay=1500, input_length=20)]
    trace = read(path, *rows, turn("a", timestamp=9000))
    assert trace.format == "aiperf"
    assert trace.isl.tolist() == [320, 320, 440, 860]
    assert trace.turns.lists(0, 4) == [[], [], [0], [2]]
    assert trace.turns.think_s.tolist() == [0, 0, 1.5, 3.5]
    assert trace.arrival_s.tolist() == [0, 0.5, 3.5, 9]
    assert trace.prefixes.hits().tolist() == [0, 0, 20, 27]


def test_aiperf_sessions_may_be_a_line_each_and_have_no_start(path):
    rows = {"session_id": "a", "turns": [{"text": "a" * 40, "output_length": 4}, turn("", delay=1000)]}
    trace = read(path, rows, {"turns": [turn("")]})
    assert trace.isl.tolist() == [10, 334, 320]
    assert trace.session_id.tolist() == [0, 0, 1]
    assert [line.split(":")[0] for line in trace.warnings] == [
        "prompts hold the turns and answers before them",
        "of turns that are texts, tokens are taken as a 4th of their letters",
        "when sessions began is not recorded",
    ]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [turn("a", output_length=None)],
            "line 1, 'output_length': found None, expected the tokens of the answer",
        ),
        ([turn("a", input_length=10**9)], "line 1: found 1000000000, expected a prompt of at most 16777216"),
        (
            [turn("a", input_length=2**23), turn("a", input_length=2**23)],
            "line 2: found 16777316, expected a prompt of at most 16777216 tokens, all turns before",
        ),
        ([turn("a", input_length=-1)], "line 1, 'input_length': found -1"),
        ([turn("a", delay="x")], "line 1, 'delay': found 'x'"),
        (
            [turn("a", timestamp=0), turn("b")],
            "line 2, 'timestamp': found None, expected a timestamp in every",
        ),
        (
            [turn("a", timestamp=9), turn("a", timestamp=3)],
            "line 2, 'timestamp': found 3.0, expected 9 or later",
        ),
        ([turn("a"), turn([1])], "line 2, 'session_id': found .1., expected the name"),
        ([{"session_id": "a", "turns": []}], "line 1, 'turns': found .., expected a list of objects"),
        ([{"session_id": "a", "turns": [{}]}], "line 1, turn 1, 'input_length': found None"),
    ],
)
def test_a_bad_turn_is_named(path, rows, message):
    with pytest.raises(InputError, match=message):
        read(path, *rows)


def test_aibrix_sessions_wait(path):
    def line(at: int, **other: object) -> dict[str, object]:
        return {"timestamp": at, "requests": [{"prompt_length": 9, "output_length": 50} | other]}

    trace = read(path, line(0, session_id=4), line(2000, session_id=5), line(5000, session_id=4), line(6000))
    assert trace.session_id.tolist() == [0, 1, 0, 2]
    assert trace.turns.lists(0, 4) == [[], [], [0], []]
    assert trace.turns.think_s.tolist() == [0, 0, 4, 0]
    assert read(path, line(0), line(1)).turns is None


LOG = "at,p,c,chat,end\n0.5,5,50,b,1.5\n0.1,6,100,a,1.1\n4.5,6,6,b,\n2.0,6,6,a,3.0\n2.5,7,7,a,2.9\n9,8,8,,\n"


def log(tmp_path: Path, columns: str, text: str = LOG) -> Trace:
    path = tmp_path / "log.csv"
    path.write_text(text)
    return read_trace(path, log=LogSpec(parse_columns([f"arrival=at,isl=p,osl=c,{columns}"]), time_unit="s"))


def test_requests_of_a_logs_session_wait_for_the_one_before(tmp_path):
    trace = log(tmp_path, "session=chat,done=end")
    assert trace.isl.tolist() == [6, 5, 6, 7, 6, 8]
    # At 2.5 the answer until 3.0 was not there: it waited for the one before.
    assert trace.turns.lists(0, 6) == [[], [], [0], [0], [1], []]
    assert trace.turns.think_s == pytest.approx([0, 0, 0.9, 1.4, 3, 0])
    (said,) = (line for line in trace.warnings if "sessions" in line)
    assert said.startswith("3 sessions: 3 requests wait for the one before; thinking is the gap")
    assert "recorded in 'end' for 4 and their tokens times the median" in said


def test_without_ends_answers_are_modelled_and_it_is_said(tmp_path):
    trace = log(tmp_path, "session=chat")
    assert trace.turns.lists(0, 6) == [[], [], [0], [2], [1], []]
    assert trace.turns.think_s == pytest.approx([0, 0, 0, 0.38, 3, 0])
    assert any("which is 20 ms for each of its tokens" in line for line in trace.warnings)
    plain = log(tmp_path, "session_id=chat")
    assert plain.turns is None
    assert any("with session= in place of session_id= they do" in line for line in plain.warnings)


def test_times_that_cannot_be_ends_are_refused(tmp_path):
    with pytest.raises(InputError, match="--columns done=c: no row has a time there"):
        log(tmp_path, "session=chat,done=c", "at,p,c,chat\n1000,5,5,a\n1001,5,5,a\n")
    with pytest.raises(InputError, match="session and session_id are both given"):
        log(tmp_path, "session=chat,session_id=chat")


@given(
    st.lists(
        st.tuples(st.integers(0, 20), st.integers(0, 2), st.floats(0, 9) | st.just(np.nan)),
        min_size=1,
        max_size=20,
    )
)
def test_nobody_waits_for_a_recorded_answer_that_was_not_there(rows):
    arrival_s, session, took_s = (np.array(column, np.float64) for column in zip(*rows, strict=True))
    turns = one_after_another(arrival_s, session, took_s, np.full(len(rows), 10))
    owner = turns.owner
    assert (session[turns.after] == session[owner]).all()
    known = np.where(np.isnan(took_s), 0, took_s)
    assert (arrival_s[turns.after] + known[turns.after] <= arrival_s[owner]).all()
    assert turns.waits.sum() <= len(rows) - len(np.unique(session))
