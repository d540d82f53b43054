"""What one emulated engine has counted, and how it says so."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sagescale.live.emulator.histogram import (
    DURATION_EDGES,
    ITL_EDGES,
    TOKEN_EDGES,
    TTFT_EDGES,
    Histogram,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["EngineMetrics", "render"]


@dataclass(slots=True)
class EngineMetrics:
    """One engine's totals since it started, and its gauges now; ``kv_usage`` is None where unlimited."""

    name: str
    role: str
    completed: float = 0.0
    prompt_tokens: float = 0.0
    generated_tokens: float = 0.0
    cache_queries: float = 0.0
    cache_hits: float = 0.0
    running: float = 0.0
    waiting: float = 0.0
    kv_usage: float | None = None
    cpu_s: float = 0.0
    ttft: Histogram = field(default_factory=lambda: Histogram(TTFT_EDGES))
    itl: Histogram = field(default_factory=lambda: Histogram(ITL_EDGES))
    request_itl: Histogram = field(default_factory=lambda: Histogram(ITL_EDGES))
    duration: Histogram = field(default_factory=lambda: Histogram(DURATION_EDGES))
    prompt: Histogram = field(default_factory=lambda: Histogram(TOKEN_EDGES))
    generation: Histogram = field(default_factory=lambda: Histogram(TOKEN_EDGES))

    def scalars(self) -> Iterable[tuple[str, str, str, float]]:
        """Return metric, kind, meaning and value of everything that is one number."""
        yield "num_requests_running", "gauge", "Requests being worked on.", self.running
        yield "num_requests_waiting", "gauge", "Requests that wait.", self.waiting
        if self.kv_usage is not None:
            yield "kv_cache_usage_perc", "gauge", "Share of the KV memory in use, 0 to 1.", self.kv_usage
        yield "prompt_tokens_total", "counter", "Prompt tokens processed.", self.prompt_tokens
        yield "generation_tokens_total", "counter", "Tokens generated.", self.generated_tokens
        yield "prefix_cache_queries_total", "counter", "Tokens looked for in the cache.", self.cache_queries
        yield "prefix_cache_hits_total", "counter", "Tokens found in the cache.", self.cache_hits

    def histograms(self) -> Iterable[tuple[str, str, Histogram]]:
        """Return metric, meaning and values of every histogram."""
        yield "time_to_first_token_seconds", "Time to first token.", self.ttft
        yield "inter_token_latency_seconds", "Time between tokens.", self.itl
        yield (
            "request_time_per_output_token_seconds",
            "Mean time between a request's tokens.",
            self.request_itl,
        )
        yield "e2e_request_latency_seconds", "Time in this engine.", self.duration
        yield "request_prompt_tokens", "Prompt tokens of a request.", self.prompt
        yield "request_generation_tokens", "Tokens generated for a request.", self.generation


def render(
    engines: Iterable[EngineMetrics], common: Mapping[str, str], *, with_instance: bool, ranks: int = 1
) -> dict[str, list[str]]:
    """Write engines in Prometheus' text format, grouped by metric.

    Args:
        engines: Which.
        common: Labels of every series, e.g. ``model_name``.
        with_instance: Whether series say which instance and job they are of, as a page of several must.
        ranks: Data-parallel ranks of an engine. Several have a series each, labelled ``engine``: equal
            shares of whatever is counted, and the same share of KV memory in use.

    Returns:
        The lines of each metric family, its HELP and TYPE first.
    """
    families: dict[str, list[str]] = {}

    def family(name: str, kind: str, about: str) -> list[str]:
        full = f"vllm:{name}"
        if full not in families:
            families[full] = [f"# HELP {full} {about}", f"# TYPE {full} {kind}"]
        return families[full]

    for engine in engines:
        labels = dict(common)
        if with_instance:
            labels |= {"instance": engine.name, "job": engine.role}
        for rank in range(ranks):
            inside = _inside(labels if ranks == 1 else {**labels, "engine": str(rank)})
            for name, kind, about, value in engine.scalars():
                part = value if name == "kv_cache_usage_perc" else value / ranks
                family(name, kind, about).append(f"vllm:{name}{{{inside}}} {part!r}")
            reasons = (("stop", engine.completed), ("length", 0.0), ("abort", 0.0))
            for reason, value in reasons:
                family("request_success_total", "counter", "Requests finished.").append(
                    f'vllm:request_success_total{{{inside},finished_reason="{reason}"}} {value / ranks!r}'
                )
            for name, about, histogram in engine.histograms():
                lines = family(name, "histogram", about)
                lines.extend(
                    f'vllm:{name}_bucket{{{inside},le="{edge}"}} {value / ranks!r}'
                    for edge, value in histogram.cumulative()
                )
                lines.append(f"vllm:{name}_sum{{{inside}}} {histogram.total / ranks!r}")
                lines.append(f"vllm:{name}_count{{{inside}}} {histogram.count / ranks!r}")
        cpu = "process_cpu_seconds_total"
        families.setdefault(cpu, [f"# HELP {cpu} CPU time.", f"# TYPE {cpu} counter"])
        process = {key: value for key, value in labels.items() if key in {"instance", "job"}}
        families[cpu].append(f"{cpu}{{{_inside(process)}}} {engine.cpu_s!r}")
    return families


def _inside(labels: Mapping[str, str]) -> str:
    return ",".join(f'{key}="{_escaped(value)}"' for key, value in labels.items())


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
