"""Aggregated engines, live: no role labels, one pool, requests seen once."""

from __future__ import annotations

import pytest
from live_server import serving
from sagescale.errors import InputError
from sagescale.fleet import PoolCounts, Pools
from sagescale.live.actuators.command import CommandActuator
from sagescale.live.actuators.kubernetes import KubernetesActuator
from sagescale.live.config import LiveConfig
from sagescale.live.metrics.presets import preset_of
from sagescale.live.metrics.promql import group_matchers
from sagescale.live.metrics.source import make_source
from sagescale.planner import AutoscalerConfig, keys_of

CONFIG = AutoscalerConfig(serving="aggregated")

PAGE = """vllm:request_success_total{{model_name="m",finished_reason="stop"}} {done}
vllm:num_requests_running{{model_name="m"}} {running}
vllm:num_requests_waiting{{model_name="m"}} {waiting}
vllm:request_prompt_tokens_sum{{model_name="m"}} {prompts}
vllm:request_prompt_tokens_count{{model_name="m"}} {done}
vllm:request_prompt_tokens_bucket{{model_name="m",le="+Inf"}} {done}
vllm:request_generation_tokens_sum{{model_name="m"}} {answers}
vllm:request_generation_tokens_count{{model_name="m"}} {done}
vllm:request_generation_tokens_bucket{{model_name="m",le="+Inf"}} {done}
vllm:prefix_cache_queries_total{{model_name="m"}} {prompts}
vllm:prefix_cache_hits_total{{model_name="m"}} {hits}
vllm:kv_cache_usage_perc{{model_name="m"}} {usage}
vllm:num_preemptions_total{{model_name="m"}} {preempted}
"""


def page(done, running=2, waiting=0, usage=0.25):
    made = {"prompts": 100 * done, "answers": 40 * done, "hits": 25 * done, "preempted": done // 10}
    return PAGE.format(done=done, running=running, waiting=waiting, usage=usage, **made).encode()


def test_pages_of_one_pool_are_read_as_one_pool():
    with serving() as server:
        live = LiveConfig(
            scrape_instances=[f"{server.url}/a/metrics", f"{server.url}/b/metrics"], metrics_preset="vllm"
        )
        server.answers |= {"/a/metrics": (200, page(10), {}), "/b/metrics": (200, page(20), {})}
        source = make_source(live, "prefill", CONFIG)
        source.prime()
        server.answers |= {
            "/a/metrics": (200, page(40, running=5, waiting=1, usage=0.5), {}),
            "/b/metrics": (200, page(60, running=3), {}),
        }
        metrics, _ = source.collect(60.0)
        source.close()
    values = metrics.values
    assert values["requests"] == 30 + 40 + (5 + 1 + 3) - (2 + 2)
    assert (values["completed"], values["isl_mean"], values["osl_mean"]) == (70.0, 100.0, 40.0)
    assert (values["queued_prefill"], values["running_decode"]) == (1.0, 8.0)
    assert (values["running_prefill"], values["queued_decode"]) == (0.0, 0.0)
    assert (values["kv_usage"], values["prefix_hit_rate"]) == (0.375, 0.25)
    assert values["preemptions"] == 3 + 4
    assert metrics.problems == ()
    assert set(metrics.reporting) == {"aggregated"}


def test_discovered_targets_need_no_label_of_a_role():
    with serving() as server:
        host = server.url.removeprefix("http://")
        labels = [{"__metrics_path__": f"/{name}/metrics", "instance": name} for name in ("a", "b")]
        server.answers["/sd"] = (200, [{"targets": [host], "labels": one} for one in labels], {})
        server.answers |= {f"/{name}/metrics": (200, page(10), {}) for name in ("a", "b")}
        live = LiveConfig(scrape_discovery_url=f"{server.url}/sd", metrics_preset="vllm")
        source = make_source(live, "prefill", CONFIG)
        metrics, _ = source.collect(60.0)
        source.close()
    assert metrics.reporting["aggregated"].names == {"a", "b"}


def test_queries_are_for_every_instance_of_the_model():
    live = LiveConfig(prometheus_url="http://localhost:9090", metrics_preset="vllm", model_name="m")
    matchers = group_matchers(live, preset_of("vllm", "aggregated"))
    assert matchers == {"aggregated": 'model_name="m"'}


def test_a_silent_half_of_the_pool_makes_the_load_unknown():
    with serving() as server:
        live = LiveConfig(scrape_instances=[f"{server.url}/a/metrics"], metrics_preset="vllm")
        server.answers["/a/metrics"] = (200, b"", {})
        source = make_source(live, "prefill", CONFIG)
        metrics, _ = source.collect(60.0)
        source.close()
    assert not metrics.usable
    assert any("no aggregated instance reports" in problem.text for problem in metrics.problems)


def test_state_programs_speak_of_one_pool():
    words = ["echo", '{"aggregated": {"ready": 3, "draining": 1}}']
    found = CommandActuator(["true"], words, 10.0, ("aggregated",)).states()
    assert found.pools == Pools.of({"aggregated": PoolCounts(ready=3, draining=1)})


def test_kubernetes_wants_the_workload_of_the_way_of_serving():
    live = LiveConfig(actuator="kubernetes", kubernetes_workload="deployments/engine")
    assert KubernetesActuator(live, object(), ("aggregated",)).target.endswith("deployments/engine")
    with pytest.raises(InputError, match="kubernetes_prefill is not given"):
        KubernetesActuator(live, object())


def test_its_keys_are_those_without_a_role():
    assert keys_of("aggregated").most == "max_instances"
    assert keys_of("decode").most == "max_decode_instances"
