"""Result documents to render: small ones, and some whose every text is an attack."""

from __future__ import annotations

import copy
import math
from typing import Any

TICKS = 24
ATTACK = "</script><script>window.attacked=1</script><img src=x onerror=window.attacked=1>%{x}\"'&amp;\u2028"


def latency(start: float) -> dict[str, float]:
    return {name: start * (1 + i) for i, name in enumerate(("mean", "p50", "p90", "p95", "p99", "max"))}


def timeline(ticks: int = TICKS) -> dict[str, Any]:
    wave = [math.sin(i / 4) for i in range(ticks)]
    prefill = [1 + (i // 6) % 2 for i in range(ticks)]
    decode = [2 + (i // 4) % 3 for i in range(ticks)]
    zero = [0] * ticks
    return {
        "time_s": [60.0 * (i + 1) for i in range(ticks)],
        "requests": [1200 + 600 * w for w in wave],
        "requests_forecast": [1150 + 600 * w for w in wave],
        "requests_forecast_p90": [1400 + 600 * w for w in wave],
        "isl": [1000 + 100 * w for w in wave],
        "osl": [200 - 20 * w for w in wave],
        "ttft_mean_ms": [60 + 20 * w for w in wave],
        "ttft_p50_ms": [50 + 20 * w for w in wave],
        "ttft_p99_ms": [150 + 100 * w for w in wave],
        "itl_mean_ms": [20 + 5 * w for w in wave],
        "itl_p50_ms": [18 + 5 * w for w in wave],
        "itl_p99_ms": [40 + 500 * max(0, w) for w in wave],
        "attainment": [None if i == 3 else 1 - 0.1 * max(0, w) for i, w in enumerate(wave)],
        "queued_prefill": zero,
        "queued_decode": [max(0, round(30 * w)) for w in wave],
        "running_decode": [150 + round(50 * w) for w in wave],
        "kv_usage": [0.3 + 0.1 * w for w in wave],
        "prefill_ready": prefill,
        "prefill_starting": zero,
        "prefill_draining": zero,
        "prefill_waiting": zero,
        "prefill_target": [*prefill[1:], 1],
        "decode_ready": decode,
        "decode_starting": zero,
        "decode_draining": zero,
        "decode_waiting": zero,
        "decode_target": [*decode[1:], 2],
        "gpus": [a + b for a, b in zip(prefill, decode, strict=True)],
        "prefill_correction": [1.5] * ticks,
        "decode_correction": [1.0] * ticks,
        "reasons": [["scale_up", "correction_bounded"] if i % 4 == 3 else ["steady"] for i in range(ticks)],
    }


def run(name: str = "classic/kalman", hours: float = 3.0, attainment: float = 0.98, **more: Any) -> Any:
    policy, _, predictor = name.partition("/")
    return {
        "name": name,
        "policy": policy,
        "predictor": predictor or "none",
        "config": {},
        "initial": {"prefill": 1, "decode": 2},
        "horizon_s": 60.0 * TICKS,
        "requests": {
            "arrived": 8819,
            "completed": 8807,
            "unfinished": 12,
            "restarted": 0,
            "rejected": 7,
            "timed_out": 5,
        },
        "sla": {
            "target_ttft_ms": 200.0,
            "target_itl_ms": 50.0,
            "attainment": attainment,
            "ttft_attainment": 0.99,
            "itl_attainment": 0.985,
            "goodput_rps": 19.3,
        },
        "ttft_ms": latency(50.0),
        "itl_ms": latency(9.0),
        "e2e_ms": latency(900.0),
        "gpu_hours": {"total": hours, "prefill": hours / 3, "decode": 2 * hours / 3},
        "lower_bound_gpu_hours": 1.2,
        "ratio_to_lower_bound": hours / 1.2,
        "scaling": {
            "ticks": TICKS,
            "changes": 8,
            "surges": 1,
            "prefill_launched": 2,
            "decode_launched": 6,
            "max_gpus": 6,
        },
        "forecast": {
            series: {"mape": 0.07, "bias": -4.5, "pinball_p90": 51.0, "coverage_p90": 0.93}
            for series in ("requests", "isl", "osl")
        },
        "reasons": {"steady": 18, "scale_up": 6, "correction_bounded": 6},
        "timeline": timeline(),
        "surges": [
            {
                "time_s": 75.0,
                "prefill_found": 1,
                "prefill_target": 2,
                "decode_found": 3,
                "decode_target": 3,
                "reasons": ["scale_up", "surge"],
            }
        ],
        "timing": {"simulate_s": 1.5, "planner_s": 0.1, "forecast_s": 0.05, "requests_per_s": 5879.0},
        **more,
    }


def document(*runs: Any, **more: Any) -> Any:
    return {
        "schema_version": 1,
        "sagescale": "0.1.0",
        "trace": {
            "path": "traces/example.csv",
            "sha256": "0" * 64,
            "format": "azure",
            "requests": 8819,
            "duration_s": 60.0 * TICKS,
            "transform": ["rate-scale 2"],
        },
        "profile": {
            "name": "h200-example",
            "model": "example",
            "gpu": "h200",
            "engine": "vllm 1",
            "source": "example",
            "licence": "Apache-2.0",
            "prefill_gpus_per_instance": 1,
            "decode_gpus_per_instance": 1,
            "max_num_seqs": 256,
            "max_kv_tokens": 900000,
            "assumed": ["max_num_seqs 256"],
        },
        "config": {"adjustment_interval_sec": 60, "max_gpu_budget": 8, "startup_delay_s": "60"},
        "warnings": ["12 requests never finished"],
        "lower_bound_gpu_hours": 1.2,
        "runs": list(runs or [run()]),
        **more,
    }


def three_pools() -> Any:
    """A run with a second decode pool, called "spare"."""
    made = run()
    made["initial"]["spare"] = 1
    made["gpu_hours"]["spare"] = 0.5
    made["scaling"]["spare_launched"] = 3
    for part in ("ready", "starting", "draining", "waiting", "target", "correction"):
        made["timeline"][f"spare_{part}"] = list(made["timeline"][f"prefill_{part}"])
    return document(made)


def comparison() -> Any:
    split = {"total": 176, "forecast": 100, "startup": 50, "whole_instances": 20, "policy": 6, "without": {}}
    named = [
        ("clairvoyant/oracle", 2.2, 0.992, "hindsight"),
        ("classic/kalman", 2.6, 0.991, "candidate"),
        ("classic/constant", 2.4, 0.95, "candidate"),
        ("classic/arima", 2.7, 0.985, "candidate"),
        ("reactive", 4.0, 1.0, "candidate"),
    ]
    runs = [run(name, hours, met, kind=kind, misses=split) for name, hours, met, kind in named]
    for each in runs:
        each["regret_gpu_hours"] = each["gpu_hours"]["total"] - 2.2
    runs[0]["regret_gpu_hours"] = None
    return document(
        *runs,
        comparison={
            "attainment_asked": 0.99,
            "reaching": ["clairvoyant/oracle", "classic/kalman", "reactive"],
            "winner": "classic/kalman",
            "verdict": "classic/kalman is the cheapest of the 2 of 4 candidates that reach 0.99 of requests.",
            "clairvoyant_gpu_hours": 2.2,
            "replicates": 1,
            "forecasters": [
                {
                    "predictor": "arima",
                    "interval_s": 60.0,
                    "cadence": "every 10 windows",
                    "windows": 24,
                    "refits": 2,
                    "timing": {"seconds": 0.1},
                }
            ],
            "failed": [{"name": "classic/prophet", "error": "could not be fitted"}],
            "interrupted": False,
            "not_run": [],
            "timing": {"wall_s": 12.0},
        },
    )


def fault(time_s: float, until_s: float | None, kind: str, pool: str | None, restarted: int) -> Any:
    return {
        "time_s": time_s,
        "until_s": until_s,
        "kind": kind,
        "pool": pool,
        "instance": 0 if pool else None,
        "restarted": restarted,
    }


def faulty() -> Any:
    """A run in which an instance crashed and metrics were lost for five minutes."""
    faults = {
        "file": "faults.yaml",
        "seed": 0,
        "events": [
            fault(400.0, None, "crash", "decode", 9),
            fault(600.0, 900.0, "metrics_vanish", None, 0),
        ],
        "counts": {"crash": 1, "metrics_vanish": 1},
        "restarts": 9,
        "restarted_missed": 4,
        "gpu_hours_lost": {"total": 0.1, "failed_starts": 0.1},
        "without": {"attainment": 0.99, "gpu_hours": 2.9},
    }
    return document(run(faults=faults))


def agents() -> Any:
    """A run of sessions on engines that step and have prefix caches, learned while it ran, and the advice."""
    prefix = {
        "asked_tokens": 90_000,
        "hit_tokens": 60_000,
        "hit_rate": 2 / 3,
        "by_age": [
            {"until_s": 10.0, "asked_tokens": 30_000, "hit_tokens": 0, "hit_rate": 0.0},
            {"until_s": None, "asked_tokens": 60_000, "hit_tokens": 60_000, "hit_rate": 1.0},
        ],
        "scale_downs": {
            "instances": 2,
            "cached_tokens": 5000,
            "asked_again_tokens": 800,
            "within_s": 300.0,
            "hit_rate_before": 0.7,
            "hit_rate_after": None,
        },
    }
    engines = {
        "gap_ms": {"p50": 8.0, "p90": 9.0, "p99": 80.0, "max": 300.0},
        "max_gap_ms": latency(20.0),
        "preemptions": 3,
        "preempted_requests": 2,
        "recomputed_tokens": 4000,
        "full_memory_s": 7.5,
        "prefix": prefix,
    }
    learned = {"told_ms": 60.0, "learned_ms": 70.0, "true_ms": 72.0}
    made = run(
        engines=engines,
        sessions={
            "total": 30,
            "started": 29,
            "finished": 28,
            "attainment": 0.5,
            "finish_s": {"p50": 60.0, "p90": 600.0, "p99": None},
        },
        surfaces={
            "ttft": [{"isl": 2000.0, **learned}],
            "itl": [{"requests": 8, "context_tokens": 2000.0, **learned}],
        },
    )
    made["requests"]["never_arrived"] = 4
    made["timeline"] |= {"prefix_hit_rate": [0.5] * TICKS, "full_memory_s": [0.0] * TICKS}
    choice = {"name": "fixed", "sizes": {"prefill": [1, 1], "decode": [2, 2]}, "attainment": 1.0}
    choice |= {"gpu_hours": 4.0, "cost": 10.0, "gpus": 3}
    return document(
        made,
        world={**document()["profile"], "name": "h200-real"},
        gpu_hour_price=2.5,
        answer={
            "text": "for TTFT 200 / ITL 50 ms at 99 %: fixed",
            "attainment_asked": 0.99,
            "take": "fixed",
            "fixed": choice,
            "autoscaled": choice,
            "saves": -0.1,
            "ways": [
                {"engines": "p", "serving": "aggregated", "profile": "p", "fixed": choice, "autoscaled": None}
            ],
        },
    )


def attacked(made: Any) -> Any:
    """The same document with an attack in every text that comes from outside."""
    made = copy.deepcopy(made)
    made["trace"]["path"] = made["profile"]["name"] = made["profile"]["gpu"] = made["sagescale"] = ATTACK
    made["trace"]["transform"] = made["profile"]["assumed"] = made["warnings"] = [ATTACK]
    for place, each in enumerate(made["runs"]):
        each["name"] = f"{place} {ATTACK}"
        each["policy"] = each["predictor"] = ATTACK
        each["config"] = {ATTACK: ATTACK}
        each["reasons"][ATTACK] = 3
        each["timeline"]["reasons"] = [[ATTACK]] * TICKS
    if "comparison" in made:
        found = made["comparison"]
        found["verdict"] = ATTACK
        found["winner"] = made["runs"][1]["name"]
        found["reaching"] = [each["name"] for each in made["runs"]]
        found["failed"] = [{"name": ATTACK, "error": ATTACK}]
        found["not_run"] = [ATTACK]
        found["interrupted"] = True
        found["forecasters"][0]["predictor"] = found["forecasters"][0]["cadence"] = ATTACK
    return made
