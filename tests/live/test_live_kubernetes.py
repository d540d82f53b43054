"""Kubernetes: an API that refuses, lags and is used by others; rollouts; and one planner at a time."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kubernetes_server import cluster, pod
from live_world import LiveWorld, ToyPools, VirtualClock
from sagescale.fleet import PoolCounts, Pools, Sizes
from sagescale.live.actuators.kubernetes import KubernetesActuator
from sagescale.live.actuators.kubernetes_api import KubernetesApi
from sagescale.live.actuators.lease import Lease
from sagescale.live.actuators.protocol import ActuatorError, Order, PoolStates
from sagescale.live.config import LiveConfig
from sagescale.live.explain import why_not_up
from sagescale.live.mover import Mover
from sagescale.planner import AutoscalerConfig

pytest.importorskip("kubernetes")


def actuator_of(api, namespace="team-403"):
    live = LiveConfig(
        actuator="kubernetes", kubernetes_namespace=namespace, kubernetes_prefill="deployments/p",
        kubernetes_decode="deployments/d", actuator_timeout_s=5.0,
    )  # fmt: skip
    return KubernetesActuator(live, api.client())


def order(sizes, current):
    return Order("key-1", Sizes(*sizes), Sizes(*current), {})


# --- an API that refuses ----------------------------------------------------------------------------


@pytest.mark.parametrize("status", [403, 404, 409, 410, 429, 500])
@pytest.mark.parametrize("call", ["GET /apis/apps/v1/namespaces/team-403/deployments/p/scale", "/pods"])
def test_a_refusal_is_told_by_its_status_and_ends_with_it(call, status):
    with cluster(p=2, d=3) as api:
        actuator = actuator_of(api)
        api.refuse[call] = status
        if call == "/pods" and status == 403:
            assert actuator.states() == PoolStates(Pools(PoolCounts(2), PoolCounts(3)), draining_seen=False)
        else:
            with pytest.raises(ActuatorError, match=str(status)):
                actuator.states()
        api.refuse.clear()
        api.pods["p"].append(pod(deleted=True))
        assert actuator.states() == PoolStates(Pools(PoolCounts(2, draining=1), PoolCounts(3)))
        actuator.close()


@pytest.mark.parametrize("status", [403, 404, 409, 410, 429, 500])
def test_a_refused_patch_fails_the_order_and_changes_nothing_else(status):
    with cluster(p=2, d=5) as api:
        actuator = actuator_of(api)
        api.refuse["PATCH /apis/apps/v1/namespaces/team-403/deployments/d"] = status
        with pytest.raises(ActuatorError, match="409|changed by others" if status == 409 else str(status)):
            actuator.carry_out(order((4, 3), (2, 5)))
        assert api.sizes == {"p": 2, "d": 5}, "what was to shrink did not: nothing may grow"
        api.refuse.clear()
        actuator.carry_out(order((4, 3), (2, 5)))
        assert api.sizes == {"p": 4, "d": 3}
        actuator.close()


@pytest.mark.parametrize(
    "answer",
    [b"", b"null", b"[]", b"no JSON", b'{"spec": 3}', b'{"spec": {"replicas": "2"}}',
     b'{"spec": {"replicas": -1}}', b'{"spec": {"replicas": 10000000000}}', b'{"spec": {"replicas": true}}',
     b'{"status": {"replicas": 1.5}}', b'{"status": []}'],
)  # fmt: skip
def test_an_answer_of_another_shape_is_an_actuator_error_or_no_instance(answer):
    with cluster(p=2, d=5) as api:
        actuator = actuator_of(api)
        api.raw["deployments/p/scale"] = answer
        with contextlib.suppress(ActuatorError):
            assert actuator.states().pools.prefill == PoolCounts(0)
        actuator.close()


@pytest.mark.parametrize("answer", [b"{}", b'{"items": {}}', b'{"items": null}', b"[]"])
def test_a_list_of_pods_that_is_none_is_no_empty_pool(answer):
    with cluster(p=2, d=5) as api:
        actuator = actuator_of(api)
        api.raw["/pods"] = answer
        with pytest.raises(ActuatorError):
            actuator.states()
        actuator.close()


def test_pods_of_any_shape_are_counted_or_left_out():
    with cluster(p=4, d=1) as api:
        api.pods["p"] = [None, [], "pod", {"status": []}, {"metadata": None, "status": {"conditions": {}}}]
        actuator = actuator_of(api)
        assert actuator.states().asked == Sizes(4, 1)
        actuator.close()


# --- others at work ---------------------------------------------------------------------------------


def test_what_somebody_else_scaled_since_it_was_looked_at_is_left_alone():
    with cluster(p=2, d=2) as api:
        actuator = actuator_of(api)
        current = actuator.states().asked
        api.scale("p", 7)
        with pytest.raises(ActuatorError, match="somebody else"):
            actuator.carry_out(order((3, 2), current))
        assert api.sizes == {"p": 7, "d": 2}
        actuator.close()


def test_a_change_between_reading_and_patching_is_never_overwritten():
    with cluster(p=2, d=2) as api:
        actuator = actuator_of(api)
        api.before = lambda call: api.scale("p", 6) if call.startswith("PATCH") else None
        with pytest.raises(ActuatorError, match="somebody else"):
            actuator.carry_out(order((3, 2), (2, 2)))
        assert api.sizes["p"] == 6
        actuator.close()


def test_a_change_of_the_status_alone_is_read_again_and_the_order_carried_out():
    with cluster(p=2, d=2) as api:
        actuator, once = actuator_of(api), iter([True])
        api.before = lambda call: api.scale("p", 2) if call.startswith("PATCH") and next(once, 0) else None
        actuator.carry_out(order((3, 2), (2, 2)))
        assert api.sizes["p"] == 3
        assert len(api.patched) == 2
        actuator.close()


# --- rollouts ---------------------------------------------------------------------------------------


@given(
    wanted=st.integers(0, 6), old=st.integers(0, 6), new=st.integers(0, 6),
    ready=st.lists(st.booleans(), min_size=12, max_size=12), going=st.integers(0, 3),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_every_pod_of_a_rollout_counts_and_the_size_is_the_one_asked_for(wanted, old, new, ready, going):
    with_revisions = [pod(revision="old", ready=ready[at]) for at in range(old)]
    with_revisions += [pod(revision="new", ready=ready[6 + at]) for at in range(new)]
    with_revisions += [pod(deleted=True) for _ in range(going)]
    found = pool_of(wanted, with_revisions)
    counts = found.pools.prefill
    assert counts.asked == wanted
    assert counts.ready + counts.starting + counts.draining == old + new + going
    assert bool(found.rollout) == (old > 0 and new > 0)


class OneScale:
    """The client's one method over one workload: quicker than a server, for properties."""

    def __init__(self, wanted, pods) -> None:
        self.wanted, self.pods = wanted, pods

    def call_api(self, path, method, **rest):
        if path.endswith("/pods"):
            return {"items": self.pods if "p" in dict(rest["query_params"])["labelSelector"] else []}
        name = path.split("/")[-2]
        wanted = self.wanted if name == "p" else 0
        return {"spec": {"replicas": wanted}, "status": {"selector": name}}

    def close(self):
        pass


def pool_of(wanted, pods):
    live = LiveConfig(
        actuator="kubernetes", kubernetes_prefill="deployments/p", kubernetes_decode="deployments/d"
    )
    return KubernetesActuator(live, OneScale(wanted, pods)).states()


class Rolling(ToyPools):
    """ToyPools of which one is being rolled out, with surge pods beyond its size."""

    rollout, surge = "", 0

    def states(self):
        found = super().states()
        prefill = PoolCounts(
            found.pools.prefill.ready, found.pools.prefill.starting, found.pools.prefill.draining + self.surge
        )
        return PoolStates(Pools(prefill, found.pools.decode), rollout=self.rollout)


def rolling_world(**keys):
    clock = VirtualClock()
    world = LiveWorld(clock=clock, pools=Rolling(clock, 4, 4, startup_s=0.0, drain_s=0.0), **keys)
    world.loop.start()
    return world


def notes(record):
    return {note.code for note in record.notes}


@pytest.mark.parametrize("requests", [60.0, 3000.0])
def test_both_pools_stay_while_one_is_rolled_out_and_move_when_it_is_done(requests):
    world = rolling_world()
    world.load.requests = requests
    for number in range(1, 6):
        world.pools.rollout = f"prefill has {number} + {5 - number} pods of 2 revisions, 4 ready"
        world.ticks(1, start=number)
    assert world.pools.sizes == Sizes(4, 4)
    assert world.pools.orders == []
    assert all("rollout_in_progress" in notes(record) for record in world.log.records)
    assert "a rollout" in {answer.cause for answer in why_not_up(world.log.records)}
    world.pools.rollout = ""
    world.ticks(2, start=6)
    assert world.pools.sizes == world.wanted(requests)


def test_a_rollout_that_begins_while_a_move_waits_for_gpus_holds_the_rest_of_it():
    world = rolling_world(max_gpu_budget=8)
    world.pools.drain_s = 30.0
    world.load.isl, world.load.osl, world.load.requests = 100.0, 1000.0, 1200.0
    world.ticks(1)
    assert world.loop.mover.moving
    world.pools.rollout, orders = "decode has 4 + 1 pods of 2 revisions, 4 ready", len(world.pools.orders)
    world.loop._wait_for(2)
    assert len(world.pools.orders) == orders


def test_a_rollout_that_stands_still_does_not_hold_for_ever_and_its_surge_counts():
    world = rolling_world(max_gpu_budget=12, live={"scale_up_timeout_s": 300.0})
    world.load.requests = 3000.0
    world.pools.rollout, world.pools.surge = "prefill has 4 + 2 pods of 2 revisions, 4 ready", 2
    world.ticks(4)
    assert world.pools.sizes == Sizes(4, 4)
    world.ticks(4, start=5)
    assert "rollout_stands_still" in notes(world.log.records[-1])
    assert sum(world.pools.sizes) == 10, "two of the twelve GPUs are held by surge pods"


def test_where_pods_may_not_be_listed_what_was_removed_holds_its_gpus_for_the_wait():
    clock = VirtualClock()
    pools = ToyPools(clock, 6, 2, drain_s=0.0)
    seen = pools.states
    pools.states = lambda: PoolStates(seen().pools, draining_seen=False)
    mover = Mover(
        pools,
        AutoscalerConfig(prefill_gpus_per_instance=1, decode_gpus_per_instance=1, max_gpu_budget=8).fleet,
        drain_wait_s=100.0, scale_up_timeout_s=900.0,
    )  # fmt: skip
    mover.begin(Sizes(2, 6), {}, "key")
    mover.advance(clock.now)
    assert pools.sizes == Sizes(2, 2)
    mover.advance(clock.now + 99.0)
    assert pools.sizes == Sizes(2, 2)
    mover.advance(clock.now + 101.0)
    assert pools.sizes == Sizes(2, 6)


# --- one planner at a time --------------------------------------------------------------------------


class Time:
    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self):
        return self.now


def lease_on(api, time, name="sagescale-x"):
    return Lease(KubernetesApi(api.client(), 5.0), "team-403", name, "two workloads", time)


def test_one_of_two_holds_it_until_it_is_gone_for_its_whole_duration():
    with cluster() as api:
        here, there = Time(), Time()
        there.now = 9e6  # another machine's clock: nothing is compared with it
        first, second = lease_on(api, here), lease_on(api, there)
        assert first.acquire()
        assert not second.acquire()
        for _ in range(20):
            here.now, there.now = here.now + 5.0, there.now + 5.0
            assert first.acquire()
            assert first.holds()
            assert not second.acquire()
        there.now += 14.0
        assert not second.acquire()
        there.now += 1.0
        assert second.acquire()
        assert second.holds()
        assert not first.acquire()
        assert not first.holds()
        assert api.leases["sagescale-x"]["spec"]["leaseTransitions"] == 2


def test_it_is_given_up_before_another_may_take_it():
    with cluster() as api:
        time = Time()
        first, second = lease_on(api, time), lease_on(api, time)
        first.acquire()
        second.acquire()
        api.refuse["PUT"] = 500  # the API answers, but takes no renewal
        held = []
        for _ in range(29):
            time.now += 0.5
            for lease in (first, second):
                with contextlib.suppress(ActuatorError):
                    lease.acquire()
            held.append(first.holds())
        assert held == [True] * 19 + [False] * 10
        api.refuse.clear()
        time.now += 0.5
        assert second.acquire()


def test_given_back_it_is_free_at_once():
    with cluster() as api:
        time = Time()
        first, second = lease_on(api, time), lease_on(api, time)
        first.acquire()
        first.release()
        assert not first.holds()
        assert second.acquire()


@pytest.mark.parametrize("moment", ["GET", "PUT", "POST"])
def test_of_two_that_take_it_at_once_one_gets_it(moment):
    with cluster() as api:
        time = Time()
        first, second = lease_on(api, time), lease_on(api, time)
        got, inside = [], []

        def at_once(call):
            if call.startswith(moment) and not inside:
                inside.append(call)
                api.before = lambda call: None
                got.append(second.acquire())

        if moment == "PUT":
            first.acquire()
            first.release()
            time.now += 100.0
        api.before = at_once
        api.lock = Free()
        got.append(first.acquire())
        assert sorted(got) == [False, True]


class Free:
    """No lock: a call may be answered inside another."""

    def __enter__(self):
        return self

    def __exit__(self, *given):
        pass


def test_nothing_is_patched_once_the_lease_is_somebody_elses():
    with cluster(p=2, d=2) as api:
        actuator = actuator_of(api)
        lease = actuator.lease()
        assert lease.acquire()
        actuator.carry_out(order((3, 2), (2, 2)))
        (found,) = api.leases.values()
        found["spec"]["holderIdentity"] = "another"
        with pytest.raises(ActuatorError, match="held by another"):
            actuator.carry_out(order((4, 2), (3, 2)))
        assert api.sizes == {"p": 3, "d": 2}
        assert not lease.holds()
        actuator.close()


def test_who_took_over_between_our_look_at_the_lease_and_our_patch_is_not_overwritten():
    with cluster(p=2, d=2) as api:
        actuator = actuator_of(api)
        actuator.lease().acquire()
        # The successor acts after we have confirmed the lease: what it set has another version.
        api.before = lambda call: api.scale("p", 9) if call.startswith("PATCH") else None
        with pytest.raises(ActuatorError):
            actuator.carry_out(order((3, 2), (2, 2)))
        assert api.sizes["p"] == 9
        actuator.close()


def test_one_lease_whatever_the_context_and_another_for_other_workloads():
    with cluster() as api:
        names = {actuator_of(api, namespace).lease().name for namespace in ("a", "a", "b")}
    assert len(names) == 2


def test_without_the_right_to_leases_it_is_said_what_to_give():
    with cluster() as api:
        api.refuse["leases"] = 403
        with pytest.raises(ActuatorError, match="give the role get, create and update on leases"):
            lease_on(api, Time()).acquire()


class Held:
    name = "lease x"

    def __init__(self) -> None:
        self.ours = True

    def holds(self):
        return self.ours


def test_a_planner_that_lost_its_right_decides_does_not_act_says_so_and_acts_again_when_it_is_back():
    world = LiveWorld()
    world.loop.safeguards.right = right = Held()
    world.loop.start()
    right.ours = False
    world.load.requests = 2400.0
    world.ticks(3)
    assert world.pools.orders == []
    assert all("right_lost" in notes(record) and not record.acted for record in world.log.records)
    assert "another planner acts" in {answer.cause for answer in why_not_up(world.log.records)}
    right.ours = True
    world.ticks(1, start=4)
    assert world.pools.sizes == world.wanted(2400.0)


@given(st.lists(st.tuples(st.integers(0, 1), st.floats(0.1, 12.0)), max_size=40))
@settings(max_examples=40, deadline=None)
def test_never_do_two_hold_it(steps):
    """Whoever tries, whenever: the one who holds it by its own account is the only one."""
    store = LeaseStore()
    times = [Time(), Time()]
    leases = [Lease(store, "ns", "x", "about", times[0]), Lease(store, "ns", "x", "about", times[1])]
    for who, pause_s in steps:
        leases[who].acquire()
        for time in times:
            time.now += pause_s
        assert sum(lease.holds() for lease in leases) <= 1


class LeaseStore:
    """An API of one lease, without HTTP; jobs run where they are called."""

    def __init__(self) -> None:
        from kubernetes_server import Cluster

        self.leases, self.version = {}, 0
        self.serve = lambda method, name, body: Cluster.lease(self, method, name, body)
        self.jobs = self

    def next(self):
        self.version += 1
        return str(self.version)

    def call(self, method, path=None, body=None):
        from kubernetes_server import Refused
        from sagescale.live.actuators.kubernetes_api import ApiRefusedError

        if callable(method):  # a job
            return method()
        try:
            found = self.serve(method, path.rpartition("/")[2], body)
        except Refused as refused:
            raise ApiRefusedError(str(refused.status), refused.status) from None
        return dict(found)
