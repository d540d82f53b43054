"""Prefill and decode pools of engines that step: what they get through, and how many a run starts with."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from sagescale.errors import InputError
from sagescale.perf import ProfileModel, load_profile
from sagescale.planner import AutoscalerConfig, initial_targets
from sagescale.planner.policy.twin import Lengths
from sagescale.sim.config import SimulatorConfig
from sagescale.sim.initial import sized_start
from sagescale.sim.simulate import simulate
from sagescale.sim.startup import StartupDelay
from sagescale.sim.twin import KernelTwin
from sagescale.trace import Trace

PROFILE = load_profile("h100-llama-3.1-8b-bf16-agg")
MODEL = ProfileModel(PROFILE)
STEPPED = SimulatorConfig(engine_scheduler="vllm", startup_delay_s=StartupDelay.parse(60))


def config(**keys: object) -> AutoscalerConfig:
    usual = {
        "target_ttft_ms": 200.0,
        "target_itl_ms": 50.0,
        "max_prefill_instances": 40,
        "max_decode_instances": 40,
        "prefill_gpus_per_instance": 1,
        "decode_gpus_per_instance": 1,
        "max_gpu_budget": 80,
    }
    return AutoscalerConfig(**usual | keys)


def lengths(count: int, seed: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    isl, osl = np.array([[1000.0], [200.0]]) * rng.lognormal(-0.32, 0.8, (2, count))
    return np.clip(isl, 1, 5000).astype(np.int32), np.maximum(osl, 1).astype(np.int32)


def trace(rate: float, lasts_s: float, seed: int = 1) -> Trace:
    arrival_s = np.cumsum(np.random.default_rng(seed).exponential(1.0 / rate, round(rate * lasts_s)))
    return Trace.from_arrays(arrival_s - arrival_s[0], *lengths(len(arrival_s)))


def attained(load: Trace, sizes: tuple[int, int]) -> float:
    simulator = dataclasses.replace(STEPPED, initial_prefill=sizes[0], initial_decode=sizes[1])
    run = simulate(load, PROFILE, config(policy="static"), simulator)
    late = run.requests["first_token_s"] - load.arrival_s > 0.2
    with np.errstate(invalid="ignore", divide="ignore"):
        slow = (run.requests["done_s"] - run.requests["first_token_s"]) / (load.osl - 1) > 0.05
    return 1.0 - float((late | slow).mean())


@pytest.mark.parametrize("max_kv_tokens", [None, 60_000])
@pytest.mark.parametrize("scheduler", ["vllm", "sglang"])
def test_decode_gets_through_what_the_twin_says_at_most(scheduler: str, max_kv_tokens: int | None) -> None:
    """With what unequal contexts take, a fifth of the step here."""
    profile = PROFILE.with_limits(max_num_seqs=None, max_kv_tokens=max_kv_tokens)
    simulator = SimulatorConfig(engine_scheduler=scheduler, initial_prefill=40, initial_decode=1)  # type: ignore[arg-type]
    isl, osl = lengths(8000)
    run = simulate(Trace.from_arrays(np.zeros(8000), isl, osl), profile, config(policy="static"), simulator)
    done_s = np.sort(run.requests["done_s"])
    busy_rps = (6000 - 2000) / (done_s[6000] - done_s[2000])
    twin = KernelTwin(ProfileModel(profile), simulator, config())
    assert twin.decode_limit_rps(Lengths(isl, isl, osl)) == pytest.approx(busy_rps, rel=0.06)


def test_a_run_starts_with_the_fewest_that_keep_the_promise() -> None:
    load = trace(90.0, 180.0)
    sizes = sized_start(load, MODEL, config(), STEPPED)
    assert attained(load, sizes) >= 0.985
    assert attained(load, (sizes[0] - 1, sizes[1])) < 0.985
    assert attained(load, (sizes[0], sizes[1] - 1)) < 0.985


def test_the_start_is_for_the_busiest_window_before_a_launch_can_serve() -> None:
    quiet, busy = trace(20.0, 60.0), trace(90.0, 60.0)
    arrival_s = np.concatenate([quiet.arrival_s, 60.0 + busy.arrival_s])
    isl, osl = (np.concatenate(both) for both in ((quiet.isl, busy.isl), (quiet.osl, busy.osl)))
    load = Trace.from_arrays(arrival_s, isl, osl)
    at_once = dataclasses.replace(STEPPED, startup_delay_s=StartupDelay.parse(0))
    early, late = (sized_start(load, MODEL, config(), simulator) for simulator in (at_once, STEPPED))
    assert early.prefill < late.prefill
    assert early.decode < late.decode


def test_engines_that_form_batches_start_as_the_classic_formulas_say() -> None:
    load = trace(90.0, 180.0)
    first = load.arrival_s <= 60.0
    asked = float(first.sum()), float(load.isl[first].mean()), float(load.osl[first].mean())
    assert sized_start(load, MODEL, config(), SimulatorConfig()) == initial_targets(config(), MODEL, *asked)


def test_a_size_that_is_given_stays_and_the_other_pool_is_sized() -> None:
    load = trace(90.0, 180.0)
    simulator = dataclasses.replace(STEPPED, initial_decode=9)
    assert tuple(sized_start(load, MODEL, config(), simulator)) == (
        sized_start(load, MODEL, config(), STEPPED).prefill,
        9,
    )


def test_the_start_fits_the_budget_and_the_limits() -> None:
    load = trace(90.0, 180.0)
    within = sized_start(load, MODEL, config(max_gpu_budget=5), STEPPED)
    assert sum(within) == 5
    assert min(within) >= 1
    assert sized_start(load, MODEL, config(max_prefill_instances=2), STEPPED).prefill == 2
    one = sized_start(load, MODEL, config(max_prefill_instances=1, max_decode_instances=1), STEPPED)
    assert tuple(one) == (1, 1)


def test_a_size_that_is_given_beyond_what_is_left_of_the_budget_is_refused() -> None:
    simulator = dataclasses.replace(STEPPED, initial_decode=5)
    with pytest.raises(InputError, match="expected at most max_gpu_budget 6"):
        simulate(trace(90.0, 60.0), PROFILE, config(max_gpu_budget=6, policy="static"), simulator)
