"""`sagescale config`: files written, shown, checked and described."""

from __future__ import annotations

import json
import re

import pytest
from sagescale.cli.config import config_app
from sagescale.declare import declared
from sagescale.errors import InputError
from sagescale.live.config import LiveConfig
from sagescale.planner import AutoscalerConfig
from sagescale.sim.config import SimulatorConfig
from typer.testing import CliRunner

KEYS = [*declared(AutoscalerConfig), *declared(SimulatorConfig), *declared(LiveConfig)]


def config(*arguments: object) -> str:
    """Run the command and return what it prints; what it refuses is raised."""
    result = CliRunner().invoke(config_app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_init_writes_a_file_that_validates_and_sets_the_policy_alone(tmp_path):
    path = tmp_path / "auto.yaml"
    config("init", "--out", path)
    text = path.read_text()
    assert config("validate", path) == "ok: 1 key set, the others at their defaults\n"
    assert [name for name in KEYS if f"\n# {name}: " not in text] == ["policy"]
    assert "\n# default classic; slo sizes for target_attainment of the requests" in text
    assert "\npolicy: slo\n" in text
    assert config("init") == text


def test_who_starts_from_init_gets_slo_and_who_follows_the_guide_its_own_policy(tmp_path):
    path = tmp_path / "auto.yaml"
    config("init", "--out", path)
    assert re.search(
        rf"^policy: slo +# {re.escape(str(path))}:\d+$", config("show", "--config", path), re.MULTILINE
    )
    assert AutoscalerConfig().policy == "classic"
    assert re.search(r"^policy: classic +# default$", config("show"), re.MULTILINE)


def test_init_does_not_overwrite_unless_told_to(tmp_path):
    path = tmp_path / "auto.yaml"
    path.write_text("target_ttft_ms: 1\n")
    with pytest.raises(InputError, match="already there"):
        config("init", "--out", path)
    assert path.read_text() == "target_ttft_ms: 1\n"
    config("init", "--out", path, "--force")
    assert path.read_text().startswith("# sagescale configuration")
    assert list(tmp_path.iterdir()) == [path]


def test_init_into_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        config("init", "--out", tmp_path / "none" / "auto.yaml")


def test_show_says_where_each_value_comes_from(tmp_path):
    path = tmp_path / "auto.yaml"
    path.write_text("\ntarget_ttft_ms: 150\nprediction_window_size: 10\n")
    shown = {
        line.partition(":")[0]: line.partition(": ")[2]
        for line in config("show", "--config", path, "--set", "max_batch_tokens=4096").splitlines()
    }
    assert list(shown) == KEYS

    def entry(name: str) -> list[str]:
        return [part.strip() for part in shown[name].split("  # ")]

    assert entry("target_ttft_ms") == ["150.0", f"{path}:2"]
    assert entry("target_itl_ms") == ["50.0", "default"]
    assert entry("max_batch_tokens") == ["4096", "--set"]
    assert entry("prefill_gpus_per_instance") == ["1", "the profile"]
    assert entry("history_points") == ["10", "prediction_window_size"]


def test_what_show_prints_is_a_configuration_that_shows_the_same(tmp_path):
    path = tmp_path / "shown.yaml"
    arguments = ["--set", "startup_delay_s=lognormal:median=60,p90=90", "--set", "policy=classic"]
    path.write_text(config("show", *arguments))
    again = config("show", "--config", path)
    assert [line.split("  # ")[0].strip() for line in again.splitlines()] == [
        line.split("  # ")[0].strip() for line in path.read_text().splitlines()
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max_gpu_budget: 1\n", r":1: max_gpu_budget is 1 but the minima need 2 GPUs"),
        ("prefill_gpus_per_instance: 4\n", r":1: prefill_gpus_per_instance is 4 but .* have 1 GPUs"),
        ("startup_delay_s: soon\n", r":1: startup_delay_s is 'soon'; expected seconds"),
        ("target_ttft: 3\n", r":1: unknown key 'target_ttft'; did you mean 'target_ttft_ms'?"),
    ],
)
def test_validate_refuses_with_one_line(tmp_path, text, expected):
    path = tmp_path / "auto.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=expected) as refused:
        config("validate", path)
    assert refused.value.exit_code == 2
    assert "\n" not in str(refused.value)


def test_validate_names_keys_that_have_no_effect(tmp_path):
    path = tmp_path / "auto.yaml"
    path.write_text("routing_strategy: round_robin\nrouter_staleness_s: 2\nmax_batched_tokens: 4096\n")
    *notes, answer = config("validate", path).splitlines()
    assert notes == [
        "note: max_batched_tokens has no effect: engine_scheduler is batch",
        "note: router_staleness_s has no effect: routing_strategy is round_robin",
    ]
    assert answer.startswith("ok: 3 keys set")


def test_the_schema_lists_every_key_with_its_default():
    schema = json.loads(config("schema"))
    assert list(schema["properties"]) == KEYS
    assert all({"description", "default"} <= set(entry) for entry in schema["properties"].values())
