"""Benchmark runs of an engine known by formula, written the way each tool writes them.

The field names are those the tools document; the numbers are what clients of the engine would see.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

DURATION_S = 600.0


def ttft_ms(isl: float) -> float:
    return 10.0 + 0.02 * isl


def itl_ms(n: float, context: float) -> float:
    return 5.0 + 0.1 * n + 1e-5 * n * context


@dataclass(frozen=True)
class TrueRun:
    """What a closed loop of ``clients`` sees; the step of a token holds ``seen`` requests."""

    isl: int
    osl: int
    clients: int

    @property
    def gap(self) -> float:
        return itl_ms(self.seen, self.isl + self.osl / 2)

    @property
    def seen(self) -> float:
        seen = float(self.clients)
        for _ in range(200):
            decode = (self.osl - 1) * itl_ms(seen, self.isl + self.osl / 2)
            decoding = self.clients * decode / (self.ttft + decode)
            seen = decoding + 1 - decoding / self.clients
        return seen

    @property
    def ttft(self) -> float:
        return ttft_ms(self.isl) * (1.0 if self.clients == 1 else 1.5)  # under load it waits

    @property
    def completed(self) -> float:
        return DURATION_S * 1000 * self.clients / (self.ttft + (self.osl - 1) * self.gap)


RUNS = tuple(
    TrueRun(isl, osl, clients)
    for isl, osl in ((200, 100), (1000, 200), (4000, 100))
    for clients in (1, 8, 64)
)


def bench_serve(run: TrueRun) -> dict:
    return {
        "duration": DURATION_S,
        "completed": run.completed,
        "total_input_tokens": run.completed * run.isl,
        "total_output_tokens": run.completed * run.osl,
        "request_throughput": run.completed / DURATION_S,
        "output_throughput": run.completed * run.osl / DURATION_S,
        "max_concurrency": run.clients,
        **{f"{stat}_ttft_ms": run.ttft for stat in ("mean", "median", "p99")},
        **{f"{stat}_tpot_ms": run.gap for stat in ("mean", "median", "p99")},
        **{f"{stat}_itl_ms": run.gap for stat in ("mean", "median", "p99")},
    }


def vllm(run: TrueRun) -> dict:
    extra = {"date": "20261122-101500", "backend": "vllm", "model_id": "org/m", "request_rate": "inf"}
    return {**extra, **bench_serve(run), "num_prompts": run.completed, "failed": 0, "median_e2el_ms": 1.0}


def sglang(run: TrueRun) -> dict:
    return {
        "backend": "sglang",
        "dataset_name": "random",
        "request_rate": float("inf"),
        "random_input_len": run.isl,
        **bench_serve(run),
        "total_output_tokens_retokenized": run.completed * run.osl,
        "mean_e2e_latency_ms": "unchecked",
        "accept_length": None,
    }


def block(value: float, unit: str) -> dict:
    return {"unit": unit, "avg": value, "min": value, "max": value, "p1": value, "p50": value, "p99": value}


def aiperf(run: TrueRun) -> dict:
    return {
        "schema_version": "1.0",
        "request_count": {"unit": "requests", "avg": run.completed},
        "request_throughput": {"unit": "requests/sec", "avg": run.completed / DURATION_S},
        "request_latency": block(run.ttft + (run.osl - 1) * run.gap, "ms"),
        "time_to_first_token": block(run.ttft / 1000, "sec"),
        "inter_token_latency": block(run.gap * 1e6, "ns"),
        "input_sequence_length": block(run.isl, "tokens"),
        "output_sequence_length": block(run.osl, "tokens"),
        "output_token_throughput": {"unit": "tokens/sec", "avg": run.completed * run.osl / DURATION_S},
        "input_config": {"endpoint": {"model_names": ["org/m"]}, "loadgen": {"concurrency": run.clients}},
        "was_cancelled": False,
        "error_summary": [],
    }


def genai_perf(run: TrueRun) -> dict:
    document = aiperf(run)
    del document["schema_version"], document["was_cancelled"], document["error_summary"]
    document["time_to_first_token"] = block(run.ttft, "ms")
    document["inter_token_latency"] = block(run.gap, "ms")
    document["input_config"] = {"model": ["org/m"], "concurrency": run.clients}
    return document


def by_status(value: float) -> dict:
    nothing = {"mean": 0.0, "median": 0.0, "count": 0, "percentiles": {}}
    good = {"mean": value, "median": value, "count": 10, "percentiles": {"p001": value, "p01": value}}
    return {"successful": good, "incomplete": nothing, "errored": nothing, "total": good}


def guidellm_benchmark(run: TrueRun) -> dict:
    strategy = (
        {"type_": "synchronous"} if run.clients == 1 else {"type_": "concurrent", "streams": run.clients}
    )
    return {
        "config": {"strategy": strategy},
        "duration": DURATION_S,
        "metrics": {
            "request_totals": {
                "successful": run.completed,
                "incomplete": run.clients,
                "errored": 0,
                "total": run.completed + run.clients,
            },
            "requests_per_second": by_status(run.completed / DURATION_S),
            "request_concurrency": by_status(run.clients),
            "time_to_first_token_ms": by_status(run.ttft),
            "inter_token_latency_ms": by_status(run.gap),
            "prompt_token_count": by_status(run.isl),
            "output_token_count": by_status(run.osl),
        },
    }


def guidellm(runs: tuple[TrueRun, ...]) -> dict:
    return {"metadata": {"version": 2}, "benchmarks": [guidellm_benchmark(run) for run in runs]}


def changed(document: dict, path: str, value: object) -> dict:
    """Return a copy with the value at a dotted path replaced; ``...`` deletes it."""
    document = copy.deepcopy(document)
    *inner, last = path.split(".")
    place = document
    for key in inner:
        place = place[int(key) if isinstance(place, list) else key]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return document


def write_lines(path: Path, documents: list[dict]) -> Path:
    path.write_text("\n".join(map(json.dumps, documents)) + "\n")
    return path


def write_tree(root: Path, documents: list[dict], name: str) -> Path:
    for index, document in enumerate(documents):
        folder = root / f"run{index}"
        folder.mkdir(parents=True)
        (folder / name).write_text(json.dumps(document, indent=2))
    return root
