"""What it is worth to a forecast to know the sessions in the system: recorded coding agents over a day.

    python benchmarks/sessions_forecast.py [--copies N] [--window-s S]

Half of the recorded sessions sets, the other half judges; each begins over a day as a service's requests do
(ServeGen's m-mid) and goes on as recorded. A forecast of the requests, and of the prompt tokens, that come
so many windows ahead is a sum of what is known as a window begins, with weights by least squares on the
half that sets: of the series the last window, the means of the last 10 and 30, and a constant; of the
sessions, besides, how many requests are being answered and how many sessions have been idle for up to 15 s,
1 min, 5 min, 20 min and 1 h (with tokens: the prompts of these). Printed is the sum of absolute errors over
what came. Nothing is asserted.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from sagescale.trace import (
    TransformSpec,
    apply_transforms,
    parse_sessions,
    read_trace,
    session_starts,
    slice_trace,
)

_TRACES = Path(__file__).resolve().parents[2] / "shared" / "traces"
_IDLE_S = (15.0, 60.0, 300.0, 1200.0, 3600.0)
_TOKEN_S = 0.02
"""An answer's time where no turn waits for it."""


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """Of one quantity, by windows: what comes, and what is known of series and sessions as each begins."""

    came: np.ndarray
    series: np.ndarray
    sessions: np.ndarray


def known(trace: Any, window_s: float, weight: np.ndarray) -> Known:
    """What is known as windows begin; ``weight`` is of each request, 1 or its prompt tokens."""
    window = np.ceil(trace.arrival_s / window_s).astype(int).clip(1) - 1
    came = np.bincount(window, weights=weight)
    past = np.concatenate([[0.0], np.cumsum(came)])
    at = np.arange(len(came))
    means = [(past[at] - past[np.maximum(at - back, 0)]) / np.clip(at, 1, back) for back in (1, 10, 30)]
    done_s, next_s = answers(trace)
    sessions = np.zeros((len(came), len(_IDLE_S) + 1))
    for row, now_s in enumerate(at * window_s):
        here = trace.arrival_s <= now_s
        running, idle = here & (done_s > now_s), (done_s <= now_s) & (next_s > now_s)
        age = np.searchsorted(_IDLE_S, now_s - done_s[idle])
        held = np.bincount(age, weights=weight[idle], minlength=len(_IDLE_S) + 1)
        sessions[row] = *held[: len(_IDLE_S)], weight[running].sum()
    return Known(came, np.column_stack([*means, np.full(len(came), weight.mean())]), sessions)


def answers(trace: Any) -> tuple[np.ndarray, np.ndarray]:
    """When each request is answered and when the last turn that waits for it comes; inf where none does."""
    done_s = trace.arrival_s + _TOKEN_S * trace.osl
    next_s = np.full(len(trace), np.inf)
    owner, after = trace.turns.owner, trace.turns.after
    done_s[after] = np.maximum(trace.arrival_s[after], trace.arrival_s[owner] - trace.turns.think_s[owner])
    next_s[after] = trace.arrival_s[owner]
    return done_s, next_s


def error(setting: Known, judge: Known, ahead: int, *, sessions: bool) -> float:
    """Sum of absolute errors over what came, on the half that judges."""

    def both(half: Known) -> tuple[np.ndarray, np.ndarray]:
        inputs = np.column_stack([half.series, half.sessions]) if sessions else half.series
        count = len(half.came) - ahead + 1
        return inputs[:count], half.came[ahead - 1 :]

    weights = np.linalg.lstsq(*both(setting), rcond=None)[0]
    inputs, came = both(judge)
    return float(np.abs(inputs @ weights - came).sum() / came.sum())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--agents", default=str(_TRACES / "sessions" / "claude_code_300.jsonl.gz"))
    parser.add_argument("--starts", default=str(_TRACES / "servegen_m-mid_1d.parquet"))
    parser.add_argument("--copies", type=float, default=4.0, help="of each half")
    parser.add_argument("--window-s", type=float, default=60.0)
    given = parser.parse_args()
    recorded = replace(read_trace(given.agents), prefixes=None)
    spec = TransformSpec(
        sessions=parse_sessions(f"trace:{given.starts}"), rate_scale=given.copies, max_think_s=3600.0
    )
    middle_s = float(np.median(session_starts(recorded)))
    halves = [
        apply_transforms(slice_trace(recorded, *part), spec) for part in ((0.0, middle_s), (middle_s, np.inf))
    ]
    print("| forecast of | windows ahead | the last window again | series | series and sessions |")
    print("|---|---|---|---|---|")
    for what in ("requests", "prompt tokens"):
        setting, judge = (
            known(half, given.window_s, half.isl.astype(float) if what[0] == "p" else np.ones(len(half)))
            for half in halves
        )
        for ahead in (1, 2, 5):
            again = np.abs(judge.series[: len(judge.came) - ahead + 1, 0] - judge.came[ahead - 1 :]).sum()
            shown = [error(setting, judge, ahead, sessions=sessions) for sessions in (False, True)]
            cells = [f"{100 * value:.1f} %" for value in (again / judge.came.sum(), *shown)]
            print(f"| {what} | {ahead} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
