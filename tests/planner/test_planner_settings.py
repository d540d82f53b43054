"""Configuration keys: what is refused, what is said about it, and where it was written."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from planner_world import RoundNumbers
from sagescale.declare import check, declared, setting
from sagescale.errors import InputError
from sagescale.key_file import parse_scalar, read_key_file
from sagescale.planner import AutoscalerConfig
from sagescale.planner.describe import commented_yaml, json_schema, resolved_yaml, yaml_text
from sagescale.planner.loading import autoscaler_config, load_settings

if TYPE_CHECKING:
    from pathlib import Path


def parse_span(value: object) -> tuple[int, ...]:
    if isinstance(value, tuple | list):
        return tuple(value)
    if isinstance(value, int):
        return (value,)
    if isinstance(value, str) and value.count("-") == 1:
        return tuple(int(part) for part in value.split("-"))
    raise ValueError("expected a number or low-high")


@dataclass(frozen=True, slots=True)
class Toy:
    """A toy; with one key of every kind."""

    share: float = setting(0.5, doc="A share.", at_least=0, below=1)
    ratio: float | None = setting(None, doc="A ratio.", unit="x", above=0)
    mode: Literal["fast", "slow"] = setting("fast", doc="A mode.")
    label: str | None = setting(None, doc="A label.")
    span: tuple[int, ...] = setting((1,), doc="A span.", parse=parse_span, expected="a number or low-high")
    wide: tuple[float, float] = setting((0.0, 1.0), doc="Two.")
    loud: bool = setting(False, doc="Loud.")

    def __post_init__(self) -> None:
        check(self)


BOTH = (AutoscalerConfig, Toy)


def write(folder: Path, text: str, name: str = "auto.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("target_ttft_ms", 0, "target_ttft_ms is 0; expected a number > 0"),
        ("target_ttft_ms", "200", "target_ttft_ms is '200'; expected a number > 0"),
        ("target_ttft_ms", math.nan, "target_ttft_ms is nan; expected a number > 0"),
        ("target_itl_ms", math.inf, "target_itl_ms is inf; expected a number > 0"),
        ("target_itl_ms", 10**400, "expected a number > 0"),
        ("target_itl_ms", True, "target_itl_ms is true; expected a number > 0"),
        ("adjustment_interval_sec", True, "adjustment_interval_sec is true; expected an integer >= 1"),
        ("adjustment_interval_sec", 60.5, "adjustment_interval_sec is 60.5; expected an integer >= 1"),
        ("max_gpu_budget", -3, "max_gpu_budget is -3; expected an integer >= 1"),
        ("max_gpu_budget", None, "max_gpu_budget is null; expected an integer >= 1"),
        ("no_operation", 1, "no_operation is 1; expected true or false"),
        ("no_operation", "yes", "no_operation is 'yes'; expected true or false"),
        ("correction_bounds", [2.0, 0.5], r"correction_bounds is \[2, 0.5\]; expected low <= 1 <= high"),
        ("correction_bounds", [1.0], r"correction_bounds is \[1.0\]; expected two numbers \[low, high\] > 0"),
        ("correction_bounds", [0, 2], r"expected two numbers \[low, high\] > 0"),
        ("history_points", 0, "history_points is 0; expected an integer >= 1, or null"),
        (
            "season_sec",
            60,
            "season_sec is 60 but adjustment_interval_sec is 60; expected a period",
        ),
        ("load_predictor_type", "konstant", "expected one of constant, .*; did you mean 'constant'?"),
        ("profile_data_dir", 7, "profile_data_dir is 7; expected text, or null"),
        ("load_headroom", 0, "load_headroom is 0; expected a number > 0"),
    ],
)
def test_a_bad_value_is_refused_with_key_value_and_range(key, value, expected):
    with pytest.raises(InputError, match=expected):
        AutoscalerConfig(**{key: value})


def test_integers_are_accepted_for_numbers_and_become_them():
    config = AutoscalerConfig(target_ttft_ms=150, correction_bounds=[1, 3])
    assert type(config.target_ttft_ms) is float
    assert config.correction_bounds == (1.0, 3.0)


@pytest.mark.parametrize("pool", ["prefill", "decode"])
def test_a_minimum_above_its_maximum_names_both(pool):
    with pytest.raises(InputError, match=rf"min_{pool}_instances is 9 but max_{pool}_instances is 8"):
        AutoscalerConfig(**{f"min_{pool}_instances": 9, f"max_{pool}_instances": 8, "max_gpu_budget": 99})


def test_minima_above_the_budget_name_every_key():
    with pytest.raises(InputError, match="max_gpu_budget is 10 but the minima need 11 GPUs") as refused:
        AutoscalerConfig(max_gpu_budget=10, min_prefill_instances=2, min_decode_instances=3)
    for part in (
        "min_prefill_instances 2",
        "prefill_gpus_per_instance 4",
        "min_decode_instances 3",
        "decode_gpus_per_instance 1",
    ):
        assert part in str(refused.value)


def test_one_flat_file_fills_several_classes(tmp_path):
    path = write(tmp_path, "target_ttft_ms: 150\nshare: 0.25\nspan: 3-5\n")
    settings = load_settings(BOTH, [path])
    assert settings.build(AutoscalerConfig).target_ttft_ms == 150.0
    assert settings.build(Toy) == Toy(share=0.25, span=(3, 5))
    assert settings.explicit == {"target_ttft_ms", "share", "span"}
    assert settings.where("share") == f"{path}:2"
    assert settings.where("ratio") is None


def test_later_files_win_and_set_wins_over_files(tmp_path):
    first = write(tmp_path, "share: 0.1\nratio: 2\n", "a.yaml")
    second = write(tmp_path, "share: 0.2\n", "b.yaml")
    settings = load_settings(BOTH, [first, second], ["ratio=1e-3"])
    assert settings.build(Toy) == Toy(share=0.2, ratio=0.001)
    assert settings.where("ratio") == "--set"


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("ratio=null", Toy()),
        ("ratio=.5", Toy(ratio=0.5)),
        ("label=2024", Toy(label="2024")),
        ("label=null", Toy()),
        ("label=a: b", Toy(label="a: b")),
        ("loud=true", Toy(loud=True)),
        ("wide=0.5,3", Toy(wide=(0.5, 3.0))),
        ("wide=[0.5, 3]", Toy(wide=(0.5, 3.0))),
        ("span=7", Toy(span=(7,))),
        ("span=7-9", Toy(span=(7, 9))),
        (" mode =slow", Toy(mode="slow")),
    ],
)
def test_overrides_are_read_as_their_keys_type(override, value):
    assert load_settings(BOTH, [], [override]).build(Toy) == value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "target_ttft_ms: 1\nmax_gpu_budgett: 3\n",
            r"auto.yaml:2: unknown key 'max_gpu_budgett'; did you",
        ),
        ("zzz: 1\n", r"auto.yaml:1: unknown key 'zzz'; `sagescale config schema` lists the keys"),
        (
            "a: 1\n\nmax_gpu_budget: -3\n".replace("a: 1", "share: 0"),
            r"auto.yaml:3: max_gpu_budget is -3; exp",
        ),
        ("share: 0\nshare: 0.1\n", r"auto.yaml:2: share is given twice, first on line 1"),
        ("share: [1\n", r"auto.yaml:2: not YAML"),
        ("- 1\n", r"auto.yaml:1: found a list; expected `key: value` lines"),
        ("just text\n", r"auto.yaml:1: found 'just text'; expected `key: value` lines"),
        ("share: .inf\n", r"auto.yaml:1: share is inf; expected a number >= 0 and < 1"),
        ("share: .nan\n", r"auto.yaml:1: share is nan; expected a number >= 0 and < 1"),
        ("share: '0.5'\n", r"auto.yaml:1: share is '0.5'; expected a number"),
        ("loud: yes\n", r"auto.yaml:1: loud is 'yes'; expected true or false"),
        ("mode: fats\n", r"auto.yaml:1: mode is 'fats'; expected one of fast, slow; did you mean 'fast'?"),
        ("span: x\n", r"auto.yaml:1: span is 'x'; expected a number or low-high"),
        ("share: !!python/object:os.system 1\n", r"auto.yaml:1: the tag .* is not accepted"),
        ("share: &a 1\nratio: *a\n", r"auto.yaml:1: anchors and aliases are not accepted"),
        ("? [1]\n: 2\n", r"auto.yaml:1: a key must be a plain name"),
        ("[" * 5000, r"auto.yaml:1: nested too deeply"),
    ],
)
def test_a_bad_file_is_one_line_with_its_place(tmp_path, text, expected):
    path = write(tmp_path, text)
    with pytest.raises(InputError, match=expected) as refused:
        load_settings(BOTH, [path])
    assert "\n" not in str(refused.value)


def test_keys_that_clash_say_where_both_stand(tmp_path):
    path = write(tmp_path, "min_decode_instances: 9\nshare: 0\nmax_decode_instances: 8\n")
    with pytest.raises(InputError, match=rf"{path}:1, {path}:3: min_decode_instances is 9 but max"):
        load_settings(BOTH, [path]).build(AutoscalerConfig)


@pytest.mark.parametrize("override", ["share", "=3", ""])
def test_an_override_without_key_and_value_is_refused(override):
    with pytest.raises(InputError, match="expected key=value"):
        load_settings(BOTH, [], [override])


def test_files_that_cannot_be_read_are_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_key_file(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="cannot be read"):
        read_key_file(tmp_path)
    binary = tmp_path / "b.yaml"
    binary.write_bytes(b"share: \xff\xfe\n")
    with pytest.raises(InputError, match="not UTF-8"):
        read_key_file(binary)


def test_an_empty_file_sets_nothing(tmp_path):
    assert load_settings(BOTH, [write(tmp_path, "# nothing\n")]).explicit == frozenset()


@given(st.text(max_size=60))
def test_no_text_whatever_is_a_traceback(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("any") / "any.yaml"
    path.write_text(text, encoding="utf-8", errors="replace")
    with contextlib.suppress(InputError):
        load_settings(BOTH, [path])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("60", 60),
        ("-2", -2),
        ("010", 10),
        ("12:30", "12:30"),
        ("yes", "yes"),
        ("true", True),
        ("", None),
        ("~", None),
        ("0x10", "0x10"),
        ("-.inf", -math.inf),
        ("9" * 5000, math.inf),
    ],
)
def test_scalars_follow_yaml_1_2(text, value):
    assert parse_scalar(text) == value
    assert type(parse_scalar(text)) is type(value)


@given(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=30)
    | st.lists(st.integers(), max_size=3)
)
def test_what_is_written_reads_back(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("back") / "back.yaml"
    path.write_text(f"key: {yaml_text(value)}\n", encoding="utf-8")
    assert read_key_file(path)["key"].value == value


def test_a_key_of_two_classes_is_a_mistake_of_ours():
    with pytest.raises(TypeError, match="declared by"):
        load_settings((AutoscalerConfig, AutoscalerConfig))


def test_gpus_an_instance_are_the_profiles_where_unset():
    perf = RoundNumbers(prefill_gpus=2, decode_gpus=8)
    config = autoscaler_config(load_settings(BOTH), perf)
    assert (config.prefill_gpus_per_instance, config.decode_gpus_per_instance) == (2, 8)


def test_minima_are_judged_with_the_profiles_gpus():
    settings = load_settings(BOTH, [], ["min_prefill_instances=10"])
    assert autoscaler_config(settings, RoundNumbers()).minimum_gpus == 11
    with pytest.raises(InputError, match="the minima need 81 GPUs"):
        autoscaler_config(settings, RoundNumbers(prefill_gpus=8))


def test_other_gpus_than_the_profiles_are_refused_with_both(tmp_path):
    path = write(tmp_path, "prefill_gpus_per_instance: 4\n")
    with pytest.raises(InputError, match=rf"{path}:1: prefill_gpus_per_instance is 4 but .* have 2 GPUs"):
        autoscaler_config(load_settings(BOTH, [path]), RoundNumbers(prefill_gpus=2))
    assert autoscaler_config(load_settings(BOTH, [path]), RoundNumbers(prefill_gpus=4))


@pytest.mark.parametrize(
    ("overrides", "history"),
    [
        ([], None),
        (["prediction_window_size=10"], 10),
        (["prediction_window_size=10", "history_points=99"], 99),
        (["prediction_window_size=10", "history_points=null"], None),
    ],
)
def test_a_window_given_explicitly_bounds_the_fitted_predictors(overrides, history):
    assert autoscaler_config(load_settings(BOTH, [], overrides), RoundNumbers()).history_points == history


def test_the_commented_file_is_all_defaults_and_its_lines_are_the_keys(tmp_path):
    text = commented_yaml(BOTH)
    assert load_settings(BOTH, [write(tmp_path, text)]).explicit == frozenset()
    names = [*declared(AutoscalerConfig), *declared(Toy)]
    switched_on = "\n".join(
        line.removeprefix("# ") if line.removeprefix("# ").partition(":")[0] in names else line
        for line in text.splitlines()
    )
    settings = load_settings(BOTH, [write(tmp_path, switched_on, "on.yaml")])
    assert settings.explicit == set(names)
    assert settings.build(AutoscalerConfig) == AutoscalerConfig()
    assert settings.build(Toy) == Toy()


def test_resolved_values_read_back_as_themselves(tmp_path):
    config = AutoscalerConfig(target_itl_ms=1e-7, correction_bounds=(0.25, 4), profile_data_dir="a: #b")
    values = {name: getattr(config, name) for name in declared(AutoscalerConfig)}
    text = resolved_yaml(values, dict.fromkeys(values, "default"))
    assert load_settings([AutoscalerConfig], [write(tmp_path, text)]).build(AutoscalerConfig) == config


def test_the_schema_says_what_the_checks_enforce():
    properties = json_schema(BOTH)["properties"]
    assert list(properties) == [*declared(AutoscalerConfig), *declared(Toy)]
    assert properties["share"] | {"description": ""} == {
        "type": "number",
        "minimum": 0,
        "exclusiveMaximum": 1,
        "description": "",
        "default": 0.5,
    }
    assert properties["ratio"]["type"] == ["number", "null"]
    assert properties["mode"]["enum"] == ["fast", "slow"]
    assert properties["correction_bounds"]["prefixItems"][0]["exclusiveMinimum"] == 0
    assert "constant" in properties["load_predictor_type"]["enum"]


def test_where_no_predictor_is_given_it_is_the_one_that_the_policy_comes_with():
    assert declared(AutoscalerConfig)["load_predictor_type"].default == "constant"
    for keys, predictor in (
        (["policy=slo"], "auto"),
        (["policy=slo", "load_predictor_type=constant"], "constant"),
        (["policy=classic"], "constant"),
        ([], "constant"),
    ):
        config = autoscaler_config(load_settings(BOTH, (), keys), RoundNumbers())
        assert config.load_predictor_type == predictor
