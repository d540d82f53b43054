"""Find the factors with which the simulator reproduces a log of served requests.

The simulator is in the loop: a guess becomes a profile, the log's own arrivals and lengths are replayed
through it, and the distributions of TTFT and ITL are compared with the measured ones, quantile by quantile
(relative error, robust loss). Few factors, each physical, each with a prior and bounds: what they cannot
explain stays unexplained, and the part of the log that was not fitted says how much that is.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np

from sagescale.errors import InputError
from sagescale.experiment.gap_p99 import gap_p99_ms
from sagescale.experiment.replay import PoolSizes, Replayed, replay
from sagescale.experiment.served import ServedLog, itl_ms
from sagescale.experiment.served_pools import ServedPools
from sagescale.experiment.served_steps import ServedSteps
from sagescale.perf import SourceFile

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from sagescale.experiment.factors import Factors
    from sagescale.experiment.served_steps import StepFactors
    from sagescale.perf import Profile
    from sagescale.perf.profile import Pool
    from sagescale.sim.config import SimulatorConfig

Found = TypeVar("Found")
Kind = TypeVar("Kind")

_TTFT_LEVELS = np.array([0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99])
_ITL_LEVELS = np.array([0.1, 0.25, 0.5, 0.75, 0.9, 0.95])
_GAP_LEVELS = np.array([0.25, 0.5, 0.75, 0.9])
_TTFT_TOLERANCE = 0.05
_ITL_TOLERANCE = 0.015
_GAP_TOLERANCE = 0.03
"""A quantile this far off (relative) costs as much as a factor one standard deviation from its prior. TTFT
weighs less: near saturation it magnifies every error of service time tenfold and more."""

LIMITS = {"ttft": 0.10, "itl": 0.05, "gap_p99": 0.10, "gap": 0.10}
SERVICE_SHIFT = 0.02
_POOLS_SCORED = (("ttft", 50), ("ttft", 90), ("ttft", 99), ("itl", 50), ("itl", 90))
_GAPS_SCORED = (50, 90)
_STEPS_SCORED = (
    *_POOLS_SCORED[:3],
    ("itl", None),
    *(("gap_p99", percentile) for percentile in _GAPS_SCORED),
    *(("gap", percentile) for percentile in _GAPS_SCORED),
)
"""What is judged of separate pools and of aggregated instances; None is the mean. Gaps are the p99 and the
largest of each request's, where the log has them."""

_FEWEST = 50
_FITTED_MS = ("tokens_ms", "running_ms", "kv_ms", "cross_ms", "square_ms", "longest_ms")
_SCOUT_EVALUATIONS, _FINISH_EVALUATIONS = 160, 400


class PercentileError(NamedTuple):
    """One percentile (None: the mean) of the requests scored, measured and predicted before and after.

    ``faster_ms`` and ``slower_ms`` are the prediction with all service times 2 % shorter and longer.
    """

    latency: str
    percentile: int | None
    measured_ms: float
    before_ms: float
    after_ms: float
    faster_ms: float
    slower_ms: float
    limit: float

    @property
    def name(self) -> str:
        """Of what, and which percentile."""
        what = {"ttft": "TTFT", "itl": "ITL", "gap_p99": "p99 gap", "gap": "largest gap"}[self.latency]
        return f"{what} mean" if self.percentile is None else f"{what} p{self.percentile}"

    @property
    def before(self) -> float:
        """Relative error of the profile as it was."""
        return self.before_ms / self.measured_ms - 1.0

    @property
    def after(self) -> float:
        """Relative error of the calibrated profile."""
        return self.after_ms / self.measured_ms - 1.0

    @property
    def within_limit(self) -> bool:
        """Whether the calibrated error is within its limit."""
        return abs(self.after) <= self.limit

    @property
    def within_sensitivity(self) -> bool:
        """Whether 2 % of service time could have put the prediction where the measurement is."""
        low, high = sorted((self.faster_ms, self.slower_ms))
        return low <= self.measured_ms <= high

    @property
    def good(self) -> bool:
        """Whether the prediction is as good as it can be asked to be."""
        return self.within_limit or self.within_sensitivity


@dataclass(frozen=True, slots=True)
class Calibration:
    """A fit and how good it is.

    Attributes:
        profile: The calibrated profile.
        factors: What was fitted, and ``factor_lines`` the same as words and values.
        at_bounds: Names of factors that ended at a bound: the log asks for more than is physical.
        fitted, scored: Requests the factors were fitted to, and those the errors are about.
        held_out: Whether the scored ones had no part in the fit.
        errors: A row a percentile.
        runner_up: How much worse the best fit of each rejected kind costs, by what it assumes.
        evaluations: Simulations run.
    """

    profile: Profile
    factors: Factors | StepFactors
    factor_lines: tuple[tuple[str, str], ...]
    at_bounds: tuple[str, ...]
    fitted: int
    scored: int
    held_out: bool
    errors: tuple[PercentileError, ...]
    runner_up: tuple[tuple[str, float], ...]
    evaluations: int

    @property
    def good(self) -> bool:
        """Whether every percentile is, and no factor had to leave physics."""
        return all(error.good for error in self.errors) and not self.at_bounds


def padding_candidates(profile: Profile) -> tuple[tuple[int, ...], ...]:
    """Return the padded batch sizes to try: none, and the profile's own or its measured batches.

    Of the aggregated section where there is one.
    """
    decode = profile.aggregated or profile.decode
    if decode.padded_batch_sizes:
        return (), decode.padded_batch_sizes
    whole = all(n == int(n) for n in decode.concurrency)
    if whole and len(decode.concurrency) >= 4:
        return (), tuple(int(n) for n in decode.concurrency)
    return ((),)


def calibrate(
    profile: Profile,
    log: ServedLog,
    pools: PoolSizes,
    simulator: SimulatorConfig,
    *,
    fit_part: tuple[float, float] = (0.0, 0.5),
    unseen: ServedLog | None = None,
    paddings: tuple[tuple[int, ...], ...] | None = None,
    progress: Callable[[float], None] | None = None,
) -> Calibration:
    """Fit the factors to part of a log and score them on the rest, or on another log.

    Args:
        profile: The engine as measured alone, limits already the served engine's.
        log: Served requests.
        pools: The instances that served them.
        simulator: The rest of the modelled cluster (batch tokens, who streams the first token).
        fit_part: The requests fitted to, as shares of the log by arrival; those before are simulated,
            as they load the engines, but not compared. (0, 1) fits and scores all.
        unseen: Another log of the same engine and pools, scored in place of the rest.
        paddings: Padded batch sizes to try; those of ``padding_candidates`` by default.
        progress: Called with the share of the work done.

    Raises:
        InputError: too few requests remain to fit to, or to score.
    """
    start, stop = (round(len(log) * share) for share in fit_part)
    if not 0 <= start < stop <= len(log):
        raise InputError(f"fit part is {fit_part[0]:g}:{fit_part[1]:g} (expected shares 0 <= A < B <= 1)")
    rest = len(log) - (stop - start)
    if stop - start < _FEWEST or (unseen is None and 0 < rest < _FEWEST):
        raise InputError(
            f"{log.path}: {stop - start} of {len(log)} requests to fit to, {rest} to score on "
            f"(expected at least {_FEWEST} of each; see --fit)"
        )
    sizes = padding_candidates(profile) if paddings is None else paddings
    engine: ServedEngine[Any, Any]
    if pools.aggregated:
        engine = ServedSteps(profile, sizes)
    else:
        alone = pools == PoolSizes.fixed(pools.prefill[0], 1)
        engine = ServedPools(profile, log, slice(start, stop), sizes, alone=alone)
    fit: _Fit[Any, Any] = _Fit(engine, log, pools, simulator, start, stop)
    factors, runner_up = fit.search(progress)
    calibrated = engine.applied(factors)
    scored = log if unseen is None else unseen
    part = np.arange(len(scored))
    if unseen is None and rest:
        part = part[(part < start) | (part >= stop)]

    def predicted(engine: Profile, slower: float = 1.0) -> Replayed:
        def replayed(late_ms: float = math.inf) -> Replayed:
            return replay(scored, engine, pools, simulator, slower=slower, late_ms=late_ms)

        return _with_gap_p99(replayed(), scored, replayed)

    errors = _errors(
        scored,
        part,
        before=predicted(profile),
        after=predicted(calibrated),
        faster=predicted(calibrated, 1.0 - SERVICE_SHIFT),
        slower=predicted(calibrated, 1.0 + SERVICE_SHIFT),
    )
    return Calibration(
        profile=calibrated,
        factors=factors,
        factor_lines=tuple(engine.lines(factors, calibrated)),
        at_bounds=engine.at_bounds(factors),
        fitted=stop - start,
        scored=len(part),
        held_out=unseen is not None or rest > 0,
        errors=errors,
        runner_up=runner_up,
        evaluations=fit.evaluations,
    )


class ServedEngine(Protocol[Found, Kind]):
    """What is fitted to a log, and what becomes of the profile with it.

    A point is a few numbers z, one a factor, in standard deviations from what the profile says; the sum of
    z² is what a point costs. ``kinds`` are the combinations of yes-or-no questions, each searched from
    ``starts`` with a first simplex of ``strides``.
    """

    kinds: tuple[Kind, ...]
    starts: tuple[tuple[float, ...], ...]
    strides: tuple[float, ...]

    def bounds(self) -> list[tuple[float, float]]:
        """Bounds of z."""

    def factors(self, z: NDArray[np.float64], kind: Kind) -> Found:
        """Return the factors at a point."""

    def applied(self, factors: Found) -> Profile:
        """Return the profile of the engine as it serves."""

    def contradicted(self, factors: Found, run: Replayed) -> float:
        """How badly the log's stages contradict factors and a run with them, in squared tolerances."""

    def at_bounds(self, factors: Found) -> tuple[str, ...]:
        """Names of the factors that lie at a bound other than "nothing of the kind"."""

    def words(self, kind: Kind) -> str:
        """Say a kind."""

    def lines(self, factors: Found, profile: Profile) -> list[tuple[str, str]]:
        """Return the factors as words and values."""


class _Fit(Generic[Found, Kind]):
    """The cost of factors on part of a log, and the search for the cheapest."""

    def __init__(
        self,
        engine: ServedEngine[Found, Kind],
        log: ServedLog,
        pools: PoolSizes,
        simulator: SimulatorConfig,
        start: int,
        stop: int,
    ) -> None:
        self.engine, self.log, self.pools, self.simulator = engine, log, pools, simulator
        self._part = slice(start, stop)
        self.evaluations = 0
        # What was done after the last of these arrivals also depends on later ones, which are not simulated.
        rows = np.arange(start, stop)
        settled = log.done_s[rows] <= log.arrival_s[stop - 1]
        self._rows = rows if stop == len(log) or settled.sum() < _FEWEST else rows[settled]
        self._ttft = self._logs(log.ttft_ms[self._rows], _TTFT_LEVELS)
        self._itl = self._logs(log.itl_ms[self._rows], _ITL_LEVELS)
        self._gap = None if log.gap_max_ms is None else self._gaps(log.gap_max_ms)

    def _gaps(self, gap_max_ms: NDArray[np.float64]) -> NDArray[np.float64]:
        rows = self._rows
        return self._logs(np.where(self.log.osl[rows] > 1, gap_max_ms[rows], np.nan), _GAP_LEVELS)

    def cost(self, factors: Found) -> float:
        """Robust squared error of the quantiles in tolerances, plus what the stages say."""
        self.evaluations += 1
        run = replay(self.log, self.engine.applied(factors), self.pools, self.simulator, part=self._part)
        rows = self._rows
        ttft = (run.first_token_s[rows] - self.log.arrival_s[rows]) * 1e3
        itl = itl_ms(run.first_token_s[rows], run.done_s[rows], self.log.osl[rows])
        ttft_off = (self._logs(ttft, _TTFT_LEVELS) - self._ttft) / _TTFT_TOLERANCE
        itl_off = (self._logs(itl, _ITL_LEVELS) - self._itl) / _ITL_TOLERANCE
        off = np.concatenate([ttft_off, itl_off])
        if self._gap is not None and run.gap_max_ms is not None:
            off = np.append(off, (self._gaps(run.gap_max_ms) - self._gap) / _GAP_TOLERANCE)
        return float(2.0 * (np.sqrt(1.0 + off * off) - 1.0).sum()) + self.engine.contradicted(factors, run)

    def search(self, progress: Callable[[float], None] | None) -> tuple[Found, tuple[tuple[str, float], ...]]:
        """Scout every combination of yes-or-no questions, then finish the cheapest."""
        engine = self.engine
        total = len(engine.kinds) * len(engine.starts) * _SCOUT_EVALUATIONS + _FINISH_EVALUATIONS
        spent = 0
        found: list[tuple[float, NDArray[np.float64], Kind]] = []
        for kind in engine.kinds:
            scouted = []
            for start in engine.starts:
                z, cost = self._minimise(np.array(start), kind, _SCOUT_EVALUATIONS)
                scouted.append((cost, z, kind))
                spent += _SCOUT_EVALUATIONS
                if progress is not None:
                    progress(spent / total)
            found.append(min(scouted, key=lambda one: one[0]))
        found.sort(key=lambda one: one[0])
        cost, z, kind = found[0]
        z, cost = self._minimise(z, kind, _FINISH_EVALUATIONS)
        if progress is not None:
            progress(1.0)
        runner_up = tuple((engine.words(other), more - cost) for more, _, other in found[1:])
        return engine.factors(z, kind), runner_up

    def _minimise(
        self, start: NDArray[np.float64], kind: Kind, evaluations: int
    ) -> tuple[NDArray[np.float64], float]:
        from scipy.optimize import minimize

        def cost(z: NDArray[np.float64]) -> float:
            return self.cost(self.engine.factors(z, kind)) + float(z @ z)

        bounds = self.engine.bounds()
        low, high = np.array(bounds).T
        start = np.clip(start, low, high)
        strides = np.diag(np.array(self.engine.strides))
        simplex = [start, *(start + np.where(start + step > high, -step, step) for step in strides)]
        result = minimize(
            cost,
            start,
            method="Nelder-Mead",
            bounds=bounds,
            options={
                "initial_simplex": np.array(simplex),
                "maxfev": evaluations,
                "xatol": 1e-3,
                "fatol": 1e-2,
                "adaptive": True,
            },
        )
        return np.asarray(result.x), float(result.fun)

    @staticmethod
    def _logs(values_ms: NDArray[np.float64], levels: NDArray[np.float64]) -> NDArray[np.float64]:
        known = values_ms[~np.isnan(values_ms)]
        if not len(known):
            return np.zeros(len(levels))  # no request has a second token: nothing to compare
        return np.asarray(np.log(np.maximum(np.quantile(known, levels), 1e-6)))


def _with_gap_p99(run: Replayed, log: ServedLog, replayed: Callable[[float], Replayed]) -> Replayed:
    """Find the requests' p99 gaps where the log has them too."""
    measured, largest = log.gap_p99_ms, run.gap_max_ms
    if measured is None or largest is None:
        return run
    known = np.where(log.osl > 1, measured, np.nan)
    if not (known > 0).any():
        return run

    def late(late_ms: float) -> NDArray[np.int32]:
        counted = replayed(late_ms).late
        assert counted is not None  # as the largest gaps are
        return counted

    p99_ms = gap_p99_ms(late, log.osl, largest, np.where(known > 0, known, np.nan), _GAPS_SCORED)
    return dataclasses.replace(run, gap_p99_ms=p99_ms)


def _errors(
    log: ServedLog,
    part: NDArray[np.intp],
    *,
    before: Replayed,
    after: Replayed,
    faster: Replayed,
    slower: Replayed,
) -> tuple[PercentileError, ...]:
    arrival, osl = log.arrival_s[part], log.osl[part]

    def gaps(of_requests: NDArray[np.float64] | None) -> NDArray[np.float64]:
        known = np.full(len(part), np.nan) if of_requests is None else of_requests[part]
        return np.where(osl > 1, known, np.nan)

    def latencies(run: Replayed) -> dict[str, NDArray[np.float64]]:
        first, done = run.first_token_s[part], run.done_s[part]
        return {
            "ttft": (first - arrival) * 1e3,
            "itl": itl_ms(first, done, osl),
            "gap_p99": gaps(run.gap_p99_ms),
            "gap": gaps(run.gap_max_ms),
        }

    measured = latencies(
        Replayed(log.first_token_s, log.done_s, 0.0, log.gap_max_ms, gap_p99_ms=log.gap_p99_ms)
    )
    runs = [latencies(run) for run in (before, after, faster, slower)]
    rows = []
    for name, percentile in _POOLS_SCORED if after.gap_max_ms is None else _STEPS_SCORED:
        if np.isnan(measured[name]).all():
            continue
        seen, old, new, fast, slow = (
            float(np.nanmean(one[name]) if percentile is None else np.nanpercentile(one[name], percentile))
            for one in (measured, *runs)
        )
        rows.append(PercentileError(name, percentile, seen, old, new, fast, slow, LIMITS[name]))
    return tuple(rows)


def with_provenance(
    calibration: Calibration, base: Profile, log: ServedLog, name: str, command: str
) -> Profile:
    """Return the calibrated profile named, with base, log, factors and errors recorded in it."""
    source = base.source
    description = (
        f"{base.name} calibrated on {calibration.fitted} of {len(log)} requests of {Path(log.path).name}. "
        f"{source.description}"
    )
    notes = [
        *base.notes,
        f"calibrated from {base.name}",
        *(f"calibration: {factor} {value}" for factor, value in calibration.factor_lines),
        *(f"calibration: {_error(error)}" for error in calibration.errors),
        f"calibration: errors are over {calibration.scored} requests "
        + ("held out from the fit" if calibration.held_out else "the fit saw"),
    ]
    return dataclasses.replace(
        _rounded(calibration.profile),
        name=name,
        source=dataclasses.replace(
            source,
            description=description.strip(),
            command=command,
            files=(*source.files, SourceFile(path=Path(log.path).name, sha256=log.sha256)),
        ),
        notes=tuple(notes),
    )


def _rounded_steps(pool: Pool) -> Pool:
    """Return a decode or an aggregated section with fitted times rounded."""
    names = [name for name in _FITTED_MS if hasattr(pool, name)]
    return dataclasses.replace(
        pool,
        itl_ms=tuple(tuple(map(_round, row)) for row in pool.itl_ms),
        spread_ms=tuple(map(_round, pool.spread_ms)),
        **{name: _rounded_times(getattr(pool, name)) for name in names},
    )


def _rounded_times(times: float | tuple[float, ...]) -> Any:  # noqa: ANN401 -- as it was given
    return tuple(map(_round, times)) if isinstance(times, tuple) else _round(times)


def _rounded(profile: Profile) -> Profile:
    """Return the profile with fitted times to ten significant digits: readable, and nothing moves."""
    prefill, decode, kv = profile.prefill, profile.decode, profile.kv_transfer
    first = _round(prefill.ttft_ms[0])
    return dataclasses.replace(
        profile,
        prefill=dataclasses.replace(
            prefill,
            ttft_ms=tuple(map(_round, prefill.ttft_ms)),
            quadratic_ms=_round(prefill.quadratic_ms),
            floor_ms=None if prefill.floor_ms is None else min(first, _round(prefill.floor_ms)),
        ),
        decode=_rounded_steps(decode),
        aggregated=None if profile.aggregated is None else _rounded_steps(profile.aggregated),
        kv_transfer=dataclasses.replace(
            kv,
            latency_ms=_round(kv.latency_ms),
            ms_per_1k_tokens=_round(kv.ms_per_1k_tokens),
            decode_steps=_round(kv.decode_steps),
        ),
        join_ms_per_1k_tokens=_round(profile.join_ms_per_1k_tokens),
    )


def _round(value: float) -> float:
    return value if value == 0 else round(value, 9 - math.floor(math.log10(abs(value))))


def _error(error: PercentileError) -> str:
    return (
        f"{error.name} {error.measured_ms:.1f} ms measured, {error.before_ms:.1f} ms "
        f"({error.before:+.1%}) before, {error.after_ms:.1f} ms ({error.after:+.1%}) after"
    )
