"""Forecasts of arrivals, made once for all runs and remembered.

A forecast depends on the predictor, its parameters and the history it has seen, and on nothing else, so runs
that show a predictor the same windows share its forecasts. Arrivals (requests, ISL) do not depend on the
policy, unless turns wait for answers: they are forecast once for all runs. OSL is observed at completion,
which does depend on it: runs share those forecasts as long as they agree.
"""

from __future__ import annotations

import math
import pickle
import struct
import time
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Literal

from sagescale.experiment.workload import arrivals_seen
from sagescale.planner import AutoscalerConfig, LoadPredictors, make_load_predictors
from sagescale.planner.policy import uses_forecast
from sagescale.sim.config import SimulatorConfig
from sagescale.sim.faults import Faults
from sagescale.sim.scrapes import Visibility

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sagescale.experiment.tasks import RunTask
    from sagescale.experiment.workload import Workload
    from sagescale.planner.forecast import Forecast, Predictor
    from sagescale.sim.config import TimeSpans

_MOST_ENTRIES = 400_000
"""Some 200 MB; then the oldest half is forgotten."""


@dataclass(frozen=True, slots=True)
class PredictorSpec:
    """Everything that a predictor is made from, and how many windows ahead its forecasts are remembered.

    ``horizon`` is the most that is asked for as a rule; longer ones are computed when they are.
    """

    predictor: str
    interval_s: int
    window_size: int
    history_points: int | None
    season_s: float | None
    horizon: int

    @classmethod
    def of(cls, config: AutoscalerConfig, horizon: int) -> PredictorSpec:
        """What a configuration says of its predictors."""
        return cls(
            config.load_predictor_type,
            config.adjustment_interval_sec,
            config.prediction_window_size,
            config.history_points,
            config.season_sec,
            horizon,
        )

    @property
    def key(self) -> bytes:
        """The digest that histories of this predictor start from."""
        return blake2b(repr(self).encode(), digest_size=16).digest()

    def make(self) -> Predictor:
        """Make a predictor that has seen nothing."""
        config = AutoscalerConfig(
            load_predictor_type=self.predictor,
            adjustment_interval_sec=self.interval_s,
            prediction_window_size=self.window_size,
            history_points=self.history_points,
            season_sec=self.season_s,
        )
        return make_load_predictors(config).requests


@dataclass(slots=True)
class ForecastMemo:
    """Forecasts by history, and predictors as they were at some histories, to go on from.

    Attributes:
        forecasts: by digest of the history; None where nothing can be forecast yet.
        snapshots: pickled predictors by digest of the history they have seen.
    """

    forecasts: dict[bytes, Forecast | None] = field(default_factory=dict)
    snapshots: dict[bytes, bytes] = field(default_factory=dict)

    def remember(self, digest: bytes, forecast: Forecast | None) -> None:
        """Keep a forecast; forgets the oldest ones when there are too many."""
        if len(self.forecasts) >= _MOST_ENTRIES:
            for old in list(self.forecasts)[: _MOST_ENTRIES // 2]:
                del self.forecasts[old]
        self.forecasts[digest] = forecast

    def update(self, other: ForecastMemo) -> None:
        """Take in what another memo knows."""
        self.forecasts.update(other.forecasts)
        self.snapshots.update(other.snapshots)


class MemoPredictor:
    """A predictor that is only made for a forecast that is not remembered."""

    def __init__(self, spec: PredictorSpec, memo: ForecastMemo) -> None:
        self._spec = spec
        self._memo = memo
        self._history: list[float | None] = []
        self._digests: list[bytes] = [spec.key]
        self._real: Predictor | None = None
        self._fed = 0  # windows that the real predictor has seen

    @property
    def name(self) -> str:
        """The remembered predictor's name."""
        return self._spec.predictor

    @property
    def refits(self) -> int:
        """How often the predictor was fitted to this history, by whoever saw it first."""
        return self.real().refits

    @property
    def cadence(self) -> str:
        """When the predictor refits, in words."""
        return self.real().cadence

    def observe(self, value: float | None) -> None:
        """Take the next window's value; see ``Predictor.observe``."""
        packed = struct.pack("<d", math.nan if value is None else value)
        self._history.append(value)
        self._digests.append(blake2b(packed, key=self._digests[-1], digest_size=16).digest())

    def forecast(self, horizon: int) -> Forecast | None:
        """Look the forecast up, or make it; see ``Predictor.forecast``.

        Always made for the spec's horizon at least and cut to what is asked, whoever asks first, so that
        the answer does not depend on what siblings have asked.
        """
        if horizon > self._spec.horizon:
            return self.real().forecast(horizon)
        digest = self._digests[-1]
        forecasts = self._memo.forecasts
        if digest in forecasts:
            known = forecasts[digest]
        else:
            known = self.real().forecast(self._spec.horizon)
            self._memo.remember(digest, known)
        if known is None or known.horizon == horizon:
            return known
        return replace(known, mean=known.mean[:horizon], std=known.std[:horizon])

    def real(self) -> Predictor:
        """The predictor itself, having seen all that this one has."""
        if self._real is None:
            self._real, self._fed = self._latest_snapshot()
        for value in self._history[self._fed :]:
            self._real.observe(value)
        self._fed = len(self._history)
        return self._real

    def snapshot(self) -> None:
        """Remember the predictor as it is, for histories that begin like this one."""
        self._memo.snapshots[self._digests[-1]] = pickle.dumps(self.real())

    def _latest_snapshot(self) -> tuple[Predictor, int]:
        if self._memo.snapshots:
            for seen in range(len(self._history), 0, -1):
                snapshot = self._memo.snapshots.get(self._digests[seen])
                if snapshot is not None:
                    predictor: Predictor = pickle.loads(snapshot)  # noqa: S301  # pickled by ourselves, in this command
                    return predictor, seen
        return self._spec.make(), 0


def memo_predictors(spec: PredictorSpec, memos: Iterable[ForecastMemo], own: ForecastMemo) -> LoadPredictors:
    """Load predictors that look up in ``own`` what ``memos`` and earlier runs have put there."""
    for memo in memos:
        own.update(memo)
    return LoadPredictors(MemoPredictor(spec, own), MemoPredictor(spec, own), MemoPredictor(spec, own))


FORECAST_ONCE: tuple[Literal["requests"], Literal["isl"]] = ("requests", "isl")
"""The series of arrivals, which do not depend on the policy."""


@dataclass(frozen=True, slots=True)
class ForecastTask:
    """Forecast one series of arrivals at every tick of a replicate, for all runs that will ask.

    ``faults`` are those of the metrics alone, and only where there are any does ``simulation_seed`` matter.
    """

    spec: PredictorSpec
    series: Literal["requests", "isl"]
    scrape_delay_s: float
    metric_outage_s: TimeSpans
    replicate: int = 0
    faults: Faults | None = None
    simulation_seed: int = 0

    @classmethod
    def of(cls, run: RunTask, series: Literal["requests", "isl"]) -> ForecastTask:
        """What a run with named predictors will ask; runs that see the same arrivals ask the same."""
        simulator = run.simulator
        faults = None if run.faults is None else run.faults.metrics_only()
        return cls(
            run.spec,
            series,
            simulator.scrape_delay_s,
            simulator.metric_outage_s,
            run.replicate,
            faults,
            0 if faults is None else simulator.simulation_seed,
        )


@dataclass(frozen=True, slots=True)
class ForecastResult:
    """The forecasts made, how often the predictor was fitted for them, and the wall time that took."""

    memo: ForecastMemo
    cadence: str
    refits: int
    windows: int
    seconds: float


def make_forecasts(workload: Workload, task: ForecastTask) -> ForecastResult:
    """Show the predictor what the simulator's planner will see of the arrivals; DESIGN 5.7."""
    began = time.perf_counter()
    interval_s = float(task.spec.interval_s)
    simulator = SimulatorConfig(
        scrape_delay_s=task.scrape_delay_s,
        metric_outage_s=task.metric_outage_s,
        simulation_seed=task.simulation_seed,
    )
    faults = Faults() if task.faults is None else task.faults.of_replicate(task.replicate)
    memo = ForecastMemo()
    predictor = MemoPredictor(task.spec, memo)
    windows = 0
    last: float | None = None
    trace = workload.trace(task.replicate)
    for requests, isl in arrivals_seen(trace, interval_s, Visibility(interval_s, simulator, faults)):
        last = last if isl is None else isl
        predictor.observe(last if task.series == "isl" else requests)
        predictor.forecast(1)
        windows += 1
    predictor.snapshot()
    return ForecastResult(memo, predictor.cadence, predictor.refits, windows, time.perf_counter() - began)


def forecast_once(workload: Workload, run: RunTask) -> bool:
    """Whether a run forecasts arrivals that are the same whatever it does."""
    return needs_forecasts(run) and (workload.recorded.turns is None or run.simulator.open_loop)


def needs_forecasts(run: RunTask) -> bool:
    """Whether a run forecasts by predictors of its own."""
    return run.load == "named" and run.schedule is None and uses_forecast(run.config.policy)
