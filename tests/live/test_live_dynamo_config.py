"""``sagescale config import``: Dynamo planner's keys become ours, and what has no counterpart is named."""

from __future__ import annotations

import json
import sys

import pytest
import yaml
from sagescale.cli.app import main
from sagescale.declare import declared
from sagescale.errors import InputError
from sagescale.live.config import LiveConfig
from sagescale.live.dynamo_config import RULES, import_dynamo_config
from sagescale.planner import AutoscalerConfig
from sagescale.planner.loading import load_settings
from sagescale.sim.config import SimulatorConfig

CURRENT = """\
mode: disagg
backend: vllm
optimization_target: sla
ttft_ms: 300
itl_ms: 30.5
throughput_adjustment_interval_seconds: 120
max_gpu_budget: 16
min_endpoint: 2
prefill_min_endpoint: 1
prefill_engine_num_gpu: 4
decode_engine_num_gpu: 2
load_predictor: prophet
prophet_window_size: 40
kalman_r: 3
advisory: true
namespace: prod-llama
model_name: llama
metric_pulling_prometheus_endpoint: https://thanos:9091
metric_pulling_prometheus_token: hunter2
metric_pulling_prometheus_ssl_verify: true
"""


def imported(tmp_path, text, name="planner.yaml"):
    path = tmp_path / name
    path.write_text(text)
    return import_dynamo_config(path)


def values(outcome):
    return yaml.safe_load(outcome.text)


def test_every_key_with_a_counterpart_takes_its_value(tmp_path):
    assert values(imported(tmp_path, CURRENT)) == {
        "target_ttft_ms": 300,
        "target_itl_ms": 30.5,
        "adjustment_interval_sec": 120,
        "max_gpu_budget": 16,
        "min_prefill_instances": 1,
        "min_decode_instances": 2,
        "max_prefill_instances": 4,
        "max_decode_instances": 8,
        "prefill_gpus_per_instance": 4,
        "decode_gpus_per_instance": 2,
        "load_predictor_type": "prophet",
        "history_points": 40,
        "no_operation": True,
        "prometheus_url": "https://thanos:9091",
        "tls_verify": True,
        "metrics_preset": "dynamo",
        "namespace": "prod-llama",
        "model_name": "llama",
    }


def test_what_is_written_is_a_configuration(tmp_path):
    path = tmp_path / "ours.yaml"
    path.write_text(imported(tmp_path, CURRENT).text)
    settings = load_settings((AutoscalerConfig, SimulatorConfig, LiveConfig), [path])
    assert settings.build(AutoscalerConfig).target_ttft_ms == 300
    assert settings.build(LiveConfig).metrics_preset == "dynamo"


def test_what_has_no_counterpart_is_named_with_its_line_and_secrets_are_not_copied(tmp_path):
    outcome = imported(tmp_path, CURRENT)
    named = {line.split()[1].rstrip(":"): line.split()[0] for line in outcome.left}
    assert set(named) == {"backend", "kalman_r", "metric_pulling_prometheus_token"}
    assert named["kalman_r"].endswith("planner.yaml:14")
    assert all(line in outcome.text for line in outcome.left)
    assert "hunter2" not in outcome.text


def test_defaults_are_dynamos_where_a_file_is_silent(tmp_path):
    found = values(imported(tmp_path, "optimization_target: sla\n"))
    assert (found["target_ttft_ms"], found["target_itl_ms"]) == (500, 50)
    assert (found["adjustment_interval_sec"], found["max_gpu_budget"]) == (180, 8)
    assert (found["load_predictor_type"], found["namespace"]) == ("arima", "dynamo")
    assert (found["max_prefill_instances"], found["max_decode_instances"]) == (8, 8)


def test_names_of_older_versions_are_known(tmp_path):
    old = """
        ttft: 200
        itl: 20
        adjustment_interval: 60
        load_prediction_window_size: 25
        no_correction: true
        enable_loadbased_scaling: true
    """
    outcome = imported(tmp_path, "\n".join(line.strip() for line in old.splitlines()))
    found = values(outcome)
    assert (found["target_ttft_ms"], found["target_itl_ms"], found["adjustment_interval_sec"]) == (
        200,
        20,
        60,
    )
    assert found["history_points"] == 25
    assert found["enable_correction"] is False
    assert any("enable_loadbased_scaling" in line for line in outcome.left)


def test_json_and_a_deployment_request_say_the_same(tmp_path):
    bare = values(imported(tmp_path, CURRENT))
    keys = yaml.safe_load(CURRENT)
    request = {"kind": "DynamoGraphDeploymentRequest", "spec": {"features": {"planner": keys}}}
    assert values(imported(tmp_path, json.dumps(keys, indent="\t"), "planner.json")) == bare
    assert values(imported(tmp_path, yaml.safe_dump(request), "request.yaml")) == bare


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("mode: agg", "mode: sagescale plans"),
        ("optimization_target: throughput", "optimization_target: sagescale sizes"),
        (
            "profile_results_dir: use-pre-swept-results:h100:vllm:m:2:1:1:16:256:8",
            "profile_results_dir: pre-swept",
        ),
        ("throughput_metrics_source: router", "throughput_metrics_source: only the frontend"),
        ("min_gpu_budget: 4", "min_gpu_budget: there is no floor"),
        ("nonsense: 4", "nonsense: not a key of Dynamo"),
        ("prophet_window_size: 40", "prophet_window_size: the predictor is not prophet"),
    ],
)
def test_a_value_without_a_counterpart_is_named(tmp_path, line, why):
    outcome = imported(tmp_path, f"ttft_ms: 100\n{line}\n")
    assert any(f"planner.yaml:2 {why}" in left for left in outcome.left), outcome.left


def test_no_limit_of_gpus_stays_no_limit(tmp_path):
    found = values(imported(tmp_path, "max_gpu_budget: -1\n"))
    assert (
        min(found["max_gpu_budget"], found["max_prefill_instances"], found["max_decode_instances"]) >= 100_000
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ttft_ms: -5\n", ("planner.yaml:1", "ttft_ms", "-5", "> 0")),
        ("ttft_ms: fast\n", ("planner.yaml:1", "ttft_ms", "'fast'")),
        ("load_predictor: oracle\n", ("planner.yaml:1", "load_predictor", "'oracle'", "expected one of")),
        ("max_gpu_budget: 4\nmin_endpoint: 3\n", ("planner.yaml", "max_gpu_budget is 4", "6 GPUs")),
        ("replicas: 3\n", ("planner.yaml", "replicas", "Dynamo planner's")),
        ("", ("planner.yaml", "it has none")),
        ("spec: {features: {}}\n", ("planner.yaml", "spec.features has no planner")),
        ("spec: 3\nttft: 1\n", ("planner.yaml:1", "spec is 3")),
        ("ttft_ms: [1\n", ("planner.yaml", "not YAML")),
        ('{"ttft_ms": }', ("planner.yaml", "not JSON")),
        ("- ttft_ms\n", ("planner.yaml:1", "found a list; expected `key: value` lines")),
        ("metric_pulling_prometheus_endpoint: http://u:secret@h:1\n", ("planner.yaml", "prometheus_url")),
    ],
)
def test_bad_input_is_one_line_that_says_where(tmp_path, text, words):
    with pytest.raises(InputError) as error:
        imported(tmp_path, text)
    message = str(error.value)
    assert "\n" not in message
    assert "secret" not in message
    for word in words:
        assert word in message


def test_the_command_writes_the_file_and_prints_what_has_no_counterpart(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "planner.yaml").write_text(CURRENT)
    words = ["sagescale", "config", "import", "planner.yaml", "--out", "ours.yaml"]
    monkeypatch.setattr(sys, "argv", words)
    main_exit_code()
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "wrote ours.yaml: 18 keys"
    assert "no counterpart: planner.yaml:2 backend: the profile says what the engine is" in printed
    assert main_exit_code() == 2  # already there
    assert "ours.yaml: already there" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["sagescale", "config", "import", "missing.yaml"])
    assert main_exit_code() == 2
    assert "missing.yaml: cannot be read" in capsys.readouterr().err


def main_exit_code():
    try:
        main()
    except SystemExit as stop:
        return stop.code
    return 0


def test_rules_name_keys_that_exist_and_no_key_twice():
    known = {*declared(AutoscalerConfig), *declared(LiveConfig)}
    assert {ours for rule in RULES for ours in rule.ours} <= known
    names = [name for rule in RULES for name in rule.names]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("key", ["max_gpu_budget: 16", "itl_ms: 30.5"])
def test_null_is_not_given(tmp_path, key):
    null = CURRENT.replace(key, f"{key.partition(':')[0]}: null")
    assert values(imported(tmp_path, null)) == values(imported(tmp_path, CURRENT.replace(f"{key}\n", "")))


# --- manifests --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "07b-dgdr-sla/dgdr-v1beta1.yaml",
            {"target_ttft_ms": 250, "target_itl_ms": 20, "max_gpu_budget": 12, "model_name": "Acme/Acme-8B"},
        ),
        (
            "08-dynamo-dgd/dgd-args.yaml",
            {
                "target_ttft_ms": 250, "target_itl_ms": 20, "adjustment_interval_sec": 60,
                "max_gpu_budget": 12, "load_predictor_type": "prophet", "enable_correction": False,
            },
        ),
        (
            "08-dynamo-dgd/dgdr-v1alpha1.yaml",
            {"target_ttft_ms": 250, "target_itl_ms": 20, "min_prefill_instances": 2},
        ),
    ],
)  # fmt: skip
def test_the_planner_is_found_in_the_manifests_it_is_deployed_by(shared, name, expected):
    found = values(import_dynamo_config(shared / "repro" / name))
    assert {key: found[key] for key in expected} == expected


SERVICE = """kind: DynamoGraphDeployment
spec:
  services:
    Planner:
      extraPodSpec:
        mainContainer:
          args: {args}
"""


@pytest.mark.parametrize(
    "args",
    [
        '["--ttft=300", "--itl", "25"]',
        '["python3 -m planner --ttft 300 --itl=25"]',
        "['--config', '{\"ttft_ms\": 300, \"itl_ms\": 25}']",
        "['--config', '/etc/planner/keys.yaml', '--itl=25']",
    ],
)
def test_arguments_inline_json_and_a_config_map_beside_are_one(tmp_path, args):
    beside = "kind: ConfigMap\ndata:\n  keys.yaml: |\n    ttft_ms: 300\n    itl_ms: 99\n---\n"
    found = values(imported(tmp_path, beside + SERVICE.format(args=args)))
    assert (found["target_ttft_ms"], found["target_itl_ms"]) == (300, 25)


def test_values_of_arguments_are_kept_as_they_are(tmp_path):
    args = "['--ttft=300', '--namespace=my-team', '--max-gpu-budget=-1', '--profile-results-dir=/a-b/c-d']"
    found = values(imported(tmp_path, SERVICE.format(args=args)))
    assert (found["namespace"], found["profile_data_dir"]) == ("my-team", "/a-b/c-d")
    assert found["max_gpu_budget"] == 1_000_000


def test_an_argument_wins_over_the_file_it_names_under_any_of_its_names(tmp_path):
    beside = "kind: ConfigMap\ndata: {p.yaml: '{ttft: 300, itl: 25}'}\n---\n"
    found = values(
        imported(tmp_path, beside + SERVICE.format(args="['--config=/etc/p.yaml', '--ttft-ms=200']"))
    )
    assert (found["target_ttft_ms"], found["target_itl_ms"]) == (200, 25)


def test_two_planners_in_a_file_are_refused(tmp_path):
    one = SERVICE.format(args="['--ttft=300']")
    with pytest.raises(InputError, match="2 places with a planner in it"):
        imported(tmp_path, f"{one}---\n{one}")


def test_components_of_v1beta1_are_read_as_services_are(tmp_path):
    text = """apiVersion: nvidia.com/v1beta1
kind: DynamoGraphDeployment
spec:
  components:
    - {name: decode, type: decode, podTemplate: {spec: {containers: [{name: main, args: [--ttft=9]}]}}}
    - name: scaler
      type: planner
      podTemplate:
        spec:
          containers:
            - {name: sidecar, args: ["--ttft=99"]}
            - {name: main, args: ["--config", "/etc/planner/planner-config.json"]}
---
kind: ConfigMap
data: {planner-config.json: '{"ttft_ms": 300, "itl_ms": 25}'}
"""
    found = values(imported(tmp_path, text))
    assert (found["target_ttft_ms"], found["target_itl_ms"]) == (300, 25)


def test_what_else_a_request_asks_for_is_named(tmp_path):
    spec = "spec:\n  sla: {ttft: 250, itl: 20, isl: 3000, e2eLatency: 9000}\n  autoApply: true\n"
    left = imported(tmp_path, f"kind: DynamoGraphDeploymentRequest\n{spec}").left
    assert any(" isl: lengths are observed" in line for line in left)
    assert any(" sla.e2eLatency: " in line for line in left)


def test_an_explicit_key_wins_over_what_the_request_asks_for(tmp_path):
    spec = "spec:\n  sla: {ttft: 250, itl: 20}\n  features: {planner: {itl: 15}}\n"
    found = values(imported(tmp_path, f"kind: DynamoGraphDeploymentRequest\n{spec}"))
    assert (found["target_ttft_ms"], found["target_itl_ms"]) == (250, 15)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ttft: 0.5\nitl: 0.05\n", ("planner.yaml:1", "ttft", "write 500")),
        ("ttft: 300\nitl: 0.05\n", ("planner.yaml:2", "itl", "write 50")),
        (SERVICE.format(args="['--config', '/x/y.yaml']"), ("planner.yaml:7", "/x/y.yaml", "ConfigMap")),
        (SERVICE.format(args='["a \'b --c"]'), ("planner.yaml:7", "not a command line")),
        ("kind: Service\nspec: {}\n", ("planner.yaml", "no planner in it (Service)")),
    ],
)
def test_what_cannot_be_found_or_is_in_seconds_says_what_to_pass(tmp_path, text, words):
    with pytest.raises(InputError) as error:
        imported(tmp_path, text)
    for word in words:
        assert word in str(error.value)
