"""Orders carried out on registered instances through two callbacks."""

from __future__ import annotations

import asyncio
import itertools
import threading

import pytest
from sagescale import ExecutionInstance, ExecutionInstanceType, SagescaleError
from sagescale.control_plane.instances import Registry
from sagescale.control_plane.pools import InstancePools

PREFILLING, DECODING = ExecutionInstanceType.PREFILLING, ExecutionInstanceType.DECODING


class Platform:
    """Creates and removes instances when the test says so."""

    def __init__(self) -> None:
        self.numbers = itertools.count()
        self.may_create = asyncio.Event()
        self.may_remove = asyncio.Event()
        self.may_create.set()
        self.may_remove.set()
        self.asked = []
        self.removed = []
        self.failures = 0

    async def create(self, kind):
        self.asked.append(kind)
        await self.may_create.wait()
        self._fail()
        return ExecutionInstance(f"new-{next(self.numbers)}", instance_type=kind)

    async def remove(self, instance):
        await self.may_remove.wait()
        self._fail()
        self.removed.append(instance.instance_id)

    def _fail(self) -> None:
        if self.failures:
            self.failures -= 1
            raise OSError("no machine")


class World:
    def __init__(self, prefill=1, decode=2, platform=None, patience_s=0.0) -> None:
        self.platform = platform or Platform()
        self.registry = Registry()
        for kind, count in ((PREFILLING, prefill), (DECODING, decode)):
            for number in range(count):
                self.registry.add(ExecutionInstance(f"{kind.value}-{number}", instance_type=kind))
        self.busy = {}
        self.pools = InstancePools(
            self.registry,
            self.platform.create,
            self.platform.remove,
            asyncio.get_running_loop(),
            self.idle,
            retry_s=0.001,
            patience_s=patience_s,
        )

    async def idle(self, entry) -> None:
        if (event := self.busy.get(entry.instance.instance_id)) is not None:
            await event.wait()

    async def order(self, prefill: int, decode: int) -> None:
        """As the actuator does it: from another thread."""
        await asyncio.to_thread(self.pools, {"targets": {"prefill": prefill, "decode": decode}})
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    def decode(self) -> tuple[int, int, int]:
        return tuple(self.pools.states()["decode"].values())

    def names(self) -> list[str]:
        return [entry.instance.instance_id for entry in self.registry.entries("decode")]


def test_a_created_instance_is_starting_then_ready():
    async def story():
        world = World()
        world.platform.may_create.clear()
        await world.order(1, 4)
        assert world.decode() == (2, 2, 0)
        assert world.platform.asked == [DECODING, DECODING]
        world.platform.may_create.set()
        await world.pools.settle()
        assert world.decode() == (4, 0, 0)

    asyncio.run(story())


def test_the_same_order_twice_is_one():
    async def story():
        world = World()
        world.platform.may_create.clear()
        await world.order(2, 3)
        await world.order(2, 3)
        assert world.platform.asked == [PREFILLING, DECODING]
        world.platform.may_create.set()
        await world.pools.settle()

    asyncio.run(story())


def test_a_removed_instance_drains_until_it_is_gone_and_is_the_least_busy_newest():
    async def story():
        world = World(decode=3)
        world.registry.entries("decode")[2].outstanding = 5.0
        world.platform.may_remove.clear()
        await world.order(1, 2)
        assert world.decode() == (2, 0, 1)
        assert len(world.names()) == 3
        world.platform.may_remove.set()
        await world.pools.settle()
        assert world.platform.removed == ["decoding-1"]
        assert world.names() == ["decoding-0", "decoding-2"]

    asyncio.run(story())


def test_nothing_is_removed_before_its_requests_have_left_it():
    async def story():
        world = World()
        left = world.busy["decoding-1"] = asyncio.Event()
        await world.order(1, 1)
        await asyncio.sleep(0.01)
        assert world.decode() == (1, 0, 1)
        assert world.platform.removed == []
        left.set()
        await world.pools.settle()
        assert world.platform.removed == ["decoding-1"]

    asyncio.run(story())


def test_instances_still_starting_go_first_and_are_removed_once_they_are_there():
    async def story():
        world = World()
        world.platform.may_create.clear()
        await world.order(1, 4)
        await world.order(1, 3)
        assert world.decode() == (2, 1, 1)
        world.platform.may_create.set()
        await world.pools.settle()
        assert world.decode() == (3, 0, 0)
        assert len(world.platform.removed) == 1
        assert world.platform.removed[0].startswith("new-")

    asyncio.run(story())


def test_a_creation_that_fails_is_left_to_the_next_decision(caplog):
    async def story():
        world = World()
        world.platform.failures = 1
        await world.order(1, 3)
        await world.pools.settle()
        assert world.decode() == (2, 0, 0)
        assert "create_instance (decode) failed: OSError: no machine" in caplog.text
        await world.order(1, 3)
        await world.pools.settle()
        assert world.decode() == (3, 0, 0)

    asyncio.run(story())


def test_a_removal_that_fails_is_tried_again_and_holds_its_gpus(caplog):
    async def story():
        world = World()
        world.platform.failures = 2
        await world.order(1, 1)
        assert world.decode() == (1, 0, 1)
        await world.pools.settle()
        assert world.decode() == (1, 0, 0)
        assert caplog.text.count("remove_instance (decoding-1) failed") == 2

    asyncio.run(story())


def test_a_platform_may_choose_another_one_to_remove():
    class Chooser(Platform):
        async def remove(self, instance):
            del instance
            return next(entry.instance for entry in world.registry.entries("decode"))

    async def story():
        nonlocal world
        world = World(decode=3, platform=Chooser())
        await world.order(1, 2)
        await world.pools.settle()
        assert world.names() == ["decoding-1", "decoding-2"]
        assert world.decode() == (2, 0, 0)

    world: World
    asyncio.run(story())


def test_a_platform_that_swaps_two_removals_never_seems_to_have_more():
    """Of three, two are to go: each call removes another than it was asked to, the last one to stay."""
    seen = []

    class Swapper(Platform):
        async def remove(self, instance):
            # The other removal, which takes this one, is done first.
            while instance.instance_id == "decoding-1" and "decoding-1" in world.names():  # noqa: ASYNC110
                await asyncio.sleep(0)
            seen.append(world.decode())
            gone = {"decoding-2": "decoding-1", "decoding-1": "decoding-0"}[instance.instance_id]
            return next(e.instance for e in world.registry.entries() if e.instance.instance_id == gone)

    async def story():
        nonlocal world
        world = World(decode=3, platform=Swapper())
        await world.order(1, 1)
        await world.pools.settle()
        assert seen == [(1, 0, 2), (1, 0, 1)]
        assert world.decode() == (1, 0, 0)
        assert world.names() == ["decoding-2"]

    world: World
    asyncio.run(story())


def test_what_is_returned_must_be_an_instance_of_the_type(caplog):
    class Confused(Platform):
        async def create(self, kind):
            return ExecutionInstance("x", instance_type=PREFILLING)

    async def story():
        world = World(platform=Confused())
        await world.order(1, 3)
        await world.pools.settle()
        assert world.decode() == (2, 0, 0)
        assert "expected an ExecutionInstance of type DECODING" in caplog.text

    asyncio.run(story())


def test_plain_functions_do_as_well_and_hold_up_nothing():
    looked_at = threading.Event()

    class Plain(Platform):
        def create(self, kind):
            looked_at.wait(60.0)
            return ExecutionInstance("plain", instance_type=kind)

        def remove(self, instance):
            self.removed.append(instance.instance_id)

    async def story():
        world = World(platform=Plain())
        await world.order(1, 3)
        assert world.decode() == (2, 1, 0)
        looked_at.set()
        await world.pools.settle()
        await world.order(1, 1)
        await world.pools.settle()
        assert world.platform.removed == ["plain", "decoding-1"]

    asyncio.run(story())


@pytest.mark.parametrize("flag", ["is_available", "is_healthy"])
def test_an_instance_out_of_service_holds_its_gpus_but_serves_nobody(flag):
    async def story():
        world = World()
        setattr(world.registry.entries("decode")[0].instance, flag, False)
        assert world.decode() == (1, 0, 1)

    asyncio.run(story())


def test_nobody_is_missed_before_the_first_is_registered():
    async def story():
        world = World(prefill=0, decode=0, patience_s=60.0)
        with pytest.raises(SagescaleError, match="no instance has been registered yet"):
            world.pools.states()
        world.registry.add(ExecutionInstance("first", instance_type=PREFILLING))
        assert world.pools.states()["prefill"]["ready"] == 1
        empty = World(prefill=0, decode=0, patience_s=0.0)
        assert empty.decode() == (0, 0, 0)

    asyncio.run(story())
