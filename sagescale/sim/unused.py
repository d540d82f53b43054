"""What was given and can have no effect: said in the report, as a file may hold the keys of several runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sagescale.declare import declared
from sagescale.sim.config import SimulatorConfig
from sagescale.sim.scheduler import scheduler_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sagescale.planner import AutoscalerConfig, Serving
    from sagescale.trace import Trace

_OF_SERVING: dict[Serving, tuple[str, ...]] = {
    "disaggregated": (
        "initial_prefill", "initial_decode", "first_token", "kv_transfer_latency_ms",
        "kv_transfer_ms_per_1k_tokens", "kv_transfer_decode_steps", "kv_transfer_blocks_prefill",
        "join_ms_per_1k_tokens",
    ),
    "aggregated": ("initial_instances",),
}  # fmt: skip

_OF_SCHEDULERS = {
    "max_batched_tokens": ("vllm", "sglang"),
    "long_prefill_token_threshold": ("vllm", "sglang"),
    "chunked_prefill": ("vllm", "sglang"),
    "mixed_chunk": ("sglang",),
    "reserve_full_isl": ("vllm",),
    "kv_block_tokens": ("vllm", "sglang"),
}

_OF_ROUTING = {
    "overlap_credit": "kv_aware",
    "prefill_load_scale": "kv_aware",
    "router_temperature": "kv_aware",
    "affinity_max_load": "session_affinity",
}


def unused_warnings(trace: Trace, runs: Sequence[tuple[AutoscalerConfig, SimulatorConfig]]) -> list[str]:
    """Name the keys that differ from their defaults without effect in any run, a line each.

    Of what is known of cached prompts, say too what is not gone by.
    """
    unused = [dict(_unused(trace, config, simulator)) for config, simulator in runs]
    found: dict[str, str] = {}
    for one in unused:
        for key, why in one.items():
            used = (
                key not in other and _is_given(simulator, key)
                for other, (_, simulator) in zip(unused, runs, strict=True)
            )
            if not any(used):
                found.setdefault(key, f"{key} has no effect: {why}")
    return [*found.values(), *_not_gone_by(trace, [simulator for _, simulator in runs])]


def unused_keys(config: AutoscalerConfig, simulator: SimulatorConfig) -> list[str]:
    """Name the keys that differ from their defaults without effect, whatever the trace, a line each."""
    return [f"{key} has no effect: {why}" for key, why in _unused_of(config, simulator)]


def _unused(trace: Trace, config: AutoscalerConfig, simulator: SimulatorConfig) -> Iterator[tuple[str, str]]:
    """Keys given without effect, each with why."""
    yield from _unused_of(config, simulator)
    if trace.cached_tokens is not None and _is_given(simulator, "prefix_hit_rate"):
        yield "prefix_hit_rate", "the trace has cached_tokens"
    if trace.prefixes is None and _is_given(simulator, "prefix_cache"):
        yield "prefix_cache", "the trace has no hashes of its prompts' blocks"


def _unused_of(config: AutoscalerConfig, simulator: SimulatorConfig) -> Iterator[tuple[str, str]]:
    for serving, keys in _OF_SERVING.items():
        if serving != config.serving:
            for key in keys:
                if _is_given(simulator, key):
                    yield key, f"serving is {config.serving}"
    scheduler = scheduler_of(simulator, config.serving)
    for key, schedulers in _OF_SCHEDULERS.items():
        if scheduler not in schedulers and _is_given(simulator, key):
            yield key, f"engine_scheduler is {scheduler}"
    for key, routing in _OF_ROUTING.items():
        if simulator.routing_strategy != routing and _is_given(simulator, key):
            yield key, f"routing_strategy is {simulator.routing_strategy}"
    if simulator.routing_strategy == "round_robin" and _is_given(simulator, "router_staleness_s"):
        yield "router_staleness_s", "routing_strategy is round_robin"


def _is_given(simulator: SimulatorConfig, key: str) -> bool:
    return bool(getattr(simulator, key) != declared(SimulatorConfig)[key].default)


def _not_gone_by(trace: Trace, simulators: Sequence[SimulatorConfig]) -> Iterator[str]:
    if trace.prefixes is None:
        return
    if trace.cached_tokens is not None and all(simulator.prefix_cache for simulator in simulators):
        yield "the trace's cached_tokens are not used: with prefix_cache its block hashes say what is found"
    if trace.cached_tokens is None and any(simulator.prefix_hit_rate for simulator in simulators):
        yield (
            "the trace's block hashes say what prompts have in common, and prefix_hit_rate does not go by "
            "them; prefix_cache true does"
        )
