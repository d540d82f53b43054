"""What each engine calls its metrics; the first of several names that exists is used."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

__all__ = ["PRESETS", "Mean", "Preset"]


@dataclass(frozen=True, slots=True)
class Mean:
    """A window mean: the increase of ``total`` over the increase of ``count``, times ``scale``.

    ``buckets`` is the histogram they belong to, where it is one: percentiles come from it. ``per_token``:
    it has an entry a token, not one a request, so it cannot say how many requests kept a target.
    """

    total: str
    count: str
    buckets: str | None = None
    scale: float = 1.0
    per_token: bool = False

    @classmethod
    def histogram(cls, name: str, scale: float = 1.0, *, per_token: bool = False) -> Mean:
        """Return the mean of a Prometheus histogram."""
        return cls(f"{name}_sum", f"{name}_count", f"{name}_bucket", scale, per_token)


@dataclass(frozen=True, slots=True)
class Preset:
    """The names of one exporter.

    Attributes:
        frontend: One place sees every request once, from arrival to end; else the pools' instances do,
            each its own part: every request appears in both pools, with OSL 1 in prefill.
        arrived: Counter of arrivals. Engines have none: arrivals are completions plus the change of
            running and waiting.
        completed: Counter of completions.
        running: Gauge of requests in progress.
        waiting: Gauges of requests that wait, added up where several exist.
        activity: Counters that move whenever the exporter is alive and busy.
        model_label: Carries the model's name.
        namespace_label: Carries ``namespace``, where the preset has one.
    """

    name: str
    completed: tuple[str, ...]
    running: tuple[str, ...]
    waiting: tuple[str, ...]
    isl: tuple[Mean, ...]
    osl: tuple[Mean, ...]
    ttft_ms: tuple[Mean, ...]
    itl_ms: tuple[Mean, ...]
    duration_s: tuple[Mean, ...]
    activity: tuple[str, ...]
    kv_usage: tuple[str, ...] = ()
    prefix_hits: Mean | None = None
    prefix_hit_gauge: tuple[str, ...] = ()
    arrived: tuple[str, ...] = ()
    frontend: bool = False
    model_label: str = "model_name"
    namespace_label: str | None = None

    def means(self) -> tuple[Mean, ...]:
        """Return every mean it may use."""
        hits = () if self.prefix_hits is None else (self.prefix_hits,)
        return (*self.isl, *self.osl, *self.ttft_ms, *self.itl_ms, *self.duration_s, *hits)

    def counters(self) -> tuple[str, ...]:
        """Return every counter it may use, each once."""
        names = [*self.arrived, *self.completed, *self.activity]
        for mean in self.means():
            names += [mean.total, mean.count]
        return tuple(dict.fromkeys(names))

    def gauges(self) -> tuple[str, ...]:
        """Return every gauge it may use."""
        return (*self.running, *self.waiting, *self.kv_usage, *self.prefix_hit_gauge)

    def histograms(self) -> tuple[str, ...]:
        """Return the bucket series that percentiles, attainment and the spread of lengths come from."""
        means = (*self.isl, *self.osl, *self.ttft_ms, *self.itl_ms)
        found = [mean.buckets for mean in means if mean.buckets]
        return tuple(dict.fromkeys(found))


_S_TO_MS = 1000.0

_VLLM = Preset(
    name="vllm",
    completed=("vllm:request_success_total",),
    running=("vllm:num_requests_running",),
    waiting=("vllm:num_requests_waiting",),
    isl=(
        Mean.histogram("vllm:request_prompt_tokens"),
        Mean("vllm:prompt_tokens_total", "vllm:request_success_total"),
    ),
    osl=(
        Mean.histogram("vllm:request_generation_tokens"),
        Mean("vllm:generation_tokens_total", "vllm:request_success_total"),
    ),
    ttft_ms=(Mean.histogram("vllm:time_to_first_token_seconds", _S_TO_MS),),
    # The target is a mean over a request, so the histogram with one entry a request comes first.
    itl_ms=(
        Mean.histogram("vllm:request_time_per_output_token_seconds", _S_TO_MS),
        Mean.histogram("vllm:inter_token_latency_seconds", _S_TO_MS, per_token=True),
        Mean.histogram("vllm:time_per_output_token_seconds", _S_TO_MS, per_token=True),
    ),
    duration_s=(Mean.histogram("vllm:e2e_request_latency_seconds"),),
    activity=("vllm:prompt_tokens_total", "vllm:generation_tokens_total"),
    kv_usage=("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
    prefix_hits=Mean("vllm:prefix_cache_hits_total", "vllm:prefix_cache_queries_total"),
)

_SGLANG = Preset(
    name="sglang",
    completed=("sglang:num_requests_total",),
    running=("sglang:num_running_reqs",),
    waiting=("sglang:num_queue_reqs", "sglang:num_decode_transfer_queue_reqs"),
    isl=(Mean("sglang:prompt_tokens_total", "sglang:num_requests_total"),),
    osl=(Mean("sglang:generation_tokens_total", "sglang:num_requests_total"),),
    ttft_ms=(Mean.histogram("sglang:time_to_first_token_seconds", _S_TO_MS),),
    itl_ms=(
        Mean.histogram("sglang:inter_token_latency_seconds", _S_TO_MS, per_token=True),
        Mean.histogram("sglang:time_per_output_token_seconds", _S_TO_MS, per_token=True),
    ),
    duration_s=(Mean.histogram("sglang:e2e_request_latency_seconds"),),
    activity=("sglang:prompt_tokens_total", "sglang:generation_tokens_total"),
    kv_usage=("sglang:token_usage",),
    prefix_hit_gauge=("sglang:cache_hit_rate",),
)

_TRTLLM = Preset(
    name="trtllm",
    completed=("trtllm_request_success_total",),
    running=("trtllm_num_requests_running",),
    waiting=("trtllm_num_requests_waiting",),
    isl=(Mean("trtllm_prompt_tokens_total", "trtllm_request_success_total"),),
    osl=(Mean("trtllm_generation_tokens_total", "trtllm_request_success_total"),),
    ttft_ms=(Mean.histogram("trtllm_time_to_first_token_seconds", _S_TO_MS),),
    itl_ms=(Mean.histogram("trtllm_time_per_output_token_seconds", _S_TO_MS),),
    duration_s=(Mean.histogram("trtllm_e2e_request_latency_seconds"),),
    activity=("trtllm_prompt_tokens_total", "trtllm_generation_tokens_total"),
    kv_usage=("trtllm_kv_cache_utilization",),
)

_DYNAMO = Preset(
    name="dynamo",
    frontend=True,
    arrived=("dynamo_frontend_requests_started_total",),
    completed=("dynamo_frontend_requests_total",),
    running=("dynamo_frontend_inflight_requests",),
    waiting=("dynamo_frontend_queued_requests",),
    isl=(Mean.histogram("dynamo_frontend_input_sequence_tokens"),),
    osl=(Mean.histogram("dynamo_frontend_output_sequence_tokens"),),
    ttft_ms=(Mean.histogram("dynamo_frontend_time_to_first_token_seconds", _S_TO_MS),),
    itl_ms=(Mean.histogram("dynamo_frontend_inter_token_latency_seconds", _S_TO_MS, per_token=True),),
    duration_s=(Mean.histogram("dynamo_frontend_request_duration_seconds"),),
    activity=("dynamo_frontend_inter_token_latency_seconds_count",),
    model_label="model",
    namespace_label="dynamo_namespace",
)

PRESETS = {
    "vllm": _VLLM,
    "sglang": _SGLANG,
    "trtllm": _TRTLLM,
    "dynamo": _DYNAMO,
    # The guide's control plane reads vLLM's names under its own two labels.
    "sagellm": dataclasses.replace(_VLLM, name="sagellm", model_label="model", namespace_label="namespace"),
}
