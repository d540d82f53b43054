"""Two real runs of vLLM, reproduced: six coefficients are fitted to half of the requests, the rest judges.

    python benchmarks/real_vllm.py [--folder FOLDER] [--picture FILE.png]

Each run is 300 ShareGPT requests to vLLM 0.19 (LLMServingSim, MIT): on an RTX 4090 KV memory is short and the
engine pre-empts, on an RTX PRO 6000 it is not. The step takes ``max(floor, a + d x) + running n + kv K + e
sum(c p + c c / 2)``, of decodes alone ``floor + running n + kv K``. Fitted are these six to the TTFT and TPOT
of every other request, by Nelder and Mead's simplex; then they are frozen. The engine's own arguments are
taken: 2,048 tokens a step, its slots, blocks of 16 tokens less the null block (without end where the log does
not say), prefix caching on.
"""

from __future__ import annotations

import argparse
import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sagescale.sim.engine import Cluster, EnginePool, ServiceLoad, Stepping, World
from sagescale.trace import Prefixes
from scipy.optimize import minimize

_FOLDER = Path(__file__).resolve().parents[2] / "shared" / "profiles" / "vllm_real"
_BUDGET, _BLOCK = 2048, 16
_START_MS = (16.0, 2.0, 0.09, 0.02, 1.5e-4, 2e-6)
"""Floor, a, d, running, kv, e: of the order of an 8B model in 16 bits on a GPU with 1 TB/s."""


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """What an engine served: seconds since the first arrival, tokens."""

    arrival_s: np.ndarray
    isl: np.ndarray
    osl: np.ndarray
    first_token_s: np.ndarray
    done_s: np.ndarray
    slots: int
    blocks: int | None
    prefixes: Prefixes

    @property
    def ttft_s(self) -> np.ndarray:
        return self.first_token_s - self.arrival_s

    @property
    def tpot_s(self) -> np.ndarray:
        return (self.done_s - self.first_token_s) / np.maximum(self.osl - 1, 1)


def read(folder: Path, workload: Path) -> Served:
    """Read a run of LLMServingSim's benchmark, and the hashes of its prompts."""
    rows = [json.loads(line) for line in (folder / "requests.jsonl").read_text().splitlines()]
    hashes = [json.loads(line) for line in workload.read_text().splitlines()]
    meta = json.loads((folder / "meta.json").read_text())
    names = [int(row["request_id"].split("-")[1]) for row in rows]
    order = np.argsort([row["queued_ts"] for row in rows], kind="stable")
    column = {name: np.array([row[name] for row in rows])[order] for name in rows[0] if name != "request_id"}
    start_s = column["queued_ts"][0]
    return Served(
        column["queued_ts"] - start_s,
        column["input_toks"].astype(np.int32),
        column["output_toks"].astype(np.int32),
        column["first_token_ts"] - start_s,
        column["last_token_ts"] - start_s,
        meta["engine_kwargs"]["max_num_seqs"],
        meta["kv_cache"]["num_gpu_blocks"] - 1 if "kv_cache" in meta else None,
        Prefixes.of([hashes[names[place]]["hash_ids"] for place in order], _BLOCK),
    )


def cluster(served: Served, coefficients_ms: Any) -> Any:
    """One aggregated instance with these step times, before anything has arrived."""
    floor, a, d, running, kv, e = np.asarray(coefficients_ms) / 1000.0
    slots = served.slots
    n = np.arange(slots + 1)[:, None]
    stepping = Stepping(
        "vllm", _BLOCK, served.blocks, _BUDGET, np.maximum(floor, a + d * np.arange(_BUDGET + 2)),
        running_s=running, kv_s=kv, cross_s=e, square_s=e, prefix_cache=True,
    )  # fmt: skip
    world = World(
        prefill_s=np.zeros(2), prefill_slope_s=0.0, quadratic_s=0.0, prefill_floor_s=0.0,
        breaks=np.tile([0.0, np.inf], (slots + 1, 1)), base_s=floor + running * n,
        slope_s=np.full((slots + 1, 1), kv), max_batch_tokens=_BUDGET, max_num_seqs=slots, max_kv_tokens=None,
        kv_latency_s=0.0, kv_s_per_token=0.0, kv_decode_steps=0.0, kv_blocks_prefill=False,
        join_s_per_token=0.0, first_token="prefill", request_timeout_s=None, prefill_gpus=1, decode_gpus=1,
        max_gpus=1, stepping=stepping,
    )  # fmt: skip
    load = ServiceLoad(
        "vllm", (EnginePool("aggregated", "aggregated", world, 1),), (1,), served.arrival_s, served.isl,
        served.isl, served.osl, prefixes=served.prefixes,
    )  # fmt: skip
    return Cluster.alone(load)


def simulated(served: Served, coefficients_ms: Any) -> tuple[np.ndarray, np.ndarray, Any]:
    """TTFT and TPOT of each request, in s, and the cluster that served them."""
    found = cluster(served, coefficients_ms)
    found.advance(np.inf)
    first_s, done_s = found.requests["first_token_s"], found.requests["done_s"]
    return first_s - served.arrival_s, (done_s - first_s) / np.maximum(served.osl - 1, 1), found


def fit(served: Served, part: np.ndarray) -> np.ndarray:
    """The coefficients, in ms, that reproduce a part of the requests best."""

    def error(logs: np.ndarray) -> float:
        ttft_s, tpot_s, _ = simulated(served, np.exp(logs))
        # Waiting is a sum of many steps: its errors are beside the mean, those of TPOT request by request.
        waits = np.abs(ttft_s - served.ttft_s)[part].mean() / served.ttft_s[part].mean()
        paces = np.abs(tpot_s / served.tpot_s - 1.0)[part & (served.osl > 1)].mean()
        ends = abs(ttft_s[part].mean() / served.ttft_s[part].mean() - 1.0)
        return float(waits + paces + ends)

    best = np.log(_START_MS)
    for _ in range(4):
        best = minimize(
            error, best, method="Nelder-Mead", options={"maxiter": 600, "xatol": 1e-4, "fatol": 1e-5}
        ).x
    return np.exp(best)


def counts(served: Served, coefficients_ms: Any, seconds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Running and waiting requests at each second."""
    found = cluster(served, coefficients_ms)
    running, waiting = [], []
    for second in seconds:
        found.advance(float(second))
        gauges = found.gauges()
        running.append(sum(gauges.running))
        waiting.append(sum(gauges.queued))
    return np.array(running), np.array(waiting)


def report(name: str, served: Served, picture: tuple[Any, int] | None, folder: Path) -> None:
    fitted = np.arange(len(served.isl)) % 2 == 0
    coefficients = fit(served, fitted)
    ttft_s, tpot_s, found = simulated(served, coefficients)
    print(
        f"{name}: floor, a, d, running, kv, e in ms: " + ", ".join(f"{value:.4g}" for value in coefficients)
    )
    for what, part in (("fitted to", fitted), ("judged on", ~fitted)):
        errors = [
            f"{label} {(mine[part].mean() / real[part].mean() - 1):+.1%}"
            f" (median {(np.median(mine[part]) / np.median(real[part]) - 1):+.1%})"
            for label, mine, real in (("TTFT", ttft_s, served.ttft_s), ("TPOT", tpot_s, served.tpot_s))
        ]
        print(f"  {what} {int(part.sum())} requests: mean {', mean '.join(errors)}")
    stepped = found.stepped()
    print(
        f"  pre-emptions {stepped.preemptions}; mean TTFT {served.ttft_s.mean():.1f} s, "
        f"TPOT {served.tpot_s.mean() * 1000:.1f} ms"
    )
    if picture is not None:
        axes, row = picture
        with (folder / "timeseries.csv").open() as stream:
            real = list(csv.DictReader(stream))
        seconds = np.array([float(one["t"]) for one in real])
        mine = counts(served, coefficients, seconds)
        for column, what in enumerate(("running", "waiting")):
            axis = axes[row][column]
            axis.plot(seconds, [float(one[what]) for one in real], color="0.2", lw=1.6, label="vLLM 0.19")
            axis.plot(seconds, mine[column], color="#d55e00", lw=1.2, label="sagescale")
            axis.set(title=f"{name}: {what}", xlabel="s", ylabel="requests")
            axis.grid(alpha=0.3)
            axis.legend()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=_FOLDER)
    parser.add_argument("--picture", type=Path, help="draw running and waiting requests over time")
    given = parser.parse_args()
    workload = next(given.folder.glob("*.hash16.jsonl"))
    folders = sorted(path.parent for path in given.folder.glob("*/requests.jsonl"))
    figure: Any = None
    axes: Any = None
    if given.picture:
        import matplotlib.pyplot as plt

        figure, axes = plt.subplots(len(folders), 2, figsize=(11, 3.2 * len(folders)), squeeze=False)
    for row, folder in enumerate(folders):
        report(folder.name, read(folder, workload), (axes, row) if given.picture else None, folder)
    if given.picture:
        figure.tight_layout()
        figure.savefig(given.picture, dpi=90)


if __name__ == "__main__":
    main()
