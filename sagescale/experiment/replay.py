"""The log's own requests through modelled pools of the sizes that served them."""

from __future__ import annotations

import dataclasses
import io
import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sagescale.errors import InputError
from sagescale.files import read_input_text
from sagescale.perf import ProfileModel, aggregated_engines
from sagescale.sim.engine import Cluster, EnginePool, ServiceLoad, disaggregated
from sagescale.sim.scheduler import scheduler_of
from sagescale.sim.world import build_world

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from sagescale.experiment.served import ServedLog
    from sagescale.perf import Profile
    from sagescale.sim.config import SimulatorConfig
    from sagescale.sim.engine import Stepping, World

_MAX_BYTES = 1 << 24


@dataclass(frozen=True, slots=True)
class PoolSizes:
    """READY instances of both pools from a time on; the first entry counts from the start.

    ``aggregated`` instances instead serve alone, as many all the time.
    """

    from_s: tuple[float, ...]
    prefill: tuple[int, ...]
    decode: tuple[int, ...]
    aggregated: int = 0

    @classmethod
    def of_aggregated(cls, instances: int) -> PoolSizes:
        """One pool of aggregated instances."""
        return cls((0.0,), (0,), (0,), instances)

    @classmethod
    def fixed(cls, prefill: int, decode: int) -> PoolSizes:
        """Pools that never changed."""
        return cls((0.0,), (prefill,), (decode,))


@dataclass(frozen=True, slots=True, eq=False)
class Replayed:
    """First tokens and completions as simulated, float64[n], s; NaN for a request never served.

    ``handoff_ms`` is the mean hand-off of the part, 0 without any. Of aggregated instances ``gap_max_ms`` is
    the largest gap between two of a request's tokens, float64[n], ``late`` how many of its gaps are longer
    than what was asked, int32[n], and ``gap_p99_ms`` their 99th percentile where somebody has found it.
    """

    first_token_s: NDArray[np.float64]
    done_s: NDArray[np.float64]
    handoff_ms: float
    gap_max_ms: NDArray[np.float64] | None = None
    late: NDArray[np.int32] | None = None
    gap_p99_ms: NDArray[np.float64] | None = None


def replay(
    log: ServedLog,
    profile: Profile,
    pools: PoolSizes,
    simulator: SimulatorConfig,
    *,
    part: slice = slice(None),
    slower: float = 1.0,
    late_ms: float = math.inf,
) -> Replayed:
    """Simulate a log up to the end of ``part``, every service time ``slower`` fold.

    What comes before the part loads the engines; its hand-offs are not counted. Gaps of aggregated instances
    longer than ``late_ms`` are.
    """
    if pools.aggregated:
        stop = part.indices(len(log))[1]
        return _replay_aggregated(log, profile, pools.aggregated, simulator, stop, slower, late_ms)
    world = build_world(ProfileModel(profile), simulator)  # the log's engines existed: no budget applies
    if slower != 1.0:
        world = _slowed(world, slower)
    start, stop, _ = part.indices(len(log))
    cluster = _cluster(log, stop, disaggregated(world), (pools.prefill[0], pools.decode[0]))
    changes = deque(zip(pools.from_s[1:], pools.prefill[1:], pools.decode[1:], strict=True))

    def advance(until_s: float) -> tuple[int, float]:
        while changes and changes[0][0] <= until_s:
            at_s, prefill, decode = changes.popleft()
            cluster.advance(at_s)
            cluster.scale(prefill, decode)
        cluster.advance(until_s)
        return cluster.handoffs()

    earlier, earlier_s = advance(float(log.arrival_s[start]))
    handoffs, handoffs_s = advance(np.inf)
    mean_ms = (handoffs_s - earlier_s) / (handoffs - earlier) * 1e3 if handoffs > earlier else 0.0
    return _replayed(cluster, mean_ms)


def _replay_aggregated(
    log: ServedLog,
    profile: Profile,
    instances: int,
    simulator: SimulatorConfig,
    stop: int,
    slower: float,
    late_ms: float,
) -> Replayed:
    engines = aggregated_engines(profile, simulator.max_batched_tokens)
    stepping = dataclasses.replace(simulator, engine_scheduler=scheduler_of(simulator, "aggregated"))
    world = dataclasses.replace(build_world(ProfileModel(engines), stepping), target_itl_s=late_ms / 1e3)
    if slower != 1.0:
        world = _slowed(world, slower)
    pool = EnginePool("aggregated", "aggregated", world, world.decode_gpus)
    cluster = _cluster(log, stop, (pool,), (instances,))
    cluster.advance(np.inf)
    return _replayed(cluster, 0.0)


def _cluster(log: ServedLog, stop: int, pools: tuple[EnginePool, ...], initial: tuple[int, ...]) -> Cluster:
    columns = log.arrival_s[:stop], log.isl[:stop], log.isl[:stop], log.osl[:stop]
    return Cluster.alone(ServiceLoad("service", pools, initial, *columns))


def _replayed(cluster: Cluster, mean_ms: float) -> Replayed:
    """What a cluster made of its requests; the largest gaps are known where its engines step."""
    requests, gaps = cluster.requests, cluster.gaps()
    done_s = np.where(requests["done_s"] > 0, requests["done_s"], np.nan)
    if gaps is None:
        return Replayed(requests["first_token_s"].copy(), done_s, mean_ms)
    late = gaps.requests["late"].copy()
    return Replayed(requests["first_token_s"].copy(), done_s, mean_ms, gaps.requests["gap_s"] * 1e3, late)


def read_pool_sizes(path: Path, start_s: float) -> PoolSizes:
    """Read pool sizes over time: CSV with ``time_s,prefill,decode``, on the log's clock.

    Args:
        path: The file; rows in order of time, a row at each change (or at each window).
        start_s: The log's first arrival, which becomes time 0.

    Raises:
        InputError: the file cannot be read or a row is impossible.
    """
    import csv

    expected = "time_s,prefill,decode"
    rows: list[tuple[float, int, int]] = []
    text = read_input_text(path, "pool sizes over time", _MAX_BYTES)
    try:
        with io.StringIO(text, newline="") as stream:
            lines = csv.DictReader(stream)
            if not {"time_s", "prefill", "decode"} <= set(lines.fieldnames or ()):
                raise InputError(f"{path}: columns {lines.fieldnames} (expected {expected})")
            for line in lines:
                row = _sizes(line, start_s)
                if row is None or (rows and row[0] < rows[-1][0]):
                    raise InputError(
                        f"{path}: line {lines.line_num}: {','.join(map(str, line.values()))} (expected "
                        f"{expected}: seconds in order, whole instances >= 0)"
                    )
                rows.append(row)
    except csv.Error as error:
        raise InputError(f"{path}: cannot read: {error}") from error
    begun = [row for row in rows if row[0] <= 0]
    rows = [*begun[-1:], *(row for row in rows if row[0] > 0)]
    if not begun:
        raise InputError(f"{path}: no row at or before the log's first arrival, {start_s:g} s")
    if min(rows[0][1:]) < 1:
        raise InputError(f"{path}: no instances at the log's first arrival (expected at least 1 and 1)")
    times, prefill, decode = zip(*rows, strict=True)
    return PoolSizes(times, prefill, decode)


def _sizes(line: dict[str, str], start_s: float) -> tuple[float, int, int] | None:
    try:
        at_s, prefill, decode = float(line["time_s"]) - start_s, int(line["prefill"]), int(line["decode"])
    except (TypeError, ValueError):
        return None
    return (at_s, prefill, decode) if math.isfinite(at_s) and prefill >= 0 and decode >= 0 else None


def _slowed(world: World, by: float) -> World:
    return dataclasses.replace(
        world,
        prefill_s=world.prefill_s * by,
        prefill_slope_s=world.prefill_slope_s * by,
        quadratic_s=world.quadratic_s * by,
        prefill_floor_s=world.prefill_floor_s * by,
        base_s=world.base_s * by,
        slope_s=world.slope_s * by,
        spread_s=None if world.spread_s is None else world.spread_s * by,
        stepping=None if world.stepping is None else _slowed_steps(world.stepping, by),
        kv_latency_s=world.kv_latency_s * by,
        kv_s_per_token=world.kv_s_per_token * by,
        join_s_per_token=world.join_s_per_token * by,
    )


def _slowed_steps(steps: Stepping, by: float) -> Stepping:
    return dataclasses.replace(
        steps,
        tokens_s=steps.tokens_s * by,
        running_s=steps.running_s * by,
        kv_s=steps.kv_s * by,
        cross_s=steps.cross_s * by,
        square_s=steps.square_s * by,
        longest_s=steps.longest_s * by,
    )
