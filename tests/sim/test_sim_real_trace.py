"""The whole command against a second, independent implementation of DESIGN 5, on a recorded hour.

Nothing of sagescale is used on the other side: the trace is read with ``csv``, the engines are formulas
written here, and every decode step is taken. The command gets the formulas the way an outsider's
measurements reach it: a measurement file, ``profile import``, ``simulate --profile``.
"""

from __future__ import annotations

import csv
import heapq
import json
import math
from collections import deque
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import pytest
import reference
from reference_records import Request
from reference_records import World as ReferenceWorld
from sagescale.cli.app import app

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SLOTS, KV_TOKENS, BATCH_TOKENS = 64, 60_000, 8192
KV_LATENCY_MS, KV_MS_PER_1K = 2.0, 0.4


@dataclass(frozen=True)
class Truth:
    """Engines as formulas, in ms.

    ``ttft`` of a lone prompt of S tokens, of which ``attention * S^2``; ``itl`` of n requests with K tokens.
    """

    name: str
    ttft: Callable[[float], float]
    attention: float
    itl: Callable[[int, float], float]
    tolerance: float

    def batch_s(self, tokens: list[int]) -> float:
        total = sum(tokens)
        across = total * total - sum(n * n for n in tokens)
        return (self.ttft(total) - self.attention * across) / 1000.0


# Slow enough that one prefill and two decode instances are tight: minutes of backlog, slots and KV that bind.
LINEAR = Truth("linear", lambda s: 48 + 0.1 * s, 0.0, lambda n, k: 24 + 0.44 * n + 1e-4 * k, tolerance=1e-3)
CURVED = Truth(
    "curved",
    lambda s: 32 + 0.08 * s + 1.6e-6 * s * s,
    1.6e-6,
    lambda n, k: 20 + 0.32 * n + 4.8e-5 * k + 16 * n / (n + 24) + 6 * (1 - math.exp(-k / 60_000)),
    tolerance=5e-3,
)
ROOMY, TIGHT = (3, 6), (1, 2)


def measurements(truth: Truth) -> list[dict[str, object]]:
    """What an outsider would measure of it: lone prompts, a grid of decode points, some KV copies."""
    isl = (32, 64, 128, 256, 512, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384)
    # Between measured contexts time is taken as straight: half-octaves keep the chords of a bend under 1e-3.
    contexts = sorted({round(64 * 2 ** (i / 2)) for i in range(15)})
    loads = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64)
    return [
        *({"kind": "prefill", "isl": s, "batch": 1, "ms": truth.ttft(s)} for s in isl),
        *(
            {"kind": "decode", "batch": n, "context": c, "ms": truth.itl(n, n * c)}
            for n in loads
            for c in contexts
        ),
        *(
            {"kind": "kv_transfer", "tokens": t, "ms": KV_LATENCY_MS + KV_MS_PER_1K * t / 1000}
            for t in (256, 1024, 8192)
        ),
    ]


def read_azure(path: Path) -> list[tuple[float, int, int]]:
    with path.open(newline="") as stream:
        rows = [(_moment(t), int(isl), int(osl)) for t, isl, osl in list(csv.reader(stream))[1:]]
    rows.sort(key=lambda row: row[0])
    return [(t - rows[0][0], isl, osl) for t, isl, osl in rows]


def _moment(text: str) -> float:
    whole, _, fraction = text.partition(".")
    seconds = (datetime.fromisoformat(whole) - datetime(2023, 1, 1)).total_seconds()  # noqa: DTZ001 -- no zone given
    return seconds + float(f"0.{fraction or 0}")


class Prefill:
    def __init__(self) -> None:
        self.queue: deque[int] = deque()
        self.batch: list[int] = []
        self.outstanding = 0


class Decode:
    def __init__(self) -> None:
        self.queue: deque[int] = deque()
        self.ends: dict[int, list[int]] = {}  # after which of its steps who is done
        self.steps = self.running = self.held = self.promised = 0
        self.bound = 0
        self.stepping = False


STEP, BATCH, HAND_OFF, ARRIVAL = range(4)  # the order of one instant


def serve(
    rows: list[tuple[float, int, int]], truth: Truth, pools: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Rules 1 to 5 and 9 at fixed pools: TTFT and ITL in ms of every request, NaN where undefined."""
    prefill, decode = [Prefill() for _ in range(pools[0])], [Decode() for _ in range(pools[1])]
    first, done = np.full(len(rows), np.nan), np.full(len(rows), np.nan)
    events: list[tuple[float, int, int, int, int]] = [
        (t, ARRIVAL, i, 0, 0) for i, (t, _, _) in enumerate(rows)
    ]
    heapq.heapify(events)
    started = 0
    while events:
        now = events[0][0]
        touched: set[Prefill | Decode] = set()
        while events and events[0][0] == now:
            _, kind, order, request, at = heapq.heappop(events)
            if kind == STEP:
                d = decode[at]
                d.stepping = False
                d.steps += 1
                d.held += d.running
                touched.add(d)
                for i in d.ends.pop(d.steps, ()):
                    _, isl, osl = rows[i]
                    done[i] = now
                    d.running -= 1
                    d.held -= isl + osl - 1
                    d.promised -= isl + osl
                    d.bound -= isl + osl
            elif kind == BATCH:
                p = prefill[at]
                batch, p.batch = p.batch, []
                touched.add(p)
                for i in batch:
                    _, isl, osl = rows[i]
                    p.outstanding -= isl
                    first[i] = now
                    if osl == 1:
                        done[i] = now
                        continue
                    at = min(range(len(decode)), key=lambda j: (decode[j].bound, j))
                    decode[at].bound += isl + osl
                    started += 1
                    delay_s = (KV_LATENCY_MS + KV_MS_PER_1K * isl / 1000.0) / 1000.0
                    heapq.heappush(events, (now + delay_s, HAND_OFF, started, i, at))
            elif kind == HAND_OFF:
                decode[at].queue.append(request)
                touched.add(decode[at])
            else:
                at = min(range(len(prefill)), key=lambda j: (prefill[j].outstanding, j))
                prefill[at].outstanding += rows[order][1]
                prefill[at].queue.append(order)
                touched.add(prefill[at])
        for at, p in enumerate(prefill):
            if p in touched and not p.batch and p.queue:
                p.batch = [p.queue.popleft()]
                total = rows[p.batch[0]][1]
                while p.queue and total + rows[p.queue[0]][1] <= BATCH_TOKENS:
                    total += rows[p.queue[0]][1]
                    p.batch.append(p.queue.popleft())
                duration_s = truth.batch_s([rows[i][1] for i in p.batch])
                heapq.heappush(events, (now + duration_s, BATCH, at, 0, at))
        for at, d in enumerate(decode):
            if d in touched and not d.stepping:
                while d.queue and d.running < SLOTS:
                    _, isl, osl = rows[d.queue[0]]
                    if d.promised + isl + osl > KV_TOKENS:
                        break
                    d.ends.setdefault(d.steps + osl - 1, []).append(d.queue.popleft())
                    d.running += 1
                    d.held += isl
                    d.promised += isl + osl
                if d.running:
                    d.stepping = True
                    heapq.heappush(events, (now + truth.itl(d.running, d.held) / 1000.0, STEP, at, 0, at))
    arrival, osl = np.array([r[0] for r in rows]), np.array([r[2] for r in rows])
    itl_s = np.divide(done - first, osl - 1, out=np.full(len(rows), np.nan), where=osl > 1)
    return (first - arrival) * 1000.0, itl_s * 1000.0


def summary(values: np.ndarray) -> dict[str, float]:
    known = values[~np.isnan(values)]
    points = dict(zip(("p50", "p90", "p95", "p99"), np.percentile(known, (50, 90, 95, 99)), strict=True))
    return {"mean": float(known.mean()), **points}


def imported(truth: Truth, folder: Path) -> Path:
    (folder / "m.json").write_text(json.dumps(measurements(truth)))
    out = folder / "engine.yaml"
    limits = ["--max-num-seqs", str(SLOTS), "--max-kv-tokens", str(KV_TOKENS)]
    app(["profile", "import", str(folder / "m.json"), "--out", str(out), *limits], standalone_mode=False)
    return out


def commanded(
    trace: Path, profile: Path, pools: tuple[int, int], folder: Path, *more: str
) -> dict[str, dict]:
    """Run the command at fixed pools and return its run's document."""
    keys = {
        "min_prefill_instances": pools[0], "max_prefill_instances": pools[0],
        "min_decode_instances": pools[1], "max_decode_instances": pools[1],
        "max_batch_tokens": BATCH_TOKENS,
    }  # fmt: skip
    sets = [word for key, value in keys.items() for word in ("--set", f"{key}={value}")]
    out = folder / "out.json"
    command = ["simulate", str(trace), "--profile", str(profile), "--json", str(out), *sets, *more]
    app(command, standalone_mode=False)
    return json.loads(out.read_text())["runs"][0]


@pytest.mark.parametrize("pools", [ROOMY, TIGHT], ids=["roomy", "tight"])
@pytest.mark.parametrize("truth", [LINEAR, CURVED], ids=lambda truth: truth.name)
def test_the_command_agrees_with_stepping_through_the_recorded_hour(shared, tmp_path, truth, pools):
    trace = shared / "traces" / "azure_llm_2023_conv.csv"
    # Idle engines take ten times the steps: a third of the hour is enough of that.
    until_s = 1200 if pools == ROOMY else 3600
    run = commanded(trace, imported(truth, tmp_path), pools, tmp_path, "--slice", f"0:{until_s}")
    ttft_ms, itl_ms = serve([row for row in read_azure(trace) if row[0] < until_s], truth, pools)
    assert run["requests"]["completed"] == len(ttft_ms)
    for measure, values in (("ttft_ms", ttft_ms), ("itl_ms", itl_ms)):
        for point, expected in summary(values).items():
            assert run[measure][point] == pytest.approx(expected, rel=truth.tolerance), (measure, point)


@pytest.mark.parametrize("pools", [ROOMY, TIGHT], ids=["roomy", "tight"])
def test_both_references_agree_on_the_first_minutes(shared, pools):
    rows = [row for row in read_azure(shared / "traces" / "azure_llm_2023_conv.csv") if row[0] < 45]
    outcome = reference.simulate(
        [Request(*row) for row in rows],
        ReferenceWorld(
            prefill_batch_s=CURVED.batch_s,
            step_s=lambda n, k: CURVED.itl(n, k) / 1000,
            max_batch_tokens=BATCH_TOKENS,
            max_num_seqs=SLOTS,
            max_kv_tokens=KV_TOKENS,
            kv_latency_s=KV_LATENCY_MS / 1000,
            kv_s_per_token=KV_MS_PER_1K / 1e6,
            kv_decode_steps=0.0,
            kv_blocks_prefill=False,
            join_s_per_token=0.0,
            first_token="prefill",
            request_timeout_s=None,
            startup_delays_s=[60.0],
            prefill_gpus=1,
            decode_gpus=1,
            max_gpus=9,
        ),
        pools,
    )
    ttft_ms, itl_ms = serve(rows, CURVED, pools)
    assert ttft_ms == pytest.approx(
        [1000 * (r.first_token_s - row[0]) for r, row in zip(outcome.requests, rows, strict=True)]
    )
    done_ms = ttft_ms + [
        0 if row[2] == 1 else itl * (row[2] - 1) for itl, row in zip(itl_ms, rows, strict=True)
    ]
    assert done_ms == pytest.approx(
        [1000 * (r.done_s - row[0]) for r, row in zip(outcome.requests, rows, strict=True)]
    )
