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
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sagescale.errors import InputError
from sagescale.experiment.factors import Factors, Prior, apply_factors, profile_prior
from sagescale.experiment.replay import PoolSizes, Replayed, replay
from sagescale.experiment.served import ServedLog, StageTimes, itl_ms, stage_times
from sagescale.perf import SourceFile

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from sagescale.perf import Profile
    from sagescale.sim.config import SimulatorConfig

__all__ = [
    "Calibration",
    "PercentileError",
    "calibrate",
    "factor_lines",
    "padding_candidates",
    "with_provenance",
]

_TTFT_LEVELS = np.array([0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99])
_ITL_LEVELS = np.array([0.1, 0.25, 0.5, 0.75, 0.9, 0.95])
_TTFT_TOLERANCE = 0.05
_ITL_TOLERANCE = 0.015
"""A quantile this far off (relative) costs as much as a factor one standard deviation from its prior. TTFT
weighs less: near saturation it magnifies every error of service time tenfold and more."""

TTFT_LIMIT, ITL_LIMIT = 0.10, 0.05
SERVICE_SHIFT = 0.02
SCORED = (("ttft", 50), ("ttft", 90), ("ttft", 99), ("itl", 50), ("itl", 90))
_FEWEST = 50
_STARTS = ((0.0, 0.0, 0.3, 0.0, 0.0, 0.5), (0.0, 0.0, 0.9, 1.0, 0.0, 0.4))
"""Two places to start from (z of ``Prior``): what a step loses to joining prompts and what it loses always
can be distinguished only where the load changes, so the search begins on both sides."""
_SCOUT_EVALUATIONS, _FINISH_EVALUATIONS = 160, 400


class PercentileError(NamedTuple):
    """One percentile of the requests scored: measured, predicted before and after, and its sensitivity.

    ``faster_ms`` and ``slower_ms`` are the prediction with all service times 2 % shorter and longer.
    """

    latency: str
    percentile: int
    measured_ms: float
    before_ms: float
    after_ms: float
    faster_ms: float
    slower_ms: float
    limit: float

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
        """Whether a TTFT lies where 2 % of service time could have put it."""
        low, high = sorted((self.faster_ms, self.slower_ms))
        return self.latency == "ttft" and low <= self.measured_ms <= high

    @property
    def good(self) -> bool:
        """Whether the prediction is as good as it can be asked to be."""
        return self.within_limit or self.within_sensitivity


@dataclass(frozen=True, slots=True)
class Calibration:
    """A fit and how good it is.

    Attributes:
        profile: The calibrated profile.
        factors: What was fitted.
        at_bounds: Names of factors that ended at a bound: the log asks for more than is physical.
        fitted, scored: Requests the factors were fitted to, and those the errors are about.
        held_out: Whether the scored ones had no part in the fit.
        errors: A row a percentile.
        runner_up: How much worse the best fit of each rejected kind costs, by what it assumes.
        evaluations: Simulations run.
    """

    profile: Profile
    factors: Factors
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
    """Return the padded batch sizes to try: none, and the profile's own or its measured batches."""
    decode = profile.decode
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
    fit = _Fit(profile, log, pools, simulator, start, stop)
    factors, runner_up = fit.search(paddings or padding_candidates(profile), progress)
    calibrated = apply_factors(profile, factors)
    scored = log if unseen is None else unseen
    part = np.arange(len(scored))
    if unseen is None and rest:
        part = part[(part < start) | (part >= stop)]

    def predicted(engine: Profile, slower: float = 1.0) -> Replayed:
        return replay(scored, engine, pools, simulator, slower=slower)

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
        at_bounds=fit.at_bounds(factors),
        fitted=stop - start,
        scored=len(part),
        held_out=unseen is not None or rest > 0,
        errors=errors,
        runner_up=runner_up,
        evaluations=fit.evaluations,
    )


class _Fit:
    """The cost of factors on part of a log, and the search for the cheapest."""

    def __init__(
        self,
        profile: Profile,
        log: ServedLog,
        pools: PoolSizes,
        simulator: SimulatorConfig,
        start: int,
        stop: int,
    ) -> None:
        self.profile, self.log, self.pools, self.simulator = profile, log, pools, simulator
        self._part = slice(start, stop)
        self.prior: Prior = profile_prior(profile)
        self.stages: StageTimes = stage_times(log, profile, slice(start, stop))
        self.evaluations = 0
        # What was done after the last of these arrivals also depends on later ones, which are not simulated.
        rows = np.arange(start, stop)
        settled = log.done_s[rows] <= log.arrival_s[stop - 1]
        self._rows = rows if stop == len(log) or settled.sum() < _FEWEST else rows[settled]
        self._ttft = self._logs(log.ttft_ms[self._rows], _TTFT_LEVELS)
        self._itl = self._logs(log.itl_ms[self._rows], _ITL_LEVELS)

    def cost(self, factors: Factors) -> float:
        """Robust squared error of the quantiles in tolerances, plus what the stages and the prior say."""
        self.evaluations += 1
        profile = apply_factors(self.profile, factors)
        run = replay(self.log, profile, self.pools, self.simulator, part=self._part)
        rows = self._rows
        ttft = (run.first_token_s[rows] - self.log.arrival_s[rows]) * 1e3
        itl = itl_ms(run.first_token_s[rows], run.done_s[rows], self.log.osl[rows])
        ttft_off = (self._logs(ttft, _TTFT_LEVELS) - self._ttft) / _TTFT_TOLERANCE
        itl_off = (self._logs(itl, _ITL_LEVELS) - self._itl) / _ITL_TOLERANCE
        off = np.concatenate([ttft_off, itl_off])
        return float(2.0 * (np.sqrt(1.0 + off * off) - 1.0).sum()) + self.stages.cost(factors, run.handoff_ms)

    def search(
        self, paddings: tuple[tuple[int, ...], ...], progress: Callable[[float], None] | None
    ) -> tuple[Factors, tuple[tuple[str, float], ...]]:
        """Scout every combination of yes-or-no questions, then finish the cheapest."""
        kinds = [(blocks, padded) for blocks in (True, False) for padded in paddings]
        total = len(kinds) * len(_STARTS) * _SCOUT_EVALUATIONS + _FINISH_EVALUATIONS
        spent = 0
        found: list[tuple[float, NDArray[np.float64], bool, tuple[int, ...]]] = []
        for blocks, padded in kinds:
            scouted = []
            for start in _STARTS:
                z, cost = self._minimise(np.array(start), blocks, padded, _SCOUT_EVALUATIONS)
                scouted.append((cost, z, blocks, padded))
                spent += _SCOUT_EVALUATIONS
                if progress is not None:
                    progress(spent / total)
            found.append(min(scouted, key=lambda one: one[0]))
        found.sort(key=lambda one: one[0])
        cost, z, blocks, padded = found[0]
        z, cost = self._minimise(z, blocks, padded, _FINISH_EVALUATIONS)
        if progress is not None:
            progress(1.0)
        runner_up = tuple((_kind(one[2], one[3]), one[0] - cost) for one in found[1:])
        return self.prior.factors(z, blocks=blocks, padded=padded), runner_up

    def at_bounds(self, factors: Factors) -> tuple[str, ...]:
        """Names of the factors that lie at a bound other than "nothing of the kind"."""
        prior = self.prior
        values = prior.center + prior.point(factors) * prior.spread
        names = [name for name in Factors.__slots__ if name not in {"blocks_prefill", "padded_batch_sizes"}]
        width = prior.high - prior.low
        return tuple(
            name
            for name, value, low, high, span in zip(names, values, prior.low, prior.high, width, strict=True)
            if value > high - 1e-3 * span or (low < 0 and value < low + 1e-3 * span)
        )

    def _minimise(
        self, start: NDArray[np.float64], blocks: bool, padded: tuple[int, ...], evaluations: int
    ) -> tuple[NDArray[np.float64], float]:
        from scipy.optimize import minimize

        def cost(z: NDArray[np.float64]) -> float:
            return self.cost(self.prior.factors(z, blocks=blocks, padded=padded)) + float(z @ z)

        bounds = self.prior.bounds()
        low, high = np.array(bounds).T
        start = np.clip(start, low, high)
        steps = np.array([0.6, 0.6, 0.4, 0.7, 0.5, 0.2])
        simplex = [start, *(start + np.where(start + step > high, -step, step) for step in np.diag(steps))]
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


def _kind(blocks: bool, padded: tuple[int, ...]) -> str:
    return f"{'blocking' if blocks else 'free'} hand-off, {'padded' if padded else 'no'} batch sizes"


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

    def latencies(first: NDArray[np.float64], done: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        return {"ttft": (first[part] - arrival) * 1e3, "itl": itl_ms(first[part], done[part], osl)}

    measured = latencies(log.first_token_s, log.done_s)
    runs = [latencies(run.first_token_s, run.done_s) for run in (before, after, faster, slower)]
    rows = []
    for name, percentile in SCORED:
        if np.isnan(measured[name]).all():
            continue
        seen, old, new, fast, slow = (
            float(np.nanpercentile(one[name], percentile)) for one in (measured, *runs)
        )
        limit = TTFT_LIMIT if name == "ttft" else ITL_LIMIT
        rows.append(PercentileError(name, percentile, seen, old, new, fast, slow, limit))
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
        *(f"calibration: {factor} {value}" for factor, value in factor_lines(calibration)),
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


def factor_lines(calibration: Calibration) -> list[tuple[str, str]]:
    """Return the factors as words and values, in the order of the model."""
    factors = calibration.factors
    padded = " ".join(map(str, factors.padded_batch_sizes)) or "none"
    return [
        ("prefill time", f"x {factors.prefill_scale:.4f}"),
        ("decode step time", f"x {factors.decode_scale:.4f}"),
        ("join cost", f"{factors.join_ms_per_1k_tokens:.4g} ms per 1000 tokens"),
        (
            "hand-off",
            f"{factors.latency_ms:.4g} ms + {factors.ms_per_1k_tokens:.4g} ms per 1000 tokens + "
            f"{factors.decode_steps:.4g} decode steps, "
            + ("holding the prefill instance" if factors.blocks_prefill else "beside the next prefill"),
        ),
        ("padded batch sizes", padded),
    ]


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
        decode=dataclasses.replace(decode, itl_ms=tuple(tuple(map(_round, row)) for row in decode.itl_ms)),
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
        f"{error.latency} p{error.percentile} {error.measured_ms:.1f} ms measured, {error.before_ms:.1f} ms "
        f"({error.before:+.1%}) before, {error.after_ms:.1f} ms ({error.after:+.1%}) after"
    )
