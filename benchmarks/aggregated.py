"""Speed of simulated aggregated engines: chunked prefill, gaps between tokens, prefix caches that evict.

    python benchmarks/aggregated.py [--conversation TRACE] [--mooncake TRACE] [--copies N]

Prints requests a second of the whole simulate call, compilation excluded, in wall and in CPU time of one
core: eight instances on conversation lengths, and sixteen with ``kv_aware`` routing on Mooncake's trace,
repeated with ids of its own in each copy. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np

_SHARED = Path(__file__).resolve().parents[2] / "shared" / "traces"


def _fixed(instances: int, **keys: object) -> dict[str, object]:
    return {
        "serving": "aggregated",
        "min_instances": instances,
        "max_instances": instances,
        "max_gpu_budget": instances,
        **keys,
    }


def timed(
    trace: Any, config: dict[str, object], profile: str | None = None
) -> tuple[Any, float, float, float]:
    """Simulate a trace twice, the first time a little of it to compile.

    Return the second result, its time on the clock and of the processor, s, and the bytes a request it took.
    """
    import sagescale
    from sagescale.trace import TransformSpec

    little = TransformSpec(slice=(0.0, trace.duration_s / 200))
    sagescale.simulate(trace, profile=profile, config=config, transforms=little)
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    result = sagescale.simulate(trace, profile=profile, config=config)
    wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib) * 1024 / len(trace)
    return result, wall_s, cpu_s, grown


def measure(name: str, trace: Any, config: dict[str, object], profile: str) -> None:
    """Simulate a trace and print what that took."""
    result, wall_s, cpu_s, grown = timed(trace, config, profile)
    run, document = result.run, result.document.runs[0]
    ticks = [tick.observation.running_decode for tick in run.ticks if tick.observation.running_decode]
    batch = np.mean(ticks) / config["max_instances"] if ticks else 0.0
    print(
        f"{name}: {len(trace):,} requests, {config['max_instances']} instances, batch {batch:.1f}, "
        f"{len(trace) / wall_s:,.0f} requests/s (CPU {len(trace) / cpu_s:,.0f}), {grown:.0f} bytes/request, "
        f"attainment {document.sla.attainment:.2%}",
        flush=True,
    )
    if document.engines is not None and document.engines.prefix is not None:
        print(
            f"  prefix caches hit {document.engines.prefix.hit_rate:.2%} of the prompts' tokens", flush=True
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--conversation", default=str(_SHARED / "azure_llm_2023_conv.csv"))
    parser.add_argument("--mooncake", default=str(_SHARED / "mooncake_synthetic.jsonl"))
    parser.add_argument("--copies", type=int, default=50)
    parser.add_argument("--rate-scale", type=float, default=20.0, help="of the conversation")
    parser.add_argument("--profile", default="h200-llama-3.1-8b-fp8")
    given = parser.parse_args()
    from sagescale.trace import TransformSpec, apply_transforms, read_trace

    trace = apply_transforms(read_trace(given.conversation), TransformSpec(rate_scale=given.rate_scale))
    measure("conversation", trace, _fixed(8), given.profile)
    trace = apply_transforms(read_trace(given.mooncake), TransformSpec(tile=given.copies))
    measure(
        "mooncake",
        trace,
        _fixed(16, prefix_cache=True, routing_strategy="kv_aware", max_kv_tokens=400_000),
        given.profile,
    )


if __name__ == "__main__":
    main()
