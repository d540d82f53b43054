"""What holds for every run, whatever the trace, the engines, the planner and the world (Hypothesis)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sagescale.cli.app import app
from sagescale.document import as_keys
from sagescale.perf import DecodeProfile, KvTransfer, PrefillProfile, Profile
from sagescale.planner import AutoscalerConfig
from sagescale.sim.bound import lower_bound
from sagescale.sim.config import SimulatorConfig, with_overrides
from sagescale.sim.export import write_requests
from sagescale.sim.linear_minorant import largest_minorant
from sagescale.sim.measures import gpu_hours
from sagescale.sim.result import configuration, result_document, run_document
from sagescale.sim.simulate import simulate
from sagescale.trace import Trace
from strategies import sampled
from typer.testing import CliRunner

if TYPE_CHECKING:
    from sagescale.sim.run import Run

CHEAP_PREDICTORS = ("constant", "moving_average", "exponential_smoothing", "kalman", "seasonal_naive")


@dataclass(frozen=True)
class Case:
    trace: Trace
    profile: Profile
    config: AutoscalerConfig
    simulator: SimulatorConfig

    def run(self) -> Run:
        return simulate(self.trace, self.profile, self.config, self.simulator)


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    count = draw(st.integers(1, 60))
    gaps = draw(st.lists(sampled(0.0, 0.01, 0.3, 2.0, 20.0, 150.0), min_size=count, max_size=count))
    sizes = sampled(1, 2, 17, 300, 1500, 9000)
    isl = draw(st.lists(sizes, min_size=count, max_size=count))
    osl = draw(st.lists(sampled(1, 1, 2, 5, 40, 300), min_size=count, max_size=count))
    cached = None
    if draw(st.booleans()):
        share = draw(sampled(0.0, 0.5, 0.99))
        cached = [int(share * (tokens - 1)) for tokens in isl]
    return Trace.from_arrays(np.cumsum(gaps), isl, osl, cached)


@st.composite
def profiles(draw: st.DrawFn) -> Profile:
    """Engines of any shape: flat, steep, bent either way, with attention that hardly fits the curve."""
    isl = sorted(draw(st.sets(sampled(1, 10, 100, 1000, 4000, 16000), min_size=2)))
    ttft = np.cumsum([draw(sampled(0.5, 20.0, 200.0))] + [draw(st.floats(0, 300)) for _ in isl[1:]])
    loads = sorted(draw(st.sets(sampled(1, 2, 3, 8, 32), min_size=2)))
    contexts = sorted(draw(st.sets(sampled(1, 50, 1000, 10_000), min_size=2)))
    steps = draw(st.lists(st.floats(0, 20), min_size=40, max_size=40))
    grid = np.cumsum(np.cumsum(np.reshape(steps[: len(loads) * len(contexts)], (len(loads), -1)), 0), 1) + 0.5
    return Profile(
        name="any",
        prefill=PrefillProfile(
            gpus_per_instance=draw(st.integers(1, 3)),
            isl_tokens=tuple(map(float, isl)),
            ttft_ms=tuple(ttft.tolist()),
            quadratic_ms=draw(sampled(0.0, 1e-9, 1e-7, 1e-5)),
        ),
        decode=DecodeProfile(
            gpus_per_instance=draw(st.integers(1, 3)),
            concurrency=tuple(map(float, loads)),
            context_tokens=tuple(map(float, contexts)),
            itl_ms=tuple(map(tuple, grid.tolist())),
            max_num_seqs=draw(sampled(1, 2, 5, 64)),
            max_kv_tokens=draw(sampled(None, 400, 9400, 30_000)),
        ),
        kv_transfer=KvTransfer(
            latency_ms=draw(sampled(0.0, 5.0)),
            ms_per_1k_tokens=draw(sampled(0.0, 10.0)),
            decode_steps=draw(sampled(0.0, 1.0)),
            blocks_prefill=draw(st.booleans()),
        ),
        join_ms_per_1k_tokens=draw(sampled(0.0, 3.0)),
    )


@st.composite
def cases(draw: st.DrawFn, **fixed: object) -> Case:
    """A whole simulation; ``fixed`` sets configuration keys, the simulator's included."""
    profile = draw(profiles())
    gpus = (profile.prefill.gpus_per_instance, profile.decode.gpus_per_instance)
    low = [draw(st.integers(0, 2)) for _ in gpus]
    high = [max(1, least) + draw(st.integers(0, 4)) for least in low]
    needed = sum(g * n for g, n in zip(gpus, low, strict=True))
    planner = {
        "min_prefill_instances": low[0],
        "max_prefill_instances": high[0],
        "min_decode_instances": low[1],
        "max_decode_instances": high[1],
        "prefill_gpus_per_instance": gpus[0],
        "decode_gpus_per_instance": gpus[1],
        "max_gpu_budget": max(needed, sum(gpus)) + draw(st.integers(0, 8)),
        "adjustment_interval_sec": draw(sampled(7, 30, 60)),
        "load_predictor_type": draw(sampled(*CHEAP_PREDICTORS)),
        "target_ttft_ms": draw(sampled(1.0, 200.0, 5000.0)),
        "target_itl_ms": draw(sampled(1.0, 20.0, 500.0)),
        "load_headroom": draw(sampled(0.3, 1.0, 3.0)),
        "tolerance": draw(sampled(0.0, 0.2)),
        "scale_up_stabilization_window_sec": draw(sampled(0, 0, 90)),
        "scale_down_stabilization_window_sec": draw(sampled(0, 0, 300)),
        "enable_correction": draw(st.booleans()),
        "no_operation": draw(sampled(False, False, True)),
    }
    world = {
        "startup_delay_s": draw(sampled(0, 25, 200, "uniform:low=0,high=90", "lognormal:median=20,p90=80")),
        "max_batch_tokens": draw(sampled(1, 512, 8192)),
        "first_token": draw(sampled("prefill", "decode")),
        "prefix_hit_rate": draw(sampled(0.0, 0.4)),
        "request_timeout_s": draw(sampled(None, None, 0.5, 30.0)),
        "until_s": draw(sampled(0.0, 0.0, 700.0)),
        "scrape_delay_s": draw(sampled(0.0, 0.0, 5.0, 100.0)),
        "simulation_seed": draw(st.integers(0, 3)),
    }
    planner.update({key: value for key, value in fixed.items() if key in planner})
    world.update({key: value for key, value in fixed.items() if key not in planner})
    simulator = SimulatorConfig(**world)
    return Case(draw(traces()), with_overrides(profile, simulator), AutoscalerConfig(**planner), simulator)


def document(case: Case, run: Run) -> dict:
    whole = result_document(
        case.trace, case.profile, configuration(case.config, case.simulator), [run_document(run, "run")]
    )
    written = json.loads(json.dumps(whole, default=as_keys, allow_nan=False))
    for part in written["runs"]:
        del part["timing"]
    return written


def many(examples: int):
    return settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


@many(30)
@given(cases())
def test_every_request_is_completed_or_counted_unfinished(case: Case):
    run = case.run()
    counts = document(case, run)["runs"][0]["requests"]
    assert counts["arrived"] == len(case.trace) == counts["completed"] + counts["unfinished"]
    assert counts["rejected"] + counts["timed_out"] <= counts["unfinished"]
    assert (
        len(set(run.completed.tolist())) == counts["completed"] == np.isfinite(run.requests["done_s"]).sum()
    )
    limit = case.profile.decode.max_kv_tokens
    too_large = 0 if limit is None else int((case.trace.isl.astype(int) + case.trace.osl > limit).sum())
    assert counts["rejected"] == too_large


@many(30)
@given(cases())
def test_gpu_hours_are_the_sum_of_lifetimes_and_the_budget_holds_at_every_instant(case: Case):
    run = case.run()
    lives = run.lifetimes
    gpus = np.where(lives["pool"] == 0, run.world.prefill_gpus, run.world.decode_gpus)
    assert (lives["stop_s"] >= lives["launch_s"]).all()
    assert (lives["launch_s"] >= 0).all()
    assert (lives["stop_s"] <= run.horizon_s).all()
    gpu_seconds = float((gpus * (lives["stop_s"] - lives["launch_s"])).sum())
    assert gpu_hours(run).total * 3600 == pytest.approx(gpu_seconds, rel=1e-12)
    # A launch may take the GPUs of a stop at the same instant: stops first.
    times = np.concatenate([lives["stop_s"], lives["launch_s"]])
    change = np.concatenate([-gpus, gpus])
    order = np.lexsort((change, times))
    # Whatever is cut off at the horizon did not stop there.
    held = np.cumsum(change[order])[times[order] < run.horizon_s]
    assert held.max(initial=0) <= case.config.max_gpu_budget
    assert held.max(initial=0) <= run.max_gpus_used <= case.config.max_gpu_budget


@many(100)
@given(cases())
def test_no_run_beats_the_lower_bound(case: Case):
    run = case.run()
    bound, spent = lower_bound(run), gpu_hours(run)
    assert 0 <= bound.pools["prefill"] <= spent.pools["prefill"]
    assert 0 <= bound.pools["decode"] <= spent.pools["decode"]


def test_what_was_asked_of_a_bound_before_answers_no_other_question():
    rows, bounds, weights = np.array([[1.0, 1.0], [1.0, 2.0]]), np.array([2.0, 3.0]), np.array([1.0, 1.5])
    anything = [(0.0, np.inf), (0.0, np.inf)]
    first = largest_minorant(rows, bounds, weights, anything)
    assert first.tolist() == pytest.approx([1.0, 1.0])
    assert largest_minorant(rows, bounds, weights, anything).tolist() == first.tolist()
    assert largest_minorant(rows, bounds / 2, weights, anything).tolist() == pytest.approx([0.5, 0.5])
    assert largest_minorant(rows, bounds, weights[::-1], anything).tolist() == pytest.approx([2.0, 0.0])
    assert largest_minorant(rows[:1], bounds[:1], weights, anything).tolist() == pytest.approx([0.0, 2.0])
    low = [(0.0, np.inf), (0.0, 0.5)]
    assert largest_minorant(rows, bounds, weights, low).tolist() == pytest.approx([1.5, 0.5])
    coupled = largest_minorant(rows, bounds, weights, anything, np.array([[1.0, -0.5]]))
    assert coupled.tolist() == pytest.approx([0.6, 1.2])


@many(30)
@given(cases())
def test_the_same_inputs_give_the_same_bytes(case: Case):
    first, second = (json.dumps(document(case, case.run()), allow_nan=False) for _ in range(2))
    assert first == second


@many(40)
@given(cases())
def test_pools_stay_within_their_limits_at_every_tick(case: Case):
    config = case.config
    for tick in case.run().ticks:
        for pool, seen in tick.observation.pools.items():
            low, high = (getattr(config, f"{end}_{pool}_instances") for end in ("min", "max"))
            asked = seen.ready + seen.starting + seen.waiting
            assert low <= asked <= high
            assert low <= getattr(tick.decision.targets, pool) <= high


@many(40)
@given(cases(metric_outage_s="100:400,600:900"))
def test_a_metric_outage_never_scales_down(case: Case):
    for tick in case.run().ticks:
        if 100 <= tick.observation.time_s < 400 or 600 <= tick.observation.time_s < 900:
            assert tick.observation.requests is None
            assert tick.observation.ttft_ms_mean is None
            assert tick.observation.running_decode is None
            assert all(
                new >= old for new, old in zip(tick.decision.targets, tick.decision.current, strict=True)
            )


@many(30)
@given(cases(), st.sampled_from([0.0, 1.5, 29.0, 30.0, 45.0, 200.0]))
def test_the_planner_sees_the_window_up_to_the_scrape(case: Case, delay_s: float):
    simulator = SimulatorConfig(scrape_delay_s=delay_s, until_s=500)
    interval_s = case.config.adjustment_interval_sec
    arrival_s = case.trace.arrival_s
    seen_s = -1.0  # the first window begins before the first arrival
    for tick in Case(case.trace, case.profile, case.config, simulator).run().ticks:
        scraped_s = tick.observation.time_s - delay_s
        if scraped_s < 0:
            assert tick.observation.requests is None
            continue
        assert seen_s in {-1.0, scraped_s - interval_s}
        window = (arrival_s <= scraped_s) & (arrival_s > seen_s)
        seen_s = scraped_s
        assert tick.observation.requests == window.sum()
        if window.any():
            assert tick.observation.isl_mean == pytest.approx(case.trace.isl[window].mean())


@many(30)
@given(cases(no_operation=True))
def test_no_operation_changes_no_pool(case: Case):
    run = case.run()
    assert len(run.lifetimes) == sum(run.initial)
    assert (run.lifetimes["launch_s"] == 0).all()
    assert (run.lifetimes["stop_s"] == run.horizon_s).all()
    for tick in run.ticks:
        assert tuple(pool.ready for pool in tick.observation.pools) == run.initial
        assert tick.decision.no_operation


@many(30)
@given(cases())
def test_the_requests_table_gives_the_documents_figures_again(case: Case):
    from pyarrow import parquet

    run = case.run()
    part = document(case, run)["runs"][0]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "requests.parquet"
        write_requests(path, run)
        table = parquet.read_table(path).to_pandas()
    done = table["outcome"] == "done"
    good = (
        done
        & (table["ttft_ms"] <= case.config.target_ttft_ms)
        & (table["itl_ms"].isna() | (table["itl_ms"] <= case.config.target_itl_ms))
    )
    assert part["sla"]["attainment"] == good.mean()
    assert (good == table["sla_met"]).all()
    e2e_ms = 1000 * (table["done_s"] - table["arrival_s"])
    for name, column in (("ttft_ms", table["ttft_ms"]), ("itl_ms", table["itl_ms"]), ("e2e_ms", e2e_ms)):
        known = column.dropna().to_numpy()
        if not len(known):
            assert set(part[name].values()) == {None}
            continue
        assert part[name]["mean"] == pytest.approx(known.mean(), rel=1e-12)
        assert part[name]["max"] == known.max()
        for percent in (50, 90, 95, 99):
            assert part[name][f"p{percent}"] == pytest.approx(np.percentile(known, percent), rel=1e-12)


def test_two_processes_write_the_same_bytes(tmp_path):
    words = ["simulate", "bursty", "--slice", "0:900", "--rate-scale", "20", "--predictor", "kalman"]
    words += ["--set", "startup_delay_s=lognormal:median=40,p90=80", "--set", "max_kv_tokens=60000"]
    here, there = tmp_path / "here.json", tmp_path / "there.json"
    assert CliRunner().invoke(app, [*words, "--json", str(here)]).exit_code == 0
    subprocess.run(
        [sys.executable, "-m", "sagescale", *words, "--json", there],
        env={**os.environ, "PYTHONHASHSEED": "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"},
        check=True,
        capture_output=True,
    )
    documents = [json.loads(path.read_text()) for path in (here, there)]
    for document in documents:
        del document["runs"][0]["timing"]
    assert json.dumps(documents[0]) == json.dumps(documents[1])
