"""What an aggregated pool takes with hindsight: `python benchmarks/hindsight.py [TRACE] [--rate-scale X]`.

Every fixed size of a grid serves the whole trace; the misses of each minute's requests at each size are taken
for what that size would miss in that minute, whatever it was before. Printed, for what arrives after the
first 40 %: the instance-hours of the fewest instance-minutes that together miss 1 %, of the fewest that miss
no more than one share in every minute, and of both where a minute's size is what two minutes before asked
for, kept for K minutes; price and share are such that 99 % is reached.
"""

from __future__ import annotations

import itertools

import numpy as np
from sagescale import api
from sagescale.trace import TransformSpec

from aggregated_policies import ASKED, FIRST_SHARE, arguments

LATE_MIN = 2
PRICES = np.geomspace(0.5, 60.0, 60)
CAPS = np.linspace(0.002, 0.03, 57)


def misses(trace, rate_scale: float, profile: str, sizes: list[int]):
    """Requests of each minute, and those that miss at each size."""
    missed = []
    for size in sizes:
        keys = {"serving": "aggregated", "policy": "static", "initial_instances": size}
        keys |= {"max_instances": sizes[-1], "max_gpu_budget": sizes[-1]}
        run = api.simulate(
            trace, profile=profile, config=keys, transforms=TransformSpec(rate_scale=rate_scale)
        ).run
        waited_ms = 1e3 * (run.requests["first_token_s"] - run.trace.arrival_s)
        late = ~(waited_ms <= run.config.target_ttft_ms)
        minute = (run.trace.arrival_s / 60.0).astype(int)
        missed.append(np.bincount(minute, late))
    return np.bincount(minute), np.array(missed)


def main() -> None:
    given = arguments(__doc__)
    trace = api.read_trace(given.trace)
    sizes = sorted({max(1, round(given.rate_scale * 0.4 * 1.04**step)) for step in range(46)})
    arrived, missed = misses(trace, given.rate_scale, given.profile, sizes)
    judged = range(int(FIRST_SHARE * trace.duration_s / 60.0), len(arrived) - 1)
    size = np.array(sizes)
    rules = {
        "as few as miss 1 % in all": [(size[:, None] + missed / price).argmin(0) for price in PRICES],
        "as few as miss the same share in each minute": [
            np.append(missed[:-1] <= cap * arrived, [[True] * len(arrived)], 0).argmax(0)  # the last, if none
            for cap in CAPS
        ],
    }
    for (rule, choices), kept in itertools.product(rules.items(), (0, 1, 2, 3, 6)):
        best = None
        for wanted in choices:
            late = LATE_MIN if kept else 0
            chosen = [wanted[max(0, t - late - max(kept, 1) + 1) : t - late + 1].max() for t in judged]
            good = (
                1.0 - sum(missed[at, t] for at, t in zip(chosen, judged, strict=True)) / arrived[judged].sum()
            )
            hours = size[chosen].sum() / 60.0
            if good >= ASKED and (best is None or hours < best[1]):
                best = good, hours
        how = f"two minutes late, kept for {kept}" if kept else "with hindsight"
        print(f"{rule}, {how}: " + (f"{best[0]:.2%}, {best[1]:.1f} instance-hours" if best else "not found"))


if __name__ == "__main__":
    main()
