"""The guide's three configurations, written as there, run; so does what is shipped to deploy them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from live_server import prometheus, serving
from live_world import LiveWorld
from sagescale.cli.app import app
from sagescale.declare import declared
from sagescale.errors import InputError
from sagescale.key_file import read_key_file
from sagescale.live.actuators.protocol import PoolStates
from sagescale.live.config import LiveConfig
from sagescale.live.doctor import check
from sagescale.live.exporter import Exporter
from sagescale.live.metrics.source import make_source
from sagescale.live.setup import configured
from sagescale.planner import AutoscalerConfig
from sagescale.planner.describe import commented_yaml, json_schema, yaml_text
from sagescale.planner.loading import load_settings
from sagescale.sim.config import SimulatorConfig
from typer.testing import CliRunner

EMPTY_VECTOR, EMPTY_MATRIX = (
    (200, {"status": "success", "data": {"resultType": kind, "result": []}}, {})
    for kind in ("vector", "matrix")
)
DEPLOY = Path(__file__).resolve().parents[2] / "docs" / "deploy"


def run(*words):
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exception is None or isinstance(result.exception, InputError | SystemExit), result.exception
    return result


def once(tmp_path, text, *words):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return run("plan", "--once", "--config", path, "--set", f"lock_dir={tmp_path}", *words)


def test_prometheus_as_in_the_guide(tmp_path):
    text = 'prometheus_url: "http://localhost:9090"\nnamespace: "sagellm"\nmodel_name: "llama-2-7b"\n'
    with serving() as server:
        server.answers["/api/v1/query"] = prometheus(EMPTY_VECTOR)
        server.answers["/api/v1/query_range"] = EMPTY_MATRIX
        result = once(tmp_path, text, "--set", f"prometheus_url={server.url}")
        query = server.form()["query"]
    assert result.exit_code == 0
    assert "WOULD DO" in result.output
    assert 'namespace="sagellm"' in query
    assert 'model="llama-2-7b"' in query
    assert "vllm:time_to_first_token_seconds_sum" in query


def test_prometheus_not_answering_is_said_and_holds(tmp_path):
    result = once(tmp_path, 'prometheus_url: "http://localhost:1"\nmodel_name: "llama-2-7b"\n')
    assert result.exit_code == 0
    assert "http://localhost:1" in result.output
    assert "hold_unknown_traffic" in result.output


def test_profile_data_alone_as_in_the_guide(tmp_path, shared):
    folder = shared / "profiles" / "dynamo_h200_llama-3.1-8b-fp8"
    result = once(tmp_path, f'profile_data_dir: "{folder}"\nenable_online_learning: false\n')
    assert result.exit_code == 0
    assert "WHY" in result.output


def test_dry_run_as_in_the_guide(tmp_path):
    result = once(tmp_path, "no_operation: true\n")
    assert result.exit_code == 0
    assert "dry_run" in result.output
    assert list(tmp_path.glob("*.sqlite")) == []


def test_a_mistake_is_one_line_with_its_place(tmp_path):
    result = once(tmp_path, "prometheus_url: http://localhost:9090\nmetrics_preset: vlm\n")
    assert isinstance(result.exception, InputError)
    assert re.search(r"config.yaml:2: metrics_preset is 'vlm'; expected one of vllm", str(result.exception))


def test_one_file_holds_the_keys_of_all_three(tmp_path):
    classes = (AutoscalerConfig, SimulatorConfig, LiveConfig)
    path = tmp_path / "all.yaml"
    text = commented_yaml(classes)
    path.write_text(re.sub(r"^# (\w+: )", r"\1", text, flags=re.MULTILINE))
    assert load_settings(classes, [path]).build(LiveConfig) == LiveConfig()
    schema = json_schema(classes)
    assert set(declared(LiveConfig)) < set(schema["properties"])
    assert read_key_file(path)


def test_lists_and_queries_survive_being_written(tmp_path):
    live = LiveConfig(
        prometheus_url="http://h:1", scrape_prefill=["http://a:1/metrics"],
        metric_queries={"requests": 'x{a="b"}'}, actuator_command=["./scale.sh", "--to, it"],
    )  # fmt: skip
    path = tmp_path / "live.yaml"
    path.write_text("".join(f"{name}: {yaml_text(getattr(live, name))}\n" for name in declared(LiveConfig)))
    assert load_settings((LiveConfig,), [path]).build(LiveConfig) == live


# --- what is shipped to deploy it -------------------------------------------------------------------


def exported(world):
    from prometheus_client import generate_latest

    exporter = Exporter(world.config, world.journal, dry_run=False)
    for record, decision in zip(world.log.records, world.log.decisions, strict=True):
        exporter.ticked(record, decision, PoolStates(record.observation.pools))
    for event in world.log.events:
        exporter.happened(event)
    return generate_latest(exporter.registry).decode()


@pytest.fixture
def page():
    world = LiveWorld()
    world.loop.start()
    world.load.requests = 2400.0
    world.ticks(2)
    world.load.broken = "down"
    world.ticks(1, start=3)
    return exported(world)


def test_desired_replicas_are_exported_and_unknown_is_absent(page):
    assert 'sagescale_desired_replicas{pool="prefill"} 4.0' in page
    assert "sagescale_metrics_usable 0.0" in page
    assert 'sagescale_observed{series="requests"}' not in page
    assert 'sagescale_problems_total{code="source_failed"} 1.0' in page


def test_nothing_is_desired_of_pools_that_nobody_knows_until_the_load_is_known():
    world = LiveWorld()
    world.pools.knows = False
    world.load.broken = "down"
    world.loop.start()
    world.ticks(2)
    assert "sagescale_desired_replicas{" not in exported(world), "an HPA would shrink the pools to it"
    world.load.broken = ""
    world.ticks(1, start=3)
    assert 'sagescale_desired_replicas{pool="prefill"}' in exported(world)


@pytest.mark.parametrize("name", ["alerts.yml", "grafana-dashboard.json"])
def test_alerts_and_dashboard_use_metrics_there_are(name, page):
    used = set(re.findall(r"sagescale_[a-z_]+", (DEPLOY / name).read_text()))
    there = set(re.findall(r"^(sagescale_[a-z_]+)", page, flags=re.MULTILINE))
    there |= {
        word.removeprefix("# TYPE ").split()[0] for word in page.splitlines() if word.startswith("# TYPE")
    }
    assert used <= there, used - there


def test_the_dashboards_data_source_is_a_variable():
    dashboard = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
    assert dashboard["templating"]["list"][0]["type"] == "datasource"
    uids = {target["datasource"]["uid"] for panel in dashboard["panels"] for target in panel["targets"]}
    assert uids == {"${datasource}"}


def test_the_manifests_are_yaml_and_the_shipped_configuration_is_valid(tmp_path):
    kinds = {}
    for name in ("hpa.yaml", "keda.yaml", "sagescale.yaml", "alerts.yml", "prometheus.yml"):
        for document in yaml.safe_load_all((DEPLOY / name).read_text()):
            kinds.setdefault(document.get("kind", name), document)
    assert {"HorizontalPodAutoscaler", "ScaledObject", "Deployment", "Role"} < set(kinds)
    path = tmp_path / "c.yaml"
    path.write_text(kinds["ConfigMap"]["data"]["sagescale.yaml"])
    assert configured(None, [path], []).live.actuator == "kubernetes"


def test_the_check_names_what_is_missing_and_what_to_do():
    with serving() as server:
        server.answers["/api/v1/query"] = prometheus(EMPTY_VECTOR)
        source = make_source(LiveConfig(prometheus_url=server.url), "prefill")
        from sagescale.live.actuators.make import DryRun

        found = check(source, DryRun(), 60.0)
        source.close()
    bad = [finding for finding in found if finding.level == "bad"]
    assert any("no instance reports vllm:num_requests_running" in finding.what for finding in bad)
    assert any("metrics_preset" in finding.fix for finding in bad)


def test_the_documentations_yaml_is_valid(tmp_path):
    text = (DEPLOY.parent / "live.md").read_text()
    blocks = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    assert len(blocks) >= 4
    for number, block in enumerate(blocks):
        path = tmp_path / f"{number}.yaml"
        extra = "prometheus_url: http://localhost:9090\n" if "metric_queries" in block else ""
        path.write_text(extra + block)
        load_settings((AutoscalerConfig, SimulatorConfig, LiveConfig), [path]).build(LiveConfig)
