"""Time every predictor: `python benchmarks/forecast_cost.py [name ...]`.

Three series (requests, ISL, OSL: a daily wave with bursts and noise, made here, seed 0) of one-minute
windows; each window is observed and three windows ahead are forecast. Imports are timed apart.
"""

from __future__ import annotations

import sys
import time

import numpy as np
from sagescale.planner.forecast import make_predictor, predictor_names

INTERVAL_S = 60.0
HORIZON = 3


def make_series(windows: int) -> list[list[float]]:
    random = np.random.default_rng(0)
    day = np.arange(windows) * INTERVAL_S / 86_400.0 * 2.0 * np.pi
    made = []
    for level in (600.0, 1_200.0, 250.0):
        drift = np.zeros(windows)
        for i in range(1, windows):
            drift[i] = 0.95 * drift[i - 1] + 0.05 * level * random.standard_normal()
        bursts = level * random.exponential(1.0, windows) * (random.random(windows) < 0.01)
        noise = 0.05 * level * random.standard_normal(windows)
        made.append(np.maximum(0.0, level * (1.0 + 0.5 * np.sin(day)) + drift + bursts + noise).tolist())
    return made


def replay(name: str, series: list[list[float]]) -> tuple[float, int]:
    """Return seconds, imports excluded, and fits over all series."""
    begin = time.perf_counter()
    fits = 0
    for values in series:
        predictor = make_predictor(name, interval_s=INTERVAL_S)
        for value in values:
            predictor.observe(value)
            predictor.forecast(HORIZON)
        fits += predictor.refits
    return time.perf_counter() - begin, fits


def main() -> None:
    names = sys.argv[1:] or predictor_names()
    heads = ("first use s", "hour s", "fits", "2 days s", "fits", "us/window")
    print("predictor".ljust(24) + "".join(head.rjust(12) for head in heads))
    for name in names:
        warm = [[float(value) for value in range(100, 125)]]
        first, _ = replay(name, warm)  # pays the imports
        again, _ = replay(name, warm)
        hour, hour_fits = replay(name, make_series(60))
        days, days_fits = replay(name, make_series(2_880))
        cost = f"{days / (3 * 2_880) * 1e6:.1f}"
        figures = (f"{first - again:.2f}", f"{hour:.3f}", str(hour_fits), f"{days:.3f}", str(days_fits), cost)
        print(name.ljust(24) + "".join(figure.rjust(12) for figure in figures))


if __name__ == "__main__":
    main()
