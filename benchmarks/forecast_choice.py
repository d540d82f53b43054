"""How near `auto` is to the best in hindsight: `python benchmarks/forecast_choice.py TRACE ...`.

`--interval S` takes other windows than of a minute.
Windows of requests and of mean ISL; each is observed, then one, three and six windows ahead are forecast.
Printed is the mean pinball loss of the 95th percentile, after twelve windows, over that of the best of those
that `auto` chooses from.
"""

from __future__ import annotations

import sys

import numpy as np
from sagescale.planner.forecast.scores import pinball

from forecast_accuracy import forecasts, windows

CHOICES = ("constant", "kalman", "arima", "seasonal_naive")
STEPS = (1, 3, 6)
WARM_UP = 12


def losses(name: str, series: np.ndarray, interval_s: float) -> list[float]:
    """Return the mean loss at each of the steps."""
    high = np.full((len(STEPS), len(series)), np.nan)
    for now, forecast in forecasts(name, series, max(STEPS), interval_s):
        for row, step in enumerate(STEPS):
            if now + step < len(series):
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
        found = windows(path, interval_s)
        for what in ("requests", "isl"):
            series = found[what]
            lost = {name: losses(name, series, interval_s) for name in (*CHOICES, "auto")}
            best = [min(lost[name][row] for name in CHOICES) for row in range(len(STEPS))]
            cells = [" / ".join(f"{a / b:.2f}" for a, b in zip(lost[n], best, strict=True)) for n in lost]
            print(f"| {path.rsplit('/', 1)[-1]}, {what} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
