"""Made-up sessions: turns, growth and thinking as asked for, shared beginnings, seeded."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest
from sagescale.cli.trace import trace_app
from sagescale.errors import InputError
from sagescale.trace import Trace, describe, read_trace
from sagescale.trace.synth import (
    Constant,
    Conversations,
    LogNormal,
    Quantity,
    Steady,
    parse_quantity,
    synthesise,
)
from trace_strategies import same_columns
from typer.testing import CliRunner

CHATS = Conversations(Quantity("geometric", 5.0), Quantity("exponential", 30.0), LogNormal(5.0, 1.0))


def made(conversations: Conversations = CHATS, **other: object) -> Trace:
    given = {"isl": LogNormal(7.0, 0.5), "osl": LogNormal(5.0, 0.5), "seed": 3} | other
    return synthesise(Steady(0.5), 4000.0, conversations=conversations, **given)


def test_turns_thinking_and_growth_are_as_asked_for():
    stats = describe(made())
    assert stats.sessions == pytest.approx(2000, rel=0.1)
    assert stats.turns.per_session.mean == pytest.approx(5, rel=0.05)
    assert stats.turns.think_s.mean == pytest.approx(30, rel=0.05)
    assert stats.turns.starts_per_hour == pytest.approx(1800, rel=0.1)
    # Growth is the turn's own and the answer before it, both lognormal.
    assert stats.turns.growth.mean == pytest.approx(np.exp(5.5) + np.exp(5.125), rel=0.1)
    assert stats.turns.waiting == stats.requests - stats.sessions


def test_a_prompt_is_the_one_before_its_answer_and_what_the_turn_adds():
    trace = made(
        Conversations(Quantity("constant", 3.0), Quantity("constant", 10.0), Constant(7)),
        isl=Constant(100),
        osl=Constant(50),
    )
    for session in range(5):
        rows = np.flatnonzero(trace.session_id == session)
        assert trace.isl[rows].tolist() == [100, 157, 214]
        assert trace.turns.lists(int(rows[2]), int(rows[2]) + 1) == [[rows[1]]]
        assert np.diff(trace.arrival_s[rows]) == pytest.approx([11, 11])
        assert trace.prefixes.counts[rows].tolist() == [6, 9, 13]
        assert trace.prefixes.hits()[rows].tolist() == [0, 6, 9]


def test_sessions_share_their_system_prompts_and_nothing_else():
    trace = made(prefixes=(2, 320), isl=Constant(400))
    shared = trace.prefixes.shared_units(trace.session_id)
    assert shared.sum() == 40
    first = np.flatnonzero(~trace.turns.waits)
    assert np.bincount(trace.prefixes.hits()[first]).tolist() == [2] + [0] * 19 + [len(first) - 2]


def test_sessions_end_before_a_prompt_that_is_too_long():
    whole, cut = made(), made(Conversations(CHATS.turns, CHATS.think_s, CHATS.growth, 1500))
    assert cut.isl.max() <= 1500
    assert describe(cut).sessions == describe(whole).sessions
    assert len(cut) < len(whole)
    with pytest.raises(InputError, match=r"--growth: a prompt has .* tokens or more; expected at most"):
        made(Conversations(Quantity("constant", 3.0), CHATS.think_s, Constant(2_000_000_000)))


@pytest.mark.parametrize(
    ("turns", "growth", "most", "message"),
    [
        (
            1000.0,
            Constant(100_000),
            None,
            "--growth: a prompt has .* expected at most 16,777,216: shorter",
        ),
        (20_000.0, Constant(100_000), None, "--growth: a prompt has 1,999,"),
        (
            100_000.0,
            LogNormal(5.0, 1.0),
            None,
            r"--turns: makes 2e\+08 requests; expected at most 67,108,864",
        ),
        (
            1000.0,
            Constant(16_000),
            None,
            "--turns: prompts have .* blocks of 16 tokens; expected at most 268,4",
        ),
        (3.0, Constant(9), 2_000_000_000, "--max-prompt 2,000,000,000: expected at most 16,777,216 tokens"),
    ],
)
def test_what_would_fill_memory_is_refused_before_it_does(turns, growth, most, message):
    tracemalloc.start()
    with pytest.raises(InputError, match=message) as refused:
        made(Conversations(Quantity("constant", turns), Quantity("constant", 0.01), growth, most))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "\n" not in str(refused.value)
    assert peak < 500e6


def test_the_same_seed_makes_the_same_sessions():
    assert same_columns(made(), made())
    assert not same_columns(made(), made(seed=4))
    # Starts have a stream of their own: plain requests of the seed begin when sessions do.
    plain = synthesise(Steady(0.5), 4000.0, Constant(9), Constant(9), seed=3)
    assert np.array_equal(np.sort(made().arrival_s[~made().turns.waits]), plain.arrival_s)


@pytest.mark.parametrize(
    ("option", "text", "message"),
    [
        ("--turns", "geometric:0.5", "'0.5' is no number of at least 1"),
        ("--turns", "exponential:3", "expected geometric:8, constant:8"),
        ("--turns", "constant:x", "'x' is no number"),
        ("--turns", "geometrc:3", "did you mean 'geometric'"),
        ("--think", "constant:-1", "'-1' is no number of at least 0"),
        ("--think", "lognormal:mean=3", "expected exactly two"),
        ("--think", "lognormal:mean=3,sigma=1,max=5", "min and max are of tokens"),
    ],
)
def test_what_is_no_distribution_is_refused(option, text, message):
    with pytest.raises(InputError, match=message):
        parse_quantity(option, text)


BASE = [
    "synth",
    "--pattern",
    "steady",
    "--duration-s",
    "500",
    "--rps",
    "0.5",
    "--isl",
    "constant:900",
    "--osl",
    "constant:20",
]


def test_the_command_makes_them_and_info_shows_them(tmp_path):
    out = tmp_path / "a.parquet"
    given = [*BASE, "--sessions", "--turns", "constant:4", "--think", "constant:5", "--growth", "constant:80"]
    run = CliRunner().invoke(trace_app, [*given, "--out", str(out)])
    assert run.exit_code == 0
    trace = read_trace(out)
    assert describe(trace).turns.per_session.max == 4
    shown = CliRunner().invoke(trace_app, ["info", str(out)]).stdout
    assert "requests each (p50 4, p90 4, most 4)" in shown
    assert "p50 5.0, p90 5.0, p99 5.0, mean 5.0 s before a turn" in shown
    assert "p50 100.0, p90 100.0, p99 100.0, mean 100.0 tokens a turn" in shown
    document = json.loads(CliRunner().invoke(trace_app, ["info", "--json", str(out)]).stdout)
    assert document["turns"]["waiting"] == 3 * document["sessions"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--turns", "constant:4"], "--turns: goes with --sessions"),
        (["--max-prompt", "4"], "--max-prompt: goes with --sessions"),
        (["--sessions", "--turns", "constant:4"], "--sessions: needs --think as well"),
        (
            [
                *["--sessions", "--turns", "constant:4", "--think", "constant:4", "--growth", "constant:4"],
                "--max-prompt",
                "0",
            ],
            "--max-prompt 0: expected",
        ),
        (
            [
                *[
                    "--sessions",
                    "--turns",
                    "constant:4",
                    "--think",
                    "constant:4",
                    "--growth",
                    "constant:4",
                    "--correlation",
                    "0.5",
                ]
            ],
            "has no effect on --sessions",
        ),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path, options, message):
    run = CliRunner().invoke(trace_app, [*BASE, *options, "--out", str(tmp_path / "a.csv")])
    assert isinstance(run.exception, InputError)
    assert message in str(run.exception)
