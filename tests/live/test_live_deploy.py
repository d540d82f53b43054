"""What is shipped: the manifest starts, alert rules hold for two planners, the HPA is the identity."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from live_world import LiveWorld
from sagescale.live.exporter import Exporter
from sagescale.planner import AutoscalerConfig

REPO = Path(__file__).resolve().parents[2]
DEPLOY = REPO / "docs" / "deploy"


# --- the alert rules --------------------------------------------------------------------------------


def series(instance, model, *, dry_run="false", ends=1000, **values):
    """Two labels tell planners apart, and the pod's address may change."""
    at = f'instance="{instance}",job="sagescale"'
    info = f'{at},dry_run="{dry_run}",model="{model}",target="{model} pools",policy="slo",version="1"'
    found = {f"sagescale_build_info{{{info}}}": 1}
    found |= {f"sagescale_target_ttft_ms{{{at}}}": 200, f"sagescale_target_itl_ms{{{at}}}": 50}
    found |= {f"sagescale_target_attainment{{{at}}}": 0.99}
    found |= {f'sagescale_observed{{{at},series="{name}"}}': value for name, value in values.items()}
    return [
        {"series": name, "values": value if isinstance(value, str) else f"{value}x{ends}"}
        for name, value in found.items()
    ]


def alerts(tmp_path, given, name, at="20m"):
    """Return the instances or models for which an alert fires."""
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed")
    shutil.copy(DEPLOY / "alerts.yml", tmp_path / "alerts.yml")
    # promtool compares with what is expected and prints what it got; nothing is expected.
    test = {
        "rule_files": ["alerts.yml"],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": given,
                "alert_rule_test": [{"eval_time": at, "alertname": name, "exp_alerts": []}],
            }
        ],
    }
    (tmp_path / "test.yml").write_text(yaml.safe_dump(test))
    done = subprocess.run(
        ["promtool", "test", "rules", "test.yml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0 or "got:[" in re.sub(r"\s", "", said), said
    found = re.findall(r"Labels:\{([^}]*)\}", re.sub(r"\s", "", said.partition("got:")[2]))
    return sorted(next(iter(re.findall(r'(?:instance|model)="([^"]*)"', labels)), "") for labels in found)


def two(first=None, second=None):
    return series("a:1", "big", **(first or {})) + series("b:1", "small", **(second or {}))


@pytest.mark.parametrize(
    ("name", "observed", "fires"),
    [
        ("SagescaleSlaMissed", {"ttft_ms_mean": 300, "itl_ms_mean": 10}, True),
        ("SagescaleSlaMissed", {"ttft_ms_mean": 100, "itl_ms_mean": 60}, True),
        ("SagescaleSlaMissed", {"ttft_ms_mean": 100, "itl_ms_mean": 10}, False),
        ("SagescaleAttainmentMissed", {"ttft_attainment": 0.9, "itl_attainment": 1}, True),
        ("SagescaleAttainmentMissed", {"ttft_attainment": 0.995, "itl_attainment": 0.995}, False),
    ],
)
def test_each_of_two_planners_is_judged_by_its_own_targets(tmp_path, name, observed, fires):
    well = {"ttft_ms_mean": 100, "itl_ms_mean": 10, "ttft_attainment": 1, "itl_attainment": 1}
    assert alerts(tmp_path, two(observed, well), name) == (["a:1"] if fires else [])
    assert alerts(tmp_path, two(well, observed), name) == (["b:1"] if fires else [])


def test_one_of_two_planners_that_is_gone_is_missed(tmp_path):
    gone = series("a:1", "big", ends=5)
    assert alerts(tmp_path, gone + series("b:1", "small"), "SagescaleDown") == ["big"]
    assert alerts(tmp_path, two(), "SagescaleDown") == []


def test_a_planner_that_moved_is_not_missed(tmp_path):
    """A pod comes back under another address."""
    moved = [{"series": item["series"], "values": f"_x6 {item['values']}"} for item in series("c:1", "big")]
    given = series("a:1", "big", ends=5) + moved + series("b:1", "small")
    assert alerts(tmp_path, given, "SagescaleDown") == []


def test_no_planner_at_all_and_a_rehearsal_alone_are_missed(tmp_path):
    other = [{"series": "up", "values": "1x100"}]
    assert alerts(tmp_path, other, "SagescaleDown") == [""]
    rehearsal = series("a:1", "big", dry_run="true")
    assert alerts(tmp_path, rehearsal, "SagescaleDown") == [""]


# --- the HPA and the dashboard ----------------------------------------------------------------------


def hpa_size(current, metric, tolerance):
    """What an HPA makes of an AverageValue of 1 (``GetExternalPerPodMetricReplicas``)."""
    ratio = metric / current
    return current if abs(1.0 - ratio) <= tolerance else metric


def test_the_hpa_is_the_identity():
    for document in yaml.safe_load_all((DEPLOY / "hpa.yaml").read_text()):
        for direction in ("scaleUp", "scaleDown"):
            tolerance = document["spec"]["behavior"][direction]["tolerance"]
            sizes = range(1, 101)
            assert all(hpa_size(at, to, tolerance) == to for at in sizes for to in sizes)
    assert hpa_size(11, 12, 0.1) == 11, "what it would be without"


def test_the_dashboard_and_the_alerts_name_what_is_exported():
    config = AutoscalerConfig()
    registry = Exporter(config, LiveWorld().journal, dry_run=False).registry
    known = {
        collector._name + ("_total" if collector._type == "counter" else "")
        for collector in registry._collector_to_names
    }
    dashboard = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    assert all('instance=~"$planner"' in expression for expression in asked)
    assert {item["name"] for item in dashboard["templating"]["list"]} == {"datasource", "model", "planner"}
    for name in ("ttft_attainment", "itl_attainment", "ttft_ms_p99", "itl_ms_p99"):
        assert any(f'"{name}"' in expression for expression in asked)
    text = "\n".join(asked) + (DEPLOY / "alerts.yml").read_text()
    assert set(re.findall(r"sagescale_\w+", text)) <= known


def test_what_the_planner_reads_is_exported():
    world = LiveWorld()
    exporter = Exporter(world.config, world.journal, dry_run=False, model="m", target="t")
    world.loop._watchers = (exporter,)
    plain = world.load.collect
    read = {"ttft_attainment": 0.98, "itl_attainment": 0.97, "ttft_ms_p99": 410.0, "itl_ms_p99": 61.0}

    def collect(*asked):
        metrics, window_s = plain(*asked)
        metrics.values.update(read)
        return metrics, window_s

    world.load.collect = collect
    world.loop.start()
    world.ticks(1)
    for name, value in read.items():
        assert exporter.registry.get_sample_value("sagescale_observed", {"series": name}) == value
    assert exporter.registry.get_sample_value("sagescale_target_attainment") == 0.99
