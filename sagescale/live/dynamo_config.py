"""Reads a configuration of Dynamo's planner and says it in sagescale's keys.

The keys are those of ``PlannerConfig`` (github.com/ai-dynamo/dynamo, dynamo/planner/config/planner_config.py)
with their aliases, and of the command line that came before it. What a file leaves out has Dynamo's default,
where ours is another, so that the imported configuration asks for the same.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sagescale.declare import Located, coerce, declared, pairs
from sagescale.errors import InputError
from sagescale.files import read_input_text, shown_path
from sagescale.fleet import DISAGGREGATED
from sagescale.json_guard import BadJsonError, parse_json
from sagescale.key_file import MAX_YAML_BYTES, parse_scalar, parse_value, read_key_trees
from sagescale.live.config import LiveConfig
from sagescale.planner import AutoscalerConfig
from sagescale.planner.describe import resolved_yaml
from sagescale.planner.loading import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

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


def _milliseconds(least: float) -> Callable[[object], object]:
    """Refuse what no engine does in milliseconds: Dynamo before 0.4 wrote seconds."""

    def convert(value: object) -> object:
        if isinstance(value, int | float) and 0.0 < value < least:
            raise InputError(
                f"{value:g} ms; expected at least {least:g} ms: Dynamo before 0.4 wrote seconds, "
                f"write {value * 1000.0:g} if that is meant"
            )
        return value

    return convert


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
    Rule(
        ("ttft_ms", "ttft"), ("target_ttft_ms",), "in ms, as in Dynamo since 0.4", 500.0, _milliseconds(10.0)
    ),
    Rule(("itl_ms", "itl"), ("target_itl_ms",), "in ms, as in Dynamo since 0.4", 50.0, _milliseconds(1.0)),
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
    """Read a planner's YAML or JSON, bare or in the manifests it is deployed by, several documents in a file.

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
    except InputError as error:
        raise InputError(f"{item.where}: {name}: {error}") from None
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


def _read(path: Path) -> list[Located]:
    """Read YAML with lines, as many documents as there are, or JSON."""
    text = read_input_text(path, "a configuration of Dynamo's planner", MAX_YAML_BYTES)
    if not text.lstrip().startswith("{"):
        return read_key_trees(path)
    try:
        return [_located(parse_json(text), str(path))]
    except BadJsonError as error:
        raise InputError(f"{path}: not JSON: {error}") from None


def _located(value: object, where: str) -> Located:
    if isinstance(value, dict):
        return Located({name: _located(item, where) for name, item in value.items()}, where)
    return Located([_located(item, where) for item in value] if isinstance(value, list) else value, where)


# --- where the planner's keys are ---------------------------------------------------------------------


def _planner_keys(documents: Sequence[Located], path: Path) -> Mapping[str, Located]:
    """Find the planner's keys: bare, or in one of the manifests that Dynamo is deployed by.

    Raises:
        InputError: there are none, or in several places; says where they may be.
    """
    if not any(document.value for document in documents):
        return {}
    texts = {
        name: item
        for document in documents
        if _at(document, "kind") == "ConfigMap"
        for name, item in _section(document, "data").items()
    }
    manifests = [one for one in documents if _at(one, "kind") in {*_MANIFESTS, None}]
    found = [keys for one in manifests if (keys := _keys_of(one, texts))]
    if not found and texts:
        found = [keys for item in texts.values() if (keys := _planner_text(item))]
    if len(found) != 1:
        number = f"{len(found)} places with a" if found else "no"
        kinds = ", ".join(str(_at(one, "kind")) for one in documents if _at(one, "kind") is not None)
        raise InputError(
            f"{path}: {number} planner in it{f' ({kinds})' if kinds else ''}; expected Dynamo planner's keys "
            "bare, in spec.features.planner or spec.profilingConfig.config of a DynamoGraphDeploymentRequest,"
            " in the arguments of the planner's service of a DynamoGraphDeployment, or in a ConfigMap"
        )
    return found[0]


def _keys_of(document: Located, texts: Mapping[str, Located]) -> Mapping[str, Located]:
    kind = _at(document, "kind")
    if kind == "DynamoGraphDeployment":
        return _service_keys(document, texts)
    if kind != "DynamoGraphDeploymentRequest" and "spec" not in pairs(document, "document"):
        return _bare_keys(document)
    profiling = _section(document, "spec", "profilingConfig", "config")
    keys = {_snake(name): item for name, item in _section_of(profiling, "planner").items()}
    keys = _over(keys, _section(document, "spec", "features", "planner"))
    if not keys and "features" in _section(document, "spec"):
        raise InputError(
            f"{document.where}: spec.features has no planner; expected Dynamo planner's keys there"
        )
    # What the request asks for is the planner's too, where it is not given keys of its own.
    for sla in (_section_of(profiling, "sla"), _section(document, "spec", "sla")):
        for name, ours in (("ttft", "ttft_ms"), ("itl", "itl_ms")):
            if name in sla and not {name, ours} & keys.keys():
                keys[ours] = sla[name]
        # Lengths are keys of the planner as well; what else is asked for is said to have no counterpart.
        keys |= {name: item for name, item in sla.items() if name in {"isl", "osl"}}
        keys |= {f"sla.{name}": item for name, item in sla.items() if name not in _SLA}
    model = _section(document, "spec").get("model")
    if model is not None and keys and "model_name" not in keys:
        keys["model_name"] = model
    return keys


def _bare_keys(document: Located) -> Mapping[str, Located]:
    """Keys of the planner itself, or what is inside ``features`` or ``planner``."""
    keys = pairs(document, "document")
    for name in ("features", "planner"):
        keys = _section_of(keys, name) if name in keys else keys
    return keys


def _service_keys(document: Located, texts: Mapping[str, Located]) -> Mapping[str, Located]:
    """The command line of the planner's service, or the file that it names in a ConfigMap beside."""
    for container in _planner_containers(document):
        words: list[Located] = []
        for part in ("command", "args"):
            given = container[part].value if part in container else None
            for item in given if isinstance(given, list) else ():
                words += [Located(word, item.where) for word in _shell_words(item)]
        keys = _arguments(words)
        config = keys.pop("config", None)
        if config is not None:
            named = texts.get(str(config.value).rpartition("/")[2], config)
            inside = _planner_text(named)
            if not inside:
                raise InputError(
                    f"{config.where}: the planner's keys are in the file {config.value!r}; pass that file, "
                    "or put the ConfigMap that holds it into this one as another document"
                )
            keys = _over(inside, keys)
        return keys
    return {}


def _planner_containers(document: Located) -> Iterator[Mapping[str, Located]]:
    """Yield containers of the planner: under ``services`` in v1alpha1, in ``components`` in v1beta1."""
    spec = _section(document, "spec")
    for name, service in _section_of(spec, "services").items():
        if str(_at(service, "componentType")).lower() == "planner" or name.lower() == "planner":
            yield _section(service, "extraPodSpec", "mainContainer")
    for component in _items(spec, "components"):
        if "planner" in {str(_at(component, key)).lower() for key in ("type", "name")}:
            containers = _items(_section(component, "podTemplate", "spec"), "containers")
            # Others beside it are sidecars.
            main = [one for one in containers if _at(one, "name") == "main"] or containers
            yield from (pairs(one, "container") for one in main[:1])


def _items(keys: Mapping[str, Located], name: str) -> list[Located]:
    """Return a list's mappings; none where there is no list."""
    found = keys[name].value if name in keys else None
    return [one for one in found if isinstance(one.value, dict)] if isinstance(found, list) else []


def _shell_words(item: Located) -> list[str]:
    """Return the words of an argument: a shell's command line is one of several."""
    text = str(item.plain)
    if " --" not in text or text.startswith("--"):
        return [text]
    try:
        return shlex.split(text)
    except ValueError as error:
        raise InputError(f"{item.where}: not a command line: {error}") from None


def _arguments(words: Sequence[Located]) -> dict[str, Located]:
    """Read ``--key=value``, ``--key value`` and ``--flag``."""
    keys: dict[str, Located] = {}
    name = ""
    for item in words:
        word = str(item.value)
        if word.startswith("--"):
            name, given, value = word.removeprefix("--").partition("=")
            name = name.replace("-", "_")
            keys[name] = Located(parse_scalar(value) if given else True, item.where)
            name = "" if given else name
        elif name:
            keys[name] = Located(parse_scalar(word), item.where)
            name = ""
    return keys


def _over(below: Mapping[str, Located], above: Mapping[str, Located]) -> dict[str, Located]:
    """Join keys of which ``above`` wins, whichever of its names a key is given by."""
    same = {name: rule.names for rule in RULES for name in rule.names}
    return {**{name: at for name, at in below.items() if not above.keys() & same.get(name, (name,))}, **above}


def _planner_text(item: Located) -> Mapping[str, Located]:
    """Read keys written as YAML or JSON within a text; none where it holds something else."""
    if not isinstance(item.value, str):
        return {}
    try:
        root = parse_value(item.value, item.where)
    except InputError:
        return {}
    known = {name for rule in RULES for name in rule.names}
    found = _located(root, item.where)
    if not isinstance(found.value, dict) or not known & found.value.keys():
        return {}
    return found.value


def _snake(name: str) -> str:
    """``plannerMinEndpoint`` is ``min_endpoint``: how requests of v1alpha1 spell the planner's arguments."""
    plain = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().replace("-", "_")
    return plain.removeprefix("planner_")


def _section(document: Located, *names: str) -> Mapping[str, Located]:
    """Return the mapping down a path of keys; empty where there is none.

    Raises:
        InputError: something on the way is no mapping.
    """
    found = document
    for name in names:
        inner = pairs(found, "document").get(name)
        if inner is None or inner.value is None:
            return {}
        if not isinstance(inner.value, dict):
            raise InputError(
                f"{inner.where}: {name} is {inner.plain!r}; expected a mapping of keys to values"
            )
        found = inner
    return pairs(found, "document")


def _section_of(keys: Mapping[str, Located], name: str) -> Mapping[str, Located]:
    return _section(Located(keys, ""), name)


def _at(document: Located, *names: str) -> object:
    """Return the plain value down a path of keys; None where there is none."""
    *above, last = names
    item = _section(document, *above).get(last)
    return None if item is None else item.plain


_SLA = frozenset({"ttft", "itl", "isl", "osl"})
_MANIFESTS = ("DynamoGraphDeploymentRequest", "DynamoGraphDeployment")
