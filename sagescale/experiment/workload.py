"""What an experiment runs on: a recorded trace, copies with arrivals moved, and their load by windows."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from uuid import uuid4

import numpy as np

from sagescale.planner import LoadPredictors
from sagescale.planner.forecast import Forecast
from sagescale.sim.config import with_overrides
from sagescale.trace import TransformSpec, apply_transforms, beginnings, begun_at, slice_trace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from sagescale.perf import Profile
    from sagescale.planner import AutoscalerConfig
    from sagescale.sim.config import SimulatorConfig
    from sagescale.sim.scrapes import Visibility
    from sagescale.trace import Trace

BLOCK_S = 300.0
"""Length of the blocks in which a replicate's arrivals are moved, s."""

_CACHE: dict[tuple[str, float, int], Trace] = {}
_KEPT_REQUESTS = 2_000_000
"""Transformed traces a process keeps, oldest given up first: so many requests in all, or two traces.

Runs come sorted by replicate, but searches go through all replicates at every step.
"""


@dataclass(frozen=True, slots=True)
class Workload:
    """The recorded trace, what is done to it, and the engines before any override.

    Replicate 0 is the trace as transformed. Replicate k > 0 has the transforms' seed raised by k, so that
    ``--rate-scale`` draws other copies, and its blocks shifted (see :func:`shift_blocks`).

    Attributes:
        profile: the engines.
        others: engines by the name that a configuration's ``profile`` has for them.
        block_s: length of the blocks that are shifted; None leaves arrivals where the transforms put them.
        until_s: what arrives then or later, after the transforms and shifts, is left out: the beginning of
            the very same trace.
        key: tells workloads apart in every process that they are sent to; the beginning of one has the same.
    """

    recorded: Trace
    transforms: TransformSpec
    profile: Profile
    block_s: float | None = BLOCK_S
    until_s: float = math.inf
    others: tuple[tuple[str, Profile], ...] = ()
    # The file's hash says neither how it was read nor what was done to it since.
    key: str = field(default_factory=lambda: uuid4().hex, compare=False)

    def engines(self, config: AutoscalerConfig) -> Profile:
        """Return the engines that a configuration is for."""
        return next((profile for name, profile in self.others if name == config.profile), self.profile)

    def modelled(self, config: AutoscalerConfig, simulator: SimulatorConfig) -> Profile:
        """Return them as runs model them: with what the simulator's keys override."""
        return with_overrides(self.engines(config), simulator, config.serving)

    def trace(self, replicate: int = 0) -> Trace:
        """The trace of a replicate; the last few made are kept."""
        key = (self.key, self.until_s, replicate)
        if key not in _CACHE:
            spec = replace(self.transforms, seed=self.transforms.seed + replicate)
            made = apply_transforms(self.recorded, spec)
            if replicate and self.block_s is not None:
                made = shift_blocks(made, replicate, self.block_s)
            if self.until_s < math.inf:
                made = slice_trace(made, 0.0, self.until_s)
            _CACHE[key] = made
            while len(_CACHE) > 2 and sum(map(len, _CACHE.values())) > _KEPT_REQUESTS:
                del _CACHE[next(iter(_CACHE))]
        return _CACHE[key]


def shift_blocks(trace: Trace, seed: int, block_s: float = BLOCK_S) -> Trace:
    """Rotate the arrivals of every block of ``block_s`` seconds by a random time, within the block.

    Each block keeps its requests, their gaps (but one) and their bursts; where in the block these fall,
    and so in which planner window, is drawn anew. The load over hours stays what it was. A last block that
    is cut short rotates within what there is of it. Of a trace with turns it is starts of sessions that
    rotate, and each session moves as a whole.
    """
    rng = np.random.default_rng([seed, 0x5EED])
    at = beginnings(trace)
    block = np.floor_divide(at, block_s)
    blocks = int(block[-1]) + 1
    length = np.full(blocks, block_s)
    length[-1] = max(float(at[-1]) - (blocks - 1) * block_s, 1e-9)
    shift = rng.uniform(0.0, 1.0, blocks) * length
    index = block.astype(np.int64)
    start = index * block_s
    moved = start + np.mod(at - start + shift[index], length[index])
    return begun_at(trace, moved, f"blocks of {block_s:g} s rotated (seed {seed})")


@dataclass(frozen=True, slots=True, eq=False)
class TrueLoad:
    """What arrives in each window ``(k T, (k + 1) T]``; the first includes time 0.

    Attributes:
        interval_s: T.
        requests: arrivals a window, float64[windows].
        isl: their mean prompt tokens, NaN in a window without arrivals.
        osl: their mean output tokens, NaN in a window without arrivals.
    """

    interval_s: float
    requests: NDArray[np.float64]
    isl: NDArray[np.float64]
    osl: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.requests)

    def first(self, windows: int) -> TrueLoad:
        """The first so many windows, or all where there are fewer."""
        return TrueLoad(self.interval_s, self.requests[:windows], self.isl[:windows], self.osl[:windows])

    def series(self) -> dict[str, NDArray[np.float64]]:
        """The three series by name, in the order in which planners forecast them."""
        return {"requests": self.requests, "isl": self.isl, "osl": self.osl}


def true_load(trace: Trace, interval_s: float) -> TrueLoad:
    """Sum up a trace by windows, the last one whole even where the trace ends inside it."""
    windows = max(1, math.ceil(trace.duration_s / interval_s))
    ends = np.searchsorted(trace.arrival_s, np.arange(1, windows + 1) * interval_s, side="right")
    cuts = np.concatenate([[0], ends])
    requests = np.diff(cuts).astype(np.float64)
    isl_sum, osl_sum = (
        np.diff(np.concatenate([[0], np.cumsum(column, dtype=np.int64)])[cuts]).astype(np.float64)
        for column in (trace.isl, trace.osl)
    )
    with np.errstate(invalid="ignore"):
        return TrueLoad(interval_s, requests, isl_sum / requests, osl_sum / requests)


def arrivals_seen(
    trace: Trace, interval_s: float, visibility: Visibility
) -> Iterator[tuple[float | None, float | None]]:
    """Yield requests and mean ISL of arrivals as the planner sees them at each tick, up to the trace's end.

    Neither depends on what a planner does. What is not known, or not defined, is None.
    """
    isl_before = np.concatenate([[0], np.cumsum(trace.isl, dtype=np.int64)])
    last: tuple[float | None, float | None] = (None, None)
    for tick in range(1, max(1, math.ceil((trace.duration_s + visibility.oldest_s) / interval_s)) + 1):
        seen = visibility.at(tick)
        if seen == "unknown":
            yield None, None
            continue
        if seen != "frozen":
            start, stop = np.searchsorted(trace.arrival_s, seen, side="right").tolist()
            tokens = float(isl_before[stop] - isl_before[start])
            last = float(stop - start), tokens / (stop - start) if stop > start else None
        yield last


class TruePredictor:
    """Knows a series in advance: after n observations it "forecasts" windows n, n + 1, …, without error.

    Beyond the end, and in windows where the value is not defined (no arrival has a length), it gives
    ``beyond``, or the last value before where that is None.
    """

    name = "oracle"
    refits = 0
    cadence = "the future is known"

    def __init__(self, values: NDArray[np.float64], beyond: float | None = None) -> None:
        self._values = values.tolist()
        self._beyond = beyond
        self._seen = 0
        known = values[np.isfinite(values)]
        self._first = float(known[0]) if len(known) else None

    def observe(self, value: float | None) -> None:
        """Count a window; what was observed adds nothing."""
        del value
        self._seen += 1

    def forecast(self, horizon: int) -> Forecast | None:
        """The truth, with no spread; None where the series has no known value at all."""
        if self._first is None:
            return None
        means = tuple(self._at(self._seen + step) for step in range(horizon))
        return Forecast(means, (0.0,) * horizon)

    def _at(self, window: int) -> float:
        if window >= len(self._values) and self._beyond is not None:
            return self._beyond
        for at in range(min(window, len(self._values) - 1), -1, -1):
            if math.isfinite(self._values[at]):
                return float(self._values[at])
        return self._first or 0.0


def true_predictors(load: TrueLoad) -> LoadPredictors:
    """Predictors of requests, ISL and OSL that know the load to come; for one run."""
    return LoadPredictors(TruePredictor(load.requests, 0.0), TruePredictor(load.isl), TruePredictor(load.osl))
