"""Who gets a request is not known: instances that are as unequal as if nobody looked give it away."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from live_world import LiveWorld
from sagescale.live.emulator.cluster import EmulatedCluster
from sagescale.live.metrics.evenness import Evenness, InstanceLoad, instance_loads
from sagescale.live.metrics.presets import PRESETS
from sagescale.live.metrics.window import SeriesWindow
from sagescale.live.run import _router_question
from sagescale.live.setup import configured
from sagescale.trace import TransformSpec, apply_transforms, read_trace

VLLM = PRESETS["vllm"]


def decode(requests, usage, before=None):
    names = [f"decode-{at}" for at in range(len(requests))]
    found = SeriesWindow()
    found.now = {
        "vllm:num_requests_running": dict(zip(names, requests, strict=True)),
        "vllm:num_requests_waiting": dict.fromkeys(names, 1.0),
        "vllm:kv_cache_usage_perc": dict(zip(names, usage, strict=False)),
    }
    found.before = {"vllm:num_requests_running": dict.fromkeys(names if before is None else before, 1.0)}
    return found


def test_what_waits_is_load_too():
    loads = instance_loads(decode([3.0, 4.0], [0.1, 0.2]), VLLM)
    assert loads == (InstanceLoad(4.0, 0.1), InstanceLoad(5.0, 0.2))


@pytest.mark.parametrize(
    "group",
    [
        SeriesWindow(),
        decode([3.0, 4.0], [0.1]),
        decode([3.0, 4.0], [0.1, 0.2], before=["decode-0"]),
        decode([3.0, 4.0], [0.1, 0.2], before=["decode-0", "decode-1", "decode-2"]),
    ],
    ids=["nobody", "one does not say", "one has come", "one has gone"],
)
def test_of_a_pool_that_changes_or_is_not_whole_nothing_is_said(group):
    assert instance_loads(group, VLLM) is None


def loads_of(requests, tokens):
    pairs = zip(requests.tolist(), tokens.tolist(), strict=True)
    return [InstanceLoad(float(count), used / 1e5) for count, used in pairs]


def judged(windows):
    evenness = Evenness()
    for loads in windows:
        evenness.observe(loads)
    return evenness.dealt_blindly


def made(kind, windows=30, instances=8, each=12):
    """Windows of requests with lognormal lengths, dealt out blindly, by their number or by their tokens."""
    random = np.random.default_rng(1)
    for _ in range(windows):
        lengths = random.lognormal(6.0, 0.8, instances * each)
        where = random.integers(0, instances, len(lengths))
        if kind == "by number":
            where = np.arange(len(lengths)) % instances
        elif kind == "by tokens":
            held = np.zeros(instances)
            for at, length in enumerate(lengths):
                where[at] = held.argmin()
                held[where[at]] += length
        yield loads_of(np.bincount(where, minlength=instances), np.bincount(where, lengths, instances))


def test_blind_dealing_is_told_from_balance_by_number_and_by_tokens():
    assert judged(made("blindly")) is True
    assert judged(made("by number")) is False
    assert judged(made("by tokens")) is False


def test_little_says_nothing():
    assert judged(made("blindly", windows=3)) is None
    assert judged(made("blindly", instances=2)) is None
    assert judged(made("blindly", each=2)) is None
    assert judged([[InstanceLoad(0.0, 0.0)] * 8] * 100) is None


@pytest.mark.parametrize("router", ["load_balanced", "round_robin"])
def test_emulated_routers_are_told_apart(shared, router):
    trace = read_trace(shared / "traces" / "azure_llm_2023_conv.csv")
    trace = apply_transforms(trace, TransformSpec((0.0, 1200.0), 10.0, 1.0, 1, 0, 30.0))
    sizes = {"prefill": 8, "decode": 12}
    keys = [f"{word}_{pool}{end}={size}" for pool, size in sizes.items()
            for word, end in (("initial", ""), ("min", "_instances"), ("max", "_instances"))]  # fmt: skip
    setup = configured(None, [], [*keys, "max_gpu_budget=99", f"routing_strategy={router}"])
    cluster = EmulatedCluster(trace, setup.profile, setup.config, setup.simulator)
    evenness = Evenness()
    for minute in range(2, 20):
        cluster.advance(60.0 * minute)
        engines = [engine for engine in cluster.engines() if engine.role == "decode"]
        evenness.observe([InstanceLoad(one.running + one.waiting, one.kv_usage) for one in engines])
    assert evenness.dealt_blindly is (router == "round_robin")


class TestTheLoop:
    def told(self, *, believes):
        world = LiveWorld()
        world.loop._believes_balance = believes
        windows = made("blindly", windows=40)
        collect = world.load.collect

        def collected(*when):
            metrics, seen_s = collect(*when)
            return dataclasses.replace(metrics, decode_loads=tuple(next(windows))), seen_s

        world.load.collect = collected
        world.ticks(20)
        return ["router_uneven" in {note.code for note in record.notes} for record in world.log.records]

    def test_it_says_so_once_enough_is_seen(self):
        told = self.told(believes=True)
        assert not any(told[:5])
        assert told[-1]

    def test_not_where_nothing_depends_on_it(self):
        assert not any(self.told(believes=False))


@pytest.mark.parametrize(
    ("keys", "asks"),
    [(["policy=slo"], True), (["policy=slo", "routing_strategy=load_balanced"], False), ([], False)],
)
def test_the_check_asks_who_gets_a_request(keys, asks):
    question = _router_question(configured(None, [], keys))
    assert (question is not None) == asks
    assert question is None or ("load_balanced" in question.what and "round_robin" in question.fix)


def test_shares_are_finite_whatever_is_seen():
    assert judged([[InstanceLoad(math.inf, 0.5)] * 4]) is None
