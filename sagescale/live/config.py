"""The live loop's own keys: where metrics come from, who acts, and how carefully."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from sagescale.declare import check, setting
from sagescale.errors import InputError, did_you_mean
from sagescale.json_guard import parse_json
from sagescale.live.metrics.matchers import parse_matchers
from sagescale.planner.config import AutoscalerConfig
from sagescale.planner.plugins import plugin_keys
from sagescale.sim.config import SimulatorConfig

METRIC_FIELDS = (
    "requests", "completed", "isl_mean", "osl_mean", "ttft_ms_mean", "ttft_ms_p99", "itl_ms_mean",
    "itl_ms_p99", "duration_s_mean", "queued_prefill", "queued_decode", "running_prefill", "running_decode",
    "kv_usage", "prefix_hit_rate", "ttft_attainment", "itl_attainment", "preemptions",
)  # fmt: skip
"""The numbers of an observation."""

QUERY_FIELDS = (
    *METRIC_FIELDS, "requests_shed", "requests_queued_gateway", "instances_prefill", "instances_decode",
    "instances_aggregated",
)  # fmt: skip
"""What a query of one's own may give: beside those numbers what a gateway keeps from the pools, and how many
instances there are."""

IN_FLIGHT_FIELDS = frozenset(
    ("queued_prefill", "queued_decode", "running_prefill", "running_decode", "requests_queued_gateway")
)
"""Those of them that are gauges of requests: they are asked for at both ends of a window."""

_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


@dataclass(frozen=True, slots=True)
class MetricQueries:
    """PromQL of the operator's own, by observation field; it replaces the preset's."""

    queries: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, value: object) -> MetricQueries:
        """Read a mapping ``{field: query}``, or the same as JSON text; null and empty text are none.

        Raises:
            ValueError: with what was expected, as one line.
        """
        if isinstance(value, cls):
            return value
        if value is None or value == "":
            return cls(())
        if isinstance(value, str):
            try:
                value = parse_json(value)
            except ValueError:
                value = None
        if not isinstance(value, Mapping):
            raise ValueError(  # noqa: TRY004  # what setting(parse=...) refuses by
                "expected a mapping of observation fields to PromQL"
            )
        for name, query in value.items():
            if name not in QUERY_FIELDS:
                hint = did_you_mean(str(name), QUERY_FIELDS)
                raise ValueError(f"'{name}' is no metric; expected one of {', '.join(QUERY_FIELDS)}{hint}")
            if not isinstance(query, str) or not query.strip():
                raise ValueError(f"the query of {name} is {query!r}; expected PromQL text")
        return cls(tuple((str(name), str(query)) for name, query in value.items()))

    def __str__(self) -> str:
        return json.dumps(dict(self.queries)) if self.queries else ""


def _words(value: object) -> tuple[str, ...]:
    """Read a list of texts; text alone is split at commas."""
    if value is None:
        return ()
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise ValueError("expected a list of texts")


_WORDS_SCHEMA: Mapping[str, object] = {
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]
}


def _texts(doc: str) -> tuple[str, ...]:
    return setting(  # type: ignore[no-any-return]  # a field stands for its value
        (), doc=doc, parse=_words, expected="a list of texts", schema=_WORDS_SCHEMA
    )


@dataclass(frozen=True, slots=True)
class LiveConfig:
    """The live loop; flat keys in the same YAML file as the autoscaler's.

    Raises:
        InputError: a value is refused; the message names the key, the value and what is accepted.
    """

    prometheus_url: str | None = setting(
        None, doc="Prometheus to read metrics from, e.g. http://localhost:9090."
    )
    namespace: str = setting(
        "sagellm", doc="Value of the `namespace` label; used by the presets sagellm and dynamo."
    )
    model_name: str | None = setting(None, doc="Only this model's metrics; null takes every model's.")
    metrics_preset: Literal["vllm", "sglang", "trtllm", "dynamo", "sagellm"] = setting(
        "sagellm", doc="Whose metric names: an engine's, the Dynamo frontend's, or the guide's sagellm."
    )
    pool_label: str = setting(
        "job",
        doc="The label that tells prefill from decode instances: job, instance (the address), or any other; "
        "aggregated ones need none.",
    )
    prefill_pool: str = setting(
        ".*prefill.*", doc="Regular expression that pool_label of a prefill instance matches."
    )
    decode_pool: str = setting(
        ".*decode.*", doc="Regular expression that pool_label of a decode instance matches."
    )
    instance_label: str = setting("instance", doc="The label that tells instances of a pool apart, e.g. pod.")
    extra_matchers: str = setting(
        "", doc='More label matchers for every query, e.g. cluster="a",env=~"prod.*".'
    )
    metric_queries: MetricQueries = setting(
        MetricQueries(),
        doc="PromQL of one's own by observation field, in place of the preset's. $window, $matchers, $model "
        "and $namespace are replaced; a query must give one number.",
        parse=MetricQueries.parse,
        expected="a mapping of observation fields to PromQL",
        schema={"type": ["object", "string", "null"], "additionalProperties": {"type": "string"}},
    )
    scrape_prefill: tuple[str, ...] = _texts(
        "Metric pages of the prefill instances, to read without Prometheus."
    )
    scrape_decode: tuple[str, ...] = _texts(
        "Metric pages of the decode instances, to read without Prometheus."
    )
    scrape_instances: tuple[str, ...] = _texts(
        "Metric pages of aggregated instances, to read without Prometheus."
    )
    scrape_discovery_url: str | None = setting(
        None,
        doc="Targets to read without Prometheus, in its HTTP service discovery format; pool_label decides; "
        "of aggregated serving all are read.",
    )
    metrics_bearer_token_file: str | None = setting(
        None, doc="File with the bearer token of the metric source."
    )
    metrics_bearer_token_env: str | None = setting(None, doc="Environment variable with that token.")
    metrics_username: str | None = setting(None, doc="User name of the metric source (basic authentication).")
    metrics_password_file: str | None = setting(None, doc="File with that user's password.")
    metrics_password_env: str | None = setting(None, doc="Environment variable with that password.")
    tls_ca_file: str | None = setting(None, doc="CA certificates to trust in place of the built-in ones.")
    tls_client_cert_file: str | None = setting(None, doc="Client certificate shown to servers (PEM).")
    tls_client_key_file: str | None = setting(
        None, doc="Its key, where the certificate's file does not hold it."
    )
    tls_verify: bool = setting(True, doc="Check servers' certificates; false is for laboratories only.")
    metrics_timeout_s: float = setting(
        10.0, doc="The longest a read of all metrics may take.", unit="s", above=0, at_most=600
    )
    metrics_max_bytes: int = setting(
        32_000_000, doc="The longest response that is read.", unit="bytes", at_least=1000
    )
    warm_start_windows: int = setting(
        120,
        doc="Windows of history read from Prometheus at the start; 0 is none.",
        unit="windows",
        at_least=0,
        at_most=5000,
    )
    time_scale: float = setting(
        1.0,
        doc="How much faster than the clock the pools live: the --speed of an emulator, 1 for anything real. "
        "Intervals and windows shrink by it.",
        above=0,
        at_most=1000,
    )

    no_data_timeout_s: float = setting(
        300.0,
        doc="After this long without usable metrics the pools go up to the safe floor.",
        unit="s",
        above=0,
    )
    safe_floor_prefill: int | None = setting(
        None,
        doc="The safe floor; null is the largest size set in the last safe_floor_lookback_s.",
        at_least=0,
    )
    safe_floor_decode: int | None = setting(
        None,
        doc="The safe floor; null is the largest size set in the last safe_floor_lookback_s.",
        at_least=0,
    )
    safe_floor_instances: int | None = setting(
        None,
        doc="The safe floor of an aggregated pool; null is the largest size set in the last "
        "safe_floor_lookback_s.",
        at_least=0,
    )
    safe_floor_lookback_s: float = setting(
        86400.0, doc="How far back the safe floor looks for the largest sizes.", unit="s", above=0
    )

    actuator: Literal["none", "command", "webhook", "kubernetes", "callback", "export"] = setting(
        "none",
        doc="Who acts: none is a dry run; export only publishes the sizes as metrics for an HPA or KEDA.",
    )
    actuator_command: tuple[str, ...] = _texts(
        "Program and arguments given the decision as JSON on standard input."
    )
    actuator_state_command: tuple[str, ...] = _texts("Program that prints the pools' state as JSON.")
    webhook_url: str | None = setting(None, doc="Where decisions are posted as JSON.")
    webhook_state_url: str | None = setting(None, doc="Where the pools' state is read as JSON.")
    webhook_secret_file: str | None = setting(
        None, doc="File with the key that signs what is posted (HMAC-SHA256)."
    )
    webhook_secret_env: str | None = setting(None, doc="Environment variable with that key.")
    webhook_attempts: int = setting(
        3, doc="How often a post is tried, under one idempotency key.", at_least=1, at_most=10
    )
    kubernetes_context: str | None = setting(
        None, doc="Context of the kubeconfig; null is the current one, or the pod's own."
    )
    kubernetes_namespace: str = setting("default", doc="Namespace of the workloads.")
    kubernetes_prefill: str | None = setting(
        None,
        doc="The prefill workload: deployments/NAME, statefulsets/NAME, leaderworkersets/NAME, or "
        "GROUP/VERSION/PLURAL/NAME of anything with a scale subresource.",
    )
    kubernetes_decode: str | None = setting(None, doc="The decode workload, written likewise.")
    kubernetes_workload: str | None = setting(
        None, doc="The workload of aggregated instances, written likewise."
    )
    actuator_callback: str | None = setting(None, doc="Python callback, package.module:function.")
    actuator_timeout_s: float = setting(
        30.0, doc="The longest one call of the actuator may take.", unit="s", above=0, at_most=3600
    )
    scale_up_timeout_s: float = setting(
        900.0,
        doc="A scale-up that is not ready by then is reported, and what still waits for GPUs is given up.",
        unit="s",
        above=0,
    )
    drain_wait_s: float = setting(
        120.0,
        doc="How long a removed instance is taken to hold its GPUs, where the actuator cannot say.",
        unit="s",
        at_least=0,
    )
    max_step_instances: int | None = setting(
        None, doc="The most instances either pool changes by in one tick; null is no cap.", at_least=1
    )
    pause_file: str | None = setting(None, doc="While this file exists, decisions are made but not acted on.")

    journal: str = setting("sagescale-journal.sqlite", doc="The decision journal (SQLite).")
    journal_retention_days: float = setting(30.0, doc="Older decisions are deleted.", unit="days", above=0)
    exporter_port: int = setting(
        9718, doc="Port of sagescale's own metrics; 0 is none.", at_least=0, at_most=65535
    )
    exporter_address: str = setting("127.0.0.1", doc="Address they are served on.")
    lock_dir: str | None = setting(
        None, doc="Folder of the lock that keeps a second planner off a target; null is the system's."
    )

    def __post_init__(self) -> None:
        check(self)
        for name in ("prometheus_url", "scrape_discovery_url", "webhook_url", "webhook_state_url"):
            if (url := getattr(self, name)) is not None:
                check_url(name, url)
        for name in ("scrape_prefill", "scrape_decode", "scrape_instances"):
            for url in getattr(self, name):
                check_url(name, url)
        for name in ("pool_label", "instance_label"):
            if not _LABEL.fullmatch(getattr(self, name)):
                raise InputError(f"{name} is '{getattr(self, name)}'; expected a label name, e.g. job")
        for name in ("prefill_pool", "decode_pool"):
            try:
                re.compile(getattr(self, name))
            except re.error as error:
                raise InputError(
                    f"{name} is '{getattr(self, name)}'; expected a regular expression: {error}"
                ) from None
        if self.prefill_pool == self.decode_pool:
            raise InputError(
                f"prefill_pool and decode_pool are both '{self.prefill_pool}'; expected two expressions that "
                "tell the pools apart, or every request is counted twice"
            )
        try:
            parse_matchers(self.extra_matchers)
        except ValueError as error:
            raise InputError(
                f"extra_matchers is '{self.extra_matchers}': {error}; expected label matchers with commas "
                'between them, e.g. cluster="a",env=~"prod.*"'
            ) from None
        if self.metric_queries.queries and self.prometheus_url is None:
            raise InputError("metric_queries is given but prometheus_url is not; expected a server to ask")
        needs = {
            "command": ("actuator_command",),
            "webhook": ("webhook_url",),
            "kubernetes": () if self.kubernetes_workload else ("kubernetes_prefill", "kubernetes_decode"),
            "callback": ("actuator_callback",),
        }
        for name in needs.get(self.actuator, ()):
            if not getattr(self, name):
                raise InputError(f"actuator is '{self.actuator}' but {name} is not given; expected it too")

    @property
    def scrapes(self) -> bool:
        """Whether instances are read directly, without Prometheus."""
        pages = self.scrape_prefill or self.scrape_decode or self.scrape_instances
        return bool(pages or self.scrape_discovery_url)

    @property
    def has_source(self) -> bool:
        """Whether there is anything to read metrics from."""
        return self.prometheus_url is not None or self.scrapes


def configuration_classes() -> tuple[type[Any], ...]:
    """Return whatever a configuration file may configure, plug-ins included."""
    return AutoscalerConfig, SimulatorConfig, LiveConfig, *plugin_keys()


def check_url(name: str, url: str) -> None:
    """Refuse what is no http(s) address, or carries credentials that would show in logs and process lists."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
        _ = parts.port
    except ValueError:
        host = None
        parts = urlsplit("")
    if parts.scheme not in {"http", "https"} or not host:
        raise InputError(
            f"{name} is '{_without_userinfo(url)}'; expected http://HOST:PORT or https://HOST:PORT"
        )
    if parts.username is not None or parts.password is not None:
        raise InputError(
            f"{name} holds a user name or password ('{_without_userinfo(url)}'); expected them in "
            "metrics_username and metrics_password_file or metrics_password_env"
        )


def _without_userinfo(url: str) -> str:
    return re.sub(r"//[^/@]*@", "//***@", url)
