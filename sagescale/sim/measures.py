"""What a run is worth: attainment, latency distributions, GPU-hours, forecast errors (DESIGN 5, Measures)."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import numpy as np

from sagescale.document import ForecastScore, ForecastScores, GpuHours, Latency, SlaResult
from sagescale.planner.forecast.scores import bias, coverage, mape, pinball
from sagescale.sim.state import DONE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sagescale.sim.run import Run, Tick

__all__ = ["Served", "forecast_scores", "gpu_hours", "latency"]

_PERCENTILES = (50.0, 90.0, 95.0, 99.0)


class Served:
    """Latencies of a run's requests in ms, computed once, when first asked for.

    TTFT = first token - arrival. ITL of a request = (done - first token)/(osl - 1), undefined for OSL 1.
    """

    def __init__(self, run: Run) -> None:
        self._trace = run.trace
        self._requests = run.requests
        self._targets = (run.config.target_ttft_ms, run.config.target_itl_ms)
        self._horizon_s = run.horizon_s

    @functools.cached_property
    def ttft_ms(self) -> NDArray[np.float64]:
        """Per request; NaN without a first token. float64[n]."""
        span: NDArray[np.float64] = self._requests["first_token_s"] - self._trace.arrival_s
        span *= 1000.0
        return span

    @functools.cached_property
    def itl_ms(self) -> NDArray[np.float64]:
        """Per request; NaN where unfinished or undefined. float64[n]."""
        span: NDArray[np.float64] = self._requests["done_s"] - self._requests["first_token_s"]
        span *= 1000.0
        steps = self._trace.osl - 1
        with np.errstate(divide="ignore", invalid="ignore"):
            span /= steps
        span[steps == 0] = np.nan
        return span

    @functools.cached_property
    def good(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Who met the TTFT target, and who met the ITL target; unfinished ones met neither. bool[n] each."""
        done = self._requests["state"] == DONE
        ttft = done & (self.ttft_ms <= self._targets[0])
        itl = done & ~(self.itl_ms > self._targets[1])
        return ttft, itl

    def sla(self) -> SlaResult:
        """Shares of all arrived requests that met the targets, and good requests a second."""
        ttft, itl = self.good
        arrived = len(ttft)
        both = int(np.count_nonzero(ttft & itl))
        return SlaResult(
            target_ttft_ms=self._targets[0],
            target_itl_ms=self._targets[1],
            attainment=both / arrived,
            ttft_attainment=int(np.count_nonzero(ttft)) / arrived,
            itl_attainment=int(np.count_nonzero(itl)) / arrived,
            goodput_rps=both / self._horizon_s if self._horizon_s > 0 else 0.0,
        )

    def latencies(self) -> tuple[Latency, Latency, Latency]:
        """TTFT, ITL and end to end. The last thing to ask: it reorders and lets go of what it summarises.

        New memory costs more than the sums do, so each array is used up before the next is made.
        """
        ttft = latency(self.ttft_ms)
        del self.ttft_ms
        itl = latency(self.itl_ms)
        del self.itl_ms
        span: NDArray[np.float64] = self._requests["done_s"] - self._trace.arrival_s
        span *= 1000.0
        return ttft, itl, latency(span)


def latency(values_ms: NDArray[np.float64]) -> Latency:
    """Summarise a distribution, NaN left out; percentiles by linear interpolation. Reorders its argument."""
    unknown = np.isnan(values_ms)
    known = values_ms[~unknown] if unknown.any() else values_ms
    if not len(known):
        return Latency(mean=None, p50=None, p90=None, p95=None, p99=None, max=None)
    mean, largest = float(known.mean()), float(known.max())
    p50, p90, p95, p99 = np.percentile(known, _PERCENTILES, overwrite_input=True).tolist()
    return Latency(mean=mean, p50=p50, p90=p90, p95=p95, p99=p99, max=largest)


def gpu_hours(run: Run) -> GpuHours:
    """GPU time from launch to stop, by pool."""
    span_s = run.lifetimes["stop_s"] - run.lifetimes["launch_s"]
    in_prefill = run.lifetimes["pool"] == 0
    prefill = float(span_s[in_prefill].sum()) * run.world.prefill_gpus / 3600.0
    decode = float(span_s[~in_prefill].sum()) * run.world.decode_gpus / 3600.0
    return GpuHours(total=prefill + decode, prefill=prefill, decode=decode)


def forecast_scores(ticks: Sequence[Tick]) -> ForecastScores:
    """Each tick's forecast against the window that followed it."""

    def score(observed: str, forecast: str) -> ForecastScore:
        actual = _column([getattr(tick.observation, observed) for tick in ticks[1:]])
        mean = _column([getattr(tick.decision.forecast, forecast) for tick in ticks[:-1]])
        p90 = _column([getattr(tick.decision.forecast, f"{forecast}_p90") for tick in ticks[:-1]])
        return ForecastScore(
            mape=_known(mape(actual, mean)),
            bias=_known(bias(actual, mean)),
            pinball_p90=_known(pinball(actual, p90, 0.9)),
            coverage_p90=_known(coverage(actual, p90)),
        )

    return ForecastScores(
        requests=score("requests", "requests"), isl=score("isl_mean", "isl"), osl=score("osl_mean", "osl")
    )


def _column(values: Sequence[float | None]) -> NDArray[np.float64]:
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
