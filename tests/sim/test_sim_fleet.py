"""Several services on one stock of GPUs: alone with enough of it, fair and within it when it is short."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sagescale.errors import InputError
from sagescale.perf import load_profile
from sagescale.planner import AutoscalerConfig
from sagescale.sim import ServiceRun, simulate_fleet
from sagescale.sim.config import SimulatorConfig
from sagescale.sim.engine import Cluster, EnginePool, FleetCluster, ServiceLoad, disaggregated
from sagescale.sim.faults import Crash, Faults, Rates
from sagescale.sim.simulate import simulate
from sagescale.sim.startup import StartupDelay, StartupDraws
from sagescale.sim.state import DONE, LIFE
from sagescale.trace import Trace
from test_sim_kernel import Scenario, scenarios

PROFILE = load_profile("h200-llama-3.1-8b-fp8")
CONFIG = AutoscalerConfig(
    prefill_gpus_per_instance=1, decode_gpus_per_instance=1, max_gpu_budget=12, target_ttft_ms=200,
    target_itl_ms=20,
)  # fmt: skip
QUICKLY = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@dataclass(frozen=True)
class Script:
    """A service and what is done to it: at each time new targets, or a crash."""

    load: ServiceLoad
    actions: list[tuple[float, tuple[int, ...] | tuple[str, int]]]


def script(scenario: Scenario, name: str, gpu_type: str = "gpu") -> Script:
    requests = scenario.requests
    delay = StartupDelay.parse("uniform:low=0.1,high=0.9")
    load = ServiceLoad(
        name,
        disaggregated(scenario.world, gpu_type),
        scenario.initial,
        np.array([r.arrival_s for r in requests]),
        np.array([r.isl for r in requests], np.int32),
        np.array([r.isl - r.cached_tokens for r in requests], np.int32),
        np.array([r.osl for r in requests], np.int32),
        StartupDraws(delay, 7, name),
        np.array([r.priority for r in requests], np.int32),
    )
    scalings = [(time_s, (prefill, decode)) for time_s, prefill, decode in scenario.script]
    crashes = [(time_s, (pool, instance)) for time_s, pool, instance in scenario.crashes]
    return Script(load, sorted(scalings + crashes, key=lambda action: action[0]))


def play(scripts: list[Script], stock: dict[str, int], fleet_checks=lambda fleet: None) -> FleetCluster:
    fleet = FleetCluster([one.load for one in scripts], stock)
    times = sorted({time_s for one in scripts for time_s, _ in one.actions})
    for time_s in times:
        fleet.advance(time_s)
        fleet_checks(fleet)
        for one, service in zip(scripts, fleet.services, strict=True):
            for _, what in [action for action in one.actions if action[0] == time_s]:
                if isinstance(what[0], str):
                    service.crash(*what)
                else:
                    service.scale(*what)
                fleet_checks(fleet)
                fleet.advance(time_s)
    fleet.advance(1e6)
    fleet_checks(fleet)
    return fleet


def outcome(service: Cluster) -> dict[str, object]:
    records = service.requests
    return {
        **{name: records[name].tolist() for name in ("first_token_s", "done_s", "state", "restarts")},
        "lives": [[str(row[name]) for name in LIFE.names or ()] for row in service.lifetimes(1e6)],
        "completed": service.completed.tolist(),
        "counters": service.counters()._replace(time_s=0.0),
        "handoffs": service.handoffs(),
    }


@QUICKLY
@given(st.lists(scenarios(most_crashes=3), min_size=2, max_size=4))
def test_with_ample_stock_services_in_one_kernel_equal_separate_runs_bit_for_bit(each):
    named = {f"service {index}": scenario for index, scenario in enumerate(each)}
    together = play([script(scenario, name) for name, scenario in named.items()], {"gpu": 1000})
    for (name, scenario), service in zip(named.items(), together.services, strict=True):
        alone = play([script(scenario, name)], {"gpu": 1000}).services[0]
        assert repr(outcome(service)) == repr(outcome(alone))  # where NaN is NaN


@QUICKLY
@given(
    st.lists(scenarios(most_crashes=3), min_size=2, max_size=4),
    st.lists(st.sampled_from(["h100", "h200"]), min_size=4, max_size=4),
    st.integers(0, 6),
)
def test_with_tight_stock_no_request_is_lost_and_the_stock_holds_at_every_instant(each, types, spare):
    scripts = [
        script(scenario, f"service {index}", kind)
        for index, (scenario, kind) in enumerate(zip(each, types, strict=False))
    ]
    taken = dict.fromkeys(("h100", "h200"), 0)
    for one in scripts:
        for pool, size in zip(one.load.pools, one.load.initial, strict=True):
            taken[pool.gpu_type] += size * pool.gpus
    stock = {kind: gpus + spare for kind, gpus in taken.items()}

    def check(fleet: FleetCluster) -> None:
        for kind, used in zip(fleet.stock, fleet.state.stock["used"].tolist(), strict=True):
            assert 0 <= used <= stock[kind]

    fleet = play(scripts, stock, check)
    for kind, most in zip(stock, fleet.state.stock["most_used"].tolist(), strict=True):
        assert most <= stock[kind]
        held = lives_over_time(fleet, kind)
        assert held <= stock[kind]
    for service in fleet.services:
        counters = service.counters()
        assert counters.arrived == len(service.requests)
        ended = (service.requests["state"] >= DONE).sum()
        assert ended == counters.completed + counters.rejected + counters.timed_out


def lives_over_time(fleet: FleetCluster, kind: str) -> int:
    """The most GPUs of a type held at any instant, from the lifetimes alone; what stops frees first."""
    changes = []
    for service in fleet.services:
        for life in service.lifetimes(1e6):
            pool = service.load.pools[life["pool"]]
            if pool.gpu_type == kind:
                changes += [(life["launch_s"], 1, pool.gpus), (life["stop_s"], 0, -pool.gpus)]
    held = most = 0
    for _, _, gpus in sorted(changes):
        held += gpus
        most = max(most, held)
    return most


def engine(scenario_world, **changes):
    return replace(scenario_world, request_timeout_s=None, max_gpus=100, **changes)


@given(scenarios())
@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_large_launch_that_waits_is_not_starved_by_later_small_ones_of_the_same_type(scenario):
    none = np.zeros(0), np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.int32)
    draws = StartupDraws(StartupDelay.parse(1000), 0, "x")
    small = engine(scenario.world, prefill_gpus=1, decode_gpus=1)
    large = engine(scenario.world, prefill_gpus=8, decode_gpus=8)
    loads = [
        ServiceLoad("small", disaggregated(small, "gpu"), (0, 0), *none, draws),
        ServiceLoad("large", disaggregated(large, "gpu"), (0, 0), *none, draws),
    ]
    fleet = FleetCluster(loads, {"gpu": 8})
    one, other = fleet.services
    one.scale(4, 0)
    other.scale(1, 0)  # waits: 4 of 8 GPUs are free
    for more in range(1, 5):
        one.scale(4, more)  # asked for later: it may not take what the large one waits for
        assert [pool.starting for pool in one.pools()] == [4, 0]
    one.scale(0, 4)
    assert [pool.starting for pool in other.pools()] == [1, 0]
    other.scale(0, 0)
    assert [pool.starting for pool in one.pools()] == [0, 4], "withdrawn, it holds nobody up"


def test_pools_of_one_role_share_the_load_by_their_capacity():
    from sagescale.perf import ProfileModel
    from sagescale.sim.world import build_world

    world = build_world(ProfileModel(PROFILE), SimulatorConfig(), CONFIG)
    count = 4000
    rng = np.random.default_rng(0)
    isl = rng.integers(200, 2000, count).astype(np.int32)
    osl = rng.integers(20, 60, count).astype(np.int32)
    pools = (
        EnginePool("prefill", "prefill", world, 1, "h200"),
        EnginePool("decode", "decode", world, 1, "h200", capacity=3.0),
        EnginePool("decode-small", "decode", world, 1, "h100", capacity=1.0),
    )
    load = ServiceLoad(
        "mixed", pools, (8, 1, 1), np.sort(rng.uniform(0, 40, count)), isl, isl, osl,
        StartupDraws(StartupDelay.parse(60), 0, "mixed"),
    )  # fmt: skip
    fleet = FleetCluster([load], {"h200": 9, "h100": 1})
    fleet.advance(np.inf)
    service = fleet.services[0]
    assert service.settled
    slots = {name: service.slots(name) for name in ("decode", "decode-small")}
    bound = service.requests["bound"]
    shares = {name: int(((bound >= slot.start) & (bound < slot.stop)).sum()) for name, slot in slots.items()}
    assert sum(shares.values()) == count
    assert shares["decode"] > 1.5 * shares["decode-small"]


def trace(seed: int, rps: float) -> Trace:
    rng = np.random.default_rng(seed)
    arrival_s = np.cumsum(rng.exponential(1.0 / rps, int(900 * rps)))
    isl = rng.integers(100, 4000, len(arrival_s)).astype(np.int32)
    osl = rng.integers(1, 400, len(arrival_s)).astype(np.int32)
    return Trace.from_arrays(arrival_s - arrival_s[0], isl, osl)


FAULTS = Faults(crashes=(Crash(200.0),), rates=Rates(slow_start_probability=0.5, crash_per_instance_hour=2.0))


def service_runs() -> list[ServiceRun]:
    simulator = SimulatorConfig(startup_delay_s=StartupDelay.parse("uniform:low=20,high=90"))
    return [
        ServiceRun(trace(1, 8.0), PROFILE, CONFIG, simulator, name="chat"),
        ServiceRun(
            trace(2, 4.0), PROFILE, replace(CONFIG, adjustment_interval_sec=45), simulator, name="code",
            faults=FAULTS,
        ),
        ServiceRun(trace(3, 2.0), PROFILE, replace(CONFIG, policy="reactive"), simulator, name="batch"),
    ]  # fmt: skip


def test_a_fleet_of_planned_services_with_gpus_for_all_is_as_each_alone():
    services = service_runs()
    together = simulate_fleet(services, {"gpu": 3 * CONFIG.max_gpu_budget})
    for service, run in zip(services, together, strict=True):
        (alone,) = simulate_fleet([service], {"gpu": 3 * CONFIG.max_gpu_budget})
        for name in ("first_token_s", "done_s", "state", "restarts"):
            np.testing.assert_array_equal(run.requests[name], alone.requests[name])
        assert run.horizon_s == alone.horizon_s
        assert [tick.decision for tick in run.ticks] == [tick.decision for tick in alone.ticks]
        assert [tick.observation for tick in run.ticks] == [tick.observation for tick in alone.ticks]
        assert repr(run.lifetimes.tolist()) == repr(alone.lifetimes.tolist())
        assert (run.faults and run.faults.events) == (alone.faults and alone.faults.events)


def test_a_fleet_of_planned_services_short_of_gpus_stays_within_them_and_serves_everybody():
    together = simulate_fleet(service_runs(), {"gpu": 8})
    for run in together:
        assert run.max_gpus_used <= 8
        assert len(run.completed) == len(run.trace)


def test_one_service_is_a_fleet_of_one():
    service = service_runs()[0]
    (fleet,) = simulate_fleet([replace(service, name="service")], {"gpu": CONFIG.max_gpu_budget})
    alone = simulate(service.trace, PROFILE, CONFIG, service.simulator)
    np.testing.assert_array_equal(fleet.requests["done_s"], alone.requests["done_s"])


def test_services_of_one_name_and_unknown_gpus_are_refused():
    one, other, _ = service_runs()
    with pytest.raises(InputError, match="two services are called 'chat'"):
        simulate_fleet([one, replace(other, name="chat")], {"gpu": 24})
    with pytest.raises(InputError, match="GPUs of type 'gpu'; expected one of 'h100'"):
        simulate_fleet([one], {"h100": 24})
    with pytest.raises(InputError, match="no service; expected one or more"):
        simulate_fleet([], {"gpu": 24})
    with pytest.raises(InputError, match=r"need \d+ GPUs of type 'gpu' to begin with; there are 2"):
        simulate_fleet([one, other], {"gpu": 2})
