"""Reads a configuration of Dynamo's planner and says it in sagescale's keys.

The keys are those of ``PlannerConfig`` (github.com/ai-dynamo/dynamo, dynamo/planner/config/planner_config.py)
with their aliases, and of the command line that came before it. What a file leaves out has Dynamo's default,
where ours is another, so that the imported configuration asks for the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sagescale.declare import Located, coerce, declared, pairs
from sagescale.errors import InputError
from sagescale.files import read_input_text, shown_path
from sagescale.fleet import DISAGGREGATED
from sagescale.json_guard import BadJsonError, parse_json
from sagescale.key_file import MAX_YAML_BYTES, read_key_tree
from sagescale.live.config import LiveConfig
from sagescale.planner import AutoscalerConfig
from sagescale.planner.describe import resolved_yaml
from sagescale.planner.loading import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

__all__ = ["RULES", "Imported", "Rule", "import_dynamo_config"]

_NO_LIMIT = 1_000_000
_NULL = Located(None, "")
_PRE_SWEPT = "use-pre-swept-results:"


@dataclass(frozen=True, slots=True)
class Rule:
    """What one key of Dynamo's becomes.

    Attributes:
        names: The key and its aliases.
        ours: Our keys that take its value; none where there is no counterpart.
        about: How the value changes, or why there is no counterpart.
        default: Dynamo's, written where the file leaves the key out; ``None`` leaves ours.
        convert: Makes our value of theirs; raises ValueError with the reason where it has no counterpart.
    """

    names: tuple[str, ...]
    ours: tuple[str, ...] = ()
    about: str = ""
    default: object = None
    convert: Callable[[object], object] | None = None


def _budget(value: object) -> object:
    return _NO_LIMIT if value == -1 else value


def _inverted(value: object) -> object:
    return not value if isinstance(value, bool) else value


def _profile(value: object) -> object:
    if isinstance(value, str) and value.startswith(_PRE_SWEPT):
        raise ValueError("pre-swept data has no path; `sagescale profile import` reads its npz files")
    return value


def _preset(value: object) -> object:
    if value != "frontend":
        raise ValueError("only the frontend's metrics are known here")
    return "dynamo"


def _only(accepted: object, why: str) -> Callable[[object], object]:
    def convert(value: object) -> object:
        if value != accepted:
            raise ValueError(why)
        return value

    return convert


_THRESHOLDS = "Dynamo's load-based scaling by thresholds; `policy: reactive` is the nearest"
_REGRESSION = "Dynamo's regression on forward-pass metrics; see enable_online_learning"
_REPORT = "the journal, `sagescale explain` and `--html` report here"
_KALMAN = "our kalman weighs 32 filters and finds its noise itself"
_PLUGINS = "predictors are entry points here"

RULES: tuple[Rule, ...] = (
    Rule(("ttft_ms", "ttft"), ("target_ttft_ms",), "in ms, as in Dynamo since 0.4", 500.0),
    Rule(("itl_ms", "itl"), ("target_itl_ms",), "in ms, as in Dynamo since 0.4", 50.0),
    Rule(
        ("throughput_adjustment_interval_seconds", "throughput_adjustment_interval", "adjustment_interval"),
        ("adjustment_interval_sec",),
        default=180,
    ),
    Rule(("max_gpu_budget",), ("max_gpu_budget",), f"-1, no limit, becomes {_NO_LIMIT}", 8, _budget),
    Rule(("min_endpoint",), ("min_prefill_instances", "min_decode_instances"), "of both pools", 1),
    Rule(("prefill_min_endpoint",), ("min_prefill_instances",)),
    Rule(("decode_min_endpoint",), ("min_decode_instances",)),
    Rule(("prefill_engine_num_gpu",), ("prefill_gpus_per_instance",), "must be the profile's"),
    Rule(("decode_engine_num_gpu",), ("decode_gpus_per_instance",), "must be the profile's"),
    Rule(("max_throughput_scaling_replicas",), ("max_step_instances",)),
    Rule(
        ("load_predictor",),
        ("load_predictor_type",),
        "constant, arima, kalman, prophet: the same names",
        "arima",
    ),
    Rule(("load_prediction_window_size",), ("history_points",)),
    Rule(("prophet_window_size",), ("history_points",), "where the predictor is prophet"),
    Rule(("profile_results_dir",), ("profile_data_dir",), "a folder; not pre-swept data", convert=_profile),
    Rule(("no_operation", "advisory"), ("no_operation",)),
    Rule(("no_correction",), ("enable_correction",), "inverted", convert=_inverted),
    Rule(
        ("metric_pulling_prometheus_endpoint",),
        ("prometheus_url",),
        default="http://prometheus-kube-prometheus-prometheus.monitoring.svc.cluster.local:9090",
    ),
    Rule(("metric_pulling_prometheus_token_file",), ("metrics_bearer_token_file",)),
    Rule(("metric_pulling_prometheus_ssl_verify",), ("tls_verify",), "Dynamo's default is false, ours true"),
    Rule(("metric_pulling_prometheus_ca_bundle",), ("tls_ca_file",)),
    Rule(("metric_pulling_prometheus_request_timeout_seconds",), ("metrics_timeout_s",)),
    Rule(("metric_reporting_prometheus_port",), ("exporter_port",)),
    Rule(
        ("throughput_metrics_source",),
        ("metrics_preset",),
        "frontend becomes dynamo",
        "frontend",
        _preset,
    ),
    Rule(("namespace",), ("namespace",), default="dynamo"),
    Rule(("model_name",), ("model_name",)),
    # Without a counterpart, unless the value asks for what sagescale does anyway.
    Rule(
        ("mode",),
        (),
        "disagg is all there is",
        convert=_only("disagg", "sagescale plans prefill and decode pools"),
    ),
    Rule(
        ("optimization_target",),
        (),
        "sla is all there is",
        convert=_only("sla", "sagescale sizes for TTFT and ITL; `policy: reactive` scales by thresholds"),
    ),
    Rule(
        ("enable_throughput_scaling",),
        (),
        "true is all there is",
        convert=_only(True, "the planner always sizes from forecasts; `policy: reactive` does not"),
    ),
    Rule(
        ("enable_load_scaling", "enable_loadbased_scaling"),
        (),
        "false is nothing",
        convert=_only(False, _THRESHOLDS),
    ),
    Rule(
        ("load_predictor_log1p",),
        (),
        "false is nothing",
        convert=_only(False, "counts are modelled as they are"),
    ),
    Rule(
        ("min_gpu_budget",),
        (),
        "-1 is nothing",
        convert=_only(-1, "there is no floor in GPUs; raise min_prefill_instances and min_decode_instances"),
    ),
    Rule(("environment",), (), "choose an `actuator`: kubernetes, webhook, command, callback or export"),
    Rule(("backend",), (), "the profile says what the engine is"),
    Rule(("isl", "osl"), (), "lengths are observed"),
    Rule(("log_dir",), (), "logs go to standard error"),
    Rule(("global_planner_namespace",), (), "one planner a pair of pools"),
    Rule(("metric_pulling_prometheus_token",), (), "a secret: keep it in a file, metrics_bearer_token_file"),
    Rule(("metric_pulling_prometheus_extra_query_params",), (), "only label matchers: extra_matchers"),
    Rule(("load_predictor_warmup_trace",), (), "warm_start_windows reads history from Prometheus"),
    Rule(("kalman_q_level", "kalman_q_trend", "kalman_r", "kalman_min_points"), (), _KALMAN),
    Rule(
        (
            "load_adjustment_interval_seconds",
            "load_adjustment_interval",
            "loadbased_adjustment_interval",
            "load_scaling_down_sensitivity",
            "loadbased_scaling_down_sensitivity",
            "load_metric_samples",
            "loadbased_metric_samples",
            "loadbased_router_metrics_url",
            "prefill_scale_up_queue_tokens",
            "prefill_scale_down_queue_tokens",
            "decode_scale_up_kv_rate",
            "decode_scale_down_kv_rate",
        ),
        (),
        _THRESHOLDS,
    ),
    Rule(
        (
            "max_num_fpm_samples",
            "fpm_sample_bucket_size",
            "load_min_observations",
            "loadbased_min_observations",
            "loadbased_learning_window",
        ),
        (),
        _REGRESSION,
    ),
    Rule(
        ("pre_deployment_sweeping_mode", "aic_interpolation", "aic_perf_model"),
        (),
        "`sagescale profile import` or `profile estimate` makes the profile",
    ),
    Rule(("speculative_nextn",), (), "speculative decoding is in the profile's measured ITL, or nowhere"),
    Rule(("enable_power_awareness", "total_gpu_power_limit"), (), "power is not modelled"),
    Rule(
        (
            "report_interval_hours",
            "report_output_dir",
            "report_filename",
            "report_write_gzip_log",
            "live_dashboard_port",
            "control_api_port",
        ),
        (),
        _REPORT,
    ),
    Rule(("scheduling",), (), _PLUGINS),
)
"""Every key of Dynamo's planner, in the order in which the imported file has them."""


@dataclass(frozen=True, slots=True)
class Imported:
    """The outcome: our file, and what could not be said in it.

    Attributes:
        text: A configuration file; comments say where each value comes from and what has no counterpart.
        keys: How many of our keys it sets.
        left: Keys that have no counterpart, with place and reason.
    """

    text: str
    keys: int
    left: tuple[str, ...]


def import_dynamo_config(path: Path) -> Imported:
    """Read a planner's YAML or JSON, bare or as ``spec.features.planner`` of a DynamoGraphDeploymentRequest.

    Raises:
        InputError: the file cannot be read, is none of Dynamo's, or holds a value that we refuse.
    """
    given = _planner_keys(_read(path), path)
    by_name = {name: rule for rule in RULES for name in rule.names}
    if not any(name in by_name for name in given):
        raise InputError(
            f"{path}: none of its keys ({', '.join(list(given)[:5]) or 'it has none'}) is Dynamo planner's; "
            "expected e.g. ttft_ms, itl_ms, max_gpu_budget, or spec.features.planner with them"
        )
    taken: dict[str, Located] = {}
    left: list[str] = []
    for rule in RULES:
        for name in rule.names:
            if name in given:
                _apply(rule, name, given, taken, left)
        # null is Dynamo's "not given".
        if rule.default is not None and all(given.get(name, _NULL).value is None for name in rule.names):
            value = rule.default if rule.convert is None else rule.convert(rule.default)
            for ours in rule.ours:
                taken[ours] = Located(value, f"Dynamo's default of {rule.names[0]}")
    left += [
        f"{item.where} {name}: not a key of Dynamo's planner that sagescale knows"
        for name, item in given.items()
        if name not in by_name
    ]
    if "optimization_target" not in given:
        left.append(
            f"{path} optimization_target: not given; Dynamo now defaults to thresholds, this file to the SLA"
        )
    _add_maxima(taken)
    _check(taken)
    return Imported(_written(taken, left, path), len(taken), tuple(left))


def _apply(
    rule: Rule, name: str, given: Mapping[str, Located], taken: dict[str, Located], left: list[str]
) -> None:
    item = given[name]
    predictor = given.get("load_predictor")
    if name == "prophet_window_size" and (predictor is None or predictor.value != "prophet"):
        left.append(f"{item.where} {name}: the predictor is not prophet")
        return
    if item.value is None:
        return
    try:
        value = item.plain if rule.convert is None else rule.convert(item.plain)
    except ValueError as error:
        left.append(f"{item.where} {name}: {error}")
        return
    if not rule.ours:
        if rule.convert is None:
            left.append(f"{item.where} {name}: {rule.about}")
        return
    for ours in rule.ours:
        key = declared(AutoscalerConfig).get(ours) or declared(LiveConfig)[ours]
        try:
            taken[ours] = Located(coerce(key, value), f"{item.where} {name}")
        except InputError as error:
            raise InputError(f"{item.where}: {name}: {error}") from None


def _add_maxima(taken: dict[str, Located]) -> None:
    """Dynamo bounds the pools by GPUs alone: our maxima must not bind before the budget does."""
    budget = taken["max_gpu_budget"].value
    assert isinstance(budget, int)
    for pool in DISAGGREGATED:
        gpus = taken.get(f"{pool}_gpus_per_instance")
        each = gpus.value if gpus is not None and isinstance(gpus.value, int) else 1
        taken[f"max_{pool}_instances"] = Located(
            max(1, budget // each), "the GPU budget alone bounds Dynamo's pools"
        )


def _check(taken: Mapping[str, Located]) -> None:
    """Refuse keys that contradict one another, as the commands would."""
    types: tuple[type[Any], ...] = (AutoscalerConfig, LiveConfig)
    given = Settings({cls: {name: taken[name] for name in declared(cls) if name in taken} for cls in types})
    # GPUs an instance that are not given are the profile's: at least one.
    given.build(AutoscalerConfig, prefill_gpus_per_instance=1, decode_gpus_per_instance=1)
    given.build(LiveConfig)


def _written(taken: Mapping[str, Located], left: list[str], path: Path) -> str:
    made = (
        f"# Made by `sagescale config import` from {shown_path(path)}, a configuration of Dynamo's planner."
    )
    values = {name: item.value for name, item in taken.items()}
    text = resolved_yaml(values, {name: item.where for name, item in taken.items()}, widest=48)
    rest = ["", "# Without a counterpart:", *(f"#   {line}" for line in left)] if left else []
    return f"{made}\n\n{text}" + "".join(f"{line}\n" for line in rest)


def _read(path: Path) -> Located:
    """Read YAML with lines, or JSON."""
    text = read_input_text(path, "a configuration of Dynamo's planner", MAX_YAML_BYTES)
    if not text.lstrip().startswith("{"):
        return read_key_tree(path)
    try:
        return _located(parse_json(text), str(path))
    except BadJsonError as error:
        raise InputError(f"{path}: not JSON: {error}") from None


def _located(value: object, where: str) -> Located:
    if isinstance(value, dict):
        return Located({name: _located(item, where) for name, item in value.items()}, where)
    return Located([_located(item, where) for item in value] if isinstance(value, list) else value, where)


def _planner_keys(found: Located, path: Path) -> Mapping[str, Located]:
    """Step into ``spec.features.planner`` (or what of it the file begins with), where there is one."""
    keys, steps = pairs(found, "document"), []
    for name in ("spec", "features", "planner"):
        if name in keys:
            inner = keys[name]
            if not isinstance(inner.value, dict):
                raise InputError(
                    f"{inner.where}: {name} is {inner.plain!r}; expected a mapping of keys to values"
                )
            keys = inner.value
            steps.append(name)
    if steps and steps[-1] != "planner":
        raise InputError(f"{path}: {'.'.join(steps)} has no planner; expected Dynamo planner's keys there")
    return keys
