"""When sessions begin: drawn by seed, counted and spread as asked; and thinking that is cut short."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sagescale.errors import InputError
from sagescale.trace import (
    Trace,
    TransformSpec,
    Turns,
    apply_transforms,
    parse_sessions,
    session_starts,
    write_trace,
)
from test_trace_turns import sessions
from trace_strategies import session_traces, waited_for


def many(count: int) -> Trace:
    """So many sessions of two turns, the second 10 s after the first."""
    turns = Turns.of([[]] * count + [[row] for row in range(count)], [0.0] * count + [4.0] * count)
    arrival_s = np.concatenate([np.arange(count), np.arange(count) + 10.0])
    return Trace.from_arrays(
        arrival_s, np.arange(2 * count) + 1, [5] * 2 * count, session_id=[*range(count)] * 2, turns=turns
    )


def started(trace: Trace, text: str, seed: int = 0, **other: object) -> Trace:
    return apply_transforms(trace, TransformSpec(sessions=parse_sessions(text), seed=seed, **other))


def gaps_cv(trace: Trace) -> float:
    gaps = np.diff(session_starts(trace))
    return float(gaps.std() / gaps.mean())


@pytest.mark.parametrize(
    ("text", "per_s", "cv"),
    [("poisson:2", 2, 1), ("poisson:120/min", 2, 1), ("gamma:7200/h,3", 2, 3), ("gamma:2/s,cv=0.2", 2, 0.2)],
)
def test_starts_come_at_the_rate_asked_for(text, per_s, cv):
    trace = started(many(4000), text)
    assert len(session_starts(trace)) == 4000
    assert 4000 / session_starts(trace)[-1] == pytest.approx(per_s, rel=0.1)
    assert gaps_cv(trace) == pytest.approx(cv, rel=0.1)
    assert trace.transforms == (f"sessions {text} (seed 0)",)


def test_a_diurnal_day_has_its_peak_where_it_is_said():
    trace = started(many(4000), "diurnal:4000/day,amplitude=1,peak_hour=18")
    hours = np.histogram(session_starts(trace) / 3600, bins=24, range=(0, 24))[0]
    assert hours[16:20].sum() > 20 * hours[4:8].sum()


def test_starts_may_be_another_traces(tmp_path):
    path = write_trace(
        Trace.from_arrays([*range(100), *range(900, 1000)], [9] * 200, [9] * 200), tmp_path / "a.csv"
    )
    starts = session_starts(started(many(80), f"trace:{path}"))
    assert ((starts < 100) | (starts > 800)).all()
    assert starts[-1] > 900
    assert started(many(200), f"trace:{path}").duration_s == 999 + 10
    with pytest.raises(InputError, match="has 200 arrivals for 201 sessions; expected at least as many"):
        started(many(201), f"trace:{path}")
    assert parse_sessions(f"trace:{path}") == parse_sessions(f"trace:{path}")
    assert hash(parse_sessions(f"trace:{path}")) == hash(parse_sessions(f"trace:{path}"))


@given(trace=session_traces(), seed=st.integers(0, 5))
def test_sessions_stay_what_they_are(trace, seed):
    made = started(trace, "poisson:1/h", seed)
    assert sessions(made) == sessions(trace)
    assert made.arrival_s[0] == 0
    again = started(trace, "poisson:1/h", seed)
    assert np.array_equal(again.arrival_s, made.arrival_s)
    assert waited_for(again) == waited_for(made)


def test_copies_are_started_like_all_others_and_a_slice_is_of_what_was_drawn():
    trace = started(many(500), "poisson:1", rate_scale=2.5)
    assert len(session_starts(trace)) == 1250
    assert session_starts(trace)[-1] == pytest.approx(1250, rel=0.2)
    part = started(many(500), "poisson:1", rate_scale=2.5, slice=(100.0, 200.0))
    assert len(session_starts(part)) == pytest.approx(100, abs=40)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("poison:3", "expected poisson:R, gamma:R,CV, .*did you mean 'poisson'"),
        ("poisson", "expected poisson:R"),
        ("poisson:x", "'x' is no number"),
        ("poisson:0", "'0' is no rate above 0"),
        ("poisson:nan", "'nan' is no rate above 0"),
        ("poisson:3/week", "'3/week' is no rate"),
        ("poisson:3,4", "found '4' behind the rate"),
        ("gamma:3", "expected gamma:R,CV"),
        ("gamma:3,99", "cv is 99; expected a number from 0.05 to 20"),
        ("diurnal:3,peak=4", "'peak=4' is none of amplitude=, peak_hour=, weekend_factor="),
        ("diurnal:3,amplitude=4", "amplitude 4: expected a number from 0 to 1"),
        ("trace:missing.csv", "missing.csv: no such file"),
    ],
)
def test_what_is_no_such_process_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        parse_sessions(text)


def test_a_trace_without_turns_has_no_sessions_to_begin():
    plain = Trace.from_arrays([0, 1], [9] * 2, [1] * 2, session_id=[0, 1])
    with pytest.raises(
        InputError, match=r"--sessions: <memory> \(memory\) has no turns that wait for answers"
    ):
        started(plain, "poisson:1")
    with pytest.raises(InputError, match="--max-think-s: <memory>"):
        apply_transforms(plain, TransformSpec(max_think_s=3.0))
    with pytest.raises(InputError, match=r"would begin at .* s; expected at most"):
        started(many(500), "poisson:1/day")


def test_thinking_is_cut_short_and_what_follows_comes_earlier():
    turns = Turns.of([[], [0], [1], [0, 2]], [0, 100, 5, 300])
    trace = Trace.from_arrays([0, 110, 120, 430], [9] * 4, [1] * 4, session_id=[0] * 4, turns=turns)
    made = apply_transforms(trace, TransformSpec(max_think_s=60.0))
    assert made.turns.think_s.tolist() == [0, 60, 5, 60]
    assert made.arrival_s.tolist() == [0, 70, 80, 190]
    assert made.transforms == ("think at most 60 s (2 requests)",)
    with pytest.raises(InputError, match="--max-think-s -1: expected a finite number, 0 or more"):
        apply_transforms(trace, TransformSpec(max_think_s=-1.0))


@given(trace=session_traces(), most_s=st.floats(0, 3))
def test_a_cap_keeps_every_request_behind_what_it_waits_for(trace, most_s):
    made = apply_transforms(trace, TransformSpec(max_think_s=most_s))
    assert len(made) == len(trace)
    assert made.turns.think_s.max(initial=0) <= most_s
    assert (made.arrival_s[made.turns.after] <= made.arrival_s[made.turns.owner]).all()
