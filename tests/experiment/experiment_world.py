"""A small real workload for experiment tests: a made trace on a shipped profile, seconds to compare."""

from __future__ import annotations

import csv
import dataclasses
import json
from typing import TYPE_CHECKING

import numpy as np
import typer
from sagescale.cli.profile_calibrate import calibrate
from sagescale.document import as_keys
from sagescale.experiment.compare import Comparison, compare
from sagescale.experiment.execute import open_backend
from sagescale.experiment.grid import label_variants
from sagescale.experiment.served import ServedLog
from sagescale.experiment.workload import Workload
from sagescale.perf import ProfileModel, load_profile
from sagescale.planner import AutoscalerConfig
from sagescale.sim.config import SimulatorConfig
from sagescale.trace import Trace, TransformSpec

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PROFILE = load_profile("h200-llama-3.1-8b-fp8")
MODEL = ProfileModel(PROFILE)


def wave(requests: int = 4000, minutes: int = 12, seed: int = 0) -> Trace:
    """Arrivals whose rate rises and falls twice, with lengths that vary."""
    rng = np.random.default_rng(seed)
    at = rng.uniform(0.0, 60.0 * minutes, 4 * requests)
    keep = rng.uniform(0.0, 2.0, len(at)) < 1.0 + np.sin(4 * np.pi * at / (60.0 * minutes))
    at = np.sort(at[keep][:requests])
    return Trace.from_arrays(at, rng.integers(200, 3000, len(at)), rng.integers(1, 400, len(at)))


def config(**keys: object) -> AutoscalerConfig:
    return AutoscalerConfig(
        **(
            {"prefill_gpus_per_instance": MODEL.prefill_gpus, "decode_gpus_per_instance": MODEL.decode_gpus}
            | keys
        )
    )


def workload(trace: Trace | None = None) -> Workload:
    return Workload(wave() if trace is None else trace, TransformSpec(), PROFILE)


def variants(*changes: dict[str, object], simulator: SimulatorConfig | None = None):
    world = SimulatorConfig() if simulator is None else simulator
    autoscaler = {field.name for field in dataclasses.fields(AutoscalerConfig)}
    pairs = []
    for change in changes or ({},):
        mine = {key: value for key, value in change.items() if key in autoscaler}
        others = {key: value for key, value in change.items() if key not in autoscaler}
        pairs.append(("", config(**mine), dataclasses.replace(world, **others)))
    return label_variants(pairs)


def compared(trace=None, *changes, policies=("classic",), predictors=("constant",), jobs=1, **keys):
    """The document of a comparison on the wave."""
    with open_backend("processes", jobs, None) as backend:
        found = compare(
            workload(trace), Comparison(variants(*changes), policies, predictors, **keys), backend
        )
    return written(found)


def written(document):
    """A document, or a part of one, as its JSON has it."""
    return json.loads(json.dumps(document, default=as_keys, allow_nan=False))


def without_timing(value):
    """A document without its timings: the part that equal inputs determine."""
    if isinstance(value, dict):
        return {key: without_timing(item) for key, item in value.items() if key != "timing"}
    if isinstance(value, list):
        return [without_timing(item) for item in value]
    return value


def asked(
    count: int,
    per_s: float,
    seed: int,
    isl: tuple[float, float, int, int],
    osl: tuple[float, float, int, int],
) -> ServedLog:
    """A log of requests that nobody has answered yet; lengths are log-normal, from the least to the most."""
    rng = np.random.default_rng(seed)
    arrival = np.cumsum(rng.exponential(1 / per_s, count))
    arrival -= arrival[0]
    isl, osl = (
        np.clip(rng.lognormal(mean, sigma, count), least, most).astype(np.int32)
        for mean, sigma, least, most in (isl, osl)
    )
    return ServedLog(arrival, isl, osl, arrival, arrival, None, None, 0.0, "made.csv", "0" * 64)


def write_log(log: ServedLog, path: Path, names: Sequence[str] = (), shift_s: float = 0.0) -> Path:
    """Write what a log has as CSV, under other names where they are given."""
    columns = {
        "arrival_s": log.arrival_s + shift_s,
        "isl": log.isl,
        "osl": log.osl,
        "first_token_s": log.first_token_s + shift_s,
        "done_s": log.done_s + shift_s,
        **({} if log.gap_max_ms is None else {"gap_max_ms": log.gap_max_ms}),
    }
    with path.open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(names or columns)
        rows.writerows(zip(*columns.values(), strict=True))
    return path


def calibration() -> typer.Typer:
    """The command by itself."""
    app = typer.Typer()
    app.command()(calibrate)
    return app
