"""ARIMA, with a Fourier season where the load has one."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from math import inf, log, pi
from typing import TYPE_CHECKING, Any

import numpy as np

from sagescale.planner.forecast.fitted import FitError, FittedPredictor
from sagescale.planner.forecast.season import find_period, fourier
from sagescale.planner.forecast.state_space import SeasonalShape, StateSpaceModel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sagescale.planner.forecast.protocol import PredictorOptions

_Order = tuple[int, int, int]

# (order, known windows it needs): many parameters on few points are noise. The random walk needs no search.
_CANDIDATES: tuple[tuple[_Order, int], ...] = (
    ((0, 1, 1), 12),
    ((1, 0, 0), 12),
    ((1, 1, 1), 30),
    ((2, 1, 2), 60),
)
_RANDOM_WALK: _Order = (0, 1, 0)
_LEAST_WINDOWS = 12
_BURN = 4  # the first windows set the state; leaving as many out for every order makes their AICc comparable
_ITERATIONS = 25
_GRADIENT = 1e-3  # of the mean log-likelihood: within 0.001 of the maximum over 720 windows

_ORDER_WINDOWS = 720  # orders are chosen on the latest of these
_HISTORY = 4320  # kept for the season: three days of minutes, or three of a longer season that is given
_LEAST_VARIANCE = 1e-12  # of scaled values: what is left of a perfect fit
_PERIODS_S = (86_400.0, 3_600.0)
_HARMONICS = 3


@dataclass(frozen=True, slots=True)
class _Fit:
    order: _Order
    aicc: float
    params: NDArray[np.float64]  # of the random walk, which has none, the values themselves
    model: Any  # statsmodels' SARIMAX; None for the random walk


class ArimaPredictor(FittedPredictor):
    """ARIMA by maximum likelihood (statsmodels SARIMAX), its orders chosen anew at every refit.

    * Orders: (0,1,0), (0,1,1), (1,0,0) with a mean, and with enough windows (1,1,1) and (2,1,2), by AICc over
      the last 720 windows, every one scored on the same values. No drift: a slope extrapolated is how a bad
      fit runs away.
    * Season: `season_s` if given, else a day or an hour if the autocorrelation shows it over at least two
      periods and AICc, with the season's terms counted, agrees. It is three Fourier harmonics fitted to the
      whole history by least squares; ARIMA describes what they leave. A seasonal ARIMA at a period of 1440
      windows has a state of 1440 numbers and takes minutes where this takes milliseconds.
    * Between refits the state is carried on by `StateSpaceModel`; refits start from the last parameters of
      the same order.

    Unknown windows are missing observations of the state-space model.
    """

    name = "arima"
    least_windows = _LEAST_WINDOWS

    def __init__(self, options: PredictorOptions, least_windows: int = _LEAST_WINDOWS) -> None:
        """Take the history (4,320 windows, or three seasons), the season, and when to fit first."""
        self.least_windows = least_windows
        self._season = options.season_windows()
        super().__init__(options.window_size or max(_HISTORY, 3 * (self._season or 0)))
        self._interval_s = options.interval_s
        self._warm: dict[tuple[_Order, int], NDArray[np.float64]] = {}
        self.order: _Order | None = None  # of the last fit
        self.period: int | None = None  # in windows, of the last fit's season

    def _fit(self, values: NDArray[np.float64], start: int) -> StateSpaceModel:
        recent = _from_first_known(values[-_ORDER_WINDOWS:])
        if int(np.isfinite(recent).sum()) < _LEAST_WINDOWS:
            raise FitError(f"fewer than {_LEAST_WINDOWS} known among the last {_ORDER_WINDOWS} windows")
        unit = float(np.nanstd(recent))
        if not unit > 1e-9 * float(np.nanmax(np.abs(recent))):
            self.order, self.period = _RANDOM_WALK, None
            return _random_walk(recent, start + len(values), 1.0, None, "")
        # The optimisers of statsmodels report every doubt as a warning; AICc, the guard against the last
        # value and FitError are what acts on a poor fit here.
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            import statsmodels.tsa.statespace.sarimax  # noqa: F401  (its import sets warning filters)

            warnings.simplefilter("ignore")
            return self._choose(values / unit, recent / unit, start, unit)

    def _choose(
        self, values: NDArray[np.float64], recent: NDArray[np.float64], start: int, unit: float
    ) -> StateSpaceModel:
        best, season = self._best_order(recent, None), None
        period, note = self._seasonal_period(values)
        if period is not None:
            shape = _shape(values, start, period)
            end = start + len(values)
            phases = np.arange(end - len(recent), end) % period
            seasonal = self._best_order(recent - shape.values[phases], period)
            if self._season is not None or seasonal.aicc < best.aicc:
                best, season = seasonal, shape
        self.order, self.period = best.order, None if season is None else period
        return _state_space(best, start + len(values), unit, season, note)

    def _best_order(self, values: NDArray[np.float64], period: int | None) -> _Fit:
        """Search the orders; with a period, the values are without their season and its terms are counted."""
        extra = 0 if period is None else 2 * _harmonics(period)
        known = int(np.isfinite(values).sum())
        fits = [_fit_random_walk(values, extra)]
        fits += [self._search(values, order, extra) for order, least in _CANDIDATES if known >= least]
        return min(fits, key=lambda fit: fit.aicc)

    def _seasonal_period(self, values: NDArray[np.float64]) -> tuple[int | None, str]:
        """Return the season to try, in windows, and what to say if one was asked for that cannot be."""
        if self._season is None:
            return find_period(values, self._interval_s, _PERIODS_S), ""
        if self._season < 3:
            return None, f"a season of {self._season} windows has no shape: no seasonal terms"
        if len(values) < 2 * self._season:
            seen = f"{len(values)} of the {2 * self._season} windows of two seasons in the history"
            return None, f"{seen}: no seasonal terms"
        return self._season, ""

    def _search(self, values: NDArray[np.float64], order: _Order, extra: int) -> _Fit:
        """Maximise the likelihood of one order; a search that fails has an infinite AICc."""
        from statsmodels.tsa.statespace.sarimax import SARIMAX

        burn, scored = _burn(values)
        model = SARIMAX(
            values,
            order=order,
            trend="c" if order[1] == 0 else "n",
            concentrate_scale=True,
            loglikelihood_burn=burn,
        )
        # Without a stationary start there is no Lyapunov equation to solve at each step of the search, whose
        # threaded LAPACK call costs a hundred times the filter on a busy machine.
        model.initialize_approximate_diffuse()
        key = order, extra
        begin = self._warm.get(key)
        params = np.zeros(0)
        try:
            # BFGS in plain numpy: the compiled L-BFGS-B waits on the same threads.
            found = model.fit(
                begin, method="bfgs", gtol=_GRADIENT, maxiter=_ITERATIONS, disp=False, return_params=True
            )
            params = np.asarray(found, dtype=np.float64)
            likelihood = float(model.loglike(params))
        except (np.linalg.LinAlgError, ValueError):
            return _Fit(order, inf, params, model)
        if not (np.isfinite(params).all() and np.isfinite(likelihood)):
            return _Fit(order, inf, params, model)
        self._warm[key] = params
        return _Fit(order, _aicc(likelihood, scored, len(params) + 1 + extra), params, model)


def _from_first_known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    known = np.flatnonzero(np.isfinite(values))
    return values[known[0] :] if len(known) else values


def _burn(values: NDArray[np.float64]) -> tuple[int, int]:
    """Return the windows that hold the first `_BURN` known values, and the known ones after them."""
    known = np.flatnonzero(np.isfinite(values))
    return int(known[_BURN - 1]) + 1, len(known) - _BURN


def _aicc(likelihood: float, scored: int, parameters: int) -> float:
    """Akaike's criterion corrected for few values (Hurvich & Tsai 1989); the scale counts as a parameter."""
    spare = scored - parameters - 1
    return (
        inf if spare <= 0 else 2.0 * (parameters - likelihood) + 2.0 * parameters * (parameters + 1) / spare
    )


def _steps(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the changes between consecutive known values, and over how many windows each went."""
    known = np.flatnonzero(np.isfinite(values))
    return np.diff(values[known]), np.diff(known).astype(np.float64)


def _fit_random_walk(values: NDArray[np.float64], extra: int) -> _Fit:
    """Score (0,1,0) in closed form, on the values that the other orders are scored on."""
    changes, gaps = (each[_BURN - 1 :] for each in _steps(values))
    variance = max(float(np.mean(changes**2 / gaps)), _LEAST_VARIANCE)
    likelihood = -0.5 * (len(changes) * (log(2.0 * pi * variance) + 1.0) + float(np.log(gaps).sum()))
    return _Fit(_RANDOM_WALK, _aicc(likelihood, len(changes), 1 + extra), values, None)


def _random_walk(
    values: NDArray[np.float64], window: int, unit: float, season: SeasonalShape | None, note: str
) -> StateSpaceModel:
    changes, gaps = _steps(values)
    last = int(np.flatnonzero(np.isfinite(values))[-1])
    variance = np.full((1, 1), float(np.mean(changes**2 / gaps)))
    return StateSpaceModel(
        design=np.ones(1),
        transition=np.ones((1, 1)),
        intercept=np.zeros(1),
        disturbance=variance,
        state=values[last : last + 1],
        covariance=variance * float(len(values) - last),
        unit=unit,
        window=window,
        season=season,
        note=note,
    )


def _harmonics(period: int) -> int:
    return min(_HARMONICS, (period - 1) // 2)


def _shape(values: NDArray[np.float64], start: int, period: int) -> SeasonalShape:
    """Fit level and Fourier terms to the whole history by least squares; return the season without level."""
    known = np.isfinite(values)
    waves = fourier(start, len(values), period, _harmonics(period))[known]
    weights, *_ = np.linalg.lstsq(np.column_stack([np.ones(len(waves)), waves]), values[known])
    return SeasonalShape(fourier(0, period, period, _harmonics(period)) @ weights[1:])


def _state_space(
    fit: _Fit, window: int, unit: float, season: SeasonalShape | None, note: str
) -> StateSpaceModel:
    """Take the matrices and the last predicted state out of statsmodels' filter."""
    if fit.model is None:
        return _random_walk(fit.params, window, unit, season, note)
    filtered = fit.model.filter(fit.params, cov_type="none").filter_results
    selection = filtered.selection[..., -1]
    return StateSpaceModel(
        design=filtered.design[0, :, -1].copy(),
        transition=filtered.transition[..., -1].copy(),
        intercept=filtered.state_intercept[:, -1].copy(),
        disturbance=selection @ filtered.state_cov[..., -1] @ selection.T,
        state=filtered.predicted_state[:, -1].copy(),
        covariance=filtered.predicted_state_cov[..., -1].copy(),
        unit=unit,
        window=window,
        season=season,
        note=note,
    )
