"""What one emulated engine has counted, under vLLM's names, and its metric page."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import NDArray
    from prometheus_client import Metric

_TTFT_S = np.array(
    [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0,
     80.0, 160.0, 640.0, 2560.0]
)  # fmt: skip
_ITL_S = np.array(
    [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0,
     80.0]
)  # fmt: skip
_DURATION_S = np.array(
    [0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0,
     960.0, 1920.0, 7680.0]
)  # fmt: skip
_TOKENS = np.array([float(step * 10**power) for power in range(6) for step in (1, 2, 5)])


class Histogram:
    """Counts of values at or under each edge, with their sum."""

    __slots__ = ("counts", "edges", "total")

    def __init__(self, edges: NDArray[np.float64]) -> None:
        self.edges = edges
        self.counts = np.zeros(len(edges) + 1)
        self.total = 0.0

    def observe(self, values: NDArray[np.float64], weights: NDArray[np.float64] | None = None) -> None:
        """Take in values, each ``weights`` times."""
        where = np.searchsorted(self.edges, values, side="left")
        self.counts += np.bincount(where, weights, len(self.counts))
        self.total += float(values.sum() if weights is None else (values * weights).sum())

    @property
    def count(self) -> float:
        """How many values so far."""
        return float(self.counts.sum())

    def cumulative(self) -> Iterator[tuple[str, float]]:
        """Return each upper edge as text and how many values lie at or under it."""
        edges = [*map(repr, self.edges.tolist()), "+Inf"]
        return zip(edges, np.cumsum(self.counts).tolist(), strict=True)


@dataclass(slots=True)
class EngineMetrics:
    """One engine's totals since it started, and its gauges now; ``kv_usage`` is None where unlimited."""

    name: str
    role: str
    completed: float = 0.0
    generated_tokens: float = 0.0
    cache_queries: float = 0.0
    cache_hits: float = 0.0
    preemptions: float = 0.0
    running: float = 0.0
    waiting: float = 0.0
    kv_usage: float | None = None
    cpu_s: float = 0.0
    ttft: Histogram = field(default_factory=lambda: Histogram(_TTFT_S))
    itl: Histogram = field(default_factory=lambda: Histogram(_ITL_S))
    request_itl: Histogram = field(default_factory=lambda: Histogram(_ITL_S))
    duration: Histogram = field(default_factory=lambda: Histogram(_DURATION_S))
    prompt: Histogram = field(default_factory=lambda: Histogram(_TOKENS))
    generation: Histogram = field(default_factory=lambda: Histogram(_TOKENS))

    @property
    def prompt_tokens(self) -> float:
        """Prompt tokens of the requests that have ended in it."""
        return self.prompt.total

    def answered(
        self,
        duration_s: NDArray[np.float64],
        isl: NDArray[np.float64],
        osl: NDArray[np.float64],
        itl_s: NDArray[np.float64],
    ) -> None:
        """Count requests whose answers ended in it: time in the engine, tokens, mean time between them."""
        self.completed += len(osl)
        self.duration.observe(duration_s)
        self.prompt.observe(isl)
        self.generation.observe(osl)
        self.request_itl.observe(itl_s)
        several = osl > 1
        self.itl.observe(itl_s[several], osl[several] - 1)


_GAUGES = (
    ("running", "num_requests_running", "Requests being worked on."),
    ("waiting", "num_requests_waiting", "Requests that wait."),
)
_COUNTERS = (
    ("prompt_tokens", "prompt_tokens", "Prompt tokens processed."),
    ("generated_tokens", "generation_tokens", "Tokens generated."),
    ("cache_queries", "prefix_cache_queries", "Tokens looked for in the cache."),
    ("cache_hits", "prefix_cache_hits", "Tokens found in the cache."),
    ("preemptions", "num_preemptions", "Requests that lost their KV memory to others."),
)
_HISTOGRAMS = (
    ("ttft", "time_to_first_token_seconds", "Time to first token."),
    ("itl", "inter_token_latency_seconds", "Time between tokens."),
    (
        "request_itl",
        "request_time_per_output_token_seconds",
        "Mean time between a request's tokens; 0 of a single one.",
    ),
    ("duration", "e2e_request_latency_seconds", "Time in this engine."),
    ("prompt", "request_prompt_tokens", "Prompt tokens of a request."),
    ("generation", "request_generation_tokens", "Tokens generated for a request."),
)
"""Field, vLLM's name and meaning."""


class EnginePage(Collector):
    """The numbers of engines as they are now, to be written by ``prometheus_client.generate_latest``.

    Args:
        engines: Which.
        common: Labels of every series, e.g. ``model_name``.
        with_instance: Whether series say which instance and job they are of, as a page of several must.
        ranks: Data-parallel ranks of an engine. Several have a series each, labelled ``engine``: equal
            shares of whatever is counted, and the same share of KV memory in use.
    """

    def __init__(
        self,
        engines: Iterable[EngineMetrics],
        common: Mapping[str, str],
        *,
        with_instance: bool,
        ranks: int = 1,
    ) -> None:
        process = ("instance", "job") if with_instance else ()
        labels = (*common, *process, *(("engine",) if ranks > 1 else ()))
        gauges = [
            (key, GaugeMetricFamily(f"vllm:{name}", about, None, labels)) for key, name, about in _GAUGES
        ]
        counters = [
            (key, CounterMetricFamily(f"vllm:{name}", about, None, labels)) for key, name, about in _COUNTERS
        ]
        histograms = [
            (key, HistogramMetricFamily(f"vllm:{name}", about, labels=labels))
            for key, name, about in _HISTOGRAMS
        ]
        kv_usage = GaugeMetricFamily(
            "vllm:kv_cache_usage_perc", "Share of the KV memory in use, 0 to 1.", None, labels
        )
        success = CounterMetricFamily(
            "vllm:request_success", "Requests finished.", None, (*labels, "finished_reason")
        )
        cpu = CounterMetricFamily("process_cpu_seconds", "CPU time.", None, process)
        for engine in engines:
            instance = (engine.name, engine.role) if with_instance else ()
            for rank in range(ranks):
                values = (*common.values(), *instance, *((str(rank),) if ranks > 1 else ()))
                for key, gauge in gauges:
                    gauge.add_metric(values, getattr(engine, key) / ranks)
                for key, counter in counters:
                    counter.add_metric(values, getattr(engine, key) / ranks)
                if engine.kv_usage is not None:
                    kv_usage.add_metric(values, engine.kv_usage)
                for reason, count in (("stop", engine.completed), ("length", 0.0), ("abort", 0.0)):
                    success.add_metric((*values, reason), count / ranks)
                for key, histogram in histograms:
                    found: Histogram = getattr(engine, key)
                    buckets = [(edge, count / ranks) for edge, count in found.cumulative()]
                    histogram.add_metric(values, buckets, found.total / ranks)
            cpu.add_metric(instance, engine.cpu_s)
        families = [family for _, family in (*gauges, *counters, *histograms)]
        self._families: list[Metric] = [*families, kv_usage, success, cpu]

    def collect(self) -> list[Metric]:
        """Return every metric that there is a series of."""
        return [family for family in self._families if family.samples]
