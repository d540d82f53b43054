"""Aggregated pools of some size, tried on the kernel: what they miss, and how many a run starts with."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from sagescale.perf import ProfileModel, aggregated_engines, load_profile
from sagescale.planner import AutoscalerConfig
from sagescale.planner.policy.twin import Lengths
from sagescale.sim.config import SimulatorConfig
from sagescale.sim.initial import sized_start
from sagescale.sim.simulate import simulate
from sagescale.sim.startup import StartupDelay
from sagescale.sim.twin_aggregated import AggregatedTwin
from sagescale.trace import Trace

PROFILE = load_profile("h100-llama-3.1-8b-bf16-agg")
MODEL = ProfileModel(aggregated_engines(PROFILE, 2048))


def config(**keys: object) -> AutoscalerConfig:
    return AutoscalerConfig(
        **{"serving": "aggregated", "max_instances": 40, "max_gpu_budget": 100, "target_ttft_ms": 300.0}
        | keys
    )


def lengths(count: int, seed: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    isl, osl = np.array([[1000.0], [200.0]]) * rng.lognormal(-0.32, 0.8, (2, count))
    return np.maximum(isl, 1).astype(np.int32), np.maximum(osl, 1).astype(np.int32)


def trace(*minutes: float, seed: int = 1) -> Trace:
    """So many requests a second in each minute."""
    rng = np.random.default_rng(seed)
    arrivals = [
        60.0 * minute + np.sort(rng.uniform(0.0, 60.0, round(60.0 * rate)))
        for minute, rate in enumerate(minutes)
    ]
    arrival_s = np.concatenate([[0.0], *arrivals])
    isl, osl = lengths(len(arrival_s))
    return Trace.from_arrays(arrival_s, isl, osl)


def usual(count: int = 3000) -> Lengths:
    isl, osl = lengths(count)
    return Lengths(isl, isl, osl)


TWIN = AggregatedTwin(MODEL, SimulatorConfig(), config())
USUAL = usual()


def misses(instances: int, rate: float, twin: AggregatedTwin = TWIN) -> float:
    return twin.decode_misses(instances, rate * twin.work(USUAL), USUAL)


def test_more_load_and_fewer_instances_miss_more() -> None:
    rising = [misses(4, rate) for rate in (8.0, 16.0, 24.0, 32.0, 40.0)]
    assert rising == sorted(rising)
    falling = [misses(instances, 24.0) for instances in (1, 2, 3, 4, 6, 8, 12)]
    by_chance = 2.0 / len(USUAL.isl)
    assert all(more <= fewer + by_chance for fewer, more in pairwise(falling))
    assert falling[0] > 0.9
    assert falling[-1] < 0.05


def test_what_is_said_of_a_pool_is_what_its_run_misses() -> None:
    load = trace(*[24.0] * 5)
    run = simulate(load, PROFILE, config(policy="static"), SimulatorConfig(initial_instances=4))
    late = run.requests["first_token_s"] - load.arrival_s > 0.3
    with np.errstate(invalid="ignore", divide="ignore"):
        slow = (run.requests["done_s"] - run.requests["first_token_s"]) / (load.osl - 1) > 0.05
    assert misses(4, 24.0) == pytest.approx((late | slow).mean(), abs=0.01)


def test_a_prompt_token_counts_for_less_where_contexts_are_long() -> None:
    twin = AggregatedTwin(MODEL, SimulatorConfig(), config())
    usual = twin.prompt_token_work
    assert not twin.weigh(USUAL)
    assert twin.prompt_token_work == usual
    long = Lengths(USUAL.isl * 100, USUAL.isl, USUAL.osl)  # one of 100 prompt tokens is not in the cache
    assert twin.weigh(long)
    assert twin.prompt_token_work < usual / 4.0
    assert not twin.weigh(long)


def test_a_run_starts_with_the_fewest_that_keep_the_promise() -> None:
    load = trace(24.0, 24.0, 24.0)
    simulator = SimulatorConfig(startup_delay_s=StartupDelay.parse(60))
    (size,) = sized_start(load, MODEL, config(), simulator)
    twin = AggregatedTwin(MODEL, simulator, config())
    assert misses(size, 24.0, twin) <= 0.012
    assert misses(size - 1, 24.0, twin) > 0.008


def test_the_start_is_for_the_busiest_window_before_a_launch_can_serve() -> None:
    load = trace(10.0, 30.0, 90.0)
    sizes = [
        sized_start(load, MODEL, config(), SimulatorConfig(startup_delay_s=StartupDelay.parse(startup_s)))[0]
        for startup_s in (0, 60, 120)
    ]
    assert 1 <= sizes[0] < sizes[1] < sizes[2]


@pytest.mark.parametrize(("keys", "size"), [({"min_instances": 30}, 30), ({"max_instances": 3}, 3)])
def test_the_start_is_within_the_limits(keys: dict[str, object], size: int) -> None:
    assert tuple(sized_start(trace(40.0, 40.0), MODEL, config(**keys), SimulatorConfig())) == (size,)


def test_what_no_size_serves_in_time_asks_for_no_more_instances() -> None:
    """Prompts of 20,000 tokens miss 300 ms on an idle instance, however many there are."""
    long = trace(4.0, 4.0)
    isl = np.where(np.arange(len(long.isl)) % 10 == 0, 20_000, 500)
    load = Trace.from_arrays(long.arrival_s, isl, long.osl)
    (size,) = sized_start(load, MODEL, config(), SimulatorConfig())
    assert 1 < size < 12


def test_a_size_that_is_given_stays() -> None:
    simulator = SimulatorConfig(initial_instances=7)
    assert tuple(sized_start(trace(40.0, 40.0), MODEL, config(), simulator)) == (7,)
