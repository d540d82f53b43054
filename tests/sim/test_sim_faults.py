"""What goes wrong in a run, what the planner makes of it, and what it costs."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sagescale.document import as_keys
from sagescale.errors import InputError
from sagescale.perf import ProfileModel, load_profile
from sagescale.planner import AutoscalerConfig
from sagescale.sim.bound import lower_bound
from sagescale.sim.config import SimulatorConfig
from sagescale.sim.faults import Crash, Faults, Outage, Rates, StartFault, read_faults
from sagescale.sim.measures import gpu_hours
from sagescale.sim.result import run_document
from sagescale.sim.simulate import simulate
from sagescale.trace import Trace
from strategies import sampled

if TYPE_CHECKING:
    from sagescale.sim.run import Run

PROFILE = load_profile("h200-llama-3.1-8b-fp8")
GPUS = ProfileModel(PROFILE)
LONG_S = 1e6
DEFAULTS = {
    "adjustment_interval_sec": 30,
    "target_ttft_ms": 500.0,
    "target_itl_ms": 50.0,
    "prefill_gpus_per_instance": GPUS.prefill_gpus,
    "decode_gpus_per_instance": GPUS.decode_gpus,
}


def make_trace(rate: float, end_s: float, seed: int = 0) -> Trace:
    rng = np.random.default_rng(seed)
    arrival_s = np.sort(rng.uniform(0.0, end_s, round(rate * end_s)))
    arrival_s -= arrival_s[0]
    isl = rng.integers(100, 3000, len(arrival_s)).astype(np.int32)
    osl = rng.integers(1, 400, len(arrival_s)).astype(np.int32)
    return Trace.from_arrays(arrival_s, isl, osl)


STEADY = make_trace(4.0, 1500.0)


def run(
    faults: Faults | None = None,
    trace: Trace = STEADY,
    simulator: dict[str, object] | None = None,
    **config: object,
) -> Run:
    chosen = {**DEFAULTS, **config}
    return simulate(
        trace, PROFILE, AutoscalerConfig(**chosen), SimulatorConfig(**(simulator or {})), faults=faults
    )


def fixed(prefill: int, decode: int) -> dict[str, int]:
    """Pools that the planner cannot resize."""
    return {
        "min_prefill_instances": prefill,
        "max_prefill_instances": prefill,
        "min_decode_instances": decode,
        "max_decode_instances": decode,
    }


def document(result: Run, without: Run | None = None) -> dict:
    measured = run_document(result, "run", without_faults=without)
    return json.loads(json.dumps(measured, default=as_keys, allow_nan=False))


def stable_bytes(result: Run) -> bytes:
    written = document(result)
    del written["timing"]
    return json.dumps(written, sort_keys=True).encode()


def assert_same(result: Run, other: Run) -> None:
    for records, others in ((result.requests, other.requests), (result.lifetimes, other.lifetimes)):
        for name in records.dtype.names:
            np.testing.assert_array_equal(records[name], others[name], name)


def events(result: Run, kind: str) -> list[tuple[float, str | None, int | None]]:
    assert result.faults is not None
    return [
        (event.time_s, event.pool, event.instance) for event in result.faults.events if event.kind == kind
    ]


def gpus_at_most(result: Run) -> int:
    """The most GPUs held at any instant, from the lifetimes alone; what stops frees before what starts."""
    gpus = np.where(result.lifetimes["pool"] == 0, GPUS.prefill_gpus, GPUS.decode_gpus)
    times = np.concatenate([result.lifetimes["stop_s"], result.lifetimes["launch_s"]])
    changes = np.concatenate([-gpus, gpus])
    order = np.argsort(times, kind="stable")
    return int(np.cumsum(changes[order]).max())


# Crashes


def test_a_decode_crash_in_mid_run_loses_no_request_and_costs_attainment():
    before = run(**fixed(2, 1))
    crash = Crash(at_s=700.0, pool="decode")
    after = run(Faults(crashes=(crash,)), **fixed(2, 1))
    written, calm = document(after, before), document(before)
    assert written["requests"]["completed"] == len(STEADY)
    assert written["requests"]["unfinished"] == 0
    assert calm["requests"]["restarted"] == 0
    assert calm["faults"] is None
    assert 0 < written["requests"]["restarted"] < 100
    assert written["sla"]["attainment"] < calm["sla"]["attainment"]
    faults = written["faults"]
    assert faults is not None
    assert faults["restarts"] == written["requests"]["restarted"] == faults["events"][0]["restarted"]
    assert 0 < faults["restarted_missed"] <= written["requests"]["restarted"]
    assert faults["without"] is not None
    assert faults["without"]["attainment"] == calm["sla"]["attainment"]
    assert faults["without"]["gpu_hours"] == calm["gpu_hours"]["total"]


def test_what_a_request_had_before_a_crash_stands():
    before = run(**fixed(2, 2)).requests
    crashed = run(Faults(crashes=(Crash(at_s=700.0, pool="decode"),)), **fixed(2, 2))
    after = crashed.requests
    restarted = after["restarts"] > 0
    assert (after["first_token_s"][restarted] == before["first_token_s"][restarted]).all()
    assert (crashed.produced[restarted] >= 1).all()
    assert (after["done_s"][restarted] > before["done_s"][restarted]).all()
    assert (after["done_s"][~restarted & (before["done_s"] < 700.0)] < 700.0).all()


def test_a_crashed_instance_is_replaced_at_once_and_its_gpus_are_free():
    result = run(Faults(crashes=(Crash(at_s=700.0, pool="prefill", instance=0),)), **fixed(1, 1))
    lives = result.lifetimes[result.lifetimes["pool"] == 0]
    assert lives["stop_s"][0] == 700.0
    assert (lives["launch_s"][1], lives["ready_s"][1]) == (700.0, 760.0)
    assert gpus_at_most(result) == GPUS.prefill_gpus + GPUS.decode_gpus
    assert len(result.completed) == len(STEADY)


def test_the_busiest_instances_crash_one_after_the_other():
    result = run(Faults(crashes=(Crash(at_s=700.0, pool="decode", count=2),)), **fixed(2, 3))
    assert len({instance for _, _, instance in events(result, "crash")}) == 2
    assert len(result.completed) == len(STEADY)


def test_a_scripted_crash_of_nobody_is_told():
    result = run(Faults(crashes=(Crash(at_s=700.0, pool="decode", instance=99),)), **fixed(1, 1))
    assert events(result, "no_such_instance") == [(700.0, "decode", 99)]
    assert events(result, "crash") == []


def test_crashes_come_at_their_rate():
    result = run(Faults(rates=Rates(crash_per_instance_hour=40.0)), **fixed(4, 4))
    up_h = np.nansum(result.lifetimes["stop_s"] - result.lifetimes["ready_s"]) / 3600.0
    assert 0.6 * 40.0 * up_h < len(events(result, "crash")) < 1.5 * 40.0 * up_h


# Starts


def test_a_slow_start_takes_longer_by_its_factor_and_the_wait_is_counted():
    slow = StartFault(kind="slow_starts", from_s=0.0, to_s=LONG_S, factor=3.0)
    result = run(Faults(starts=(slow,), crashes=(Crash(at_s=600.0, pool="decode"),)), **fixed(1, 2))
    life = result.lifetimes[-1]
    assert (life["launch_s"], life["ready_s"]) == (600.0, 780.0)
    faults = document(result)["faults"]
    assert faults is not None
    assert faults["gpu_hours_lost"]["slow_starts"] == pytest.approx(120.0 * GPUS.decode_gpus / 3600.0)
    assert faults["gpu_hours_lost"]["total"] == faults["gpu_hours_lost"]["slow_starts"]


def test_a_stuck_start_holds_its_gpus_until_it_is_given_up_and_tried_again():
    stuck = StartFault(kind="stuck_starts", from_s=500.0, to_s=650.0, pool="decode")
    crash = Crash(at_s=600.0, pool="decode")
    result = run(Faults(starts=(stuck,), crashes=(crash,), start_timeout_s=200.0), **fixed(1, 2))
    given_up, replacement = result.lifetimes[-2:]
    assert np.isnan(given_up["ready_s"])
    assert (given_up["launch_s"], given_up["stop_s"]) == (600.0, 800.0)
    assert (replacement["launch_s"], replacement["ready_s"]) == (800.0, 860.0)
    faults = document(result)["faults"]
    assert faults is not None
    assert faults["counts"] == {"crash": 1, "start_timeout": 1, "stuck_start": 1}
    assert faults["gpu_hours_lost"]["timed_out_starts"] == pytest.approx(200.0 * GPUS.decode_gpus / 3600.0)
    assert faults["gpu_hours_lost"]["stuck_starts"] == 0.0


def test_a_stuck_start_without_a_timeout_is_never_ready_and_the_run_still_ends():
    stuck = StartFault(kind="stuck_starts", from_s=0.0, to_s=LONG_S)
    result = run(Faults(starts=(stuck,), crashes=(Crash(at_s=600.0, pool="decode"),)), **fixed(1, 1))
    assert len(result.completed) < len(STEADY)
    assert result.horizon_s == STEADY.duration_s
    assert document(result)["requests"]["unfinished"] == len(STEADY) - len(result.completed)


def test_a_stuck_run_is_told_up_to_its_horizon_however_long_it_waited():
    stuck = StartFault(kind="stuck_starts", from_s=0.0, to_s=LONG_S)
    faults = Faults(starts=(stuck,), crashes=(Crash(at_s=10.0, pool="prefill"),), start_timeout_s=20.0)
    result = run(faults, max_gpu_budget=8)
    ticks = int(result.horizon_s // 30.0)
    assert result.horizon_s == STEADY.duration_s
    found = document(result)
    assert found["scaling"]["ticks"] == len(found["timeline"]["time_s"]) == ticks
    assert found["timeline"]["time_s"][-1] <= result.horizon_s
    assert sum(found["reasons"].values()) == sum(map(len, found["timeline"]["reasons"]))
    assert gpus_at_most(result) == found["scaling"]["max_gpus"]


def test_a_failing_start_stops_after_its_delay_and_is_tried_again():
    failing = StartFault(kind="failing_starts", from_s=600.0, to_s=700.0)
    result = run(Faults(starts=(failing,), crashes=(Crash(at_s=600.0, pool="decode"),)), **fixed(1, 2))
    assert events(result, "failed_start") == [(660.0, "decode", 2), (720.0, "decode", 3)]
    assert (result.lifetimes[-1]["launch_s"], result.lifetimes[-1]["ready_s"]) == (720.0, 780.0)


def test_starts_that_fail_for_ever_end_the_run():
    failing = StartFault(kind="failing_starts", from_s=0.0, to_s=LONG_S)
    crash = Crash(at_s=50.0, pool="decode")
    short = make_trace(1.0, 100.0)
    result = run(
        Faults(starts=(failing,), crashes=(crash,)),
        short,
        simulator={"startup_delay_s": 600.0},
        adjustment_interval_sec=600,
        **fixed(1, 1),
    )
    assert len(result.completed) < len(short)


def test_a_cold_instance_takes_longer_over_its_first_batch_only():
    cold = StartFault(kind="cold_starts", from_s=0.0, to_s=LONG_S, extra_s=20.0)
    crashes = (Crash(at_s=600.0, pool="prefill", instance=0),)
    warm = run(Faults(crashes=crashes), **fixed(1, 1))
    chilled = run(Faults(crashes=crashes, starts=(cold,)), **fixed(1, 1))
    first_s = [result.requests["first_token_s"] for result in (warm, chilled)]
    after = min(first_s[0][first_s[0] > 600.0])
    assert min(first_s[1][first_s[1] > 600.0]) == after + 20.0
    assert chilled.lifetimes["cold_s"].tolist() == [0.0, 0.0, 20.0]


def test_without_gpus_to_be_had_a_launch_waits():
    outage = Outage(kind="no_gpus", from_s=500.0, to_s=900.0)
    result = run(Faults(outages=(outage,), crashes=(Crash(at_s=600.0, pool="decode"),)), **fixed(1, 2))
    assert result.lifetimes[-1]["launch_s"] == 900.0
    waiting = {tick.observation.time_s: tick.observation.pools.decode.waiting for tick in result.ticks}
    assert (waiting[600.0], waiting[870.0], waiting[930.0]) == (1, 1, 0)
    assert events(result, "no_gpus") == [(500.0, None, None)]


# Metrics


def outage(kind: str, **more: float) -> Faults:
    return Faults(outages=(Outage(kind=kind, from_s=600.0, to_s=1200.0, **more),))  # type: ignore[arg-type]


def in_outage(result: Run) -> list[object]:
    return [tick for tick in result.ticks if 600.0 <= tick.observation.time_s < 1200.0]


@pytest.mark.parametrize("predictor", ["constant", "moving_average", "kalman"])
def test_ten_minutes_without_metrics_cause_no_scale_down(predictor):
    falling = Trace.from_arrays(
        np.concatenate([np.arange(0, 500, 0.05), np.arange(500, 1500, 1.0)]),
        np.full(11000, 1500, np.int32),
        np.full(11000, 200, np.int32),
    )
    result = run(outage("metrics_vanish"), falling, load_predictor_type=predictor)
    blind = in_outage(result)
    assert len(blind) == 20
    for tick in blind:
        assert tick.observation.requests is None
        assert tick.decision.targets == tick.decision.current
    assert document(result)["faults"]["counts"] == {"metrics_vanish": 1}


def test_frozen_metrics_repeat_the_last_ones_and_the_pools_are_still_known():
    result = run(outage("metrics_freeze"))
    last = next(tick.observation for tick in result.ticks if tick.observation.time_s == 570.0)
    for tick in in_outage(result):
        seen = tick.observation
        assert replace(seen, time_s=570.0, pools=last.pools) == last
        assert seen.pools.asked == tick.decision.current


def test_lagging_metrics_are_those_of_earlier_ticks():
    result = run(outage("metrics_lag", lag_s=90.0), **fixed(2, 2))
    punctual = {tick.observation.time_s: tick.observation for tick in run(**fixed(2, 2)).ticks}
    for tick in in_outage(result):
        earlier = punctual[tick.observation.time_s - 90.0]
        assert replace(tick.observation, time_s=earlier.time_s) == earlier


def test_a_scrape_delay_shifts_the_window_and_leaves_nothing_out():
    simulator = {"scrape_delay_s": 100.0}
    ticks = run(simulator=simulator, **fixed(2, 2)).ticks
    assert [tick.observation.requests for tick in ticks[:3]] == [None, None, None]
    assert ticks[3].observation.requests == np.count_nonzero(STEADY.arrival_s <= 20.0)
    seen = sum(tick.observation.requests or 0.0 for tick in ticks)
    end_s = ticks[-1].observation.time_s - 100.0
    assert seen == np.count_nonzero(end_s >= STEADY.arrival_s)


# Any faults


@st.composite
def fault_sets(draw: st.DrawFn) -> Faults:
    chance = st.sampled_from([0.0, 0.0, 0.3])
    rates = Rates(
        crash_per_instance_hour=draw(sampled(0.0, 10.0, 60.0)),
        slow_start_probability=draw(chance),
        stuck_start_probability=draw(chance),
        failing_start_probability=draw(chance),
        cold_start_probability=draw(chance),
        no_gpus_per_hour=draw(sampled(0.0, 4.0)),
        no_gpus_s=200.0,
        metrics_vanish_per_hour=draw(sampled(0.0, 6.0)),
        metrics_freeze_per_hour=draw(sampled(0.0, 6.0)),
        metrics_lag_per_hour=draw(sampled(0.0, 6.0)),
    )
    return Faults(seed=draw(st.integers(0, 1000)), start_timeout_s=draw(sampled(100.0, 400.0)), rates=rates)


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    fault_sets(),
    st.sampled_from([2, 4, 12]),
    st.sampled_from(["prefill", "decode"]),
    st.booleans(),
    st.sampled_from([None, 20.0]),
)
def test_whatever_goes_wrong_requests_budget_and_bound_hold(faults, budget, first_token, blocking, timeout_s):
    trace = make_trace(6.0, 300.0)
    simulator = {
        "first_token": first_token,
        "kv_transfer_blocks_prefill": blocking,
        "kv_transfer_ms_per_1k_tokens": 5.0,
        "startup_delay_s": "uniform:low=10,high=90",
        "request_timeout_s": timeout_s,
    }
    result = run(faults, trace, simulator, max_gpu_budget=budget)
    assert len(result.completed) + result.timed_out + result.rejected <= len(trace)
    assert len(set(result.completed.tolist())) == len(result.completed)
    if timeout_s is None and not faults.rates.stuck_start_probability:
        assert len(result.completed) == len(trace)
    assert gpus_at_most(result) <= budget
    assert result.max_gpus_used <= budget
    assert all(tick.observation.time_s <= result.horizon_s for tick in result.ticks)
    requests = result.requests
    assert not (requests["done_s"] < requests["first_token_s"]).any()
    assert (result.produced < trace.osl).all()
    assert result.faults is not None
    assert result.faults.restarts == int(requests["restarts"].sum())
    assert result.faults.restarts == sum(event.restarted for event in result.faults.events)
    assert lower_bound(result).gpu_hours <= gpu_hours(result).total
    again = run(faults, trace, simulator, max_gpu_budget=budget)
    assert again.faults == result.faults
    assert_same(again, result)


def test_the_same_seed_gives_the_same_document_and_another_seed_another():
    rates = Rates(crash_per_instance_hour=20.0, cold_start_probability=0.5, metrics_freeze_per_hour=6.0)
    first, second, other = (stable_bytes(run(Faults(seed=seed, rates=rates))) for seed in (5, 5, 6))
    assert first == second
    assert first != other


def test_faults_that_never_come_change_nothing():
    calm, none = run(Faults()), run()
    assert_same(calm, none)
    assert [tick.decision for tick in calm.ticks] == [tick.decision for tick in none.ticks]


# The file


def read(tmp_path: Path, text: str) -> Faults:
    path = tmp_path / "faults.yaml"
    path.write_text(text)
    return read_faults(path)


def test_every_example_of_the_documentation_is_read(tmp_path):
    text = (Path(__file__).parents[2] / "docs" / "faults.md").read_text()
    script, rates = (read(tmp_path, block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL))
    assert (len(script.crashes), len(script.starts), len(script.outages)) == (3, 4, 4)
    assert script.start_timeout_s == 600.0
    assert rates.seed == 7
    assert rates.rates.cold_start_extra_s == 8.0


def test_an_empty_file_is_no_faults(tmp_path):
    assert replace(read(tmp_path, ""), file="") == Faults()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rats: {}", "faults.yaml:1: unknown key 'rats'; did you mean 'rates'?"),
        ("seed: -1", "faults.yaml:1: seed is -1; expected an integer >= 0"),
        ("rates:\n  crash_per_hour: 1", "faults.yaml:2: unknown key 'crash_per_hour'; did you mean"),
        (
            "rates:\n  stuck_start_probability: 2",
            "faults.yaml:2: stuck_start_probability is 2; expected a number",
        ),
        ("rates: [1]", "faults.yaml:1: rates: expected `key: value` pairs"),
        ("script: 3", "faults.yaml:1: script: expected a list of faults"),
        ("script:\n- 3", "faults.yaml:2: script: expected `key: value` pairs"),
        ("script:\n- {at_s: 3}", "faults.yaml:2: kind is missing; expected one of crash, slow_starts"),
        ("script:\n- {kind: crush}", "faults.yaml:2: kind is 'crush'; expected one of crash"),
        (
            "script:\n- {kind: crash, at_s: 3}",
            "faults.yaml:2: pool is missing; expected one of prefill, decode",
        ),
        ("script:\n- {kind: crash, at_s: x, pool: decode}", "faults.yaml:2: at_s is 'x'; expected a number"),
        (
            "script:\n- {kind: crash, at_s: 3, pool: decode, instance: 1, count: 2}",
            "faults.yaml:2: count is 2; expected 1 where an instance is named",
        ),
        (
            "script:\n- {kind: no_gpus, from_s: 9, to_s: 3}",
            "faults.yaml:2: to_s is 3; expected more than from_s 9",
        ),
        (
            "script:\n- {kind: no_gpus, from_s: 1, to_s: 3, lag_s: 1}",
            "faults.yaml:2: lag_s is given for no_gpus; expected it with metrics_lag only",
        ),
        ("script:\n- {kind: [1]}", "faults.yaml:2: kind is"),
        ("script: [", "faults.yaml:"),
    ],
)
def test_what_is_not_understood_is_refused_by_line(tmp_path, text, message):
    with pytest.raises(InputError) as refused:
        read(tmp_path, text)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"gone\.yaml: cannot be read"):
        read_faults(tmp_path / "gone.yaml")


def test_a_look_after_an_outage_in_which_starts_were_slow_decides():
    """Load that rises before and after: policy slo looked past its last plan."""
    parts = [make_trace(20.0, 500.0), make_trace(45.0, 1000.0), make_trace(120.0, 300.0)]
    begins = (0.0, 500.0, 1500.0)
    trace = Trace.from_arrays(
        np.concatenate([part.arrival_s + at for part, at in zip(parts, begins, strict=True)]),
        np.concatenate([part.isl for part in parts]),
        np.concatenate([part.osl for part in parts]),
    )
    faults = Faults(starts=(StartFault(kind="slow_starts", from_s=0.0, to_s=LONG_S, factor=30.0),))
    blind = {"metric_outage_s": "660:1510"}
    result = run(faults, trace, blind, policy="slo", adjustment_interval_sec=60)
    assert any(1500.0 < surge.time_s < 1800.0 for surge in result.surges)
