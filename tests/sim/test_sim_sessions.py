"""Turns wait for answers: what holds for every run with sessions (ENGINES 6), and what its parts come to."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sagescale.errors import InputError
from sagescale.perf import load_profile
from sagescale.planner import AutoscalerConfig
from sagescale.sim.config import SimulatorConfig, with_overrides
from sagescale.sim.export import requests_table
from sagescale.sim.faults import Faults, Rates
from sagescale.sim.part import Part, measure_part
from sagescale.sim.result import run_document
from sagescale.sim.simulate import ServiceRun, simulate, simulate_fleet
from sagescale.sim.startup import StartupDelay
from sagescale.sim.state import DONE, REJECTED, TIMED_OUT
from sagescale.sim.turns import as_recorded, check_thinking
from sagescale.trace import Trace, Turns
from strategies import sampled

if TYPE_CHECKING:
    from sagescale.sim.run import Run

PROFILE = load_profile("h200-llama-3.1-8b-fp8")


def sessions_trace(rows: list[tuple[int, float, int, int, list[int], float]]) -> Trace:
    """Requests as (session, nominal arrival, ISL, OSL, rows waited for, time to think), sorted by arrival."""
    session, arrival_s, isl, osl, after, think_s = zip(*rows, strict=True)
    trace = Trace.from_arrays(arrival_s, isl, osl, session_id=session)
    return dataclasses.replace(trace, turns=Turns.of(after, think_s))


def chain(
    turns: int, *, session: int = 0, start_s: float = 0.0, think_s: float = 1.0, isl: int = 100
) -> list:
    """One session of a request after the other."""
    return [
        (session, start_s + 2.0 * turn, isl, 10, [turn - 1] if turn else [], think_s if turn else 0.0)
        for turn in range(turns)
    ]


@st.composite
def session_traces(draw: st.DrawFn) -> Trace:
    rows: list[tuple[int, float, int, int, list[int], float]] = []
    at_s = 0.0
    for _ in range(draw(st.integers(1, 25))):
        if rows:
            at_s += draw(sampled(0.0, 0.01, 0.5, 3.0, 60.0))
        known = max((row[0] for row in rows), default=-1)
        session = draw(st.integers(0, known + 1)) if rows else 0
        before = [number for number, row in enumerate(rows) if row[0] == session]
        after = draw(st.lists(st.sampled_from(before), unique=True, max_size=3)) if before else []
        rows.append(
            (
                session,
                at_s,
                draw(sampled(1, 40, 700, 5000)),
                draw(sampled(1, 2, 30, 200)),
                after,
                draw(sampled(0.0, 0.25, 2.0, 90.0)) if after else 0.0,
            )
        )
    return sessions_trace(rows)


def check(run: Run, trace: Trace) -> None:
    """No request before its answer, all accounted for, and none goes missing but through a miss."""
    loop, turns, session = run.closed_loop, trace.turns, trace.session_id
    assert loop is not None
    assert turns is not None
    assert session is not None
    assert len(loop.rows) + loop.never_arrived == len(trace)
    assert len(np.unique(loop.rows)) == len(loop.rows)
    arrival_s, done_s = np.full(len(trace), np.nan), np.full(len(trace), np.nan)
    arrival_s[loop.rows] = run.trace.arrival_s
    done_s[loop.rows] = run.requests["done_s"]
    assert (np.diff(run.trace.arrival_s) >= 0).all()
    same = np.diff(run.trace.arrival_s) == 0
    assert (np.diff(loop.rows)[same] > 0).all() or run.simulator.concurrent_sessions or run.faults
    for row, waited in enumerate(turns.lists(0, len(trace))):
        if np.isnan(arrival_s[row]):
            continue
        if waited:
            assert arrival_s[row] == done_s[waited].max() + turns.think_s[row]
        elif run.simulator.concurrent_sessions is None:
            assert arrival_s[row] == trace.arrival_s[row]
    state = run.requests["state"]
    missed = np.isin(np.arange(session.max() + 1), session[loop.rows[state != DONE]])
    begun = np.isin(np.arange(session.max() + 1), session[loop.rows])
    for row in np.flatnonzero(np.isnan(arrival_s)):
        assert missed[session[row]] or not begun[session[row]]
    if run.simulator.concurrent_sessions is None:
        assert begun.all()
    counts = [int((state == kind).sum()) for kind in (DONE, REJECTED, TIMED_OUT)]
    assert [len(run.completed), run.rejected, run.timed_out] == counts
    assert run.horizon_s >= np.fmax.reduce(done_s, initial=0.0)
    assert loop.never_behind.sum() == loop.never_arrived
    document = run_document(run, "run")
    assert document.requests.arrived + document.requests.never_arrived == len(trace)
    assert document.sessions is not None
    assert document.sessions.finished == (~missed & begun).sum()
    part = measure_part(run, Part(), 20.0)
    assert part.attainment == pytest.approx(document.sla.attainment)
    table = requests_table(run)
    assert table["arrival_s"].null_count == loop.never_arrived
    assert table["outcome"].to_pylist().count("never_arrived") == loop.never_arrived


SERVED = (  # with the routers to try: each other kind is another compilation
    ({"serving": "disaggregated"}, ("load_balanced", "round_robin")),
    *(
        (
            {"serving": serving, "engine_scheduler": scheduler},
            ("session_affinity", "least_tokens", "kv_aware"),
        )
        for serving in ("disaggregated", "aggregated")
        for scheduler in ("vllm", "sglang")
    ),
)


def run_with(
    trace: Trace,
    policy: str = "static",
    faults: Faults | None = None,
    serving: str = "disaggregated",
    **keys: object,
) -> Run:
    pools = ("instances",) if serving == "aggregated" else ("prefill_instances", "decode_instances")
    limits = {
        f"{end}_{pool}": 2 if policy == "static" else size
        for pool in pools
        for end, size in (("min", 1), ("max", 3))
    }
    gpus = {} if serving == "aggregated" else {"prefill_gpus_per_instance": 1, "decode_gpus_per_instance": 1}
    config = AutoscalerConfig(
        serving=serving, policy=policy, load_predictor_type="constant", adjustment_interval_sec=20,
        max_gpu_budget=8, enable_online_learning=False, **limits, **gpus,
    )  # fmt: skip
    simulator = SimulatorConfig(startup_delay_s=StartupDelay("constant", (5.0,)), **keys)
    return simulate(trace, with_overrides(PROFILE, simulator, serving), config, simulator, faults=faults)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    trace=session_traces(),
    served=st.sampled_from(SERVED).flatmap(
        lambda way: st.sampled_from([{**way[0], "routing_strategy": router} for router in way[1]])
    ),
    policy=st.sampled_from(["static", "reactive", "classic"]),
    scheduling=st.sampled_from(["fifo", "priority", "slo_aware", "adaptive"]),
    alive=st.sampled_from([None, None, 1, 2, 30]),
    timeout_s=st.sampled_from([None, 0.02, 0.2]),
    memory=st.sampled_from([None, 6000, 1200]),
    crashes=st.sampled_from([0.0, 0.0, 30.0]),
)
def test_no_request_comes_before_its_answer_and_none_is_lost(
    trace: Trace,
    served: dict[str, str],
    policy: str,
    scheduling: str,
    alive: int | None,
    timeout_s: float | None,
    memory: int | None,
    crashes: float,
) -> None:
    faults = Faults(seed=1, rates=Rates(crash_per_instance_hour=crashes)) if crashes else None
    run = run_with(
        trace, policy, faults, scheduling_policy=scheduling,
        concurrent_sessions=alive, request_timeout_s=timeout_s, max_kv_tokens=memory, **served,
    )  # fmt: skip
    check(run, trace)


def test_a_turn_without_thinking_arrives_the_instant_it_is_answered() -> None:
    run = run_with(sessions_trace(chain(4, think_s=0.0)))
    assert run.trace.arrival_s[1:].tolist() == run.requests["done_s"][:-1].tolist()


def test_a_join_waits_for_the_last_answer() -> None:
    rows = [(0, 0.0, 10, 5, [], 0.0), (0, 0.0, 10, 300, [], 0.0), (0, 1.0, 10, 5, [0, 1], 0.5)]
    run = run_with(sessions_trace(rows))
    assert run.trace.arrival_s[2] == run.requests["done_s"][:2].max() + 0.5


def test_a_rejected_request_ends_its_session_and_siblings_go_on() -> None:
    rows = [
        (0, 0.0, 10, 200, [], 0.0),
        (0, 0.0, 9000, 5, [], 0.0),  # larger than memory
        (1, 0.0, 10, 5, [], 0.0),
        (0, 1.0, 10, 5, [0], 0.0),
        (1, 1.0, 10, 5, [2], 0.0),
    ]
    run = run_with(sessions_trace(rows), max_kv_tokens=5000)
    assert run.closed_loop is not None
    assert run.closed_loop.rows.tolist() == [0, 1, 2, 4]
    assert (run.requests["state"] == [DONE, REJECTED, DONE, DONE]).all()
    document = run_document(run, "run")
    assert (document.requests.never_arrived, document.requests.unfinished) == (1, 1)
    assert document.sla.attainment == pytest.approx(3 / 5)
    assert document.sessions is not None
    assert (document.sessions.started, document.sessions.finished) == (2, 1)
    assert document.sessions.attainment == 0.5


def test_open_loop_is_the_trace_without_its_turns() -> None:
    trace = sessions_trace(chain(5, think_s=9.0))
    opened, plain = run_with(trace, open_loop=True), run_with(dataclasses.replace(trace, turns=None))
    assert opened.closed_loop is None
    assert opened.requests["done_s"].tolist() == plain.requests["done_s"].tolist()
    assert opened.horizon_s == plain.horizon_s
    sessions = run_document(opened, "open").sessions
    assert sessions is not None
    assert (sessions.total, sessions.finished, sessions.attainment) == (1, 1, 1.0)


def test_a_closed_population_never_has_more_sessions_alive() -> None:
    rows = []
    for session in range(12):
        first = len(rows)
        rows += [
            (
                session,
                5.0 * session + 0.1 * turn,
                100,
                30,
                [first + turn - 1] if turn else [],
                0.25 if turn else 0.0,
            )
            for turn in range(3)
        ]
    trace = sessions_trace(rows)
    run = run_with(trace, concurrent_sessions=3)
    loop = run.closed_loop
    assert loop is not None
    assert trace.session_id is not None
    session = trace.session_id[loop.rows]
    begins = np.array([run.trace.arrival_s[session == one].min() for one in range(12)])
    ends = np.array([run.requests["done_s"][session == one].max() for one in range(12)])
    assert (begins[:3] == 0.0).all()
    assert begins[3:].tolist() == np.sort(ends)[:9].tolist()  # each as one ends
    assert run_document(run, "run").sessions.finished == 12  # type: ignore[union-attr]  # it has sessions
    recorded = as_recorded(trace, 3)
    assert recorded.arrival_s[:4].tolist() == [0.0, 0.0, 0.0, pytest.approx(0.1)]
    assert recorded.duration_s == pytest.approx(4 * 0.2)


def test_several_services_close_their_loops_each_by_itself() -> None:
    looped, plain = (
        sessions_trace(chain(5, think_s=0.5)),
        Trace.from_arrays([0.0, 1.0, 7.0], [9, 9, 9], [3, 3, 3]),
    )
    config = AutoscalerConfig(
        policy="static", min_prefill_instances=1, max_prefill_instances=1, min_decode_instances=1,
        max_decode_instances=1, max_gpu_budget=2, prefill_gpus_per_instance=1, decode_gpus_per_instance=1,
    )  # fmt: skip
    services = [
        ServiceRun(trace, PROFILE, config, SimulatorConfig(), name=name)
        for name, trace in (("one", looped), ("two", plain), ("three", looped))
    ]
    one, two, three = simulate_fleet(services, {"gpu": 6})
    alone = simulate(looped, PROFILE, config, SimulatorConfig())
    for run in (one, three):
        assert run.closed_loop is not None
        assert run.requests["done_s"].tolist() == alone.requests["done_s"].tolist()
        assert run.trace.arrival_s.tolist() == alone.trace.arrival_s.tolist()
        assert run.horizon_s == alone.horizon_s
    assert two.closed_loop is None
    assert (
        two.requests["done_s"].tolist()
        == simulate(plain, PROFILE, config, SimulatorConfig()).requests["done_s"].tolist()
    )


@pytest.mark.parametrize(
    ("trace", "keys", "words"),
    [
        (Trace.from_arrays([0.0], [1], [1]), {}, "the trace has no turns"),
        (sessions_trace(chain(2)), {"open_loop": True}, "open_loop is true"),
    ],
)
def test_a_closed_population_needs_a_closed_loop(trace: Trace, keys: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=f"concurrent_sessions is 2 but {words}"):
        run_with(trace, concurrent_sessions=2, **keys)


def test_thinking_of_years_is_refused_before_anything_is_simulated() -> None:
    rows = chain(4)
    rows[2] = (*rows[2][:5], 1e9)
    trace = sessions_trace(rows)
    said = r"request 3 by arrival, of session 1, .* up to 1e\+09 s \(request 3\).* --max-think-s 3600"
    with pytest.raises(InputError, match=said):
        run_with(trace)
    run_with(trace, open_loop=True)
    # Much thinking side by side is no long way; one session after the other is.
    wide = [(0, 0.0, 100, 10, [], 0.0), *((0, 1.0 + turn, 100, 10, [0], 2e7) for turn in range(3))]
    check_thinking(sessions_trace(wide), None)
    late = [[(number, float(number), 100, 10, [], 0.0), (number, 5.0 + number, 100, 10, [2 * number], 2e7)]
            for number in range(3)]  # fmt: skip
    order = sorted(row for session in late for row in session)
    apart = sorted((row[1], row[0], row) for row in order)
    trace = sessions_trace([(*row[:4], [row[0]] if row[5] else [], row[5]) for _, _, row in apart])
    check_thinking(trace, None)
    check_thinking(trace, 3)
    with pytest.raises(InputError, match=r"of session 3, .*more --concurrent-sessions take less time"):
        check_thinking(trace, 1)
