"""Score every predictor on traces: `python benchmarks/forecast_accuracy.py TRACE ... [--only name,name]`.

One-minute windows of requests, mean ISL and mean OSL; each window is observed, then one, three and five
windows ahead are forecast. Printed are the mean absolute error over that of `constant` (below 1 is better
than the last value) and the share of windows at or under the p90.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np
from sagescale.planner.forecast import make_predictor, predictor_names
from sagescale.planner.forecast.scores import coverage
from sagescale.trace import read_trace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sagescale.planner.forecast import Forecast

INTERVAL_S = 60.0
STEPS = (1, 3, 5)
WARM_UP = 10


def windows(path: str, interval_s: float = INTERVAL_S) -> dict[str, np.ndarray]:
    """Return each series; NaN where a window has no request to average."""
    trace = read_trace(path)
    at = (trace.arrival_s // interval_s).astype(int)
    whole = int(trace.duration_s // interval_s)  # the last window is cut short
    count = np.bincount(at, minlength=whole)[:whole].astype(float)
    with np.errstate(invalid="ignore"):
        isl = np.bincount(at, trace.isl, minlength=whole)[:whole] / count
        osl = np.bincount(at, trace.osl, minlength=whole)[:whole] / count
    return {"requests": count, "isl": isl, "osl": osl}


def forecasts(
    name: str, series: np.ndarray, steps: int, interval_s: float = INTERVAL_S
) -> Iterator[tuple[int, Forecast]]:
    """Yield each window with what is forecast once it is observed, as soon as anything is."""
    predictor = make_predictor(name, interval_s=interval_s)
    for now, value in enumerate(series.tolist()):
        predictor.observe(None if np.isnan(value) else value)
        forecast = predictor.forecast(steps)
        if forecast is not None:
            yield now, forecast


def back_test(name: str, series: np.ndarray) -> tuple[list[float], list[float]]:
    """Return mean absolute error and p90 coverage at each of the steps."""
    mean = np.full((len(STEPS), len(series)), np.nan)
    high = mean.copy()
    for now, forecast in forecasts(name, series, max(STEPS)):
        if now < WARM_UP:
            continue
        for row, step in enumerate(STEPS):
            if now + step < len(series):
                mean[row, now + step] = forecast.mean[step - 1]
                high[row, now + step] = forecast.quantile(0.9, step - 1)
    return np.nanmean(np.abs(mean - series), axis=1).tolist(), [coverage(series, row) for row in high]


def main() -> None:
    arguments = sys.argv[1:]
    names: tuple[str, ...] = predictor_names()
    if "--only" in arguments:
        at = arguments.index("--only")
        names = tuple(arguments[at + 1].split(","))
        arguments = arguments[:at]
    for path in arguments:
        for what, series in windows(path).items():
            print(f"{path.rsplit('/', 1)[-1]}, {what}, {len(series)} windows")
            reference, _ = back_test("constant", series)
            for name in names:
                errors, covered = back_test(name, series)
                ratios = " ".join(f"{mine / its:6.3f}" for mine, its in zip(errors, reference, strict=True))
                shares = " ".join(f"{share:5.2f}" for share in covered)
                print(f"  {name:24}error {ratios}   p90 {shares}")


if __name__ == "__main__":
    main()
