"""The manager: what it refuses, what it says, and the loop it runs against emulated engines."""

from __future__ import annotations

import asyncio
import logging
import time

import pytest
from live_server import serving
from planner_world import RoundNumbers
from sagescale import (
    AutoscalerConfig,
    ControlPlaneManager,
    ExecutionInstance,
    ExecutionInstanceType,
    InputError,
    MetricsCollector,
    PDSeparationConfig,
    Request,
    SagescaleError,
)
from sagescale.control_plane.replicas import ReplicatedTwin, model_for

PREFILLING, DECODING = ExecutionInstanceType.PREFILLING, ExecutionInstanceType.DECODING
FAST = {"time_scale": 600.0}
IDLE = b"""vllm:num_requests_running 0
vllm:num_requests_waiting 0
vllm:request_success_total 0
vllm:prompt_tokens_total 0
vllm:generation_tokens_total 0
"""


def managed(**keys):
    return ControlPlaneManager(enable_auto_scaling=True, live_settings=FAST, **keys)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"scheduling_policy": "fifoo"},
            r"scheduling_policy is 'fifoo'; expected one of fifo.*did you mean 'fifo'",
        ),
        ({"routing_strategy": "random"}, "routing_strategy is 'random'; expected one of load_balanced"),
        ({"enable_auto_scaling": True, "enable_pd_separation": False}, "expected both"),
        ({"create_instance": print}, "remove_instance is not given; expected both callbacks, or neither"),
        ({"live_settings": {"paws_file": "x"}}, "unknown key 'paws_file'; did you mean 'pause_file'"),
        ({"live_settings": {"actuator": "webhook"}}, "the manager acts through its callbacks"),
        ({"profile": "no-such"}, "profile 'no-such': no such profile"),
        ({"autoscaler_config": AutoscalerConfig(profile_data_dir="/no/such")}, "/no/such"),
    ],
)
def test_what_cannot_be_used_is_refused_with_what_was_expected(keys, message):
    with pytest.raises(InputError, match=message):
        ControlPlaneManager(**keys)


@pytest.mark.parametrize(
    ("instance", "message"),
    [
        ("prefill-0", "is no ExecutionInstance"),
        (ExecutionInstance("g"), "is GENERAL; expected PREFILLING or DECODING"),
        (ExecutionInstance("p", instance_type=PREFILLING, gpu_count=2), "has 2 GPUs but .* is 4"),
        (ExecutionInstance("taken", instance_type=DECODING), "'taken' is registered already"),
    ],
)
def test_instances_that_do_not_go_with_the_configuration_are_refused(instance, message):
    manager = managed()
    manager.register_instance(ExecutionInstance("taken", instance_type=DECODING))
    with pytest.raises(InputError, match=message):
        manager.register_instance(instance)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"instance_id": ""}, "expected a name"),
        ({"instance_type": "prefill"}, "expected an ExecutionInstanceType"),
        ({"port": 99999}, "expected http"),
        ({"max_concurrent_requests": 0}, "expected at least 1, or None"),
    ],
)
def test_an_instance_that_is_none_is_refused(keys, message):
    with pytest.raises(InputError, match=message):
        ExecutionInstance(**({"instance_id": "x"} | keys))


def test_instances_come_back_in_the_order_they_came_and_can_be_forgotten():
    manager = managed()
    ours = [ExecutionInstance(name, instance_type=DECODING) for name in ("b", "a", "c")]
    for instance in ours:
        manager.register_instance(instance)
        manager.register_instance(instance)  # twice is once
    assert manager.get_instances() == ours
    assert manager.unregister_instance("a") is ours[1]
    assert manager.get_instances() == [ours[0], ours[2]]
    with pytest.raises(InputError, match="'aa' is not registered"):
        manager.unregister_instance("aa")


def test_without_separation_instances_serve_both_phases():
    general = ExecutionInstanceType.GENERAL

    async def story():
        manager = ControlPlaneManager(enable_pd_separation=False)
        await manager.start()
        task = asyncio.create_task(one(manager))
        await asyncio.sleep(0.01)
        manager.register_instance(ExecutionInstance("g"))
        name = await asyncio.wait_for(task, 60.0)
        await manager.stop()
        return name

    async def one(manager):
        async with manager.instance_for(Request(isl=10), general) as instance:
            return instance.instance_id

    assert asyncio.run(story()) == "g"


def test_an_instance_of_more_gpus_is_replicas_of_the_profiles():
    config = AutoscalerConfig(prefill_gpus_per_instance=4, decode_gpus_per_instance=2)
    model = model_for(config, RoundNumbers(max_kv_tokens=1000), "round")
    assert (model.prefill_gpus, model.decode_gpus) == (4, 2)
    assert (model.max_num_seqs, model.max_kv_tokens) == (200, 2000)
    assert model.itl_ms(20, 100.0) == RoundNumbers().itl_ms(10, 100.0)
    assert model.ttft_ms(100.0) == RoundNumbers().ttft_ms(100.0)
    with pytest.raises(InputError, match=r"prefill_gpus_per_instance is 3 .* profile round has 2"):
        model_for(AutoscalerConfig(prefill_gpus_per_instance=3), RoundNumbers(prefill_gpus=2), "round")


def test_a_window_that_was_chosen_bounds_the_fitted_predictors():
    chosen = managed(
        autoscaler_config=AutoscalerConfig(load_predictor_type="arima", prediction_window_size=20)
    )
    assert chosen.config.history_points == 20
    assert managed().config.history_points is None


# --- running ----------------------------------------------------------------------------------------


def until(manager, condition, timeout_s=120.0):
    async def wait():
        end_s = time.monotonic() + timeout_s
        while not condition(manager):
            assert time.monotonic() < end_s, manager.get_autoscaler_status()
            await asyncio.sleep(0.02)

    return wait()


def decided(manager) -> bool:
    return manager.last_decision is not None


def test_the_status_follows_the_autoscaler():
    async def story():
        manager = managed()
        manager.register_instance(ExecutionInstance("p", instance_type=PREFILLING, port=1))
        before = manager.get_autoscaler_status()
        await manager.start()
        await until(manager, decided)
        during = manager.get_autoscaler_status()
        with pytest.raises(SagescaleError, match="has been started"):
            await manager.start()
        with pytest.raises(SagescaleError, match="has been started"):
            manager.use_metrics(MetricsCollector())
        await manager.stop()
        return before, during, manager.get_autoscaler_status()

    before, during, after = asyncio.run(story())
    assert before == {
        "enabled": True,
        "running": False,
        "config": {"target_ttft_ms": 200.0, "target_itl_ms": 50.0, "adjustment_interval_sec": 60},
        "correction_factors": {"prefill": 1.0, "decode": 1.0},
        "last_adjustment_time": None,
    }
    assert during["running"]
    assert abs(during["last_adjustment_time"] - time.time()) < 3600
    assert not after["running"]
    assert after["last_adjustment_time"] is not None


def test_it_can_be_started_again():
    async def story():
        manager = managed()
        for _ in range(2):
            await manager.start()
            assert manager.get_autoscaler_status()["running"]
            await manager.stop()

    asyncio.run(story())


def test_without_auto_scaling_nothing_runs():
    async def story():
        manager = ControlPlaneManager()
        await manager.start()
        status = manager.get_autoscaler_status()
        await manager.stop()
        return status

    status = asyncio.run(story())
    assert (status["enabled"], status["running"]) == (False, False)


def test_without_callbacks_it_decides_and_changes_nothing(caplog):
    async def story():
        manager = managed(autoscaler_config=AutoscalerConfig(min_decode_instances=3))
        manager.register_instance(ExecutionInstance("p", instance_type=PREFILLING, port=1))
        await manager.start()
        await until(manager, decided)
        await manager.stop()
        return manager

    manager = asyncio.run(story())
    assert manager.last_decision.targets.decode == 3
    assert len(manager.get_instances()) == 1
    assert "decisions are made but not acted on" in caplog.text


def test_a_dry_run_calls_nobody_back():
    async def never(_):
        raise AssertionError("called back")

    async def story():
        manager = managed(
            autoscaler_config=AutoscalerConfig(min_decode_instances=3, no_operation=True),
            create_instance=never,
            remove_instance=never,
        )
        manager.register_instance(ExecutionInstance("p", instance_type=PREFILLING, port=1))
        await manager.start()
        await until(manager, lambda made: decided(made) and made.last_decision.targets.decode == 3)
        await manager.stop()
        return manager

    manager = asyncio.run(story())
    assert manager.last_decision.no_operation
    assert len(manager.get_instances()) == 1


def test_it_ends_with_the_event_loop():
    async def story():
        manager = managed()
        await manager.start()
        return manager

    manager = asyncio.run(story())
    assert not manager.get_autoscaler_status()["running"]


def test_a_journal_that_cannot_be_opened_is_said_and_leaves_nothing_running(tmp_path):
    async def story():
        settings = {**FAST, "journal": str(tmp_path / "no" / "such" / "folder.sqlite")}
        manager = ControlPlaneManager(enable_auto_scaling=True, live_settings=settings)
        with pytest.raises(InputError, match="cannot be opened"):
            await manager.start()
        assert not manager.get_autoscaler_status()["running"]
        with pytest.raises(InputError, match="cannot be opened"):
            await manager.start()

    asyncio.run(story())


def test_a_journal_is_kept_where_one_is_named_and_nowhere_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    async def story(settings):
        manager = ControlPlaneManager(enable_auto_scaling=True, live_settings=settings)
        await manager.start()
        await until(manager, decided)
        await manager.stop()

    asyncio.run(story(FAST))
    assert list(tmp_path.iterdir()) == []
    asyncio.run(story({**FAST, "journal": "kept.sqlite"}))
    assert (tmp_path / "kept.sqlite").exists()


def beside_an_idle_engine(story):
    """What a story comes to that is told the port of an engine nobody asks anything of."""
    with serving() as server:
        server.answers["/metrics"] = (200, IDLE, {})
        return asyncio.run(story(server.server.server_address[1]))


def test_from_nothing_it_creates_the_minima_and_lets_go_of_what_is_too_much():
    names = iter(range(100))
    removed = []

    def remove(instance):
        removed.append(instance.instance_id)

    async def story(port):
        def new(kind, name=None):
            return ExecutionInstance(name or f"new-{next(names)}", instance_type=kind, port=port)

        async def create(kind):
            return new(kind)

        manager = managed(
            autoscaler_config=AutoscalerConfig(min_decode_instances=2),
            create_instance=create,
            remove_instance=remove,
        )
        await manager.start()
        await until(manager, lambda made: len(made.get_instances()) == 3)
        extra = new(DECODING, "extra")
        manager.register_instance(extra)
        await until(manager, lambda made: removed and extra not in made.get_instances())
        await manager.stop()
        return manager

    manager = beside_an_idle_engine(story)
    assert removed == ["extra"]
    assert [entry.instance_type for entry in manager.get_instances()].count(DECODING) == 2


@pytest.mark.parametrize("gpus", [1, 4])
def test_policy_slo_sizes_a_managers_pools_whatever_their_gpus(gpus):
    async def story(port):
        config = AutoscalerConfig(policy="slo", prefill_gpus_per_instance=gpus, fast_interval_sec=15)
        manager = managed(autoscaler_config=config)
        for kind in (PREFILLING, DECODING):
            manager.register_instance(
                ExecutionInstance(kind.name, instance_type=kind, host="127.0.0.1", port=port)
            )
        await manager.start()
        await until(manager, decided)
        await manager.stop()
        return manager

    manager = beside_an_idle_engine(story)
    assert manager.last_decision is not None


def test_replicas_are_so_many_engines_to_the_twin():
    asked = []

    class Twin:
        startup_s, perf = 60.0, None

        def prefill_misses(self, instances, requests_per_s, lengths):
            asked.append(("prefill", instances, requests_per_s))
            return 0.25

        def decode_misses(self, instances, requests_per_s, lengths):
            asked.append(("decode", instances, requests_per_s))
            return 0.5

        def prefill_limit_rps(self, lengths):
            return 10.0

        decode_limit_rps = prefill_limit_rps

        def prefill_misses_alone(self, lengths):
            return 0.01

        def decode_misses_alone(self, lengths):
            return 0.02

    perf = RoundNumbers()
    twin = ReplicatedTwin(Twin(), perf, 4, 2)
    assert (twin.prefill_misses(3, 30.0, None), twin.decode_misses(3, 30.0, None)) == (0.25, 0.5)
    assert asked == [("prefill", 12, 30.0), ("decode", 6, 30.0)]
    assert (twin.prefill_limit_rps(None), twin.decode_limit_rps(None)) == (40.0, 20.0)
    assert (twin.prefill_misses_alone(None), twin.decode_misses_alone(None)) == (0.01, 0.02)
    assert twin.perf is perf


def test_an_unforeseen_failure_ends_the_autoscaler_and_is_told(monkeypatch, caplog):
    from sagescale.live.loop import ControlLoop

    def broken(*_, **__):
        raise ZeroDivisionError("unforeseen")

    monkeypatch.setattr(ControlLoop, "_after", broken)  # not in a tick: the loop goes on after those

    async def story():
        manager = managed()
        await manager.start()
        await until(manager, lambda made: not made.get_autoscaler_status()["running"])
        with pytest.raises(ZeroDivisionError):
            await manager.stop()

    with caplog.at_level(logging.ERROR):
        asyncio.run(story())
    assert "the autoscaler has stopped" in caplog.text


def test_the_collector_checks_its_keys_and_reads_prometheus():
    with pytest.raises(InputError, match="unknown key 'metrics_preste'; did you mean 'metrics_preset'"):
        MetricsCollector(metrics_preste="vllm")
    with pytest.raises(InputError, match="prometheus_url is not given"):
        MetricsCollector().collect()
    found = MetricsCollector(prometheus_url="http://localhost:1").collect()
    assert not found.usable
    assert found.problems[0].code == "source_failed"


def test_separation_says_which_pool_streams_the_first_token():
    assert PDSeparationConfig().first_token == "prefill"
    with pytest.raises(InputError, match="first_token is 'router'; expected one of prefill, decode"):
        PDSeparationConfig(first_token="router")
