"""How near `auto` is to the best in hindsight: `python benchmarks/forecast_choice.py TRACE ...`.

`--interval S` takes other windows than of a minute.
Windows of requests and of mean ISL; each is observed, then one, three and six windows ahead are forecast.
Printed is the mean pinball loss of the 95th percentile, after twelve windows, over that of the best of those
that `auto` chooses from.
"""

from __future__ import annotations

import sys

import numpy as np
from sagescale.planner.forecast import make_predictor
from sagescale.planner.forecast.scores import pinball
from sagescale.trace import read_trace

CHOICES = ("constant", "kalman", "arima", "seasonal_naive")
STEPS = (1, 3, 6)
WARM_UP = 12


def windows(path: str, interval_s: float) -> dict[str, np.ndarray]:
    """Return each series; NaN where a window has no request to average."""
    trace = read_trace(path)
    at = (trace.arrival_s // interval_s).astype(int)
    whole = int(trace.duration_s // interval_s)  # the last window is cut short
    count = np.bincount(at, minlength=whole)[:whole].astype(float)
    with np.errstate(invalid="ignore"):
        return {"requests": count, "isl": np.bincount(at, trace.isl, minlength=whole)[:whole] / count}


def losses(name: str, series: np.ndarray, interval_s: float) -> list[float]:
    """Return the mean loss at each of the steps."""
    predictor = make_predictor(name, interval_s=interval_s)
    high = np.full((len(STEPS), len(series)), np.nan)
    for now, value in enumerate(series.tolist()):
        predictor.observe(None if np.isnan(value) else value)
        forecast = predictor.forecast(max(STEPS))
        for row, step in enumerate(STEPS):
            if forecast is not None and now + step < len(series):
                high[row, now + step] = forecast.quantile(0.95, step - 1)
    return [pinball(series[WARM_UP:], row[WARM_UP:], 0.95) for row in high]


def main() -> None:
    arguments = sys.argv[1:]
    interval_s = 60.0
    if "--interval" in arguments:
        at = arguments.index("--interval")
        interval_s = float(arguments[at + 1])
        del arguments[at : at + 2]
    for path in arguments:
        for what, series in windows(path, interval_s).items():
            lost = {name: losses(name, series, interval_s) for name in (*CHOICES, "auto")}
            best = [min(lost[name][row] for name in CHOICES) for row in range(len(STEPS))]
            cells = [" / ".join(f"{a / b:.2f}" for a, b in zip(lost[n], best, strict=True)) for n in lost]
            print(f"| {path.rsplit('/', 1)[-1]}, {what} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
