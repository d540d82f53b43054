"""A third pool and a second service go through planner, mover, journal, exporter and report unchanged."""

from __future__ import annotations

import json

import pytest
from live_world import VirtualClock
from planner_world import RoundNumbers
from sagescale.fleet import Fleet, PoolCounts, Pools, PoolSpec, Role, Service, Sizes
from sagescale.live.actuators.protocol import PoolStates
from sagescale.live.config import LiveConfig
from sagescale.live.explain import explain_all, explain_tick
from sagescale.live.exporter import Exporter
from sagescale.live.journal import Journal, read_journal
from sagescale.live.loop import ControlLoop
from sagescale.live.metrics.observe import Metrics
from sagescale.live.tick_text import log_fields, tick_text
from sagescale.planner import AutoscalerConfig, Observation, Planner
from sagescale.planner.policy import Sizing

THREE = Service(
    "chat",
    (
        PoolSpec("prefill", Role.PREFILL, 2, 1, 6, "h100"),
        PoolSpec("decode", Role.DECODE, 1, 1, 8, "h100"),
        PoolSpec("decode-h200", Role.DECODE, 4, 0, 4, "h200"),
    ),
    500.0,
    50.0,
)
ONE = Service("embed", (PoolSpec("all", Role.AGGREGATED, 1, 1, 9, "h200"),), 500.0, 50.0)
CHAT = Fleet((THREE,), {"h100": 12, "h200": 8})


class ToyPolicy:
    """Asks for the same of every pool, more with more requests."""

    name = "toy"

    def size(self, situation):
        size = int((situation.window.requests or 0.0) // 100)
        pools = situation.observation.pools
        return Sizing.exactly(Sizes(*(size for _ in pools), names=pools.names))


class ToyActuator:
    """Has what it was told to have, at once."""

    target = "toy pools"

    def __init__(self, fleet: Fleet) -> None:
        self.sizes = Sizes(*(pool.least for pool in fleet.pools), names=[pool.name for pool in fleet.pools])
        self.orders = []

    def states(self):
        return PoolStates(Pools(*map(PoolCounts, self.sizes), names=self.sizes.names))

    def carry_out(self, order):
        self.orders.append(order.to_dict())
        self.sizes = order.sizes

    def close(self):
        pass


class ToySource:
    """Says how many requests there are, and that everybody reports."""

    def __init__(self, actuator):
        self.requests, self.actuator = 0.0, actuator

    def describe(self):
        return "toy"

    def prime(self):
        pass

    def collect(self, window_s, late_s=0.0):
        values = {"requests": self.requests, "isl_mean": 100.0, "osl_mean": 10.0}
        return Metrics(values, (), {}), window_s

    collect_burst = collect

    def history(self, window_s, windows):
        return []

    def close(self):
        pass


class Log:
    def __init__(self):
        self.records = []

    def ticked(self, record, decision, states):
        self.records.append(record)

    def happened(self, event):
        pass


@pytest.fixture
def ran(tmp_path):
    config = AutoscalerConfig()
    actuator = ToyActuator(CHAT)
    source, clock, log = ToySource(actuator), VirtualClock(), Log()
    journal = Journal(tmp_path / "journal", actuator.target, 1e6)
    exporter = Exporter(config, journal, dry_run=False, fleet=CHAT)
    live = LiveConfig(actuator="callback", actuator_callback="toy:toy", journal=str(tmp_path / "journal"))
    loop = ControlLoop(
        config, live, RoundNumbers(), source, actuator, journal, clock, (log, exporter), fleet=CHAT,
        policy=ToyPolicy(),
    )  # fmt: skip
    loop.start()
    for number, requests in enumerate((300.0, 900.0, 100.0), 1):
        source.requests = requests
        clock.now = loop.rhythm.anchor_s + 60.0 * number
        loop.tick(number)
    exported = exporter.registry
    loop.finish()
    return log.records, exported, actuator, tmp_path / "journal"


def test_a_third_pool_is_planned_and_moved_within_its_limits_and_stock(ran):
    records, _, actuator, _ = ran
    assert [record.goal.as_dict() for record in records] == [
        {"prefill": 3, "decode": 3, "decode-h200": 2},
        {"prefill": 3, "decode": 6, "decode-h200": 2},
        {"prefill": 1, "decode": 1, "decode-h200": 1},
    ]
    assert actuator.orders[0]["targets"] == {"prefill": 3, "decode": 3, "decode-h200": 2}
    for record in records:
        assert 2 * record.goal["prefill"] + record.goal["decode"] <= 12
        assert 4 * record.goal["decode-h200"] <= 8
    codes = {reason["code"] for reason in records[1].decision["reasons"]}
    assert {"at_max_pool", "gpu_budget"} <= codes


def test_a_third_pool_is_journalled_exported_and_reported(ran):
    records, exported, _, path = ran
    kept, _ = read_journal(path)
    ticks = list(kept)
    assert [tick.goal for tick in ticks] == [record.goal for record in records]
    assert [tick.goal.names for tick in ticks] == [record.goal.names for record in records]
    assert [tick.observation for tick in ticks] == [record.observation for record in records]
    value = exported.get_sample_value("sagescale_desired_replicas", {"pool": "decode-h200"})
    assert value == records[-1].goal["decode-h200"]
    assert "decode-h200" in tick_text(ticks[1])
    assert "decode-h200" in explain_all(ticks, [])
    assert "decode-h200" in explain_tick(ticks[1], [])
    assert json.loads(json.dumps(log_fields(ticks[1])))["decode-h200"] == {"now": 2, "goal": 2}


def test_the_floor_knows_a_third_pool(ran):
    *_, path = ran
    journal = Journal(path, "toy pools", 1e6)
    assert journal.largest_goal(0.0).as_dict() == {"prefill": 3, "decode": 6, "decode-h200": 2}
    journal.close()


def test_a_second_service_is_planned_by_the_same_planner():
    fleet = Fleet((ONE,), {"h200": 4})
    planner = Planner(AutoscalerConfig(), RoundNumbers(), policy=ToyPolicy(), fleet=fleet)
    seen = Observation(60.0, 60.0, Pools(PoolCounts(1), names=("all",)), requests=900.0)
    decision = planner.step(seen)
    assert decision.targets.as_dict() == {"all": 4}
    assert decision.to_dict()["targets"] == {"all": 4}
    assert Fleet((THREE, ONE), {"h100": 12, "h200": 9}).pools[-1].name == "all"
