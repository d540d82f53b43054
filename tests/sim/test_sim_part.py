"""Parts of a run: they add up to the run."""

from __future__ import annotations

import numpy as np
import pytest
from sagescale.perf import ProfileModel, load_profile
from sagescale.planner import AutoscalerConfig
from sagescale.sim.bound import lower_bound
from sagescale.sim.config import SimulatorConfig
from sagescale.sim.measures import Served, gpu_hours
from sagescale.sim.part import Part, lower_bound_of_part, measure_part
from sagescale.sim.simulate import simulate
from sagescale.trace import Trace


@pytest.fixture(scope="module")
def run():
    """Twenty minutes of load that comes and goes, through pools that follow it."""
    rng = np.random.default_rng(5)
    at = np.sort(rng.uniform(0.0, 1200.0, 24_000))
    at = at[rng.uniform(0.0, 2.0, len(at)) < 1.0 + np.sin(at / 120.0)]
    trace = Trace.from_arrays(at, rng.integers(200, 3000, len(at)), rng.integers(1, 400, len(at)))
    profile = load_profile("h200-llama-3.1-8b-fp8")
    model = ProfileModel(profile)
    config = AutoscalerConfig(
        prefill_gpus_per_instance=model.prefill_gpus,
        decode_gpus_per_instance=model.decode_gpus,
        policy="reactive",
        target_itl_ms=20.0,
    )
    return simulate(trace, profile, config, SimulatorConfig())


def test_the_whole_is_the_run(run):
    whole = measure_part(run, Part())
    assert whole.attainment == Served(run).sla().attainment
    assert 0.0 < whole.worst_attainment < whole.attainment < 1.0
    assert whole.gpu_hours == pytest.approx(gpu_hours(run).total, rel=1e-12)
    assert sum(whole.gpu_s[0]) / 3600.0 == pytest.approx(gpu_hours(run).pools["prefill"], rel=1e-12)
    assert lower_bound_of_part(run, Part()) == lower_bound(run).gpu_hours


@pytest.mark.parametrize("cut_s", [0.5, 300.0, 777.0, 1199.0])
def test_two_parts_add_up(run, cut_s):
    whole = measure_part(run, Part())
    parts = [measure_part(run, Part(0.0, cut_s)), measure_part(run, Part(cut_s))]
    assert sum(sum(part.arrived) for part in parts) == sum(whole.arrived)
    assert sum(part.misses for part in parts) == whole.misses
    assert sum(part.gpu_hours for part in parts) == pytest.approx(whole.gpu_hours, rel=1e-12)


def test_a_launch_soon_after_a_release_in_its_pool_is_counted(run):
    whole = measure_part(run, Part())
    soon = 0
    for life in run.lifetimes[run.lifetimes["launch_s"] > 0.0]:
        others = run.lifetimes[run.lifetimes["pool"] == life["pool"]]
        released = np.fmin(others["drain_s"], others["stop_s"])
        released = released[released < run.horizon_s]
        soon += bool(((released <= life["launch_s"]) & (released >= life["launch_s"] - 600.0)).any())
    launched = (run.lifetimes["launch_s"] > 0.0) & (run.lifetimes["launch_s"] < run.trace.duration_s)
    assert whole.launches == launched.sum() > whole.relaunches == soon > 0
    later = measure_part(run, Part(400.0))
    assert later.launches + measure_part(run, Part(0.0, 400.0)).launches == whole.launches


def test_blocks_are_five_minutes_and_the_last_takes_the_rest(run):
    later = measure_part(run, Part(400.0))
    assert len(later.arrived) == 2
    at = run.trace.arrival_s
    assert later.arrived[0] == ((at >= 400.0) & (at < 700.0)).sum()
    assert later.arrived[1] == (at >= 700.0).sum()


def test_gpu_time_of_a_block_is_the_overlap_with_each_lifetime(run):
    block = measure_part(run, Part(300.0, 600.0))
    life = run.lifetimes
    overlap = np.clip(np.minimum(life["stop_s"], 600.0) - np.maximum(life["launch_s"], 300.0), 0.0, None)
    assert block.gpu_s[1][0] == pytest.approx(
        overlap[life["pool"] == 1].sum() * run.world.decode_gpus, rel=1e-12
    )


def test_the_bound_of_a_part_is_below_what_it_cost(run):
    for start_s in (0.0, 400.0, 800.0):
        assert 0.0 < lower_bound_of_part(run, Part(start_s)) < measure_part(run, Part(start_s)).gpu_hours


def test_a_part_after_the_end_is_refused(run):
    with pytest.raises(ValueError, match="the part starts at 5000 s, the trace ends"):
        measure_part(run, Part(5000.0))
