"""What is fuzzed: every reader of a file, with valid samples of what it reads."""

# ruff: noqa: E501  # samples have long lines

from __future__ import annotations

import gzip
import io
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pyarrow import parquet
from rich.console import Console
from sagescale.document import read_result
from sagescale.errors import InputError
from sagescale.experiment.replay import read_pool_sizes
from sagescale.experiment.served import read_served
from sagescale.files import shipped
from sagescale.fleet import PoolCounts, Pools, Sizes
from sagescale.live.config import LiveConfig
from sagescale.live.dynamo_config import import_dynamo_config
from sagescale.live.explain import explain_all, explain_tick
from sagescale.live.records import BadRecordError, Note, TickRecord, read_tick
from sagescale.perf import ProfileModel, load_profile, profile_from_source, profile_to_yaml, read_profile
from sagescale.perf.validate import validate_profile
from sagescale.planner import AutoscalerConfig, Observation, Planner
from sagescale.planner.loading import load_settings
from sagescale.report import print_run
from sagescale.report.comparison import print_comparison
from sagescale.report.html import render_html
from sagescale.sim.config import SimulatorConfig
from sagescale.sim.faults import read_faults
from sagescale.trace import read_trace
from sagescale.trace.stats import describe

sys.path.append(str(Path(__file__).parents[1] / "perf"))
sys.path.append(str(Path(__file__).parents[1] / "report"))
from perf_runs import RUNS, aiperf, guidellm, sglang, vllm
from report_documents import agents, comparison, faulty

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Subject:
    """A reader and what follows on its reading, a sample of what it reads, and the sample's name."""

    read: Callable[[Path], object]
    sample: bytes
    name: str


def _trace(path: Path) -> None:
    trace = read_trace(path)
    stats = describe(trace)
    assert stats.requests == len(trace) > 0
    assert all(text.isprintable() and len(text) < 500 for text in trace.warnings)


def _source(path: Path) -> None:
    profile = profile_from_source(path)
    validate_profile(profile)
    assert profile_to_yaml(profile)


def _profile(path: Path) -> None:
    profile = read_profile(path)
    model = ProfileModel(profile)
    assert math.isfinite(model.ttft_ms(1000.0))
    assert math.isfinite(model.itl_ms(4.0, 1000.0))
    path.write_text(profile_to_yaml(profile), encoding="utf-8")
    assert read_profile(path) == profile


def _config(path: Path) -> None:
    types = (AutoscalerConfig, SimulatorConfig, LiveConfig)
    settings = load_settings(types, [path])
    for cls in types:
        defaults = {"prefill_gpus_per_instance": 1, "decode_gpus_per_instance": 1}
        settings.build(cls, **(defaults if cls is AutoscalerConfig else {}))


def _dynamo(path: Path) -> None:
    text = import_dynamo_config(path).text
    path.write_text(text, encoding="utf-8")
    _config(path)


def _result(path: Path) -> None:
    document = read_result(path)
    (print_run if document.comparison is None else print_comparison)(document, Console(file=io.StringIO()))
    assert render_html(document)


def _journal_record(path: Path) -> None:
    try:
        record = read_tick((7, 6e5, 1, 2, 1, path.read_bytes().decode("utf-8", "replace")))
    except BadRecordError as error:
        raise InputError(str(error)) from None
    assert explain_tick(record, [])
    assert explain_all([record] * 6, [])
    assert json.loads(record.to_json())


def _npz(arrays: dict[str, list[float]]) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **{name: np.array(values) for name, values in arrays.items()})
    return stream.getvalue()


def _parquet(columns: dict[str, list[object]]) -> bytes:
    stream = io.BytesIO()
    parquet.write_table(pa.table(columns), stream)
    return stream.getvalue()


def _lines(*rows: object) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


_ARRAYS = {
    "prefill_isl": [100.0, 1000.0, 4000.0],
    "prefill_ttft": [12.0, 30.0, 90.0],
    "prefill_thpt_per_gpu": [8333.0, 33333.0, 44444.0],
    "x_kv_usage": [0.01, 0.2, 0.05, 0.9],
    "y_context_length": [300.0, 300.0, 4000.0, 4000.0],
    "z_itl": [5.1, 11.0, 5.2, 10.6],
    "z_thpt_per_gpu": [196.0, 5454.0, 192.0, 3773.0],
    "max_kv_tokens": [200_000.0],
}
_SWEPT = {name: [values] for name, values in _ARRAYS.items() if name != "max_kv_tokens"} | {
    "tp": [2.0],
    "max_kv_tokens": [200_000.0],
}
_POINTS = [
    *(
        {"kind": "prefill", "isl": isl, "batch": 1, "ms": [10 + 0.02 * isl, 9, 200]}
        for isl in (100, 900, 4000)
    ),
    *(
        {"kind": "decode", "batch": n, "context": c, "ms": 5 + n / 10}
        for n in (1, 8, 64)
        for c in (300, 4000)
    ),
    {"kind": "kv_transfer", "tokens": 1000, "ms": 3.5},
]
_SPLITWISE = (
    "model,hardware,tensor_parallel,prompt_size,batch_size,token_size,prompt_time,token_time,e2e_time\n"
    + (
        "".join(
            f"llama,a100,2,{isl},{n},64,{10 + 0.02 * isl * n},{5 + n / 10},{10 + 0.02 * isl * n + 64 * (5 + n / 10)}\n"
            for isl in (128, 1024, 4096)
            for n in (1, 8, 64)
        )
    )
)
_AICONFIGURATOR = (
    "model,system,backend,version,isl,osl,concurrency,tp,pp,dp,ttft,tpot,tokens/s/gpu\n"
    + "".join(
        f"m,h100,vllm,1,{isl},200,{n},1,1,1,{10 + 0.02 * isl},{5 + n / 10},{n / (5 + n / 10) * 1000:.2f}\n"
        for isl in (200, 1000, 4000)
        for n in (1, 8, 64)
    )
)
_CONFIG = """\
policy: slo
target_ttft_ms: 300
target_itl_ms: 30.5
adjustment_interval_sec: 60
max_gpu_budget: 16
load_predictor_type: prophet
prediction_window_size: 40
startup_delay_s: 30
metrics_preset: vllm
prometheus_url: http://localhost:9090
model_name: "a/b"
metric_queries: {requests: 'sum(increase(x[1m]))'}
"""
_FAULTS = """\
seed: 7
start_timeout_s: 600
rates: {crash_per_instance_hour: 0.01, slow_start_probability: 0.1, no_gpus_per_hour: 0.05, no_gpus_s: 900}
script:
  - {kind: crash, at_s: 1200, pool: decode, count: 3}
  - {kind: slow_starts, from_s: 0, to_s: 3600, factor: 4, pool: prefill}
  - {kind: metrics_lag, from_s: 2400, to_s: 2700, lag_s: 120}
"""
_DYNAMO = """\
spec:
  features:
    planner:
      mode: disagg
      ttft_ms: 300
      itl_ms: 30.5
      throughput_adjustment_interval_seconds: 120
      max_gpu_budget: 16
      min_endpoint: 2
      load_predictor: prophet
      prophet_window_size: 40
      model_name: llama
"""
_DYNAMO_JSON = json.dumps({"ttft_ms": 300, "itl_ms": 30.5, "max_gpu_budget": 16, "min_endpoint": 1})
_SERVED = "arrival_s,isl,osl,first_token_s,done_s\n" + "".join(
    f"{i},{100 + i},20,{i + 0.1},{i + 0.6}\n" for i in range(120)
)
_ROWS = range(5)
_OURS = "arrival_s,isl,osl,cached_tokens,priority\n" + "".join(
    f"{i}.5,{i + 9},{i + 1},{i},0\n" for i in _ROWS
)
_AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\r\n" + "".join(
    f"2023-11-16 18:17:0{i}.9799600,{i + 9},{i + 1}\r\n" for i in _ROWS
)
_MOONCAKE = _lines(
    *({"timestamp": 100 * i, "input_length": i + 600, "output_length": 5, "hash_ids": [i, 1]} for i in _ROWS)
)
_QWEN = _lines(
    *(
        {"chat_id": i, "parent_chat_id": -1, "timestamp": i / 2, "input_length": i + 9, "output_length": 5,
         "type": "text", "turn": 1, "hash_ids": [1]}
        for i in _ROWS
    )
)  # fmt: skip

_OBSERVED = Observation(6e5, 60.0, Pools(PoolCounts(1), PoolCounts(2, 1)), requests=2400.0, isl_mean=900.0,
                        osl_mean=150.0, ttft_ms_mean=250.0, lengths=((900, 150),))  # fmt: skip
_RECORD = TickRecord(
    id=7,
    time_s=6e5,
    observation=_OBSERVED,
    problems=(Note("frozen", "requests: as before"),),
    decision=Planner(AutoscalerConfig(), ProfileModel(load_profile("h200-llama-3.1-8b-fp8")))
    .step(_OBSERVED)
    .to_dict(),
    goal=Sizes(1, 2),
    notes=(Note("dry_run", "nothing is done"),),
    acted=True,
    settings={},
)

SUBJECTS: dict[str, Subject] = {
    "trace-sagescale": Subject(_trace, _OURS.encode(), "x.csv"),
    "trace-gzip": Subject(_trace, gzip.compress(_OURS.encode()), "x.csv.gz"),
    "trace-parquet": Subject(
        _trace, _parquet({"arrival_s": [0.0, 0.5, 2.0], "isl": [10, 20, 30], "osl": [1, 2, 3]}), "x.parquet"
    ),
    "trace-azure": Subject(_trace, _AZURE.encode(), "x.csv"),
    "trace-azure-lmm": Subject(
        _trace, b"TIMESTAMP,NumImages,ContextTokens,GeneratedTokens\n2025-01-01 00:00:00,2,9,9\n", "x.csv"
    ),
    "trace-burstgpt": Subject(
        _trace,
        b"Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,ChatGPT,472,18,490,API log\n",
        "x.csv",
    ),
    "trace-mooncake": Subject(_trace, _MOONCAKE, "x.jsonl"),
    "trace-qwen": Subject(_trace, _QWEN, "x.jsonl"),
    "trace-turns": Subject(
        _trace,
        b"arrival_s,isl,osl,session_id,after,think_s\n0,9,3,1,,0\n2,9,3,1,0,1.5\n2,8,3,2,,0\n5,9,3,1,0;1,0.5\n",
        "x.csv",
    ),
    "trace-agent-sessions": Subject(
        _trace,
        _lines(
            {"header": {"id": "a", "block_size": 64, "hash_id_scope": "local"}},
            {
                "session": "a",
                "t": 0.0,
                "in": 200,
                "out": 9,
                "api_time": 2.5,
                "think_time": 0.0,
                "blocks": [[1, 3]],
            },
            {
                "session": "a/x",
                "t": 0.0,
                "in": 90,
                "out": 9,
                "api_time": 1.5,
                "think_time": 0.0,
                "blocks": [],
            },
            {
                "session": "a",
                "marker": {"t": 9.5, "agent_id": "x", "duration_ms": 6000, "status": "completed"},
            },
            {"session": "a", "t": 12.0, "in": 300, "out": 9, "think_time": 8.0, "blocks": [[1, 3], [7, 1]]},
        ),
        "x.jsonl",
    ),
    "trace-aiperf": Subject(
        _trace,
        _lines(
            {"session_id": "a", "timestamp": 0, "input_length": 300, "output_length": 40},
            {"session_id": "a", "delay": 2000, "input_length": 150, "output_length": 20},
            {"session_id": "b", "turns": [{"text": "hello", "timestamp": 3, "output_length": 9}]},
        ),
        "x.jsonl",
    ),
    "trace-vidur": Subject(
        _trace, b"arrived_at,num_prefill_tokens,num_decode_tokens\n0,1,1\n1,5,5\n", "x.csv"
    ),
    "trace-splitwise": Subject(
        _trace, b"request_id,arrival_timestamp,batch_size,prompt_size,token_size\n0,0.5,1,5,5\n", "x.csv"
    ),
    "trace-apex": Subject(
        _trace,
        _lines(*({"StartTimeOffset": i * 10**9, "ContextTokens": 5, "GeneratedTokens": 5} for i in _ROWS)),
        "x.jsonl",
    ),
    "served-csv": Subject(read_served, _SERVED.encode(), "x.csv"),
    "served-parquet": Subject(
        read_served,
        _parquet(
            {
                name: [float(i + plus) for i in range(120)]
                for name, plus in (
                    ("arrival_s", 0),
                    ("first_token_s", 0.5),
                    ("done_s", 1),
                    ("isl", 9),
                    ("osl", 9),
                )
            }
        ),
        "x.parquet",
    ),
    "pool-sizes": Subject(
        lambda path: read_pool_sizes(path, 0.0), b"time_s,prefill,decode\n0,1,1\n60,2,3\n", "x.csv"
    ),
    "source-measurement": Subject(_source, json.dumps(_POINTS).encode(), "x.json"),
    "source-vllm": Subject(_source, _lines(*map(vllm, RUNS)), "x.jsonl"),
    "source-sglang": Subject(_source, _lines(*map(sglang, RUNS)), "x.jsonl"),
    "source-aiperf": Subject(_source, json.dumps(aiperf(RUNS[0])).encode(), "profile_export_aiperf.json"),
    "source-guidellm": Subject(_source, json.dumps(guidellm(RUNS)).encode(), "x.json"),
    "source-splitwise": Subject(_source, _SPLITWISE.encode(), "x.csv"),
    "source-aiconfigurator": Subject(_source, _AICONFIGURATOR.encode(), "x.csv"),
    "source-dynamo": Subject(_source, _npz(_ARRAYS), "raw_data.npz"),
    "source-dynamo-json": Subject(_source, json.dumps(_ARRAYS).encode(), "raw_data.json"),
    "source-swept": Subject(_source, _npz(_SWEPT), "x.npz"),
    "profile": Subject(
        _profile, (shipped("profiles") / "h100-llama-3.3-70b-fp8-tp8.yaml").read_bytes(), "x.yaml"
    ),
    "config": Subject(_config, _CONFIG.encode(), "x.yaml"),
    "faults": Subject(read_faults, _FAULTS.encode(), "x.yaml"),
    "result-run": Subject(_result, json.dumps(faulty()).encode(), "x.json"),
    "result-agents": Subject(_result, json.dumps(agents()).encode(), "x.json"),
    "result-comparison": Subject(_result, json.dumps(comparison()).encode(), "x.json"),
    "journal-record": Subject(_journal_record, _RECORD.to_json().encode(), "x.json"),
    "dynamo-config": Subject(_dynamo, _DYNAMO.encode(), "x.yaml"),
    "dynamo-config-json": Subject(_dynamo, _DYNAMO_JSON.encode(), "x.json"),
}
