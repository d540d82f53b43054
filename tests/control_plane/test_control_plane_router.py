"""Who is served next, and where."""

from __future__ import annotations

import asyncio
import time

import pytest
from sagescale import AutoscalerConfig, ExecutionInstance, ExecutionInstanceType, InputError, Request
from sagescale.control_plane.instances import Registry
from sagescale.control_plane.router import Router
from sagescale.sim.config import SimulatorConfig

PREFILLING, DECODING = ExecutionInstanceType.PREFILLING, ExecutionInstanceType.DECODING


def router(policy="fifo", strategy="load_balanced", *, instances=1, places=1, kind=PREFILLING, **keys):
    """A prompt takes 1 ms a token; the TTFT target is 100 s, so that nobody is late by accident."""
    registry = Registry()
    for number in range(instances):
        registry.add(ExecutionInstance(f"i{number}", instance_type=kind, max_concurrent_requests=places))
    given = {"first_token": "prefill", "max_batch_tokens": 1000}
    rules = SimulatorConfig(scheduling_policy=policy, routing_strategy=strategy, **(given | keys))
    targets = AutoscalerConfig(target_ttft_ms=1e5, target_itl_ms=50.0)
    return Router(registry, rules, targets, lambda isl: isl), registry


async def order_served(made, requests, kind=PREFILLING):
    """One instance with one place, taken; the requests come in the given order: who is served when."""
    served = []

    async def serve(name, request):
        async with made.instance_for(request, kind):
            served.append(name)

    async with made.instance_for(Request(isl=1), kind):
        tasks = [asyncio.create_task(serve(name, request)) for name, request in requests.items()]
        await asyncio.sleep(0.01)
        assert served == []
    await asyncio.gather(*tasks)
    return "".join(served)


def ago(seconds: float, isl: int = 10, priority: int = 0) -> Request:
    return Request(isl=isl, osl=10, priority=priority, arrival_s=time.monotonic() - seconds)


@pytest.mark.parametrize(
    ("policy", "served"),
    [
        ("fifo", "abcd"),
        ("priority", "bdac"),  # the lowest first, then who came first
        ("slo_aware", "bcda"),  # b is due first; c's long prompt must start before d's; a can only be late
        ("adaptive", "bdac"),  # 30 030 tokens wait, less than a batch of 100 000: by priority
    ],
)
def test_policies_order_those_that_wait(policy, served):
    made, _ = router(policy, max_batch_tokens=100_000)
    requests = {
        "a": ago(120.0, priority=2),
        "b": ago(90.0, priority=1),
        "c": ago(10.0, isl=30_000, priority=2),
        "d": ago(30.0, priority=1),
    }
    assert asyncio.run(order_served(made, requests)) == served


def test_adaptive_looks_at_deadlines_within_a_priority_when_more_than_a_batch_waits():
    made, _ = router("adaptive", max_batch_tokens=1000)
    requests = {
        "a": ago(50.0, isl=600, priority=2),
        "b": ago(0.0, isl=600, priority=1),
        "c": ago(40.0, isl=600, priority=1),
        "d": ago(200.0, isl=600, priority=0),  # can only be late
    }
    assert asyncio.run(order_served(made, requests)) == "cbad"


def test_a_batch_is_counted_for_every_instance():
    made, registry = router("adaptive", instances=2, max_batch_tokens=1000)
    requests = {"a": ago(0.0, isl=600, priority=1), "b": ago(40.0, isl=600, priority=1)}

    async def story():
        async with made.instance_for(Request(isl=1), PREFILLING):
            return await order_served(made, requests)

    assert asyncio.run(story()) == "ab"
    registry.entries()[1].draining = True
    assert asyncio.run(order_served(made, requests)) == "ba"


def test_adaptive_orders_decode_by_priority_whatever_waits():
    made, _ = router("adaptive", max_batch_tokens=10, kind=DECODING)
    requests = {"a": ago(50.0, isl=600, priority=9), "b": ago(0.0, isl=600, priority=1)}
    assert asyncio.run(order_served(made, requests, DECODING)) == "ba"


def test_slo_aware_decode_follows_the_first_token_where_decode_streams_it():
    requests = {"a": ago(0.0), "b": ago(50.0), "c": ago(120.0)}
    made, _ = router("slo_aware", kind=DECODING, first_token="decode")
    assert asyncio.run(order_served(made, requests, DECODING)) == "bac"
    made, _ = router("slo_aware", kind=DECODING, first_token="prefill")
    assert asyncio.run(order_served(made, requests, DECODING)) == "abc"


async def places_of(made, lengths, kind=PREFILLING):
    """Requests of these lengths, held one after the other: which instances they get."""
    got = []

    async def hold(rest):
        if rest:
            async with made.instance_for(Request(isl=rest[0], osl=100), kind) as instance:
                got.append(instance.instance_id)
                await hold(rest[1:])

    await hold(lengths)
    return got


def test_load_balanced_takes_the_fewest_outstanding_tokens():
    made, _ = router(instances=3, places=None)
    assert asyncio.run(places_of(made, [100, 10, 10, 20, 5])) == ["i0", "i1", "i2", "i1", "i2"]


def test_load_balanced_counts_the_output_too_in_decode():
    made, registry = router(instances=2, places=None, kind=DECODING)

    async def story():
        async with made.instance_for(Request(isl=10, osl=90), DECODING):
            return [entry.outstanding for entry in registry.entries()]

    assert asyncio.run(story()) == [100, 0]


def test_round_robin_takes_turns_whatever_the_load():
    made, _ = router(strategy="round_robin", instances=3, places=None)
    assert asyncio.run(places_of(made, [100, 10, 10, 20, 5])) == ["i0", "i1", "i2", "i0", "i1"]


def test_a_place_that_is_given_back_leaves_no_load():
    made, registry = router(instances=1, places=None)
    asyncio.run(places_of(made, [100, 10]))
    (entry,) = registry.entries()
    assert (entry.running, entry.outstanding) == (0, 0)


def test_an_instance_that_drains_is_given_nothing():
    made, registry = router(instances=2, places=None)
    registry.entries()[0].draining = True
    assert asyncio.run(places_of(made, [1, 1])) == ["i1", "i1"]


def test_who_waits_notices_an_instance_that_becomes_healthy():
    made, registry = router()
    registry.entries()[0].instance.is_healthy = False

    async def story():
        task = asyncio.create_task(places_of(made, [1]))
        await asyncio.sleep(0.01)
        assert made.waiting(PREFILLING) == 1
        registry.entries()[0].instance.is_healthy = True
        return await asyncio.wait_for(task, 60.0)

    assert asyncio.run(story()) == ["i0"]


def test_who_gives_up_leaves_the_queue_and_no_load():
    made, registry = router()

    async def story():
        async with made.instance_for(Request(isl=1), PREFILLING):
            task = asyncio.create_task(places_of(made, [1]))
            await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.wait([task])
            assert made.waiting(PREFILLING) == 0
        return registry.entries()[0].running

    assert asyncio.run(story()) == 0


def test_idle_is_when_the_last_request_has_left():
    made, registry = router(places=None)
    (entry,) = registry.entries()

    async def story():
        await made.idle(entry)
        async with made.instance_for(Request(isl=1), PREFILLING):
            waits = asyncio.create_task(made.idle(entry))
            await asyncio.sleep(0.01)
            assert not waits.done()
        await asyncio.wait_for(waits, 60.0)

    asyncio.run(story())


@pytest.mark.parametrize("keys", [{"isl": 0}, {"isl": 1, "osl": 0}])
def test_a_request_has_lengths(keys):
    with pytest.raises(InputError, match="expected at least 1 token"):
        Request(**keys)
